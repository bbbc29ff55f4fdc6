//! The tasks of a Pipeline.

use serde_json::Value;

use super::fields::items;

/// All tasks of a Pipeline's spec: `tasks`, then `finally`.
pub fn all_tasks(spec: &Value) -> impl Iterator<Item = &Value> {
    items(spec, "tasks").iter().chain(items(spec, "finally"))
}
