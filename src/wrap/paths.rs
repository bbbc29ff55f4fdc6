//! What each task restores: as the run says, or as an annotation of the task says.

use serde_json::Value;

use super::{
    plan::TaskPlan,
    refusal::{Refusal, TaskProblem},
    request::Request,
};
use crate::{
    annotations::PATHS,
    globs::Globs,
    tekton::fields::{field, text},
};

/// Notes in `plan`, that of the pipeline's `task`, what it restores of each workspace.
pub fn note(task: &Value, plan: &mut TaskPlan, request: &Request) -> Result<(), Refusal> {
    let name = text(task, "name");
    for step in &mut plan.restore {
        step.paths = match request.paths.of(name, &step.name) {
            Some(patterns) => patterns.to_vec(),
            None => annotated(task).map_err(|problem| {
                let (task, workspace) = (name.to_owned(), step.name.clone());
                Refusal::Task { task, workspace, problem }
            })?,
        };
    }
    Ok(())
}

/// The patterns in the annotation of the embedded `task`, which an inlined Task keeps.
fn annotated(task: &Value) -> Result<Vec<String>, TaskProblem> {
    let metadata = field(task, "taskSpec").and_then(|spec| field(spec, "metadata"));
    let annotation = metadata.and_then(|metadata| field(metadata, "annotations")).and_then(|all| all.get(PATHS));
    let text = annotation.and_then(Value::as_str).unwrap_or_default();
    let patterns: Vec<String> =
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if !patterns.is_empty() {
        Globs::new(&patterns).map_err(|error| TaskProblem::Paths(error.to_string()))?;
    }
    Ok(patterns)
}
