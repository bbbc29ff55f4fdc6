//! `when` expressions (Tekton: v1/when_types.go).

use serde_json::Value;

use super::json::{items, text};

/// Whether all expressions hold, after their variables were replaced.
pub fn holds(expressions: &[Value]) -> Result<bool, String> {
    for expression in expressions {
        if text(expression, "cel").is_some() {
            return Err("the runner can't evaluate CEL in when".to_owned());
        }
        let found = items(expression, "values").contains(&expression["input"]);
        let holds = match text(expression, "operator").map(str::to_lowercase).as_deref() {
            Some("in") => found,
            Some("notin") => !found,
            other => return Err(format!("when has no operator {other:?}")),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}
