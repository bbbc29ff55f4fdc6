//! Variables in the values of params.

use super::{Values, WORKSPACE};
use crate::{
    tekton::variables::{references, substitute},
    wrap::refusal::Refusal,
};

/// [`WORKSPACE`] for manifests that go through Helm, Ansible or Pipelines-as-Code, which take braces for their own.
const WORKSPACE_VARIABLE: &str = "workspace";

impl Values<'_> {
    /// `value` with `$(params.x)` of the run resolved. `$(context.pipelineRun.…)` is left to run time, where the name and
    /// the uid exist; its older spelling `$(context.run.…)`, which Tekton does not know, becomes it.
    pub fn resolve(&self, param: &str, value: &str) -> Result<String, Refusal> {
        let late = matches!(param, "target" | "base" | "cache");
        let mut length = value.len();
        for reference in references(value) {
            let known = match run_context(reference) {
                Some(_) if late => true,
                Some(_) => {
                    let problem =
                        format!("$({reference}) is not known when a run is created, only in target, base and cache");
                    return Err(self.invalid(param, problem));
                }
                None if late && reference == WORKSPACE_VARIABLE => true,
                None => {
                    let value = self.run_param(reference);
                    length = length.saturating_add(value.map_or(0, str::len));
                    value.is_some()
                }
            };
            if !known {
                let problem = format!(
                    "$({reference}) is not a param that the run gives as a string; $(params.x) of the run and $(context.pipelineRun.name|namespace|uid) can be used"
                );
                return Err(self.invalid(param, problem));
            }
        }
        self.check_length(param, length)?;
        let new = |reference: &str| match run_context(reference) {
            Some(field) => Some(format!("$(context.pipelineRun.{field})")),
            None if late && reference == WORKSPACE_VARIABLE => Some(WORKSPACE.to_owned()),
            None => self.run_param(reference).map(str::to_owned),
        };
        let resolved = substitute(value, new).unwrap_or_else(|| value.to_owned());
        // A value may look like a variable, or make one together with what stands around it: Tekton would substitute it later.
        match leftover(&resolved, late) {
            Some(found) => Err(self.invalid(
                param,
                format!(
                    "the value {resolved:?} has {found:?} in it, which would be taken for a variable: change the run's param"
                ),
            )),
            None => Ok(resolved),
        }
    }

    /// `value` as long as it may be once Tekton has substituted the run's name, namespace and uid: with other values of the length
    /// of theirs.
    pub fn longest(&self, value: &str) -> String {
        let length = |reference: &str| match run_context(reference)? {
            "uid" => Some(36),
            "name" => Some(self.run.longest_name()),
            _ => self.scope.text("context.pipelineRun.namespace").map(str::len),
        };
        substitute(value, |reference| length(reference).map(|length| "x".repeat(length)))
            .unwrap_or_else(|| value.to_owned())
    }

    fn run_param(&self, reference: &str) -> Option<&str> {
        reference.starts_with("params").then(|| self.scope.text(reference))?
    }
}

/// The field of the PipelineRun in `context.pipelineRun.name` and its kind, or in the older spelling `context.run.name`.
fn run_context(reference: &str) -> Option<&str> {
    let field = reference.strip_prefix("context.pipelineRun.").or_else(|| reference.strip_prefix("context.run."))?;
    ["name", "namespace", "uid"].contains(&field).then_some(field)
}

/// The beginning of the first `$(` in `value` that is not one of the variables left to run time, where there may be such.
fn leftover(value: &str, late: bool) -> Option<&str> {
    let starts = value.match_indices("$(").map(|(start, _)| value.get(start..).unwrap_or_default());
    let is_late = |rest: &str| {
        let reference = rest.strip_prefix("$(").and_then(|rest| rest.split_once(')'));
        reference.is_some_and(|(reference, _)| {
            reference.starts_with("context.pipelineRun.") && run_context(reference).is_some()
        })
    };
    let mut unwanted = starts.filter(|rest| !(late && is_late(rest)));
    unwanted.next().map(|rest| rest.split_inclusive(')').next().unwrap_or(rest))
}
