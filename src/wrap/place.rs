//! Where the containers of a task see a workspace.

use serde_json::Value;

use crate::tekton::{
    fields::{items, text},
    workspaces::{Use, is_read_only, mount_path},
};

/// Where a task sees a wrapped workspace.
pub struct Place {
    /// Name of the workspace in the Pipeline.
    pub workspace: String,
    /// Name of the workspace in the task.
    pub name: String,
    path: String,
    /// Whether the task may not write to it.
    pub read_only: bool,
    /// Whether it is mounted only in the steps that list it.
    isolated: bool,
}

impl Place {
    /// Where the task with this spec sees `used`.
    pub fn new(task_spec: &Value, used: &Use) -> Self {
        let declared = items(task_spec, "workspaces").iter().find(|declared| text(declared, "name") == used.task);
        let path = declared.map_or_else(|| format!("/workspace/{}", used.task), mount_path);
        let containers = items(task_spec, "steps").iter().chain(items(task_spec, "sidecars"));
        let isolated =
            containers.flat_map(|container| items(container, "workspaces")).any(|own| text(own, "name") == used.task);
        Self {
            workspace: used.pipeline.clone(),
            name: used.task.clone(),
            isolated,
            path: path.trim_end_matches('/').to_owned(),
            read_only: is_read_only(task_spec, &used.task),
        }
    }

    /// Where `step`, or a sidecar, sees it; none where it does not (Tekton: pkg/workspace/apply.go `mountAsIsolatedWorkspace`).
    pub fn path_in(&self, step: &Value) -> Option<String> {
        let own = items(step, "workspaces").iter().find(|own| text(own, "name") == self.name);
        match own.map(|own| text(own, "mountPath")) {
            None if self.isolated => None,
            None | Some("") => Some(self.path.clone()),
            Some(path) => Some(path.trim_end_matches('/').to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn seen_by_the_steps_that_list_it() {
        let listing = json!({"workspaces": [{"name": "w", "mountpath": "/own/"}]});
        let spec = json!({"workspaces": [{"name": "w"}], "steps": [listing, {}]});
        let place = Place::new(&spec, &Use { pipeline: "w".to_owned(), task: "w".to_owned(), bound: true });
        assert_eq!(place.path_in(&listing).as_deref(), Some("/own"));
        assert_eq!(place.path_in(&json!({"workspaces": [{"name": "w"}]})).as_deref(), Some("/workspace/w"));
        assert_eq!(place.path_in(&json!({})), None);
    }
}
