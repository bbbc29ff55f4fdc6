//! `$(…)` variables in strings.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "places in a text that `find` gave, and the lengths of what it found"
)]

use crate::limits::MAX_NAME;

/// The inner texts of all variables in `text`: `params.x` for `$(params.x)`.
pub fn references(text: &str) -> impl Iterator<Item = &str> {
    Scan { text, at: 0 }.map(|(start, end)| &text[start + 2..end - 1])
}

/// `text` with each `$(…)` replaced for which `value` returns something; none if nothing was replaced.
pub fn substitute(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> Option<String> {
    let mut result: Option<String> = None;
    let mut kept = 0;
    for (start, end) in (Scan { text, at: 0 }) {
        if let Some(new) = value(&text[start + 2..end - 1]) {
            let result = result.get_or_insert_default();
            result.push_str(&text[kept..start]);
            result.push_str(&new);
            kept = end;
        }
    }
    let mut result = result?;
    result.push_str(&text[kept..]);
    Some(result)
}

/// The task in `tasks.<task>.results.<result>…`
/// (Tekton: pkg/internal/resultref/resultref.go and the pattern in pkg/apis/pipeline/v1/resultref.go).
pub fn result_task(reference: &str) -> Option<&str> {
    let plain = match reference.strip_suffix(']').and_then(|r| r.rsplit_once('[')) {
        Some((plain, index)) if index == "*" || is_number(index) => plain,
        Some(_) => return None,
        None => reference,
    };
    let name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !plain.chars().all(name) {
        return None;
    }
    let parts: Vec<&str> = reference.split('.').collect();
    match parts[..] {
        ["tasks" | "finally", task, "results", _] | ["tasks" | "finally", task, "results", _, _] => Some(task),
        _ => None,
    }
}

/// The name `x` in `<prefix>.x`, `<prefix>.x.y`, `<prefix>["x"]`, `<prefix>['x']`, each with an index or not
/// (Tekton: pkg/substitution/substitution.go).
pub fn name_after<'a>(reference: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = reference.strip_prefix(prefix)?;
    if let Some(rest) = rest.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        return Some(&rest[..end]);
    }
    for (open, close) in [("[\"", "\"]"), ("['", "']")] {
        if let Some(rest) = rest.strip_prefix(open) {
            return rest.split_once(close).map(|(name, _)| name);
        }
    }
    None
}

/// What `params…` may name: each param with the index or key behind it, the shortest name first, since a name may have dots.
pub fn param_names(reference: &str) -> impl Iterator<Item = (&str, &str)> {
    let rest = reference.strip_prefix("params").unwrap_or_default();
    let dotted = rest.strip_prefix('.');
    let ends = dotted.into_iter().flat_map(|dotted| {
        let ends = dotted.char_indices().filter(|(_, c)| ['.', '['].contains(c)).map(|(end, _)| end);
        // No name is longer.
        let ends = ends.take_while(|end| *end <= MAX_NAME).chain([dotted.len()]);
        ends.filter_map(|end| dotted.split_at_checked(end))
    });
    let quoted = [("[\"", "\"]"), ("['", "']")];
    let quoted = quoted.into_iter().find_map(|(open, close)| rest.strip_prefix(open)?.split_once(close));
    ends.chain(quoted)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Start and end of each innermost `$(…)`.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl Scan<'_> {
    /// The next `$(`. Most strings have no `$`, which is found faster than two characters are.
    fn opening(&self) -> Option<usize> {
        let mut at = self.at;
        loop {
            let dollar = at + self.text.get(at..)?.find('$')?;
            at = dollar + 1;
            if self.text.as_bytes().get(at) == Some(&b'(') {
                return Some(dollar);
            }
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let mut start = self.opening()?;
        let end = start + self.text[start..].find(')')? + 1;
        if let Some(inner) = self.text[start + 2..end].rfind("$(") {
            start += 2 + inner;
        }
        self.at = end;
        Some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_of_a_param() {
        let longest = "a".repeat(MAX_NAME);
        let reference = format!("params.{longest}[0]");
        assert_eq!(param_names(&reference).next(), Some((longest.as_str(), "[0]")));
    }

    #[test]
    fn finds_variables() {
        let found: Vec<_> = references("a $(params.x)$(b) $( $(tasks.t.results.r) $(open").collect();
        assert_eq!(found, ["params.x", "b", "tasks.t.results.r"]);
    }

    #[test]
    fn substitutes() {
        let value = |name: &str| (name == "a").then(|| "1".to_owned());
        assert_eq!(substitute("$(a)-$(b)-$(a)", value).as_deref(), Some("1-$(b)-1"));
        assert_eq!(substitute("$(b)", value), None);
    }

    #[test]
    fn result_references() {
        for (reference, task) in [
            ("tasks.a-b.results.r", Some("a-b")),
            ("tasks.a.results.r[*]", Some("a")),
            ("tasks.a.results.r[0]", Some("a")),
            ("tasks.a.results.o.key", Some("a")),
            ("finally.a.results.r", Some("a")),
            ("tasks.a.results.r.x.y", None),
            ("tasks.a.results.r[x]", None),
            ("tasks.a.status", None),
            ("tasks.a.results", None),
            ("params.tasks.a.results.r", None),
        ] {
            assert_eq!(result_task(reference), task, "{reference}");
        }
    }

    #[test]
    fn names() {
        for (reference, name) in [
            ("params.x", Some("x")),
            ("params.x.y", Some("x")),
            ("params.x[0]", Some("x")),
            ("params[\"a.b\"]", Some("a.b")),
            ("params['a.b'][*]", Some("a.b")),
            ("paramsx", None),
            ("workspaces.x", None),
        ] {
            assert_eq!(name_after(reference, "params"), name, "{reference}");
        }
    }
}
