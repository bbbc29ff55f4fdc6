//! The environment of a step (Kubernetes: core/v1 EnvVar; third_party/forked/golang/expansion).

use serde_json::Value;

use super::{
    Runner,
    json::{items, name, shown, text},
    volume::contents,
};

/// The variables of `step`, `envFrom` first, in their order.
pub fn of_step(runner: &Runner, step: &Value, metadata: &Value) -> Result<Vec<(String, String)>, String> {
    let mut env = Vec::new();
    for source in items(step, "envFrom") {
        let (kind, reference) = match source["configMapRef"].is_object() {
            true => ("ConfigMap", &source["configMapRef"]),
            false => ("Secret", &source["secretRef"]),
        };
        let prefix = text(source, "prefix").unwrap_or_default();
        for (key, value) in contents(runner.object(kind, name(reference))?) {
            env.push((format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned()));
        }
    }
    for variable in items(step, "env") {
        let value = match &variable["valueFrom"] {
            Value::Null => expand(variable.get("value").map(shown).as_deref().unwrap_or_default(), &env),
            source => from_elsewhere(runner, source, metadata)?,
        };
        env.push((name(variable).to_owned(), value));
    }
    Ok(env)
}

/// Replaces `$(VAR)` where the environment has it; `$$` stands for `$`.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match env.iter().rfind(|(n, _)| n == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

fn from_elsewhere(runner: &Runner, source: &Value, metadata: &Value) -> Result<String, String> {
    for (field, kind) in [("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")] {
        let reference = &source[field];
        if reference.is_object() {
            let found =
                contents(runner.object(kind, name(reference))?).into_iter().find(|(k, _)| *k == reference["key"]);
            let (_, value) = found.ok_or_else(|| format!("{kind} {:?} lacks {}", name(reference), reference["key"]))?;
            return Ok(String::from_utf8_lossy(&value).into_owned());
        }
    }
    let path = text(&source["fieldRef"], "fieldPath").unwrap_or_default();
    let value = match path.strip_prefix("metadata.").and_then(|p| p.split_once("['")) {
        Some((map, key)) => &metadata[map][key.trim_end_matches("']")],
        None => &metadata[path.trim_start_matches("metadata.")],
    };
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("the runner can't give an environment variable from {source}"))
}
