//! The run's workspace bindings: every wrapped workspace gets an emptyDir.

use serde_json::{Value, json};

use super::{refusal::Refusal, request::Request};
use crate::tekton::{fields::text, run::Run};

/// What has to change in the run's `spec.workspaces`.
pub enum Binding {
    /// The workspace is not bound: bind it.
    Add(Value),
    /// The binding at this index names no volume: make it an emptyDir.
    Fill(usize),
}

/// The changes that bind every wrapped workspace to an emptyDir. Others of the run stay as they are.
pub fn bind(run: Run<'_>, request: &Request) -> Result<Vec<Binding>, Refusal> {
    let mut changes = Vec::new();
    for workspace in &request.workspaces {
        let Some((index, binding)) =
            run.bindings().iter().enumerate().find(|(_, binding)| text(binding, "name") == workspace)
        else {
            changes.push(Binding::Add(json!({"name": workspace, "emptyDir": {}})));
            continue;
        };
        match volume_source(binding) {
            Some("emptyDir") => {}
            None => changes.push(Binding::Fill(index)),
            Some(source) => {
                return Err(Refusal::Bound { workspace: workspace.clone(), source_name: source.to_owned() });
            }
        }
    }
    Ok(changes)
}

/// The volume source of a binding: the key that is neither `name` nor `subPath`.
fn volume_source(binding: &Value) -> Option<&str> {
    let map = binding.as_object()?;
    map.iter()
        .find(|(key, value)| !["name", "subPath"].contains(&key.as_str()) && !value.is_null())
        .map(|(key, _)| key.as_str())
}
