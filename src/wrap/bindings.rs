//! The run's workspace bindings: every wrapped workspace gets an emptyDir.

use serde_json::{Value, json};

use super::{refusal::Refusal, request::Request};
use crate::tekton::{
    fields::{field, text},
    run::Run,
};

/// What has to change in the run's `spec.workspaces`.
pub enum Binding {
    /// The workspace is not bound: bind it.
    Add(Value),
    /// The binding at `index` gets this emptyDir, in the place of the claim template that it has or of nothing.
    Set {
        /// Which binding.
        index: usize,
        /// The value of `emptyDir`.
        empty_dir: Value,
        /// Whether there is a `volumeClaimTemplate` to take out.
        replaces_template: bool,
    },
    /// The emptyDir at `index` gets the `sizeLimit` `size`.
    Limit {
        /// Which binding.
        index: usize,
        /// The limit.
        size: String,
    },
}

/// The changes that bind every wrapped workspace to an emptyDir. Other bindings of the run stay as they are.
pub fn bind(run: Run<'_>, request: &Request) -> Result<Vec<Binding>, Refusal> {
    let mut changes = Vec::new();
    for workspace in &request.workspaces {
        let bound = run.bindings().iter().enumerate().find(|(_, binding)| text(binding, "name") == workspace);
        let size = request.sizes.of(workspace, bound.map(|(_, binding)| binding));
        let empty_dir = size.as_ref().map_or_else(|| json!({}), |size| json!({"sizeLimit": size}));
        let Some((index, binding)) = bound else {
            changes.push(Binding::Add(json!({"name": workspace, "emptyDir": empty_dir})));
            continue;
        };
        match volume_source(binding) {
            Some("emptyDir") => {
                let limited = field(binding, "emptyDir").is_some_and(|dir| field(dir, "sizeLimit").is_some());
                changes.extend(size.filter(|_| !limited).map(|size| Binding::Limit { index, size }));
            }
            None => changes.push(Binding::Set { index, empty_dir, replaces_template: false }),
            Some("volumeClaimTemplate") if request.replaces_templates => {
                changes.push(Binding::Set { index, empty_dir, replaces_template: true });
            }
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
