//! What a string of an embedded task will be when the task runs, as far as that is known when the run is created.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell},
    collections::HashMap,
};

use serde_json::Value;

use crate::{
    limits::MAX_STRING,
    tekton::{
        fields::{field, items, text},
        scope::Scope,
        variables::{name_after, param_names, substitute},
        workspaces::mount_path,
    },
};

/// Stands for an unknown part. No path can contain it.
const UNKNOWN: char = '\0';

/// What it counts to look something up, in bytes.
const LOOK_UP: usize = 16;

/// How far defaults of params are followed into each other (Tekton: resources/apply.go `maxParamReferenceDepth`).
const DEPTH: usize = 10;

/// The values of the variables of one embedded task.
pub struct TaskValues<'a> {
    task: &'a Value,
    spec: &'a Value,
    /// The values of the pipeline's variables.
    scope: &'a Scope<'a>,
    /// The task's params by their name, with their place.
    declared: OnceCell<HashMap<&'a str, (usize, &'a Value)>>,
    /// Bytes that may still be put together. What goes beyond is not known: defaults may name others many times, which name
    /// others.
    room: Cell<usize>,
}

/// A path, normalised lexically, whose end may be unknown.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownPath {
    /// Its components, without `.`, `..` and empty ones.
    names: Vec<String>,
    /// If its end is unknown: the known beginning of the next component.
    open: Option<String>,
}

/// A text, parts of which may be unknown.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownText(String);

impl<'a> TaskValues<'a> {
    /// Those of `task`, a task of a Pipeline with an embedded spec. `scope` has the values of the pipeline's variables.
    pub fn new(task: &'a Value, scope: &'a Scope<'a>) -> Self {
        Self {
            task,
            spec: field(task, "taskSpec").unwrap_or(&Value::Null),
            scope,
            declared: OnceCell::new(),
            room: Cell::new(MAX_STRING),
        }
    }

    /// The path that `template` will be; a relative one begins at `/workspace` (Tekton: pkg/pod/workingdir_init.go).
    pub fn path(&self, template: &str) -> KnownPath {
        KnownPath::new(&self.value(template, 0))
    }

    /// The path that `template`, a string of the pipeline's task outside of its spec, will be. `/` is the root of what it is in.
    pub fn outer_path(&self, template: &str) -> KnownPath {
        KnownPath::new(&self.outer(template))
    }

    /// The text that `template` will be.
    pub fn text(&self, template: &str) -> KnownText {
        KnownText(self.value(template, 0).into_owned())
    }

    /// A string inside of the task.
    fn value<'t>(&self, template: &'t str, depth: usize) -> Cow<'t, str> {
        replaced(template, |reference| {
            if let Some(name) = name_after(reference, "workspaces") {
                return reference.ends_with(".path").then(|| self.within(|| self.mount_path(name)));
            }
            // The older spelling still works inside of tasks (Tekton: taskrun/resources/apply.go `paramPatterns`).
            let reference = reference.strip_prefix("inputs.").unwrap_or(reference);
            if name_after(reference, "params").is_some() {
                return Some(self.within(|| self.param(reference, depth)));
            }
            if reference.starts_with("context.") {
                return Some(self.scope.text(reference).map_or_else(|| UNKNOWN.to_string(), str::to_owned));
            }
            is_late(reference).then(|| UNKNOWN.to_string())
        })
    }

    /// What `value` gives, as long as there is room for it.
    fn within(&self, value: impl FnOnce() -> String) -> String {
        let take = |bytes: usize| {
            let left = self.room.get().checked_sub(bytes);
            self.room.set(left.unwrap_or_default());
            left.is_some()
        };
        if !take(LOOK_UP) {
            return UNKNOWN.to_string();
        }
        let value = value();
        if take(value.len()) { value } else { UNKNOWN.to_string() }
    }

    fn declared(&self) -> &HashMap<&'a str, (usize, &'a Value)> {
        self.declared.get_or_init(|| {
            let mut declared = HashMap::new();
            for (place, param) in items(self.spec, "params").iter().enumerate() {
                declared.entry(text(param, "name")).or_insert((place, param));
            }
            declared
        })
    }

    /// What `reference`, one to a param, stands for.
    fn param(&self, reference: &str, depth: usize) -> String {
        let declared = self.declared();
        let found = param_names(reference).filter_map(|(name, rest)| Some((declared.get(name)?, rest)));
        let Some(((_, param), rest)) = found.min_by_key(|((place, _), _)| *place) else {
            return self.outer(&format!("$({reference})"));
        };
        let name = text(param, "name");
        let passed = items(self.task, "params").iter().find(|passed| text(passed, "name") == name);
        if let Some(value) = passed.and_then(|passed| field(passed, "value")) {
            return element(value, rest).map_or(UNKNOWN.to_string(), |value| self.outer(value));
        }
        match field(param, "default").and_then(|default| element(default, rest)) {
            Some(default) if depth < DEPTH => self.value(default, depth.saturating_add(1)).into_owned(),
            _ => UNKNOWN.to_string(),
        }
    }

    /// A string that the pipeline passes to the task.
    fn outer(&self, template: &str) -> String {
        let value = |reference: &str| {
            let known = self.scope.text(reference).map(str::to_owned);
            let late = is_late(reference) || name_after(reference, "params").is_some();
            known.or_else(|| late.then(|| UNKNOWN.to_string()))
        };
        replaced(template, value).into_owned()
    }

    fn mount_path(&self, name: &str) -> String {
        let declared = items(self.spec, "workspaces").iter().find(|declared| text(declared, "name") == name);
        declared.map_or_else(|| format!("/workspace/{name}"), mount_path)
    }
}

impl KnownText {
    /// The whole of it; none if a part is unknown.
    pub fn whole(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|text| !text.contains(UNKNOWN))
    }

    /// Whether it is `text`, or may be.
    pub fn may_be(&self, text: &str) -> bool {
        let Some((start, rest)) = self.0.split_once(UNKNOWN) else { return self.0 == text };
        let end = rest.rsplit(UNKNOWN).next().unwrap_or_default();
        text.strip_prefix(start).is_some_and(|text| text.ends_with(end))
    }
}

impl KnownPath {
    fn new(value: &str) -> Self {
        let (known, open) = match value.split_once(UNKNOWN) {
            Some((known, _)) => (known, true),
            None => (value, false),
        };
        if known.is_empty() && open {
            return Self { names: Vec::new(), open: Some(String::new()) };
        }
        let workspace = (!known.starts_with('/')).then_some("workspace");
        let mut parts: Vec<&str> = workspace.into_iter().chain(known.split('/')).collect();
        let open = if open { parts.pop().map(str::to_owned) } else { None };
        let mut names: Vec<String> = Vec::new();
        for part in parts {
            match part {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name.to_owned()),
            }
        }
        Self { names, open }
    }

    /// All of its names behind those of `folder`; none if it is not below it, or not wholly known.
    pub fn names_below(&self, folder: &Self) -> Option<&[String]> {
        if self.open.is_some() || folder.open.is_some() {
            return None;
        }
        self.names.strip_prefix(&folder.names[..]).filter(|rest| !rest.is_empty())
    }

    /// Whether it is, or may be, below `folder`: one that is `folder` with an unknown rest may be.
    pub fn is_below(&self, folder: &Self) -> bool {
        self.may_be_in(folder) && (self.open.is_some() || self.names.len() > folder.names.len())
    }

    /// Whether it is, or may be, `folder` or below it.
    pub fn may_be_in(&self, folder: &Self) -> bool {
        let shared = self.names.len().min(folder.names.len());
        if self.names.get(..shared) != folder.names.get(..shared) {
            return false;
        }
        match (&self.open, folder.names.get(self.names.len())) {
            (_, None) => true,
            (Some(begun), Some(next)) => next.starts_with(begun.as_str()),
            (None, Some(_)) => false,
        }
    }
}

/// Whether the variable gets its value only after earlier tasks or steps have run.
fn is_late(reference: &str) -> bool {
    ["tasks.", "finally.", "steps.", "step."].iter().any(|start| reference.starts_with(start))
}

/// The string in `value` that `rest` leads to: nothing, `.key` or `[0]`.
fn element<'v>(value: &'v Value, rest: &str) -> Option<&'v str> {
    let index = || rest.strip_prefix('[')?.strip_suffix(']')?.parse::<usize>().ok();
    match rest.strip_prefix('.') {
        _ if rest.is_empty() => value.as_str(),
        Some(key) => value.as_object()?.get(key)?.as_str(),
        None => value.as_array()?.get(index()?)?.as_str(),
    }
}

fn replaced<'t>(template: &'t str, value: impl FnMut(&str) -> Option<String>) -> Cow<'t, str> {
    substitute(template, value).map_or(Cow::Borrowed(template), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tekton::run::Run;

    #[test]
    fn what_is_put_together_is_bounded() {
        let many = |name: &str| format!("$(params.{name})").repeat(1000);
        let params: Vec<Value> = (0..9)
            .map(|level| json!({"name": format!("p{level}"), "default": many(&format!("p{}", level + 1))}))
            .collect();
        let (run, task) = (json!({}), json!({"taskSpec": {"params": params}}));
        let scope = Scope::of_run(Run::new(&run), "ns");
        assert_eq!(TaskValues::new(&task, &scope).text("$(params.p0)").whole(), None);
    }

    /// In a script, `$(…)` may be anything else.
    #[test]
    fn what_is_no_variable_stays_as_it_is() {
        let (run, task) = (json!({}), json!({"taskSpec": {}}));
        let scope = Scope::of_run(Run::new(&run), "ns");
        for (template, whole) in [
            ("$(date) $(taskspace.x)", Some("$(date) $(taskspace.x)")),
            ("$(tasks.a.results.r)", None),
            ("x $(steps.a.results.r)", None),
            ("$(step.results.r.path)", None),
            ("$(finally.a.reason)", None),
        ] {
            assert_eq!(TaskValues::new(&task, &scope).text(template).whole(), whole, "{template}");
        }
    }

    /// A default that needs itself is no value.
    #[test]
    fn a_default_of_itself() {
        let params = json!([{"name": "a", "default": "$(params.b)"}, {"name": "b", "default": "$(params.a)"}]);
        let (run, task) = (json!({}), json!({"taskSpec": {"params": params}}));
        let scope = Scope::of_run(Run::new(&run), "ns");
        assert_eq!(TaskValues::new(&task, &scope).text("$(params.a)").whole(), None);
    }

    #[test]
    fn paths() {
        let run = json!({"spec": {"params": [{"name": "dot", "value": "."}, {"name": "outer", "value": "src/a"}]}});
        let task = json!({
            "name": "t",
            "params": [
                {"name": "dir", "value": "$(params.outer)"}, {"name": "late", "value": "x/$(tasks.a.results.r)"},
                {"name": "empty", "value": ""}, {"name": "object", "value": {"k": "$(params.dot)"}},
            ],
            "taskSpec": {
                "workspaces": [{"name": "in", "mountPath": "/in/"}],
                "params": [
                    {"name": "dir"}, {"name": "late"}, {"name": "empty"}, {"name": "object"}, {"name": "unset"},
                    {"name": "below", "default": "$(workspaces.in.path)/$(params.dir)"}, {"name": "list", "default": ["/l"]},
                ],
            },
        });
        let scope = Scope::of_run(Run::new(&run), "ns");
        let values = TaskValues::new(&task, &scope);
        let shown = |template: &str| {
            let path = values.path(template);
            path.open.iter().fold(format!("/{}", path.names.join("/")), |shown, open| format!("{shown} {open}…"))
        };
        for (template, expected) in [
            ("/a//b/../c/.", "/a/c"),
            ("", "/workspace"),
            ("src", "/workspace/src"),
            ("$(params.dir)", "/workspace/src/a"),
            ("$(params.below)/more", "/in/src/a/more"),
            ("$(params[\"below\"])", "/in/src/a"),
            ("$(workspaces.in.path)/$(params.dot)", "/in"),
            ("$(workspaces.in.path)/$(params.empty)", "/in"),
            ("$(workspaces.in.path)/$(params.object.k)", "/in"),
            ("$(workspaces.other.path)/x", "/workspace/other/x"),
            ("$(params.list[0])/x", "/l/x"),
            ("/in/$(params.late)", "/in/x …"),
            ("/in/y$(tasks.a.results.r)/z", "/in y…"),
            ("$(params.unset)/z", "/ …"),
            ("/in/$(context.taskRun.name)", "/in …"),
            ("/in/$(context.pipelineRun.namespace)", "/in/ns"),
            ("$(inputs.params.below)/more", "/in/src/a/more"),
            ("/in/x$(inputs.params.late)", "/in/xx …"),
        ] {
            assert_eq!(shown(template), expected, "{template}");
        }
        for (path, folder, expected) in [
            ("/in/a/b", "/in", Some(2)),
            ("/in", "/in", None),
            ("/in/a/$(params.late)", "/in", None),
            ("/in/a", "/in/$(params.late)", None),
            ("/in/x/a", "/in/$(params.late)", None),
        ] {
            let (path, folder) = (values.path(path), values.path(folder));
            assert_eq!(path.names_below(&folder).map(<[String]>::len), expected);
        }
        let folder = values.path("/in");
        for (template, is_in, is_below) in [
            ("/in", true, false),
            ("/in/a", true, true),
            ("/inner/a", false, false),
            ("/", false, false),
            ("/in/../other", false, false),
            ("/other/../in/x", true, true),
            ("/$(params.late)", false, false),
            ("/i$(tasks.a.results.r)", true, true),
            ("$(params.unset)", true, true),
            ("/in/$(tasks.a.results.r)", true, true),
        ] {
            let path = values.path(template);
            assert_eq!((path.may_be_in(&folder), path.is_below(&folder)), (is_in, is_below), "{template}");
        }
    }
}
