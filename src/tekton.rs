//! Read-only views of Tekton's JSON: fields, variables, the graph of tasks, references to Pipelines and
//! Tasks, the workspaces that a task uses.
//!
//! Tekton objects stay [`serde_json::Value`] with their order kept: a typed round trip would drop fields that we do not
//! know, and Tekton refuses fields that it does not know.

pub mod fields;
pub mod graph;
pub mod matrix;
pub mod quantity;
pub mod reference;
pub mod run;
pub mod scope;
pub mod status;
pub mod tasks;
pub mod texts;
pub mod v1beta1;
pub mod variables;
pub mod workspaces;
