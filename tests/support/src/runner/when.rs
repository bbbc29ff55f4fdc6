//! `when` expressions (Tekton: v1/when_types.go).

use serde_json::Value;

use super::{
    cel,
    json::{items, text},
};

/// Whether all expressions hold, after their variables were replaced.
pub fn holds(expressions: &[Value]) -> Result<bool, String> {
    for expression in expressions {
        let found = || items(expression, "values").contains(&expression["input"]);
        let holds = match (text(expression, "cel"), text(expression, "operator").map(str::to_lowercase).as_deref()) {
            (Some(program), _) => cel::holds(program)?,
            (None, Some("in")) => found(),
            (None, Some("notin")) => !found(),
            (None, other) => return Err(format!("when has no operator {other:?}")),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}
