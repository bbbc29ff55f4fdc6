//! The values that decide how a run is wrapped, each with where it came from: params of the resolver, annotations of the run,
//! ConfigMaps with defaults.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde_json::Value;

use crate::{
    limits::{Exceeded, MAX_NAME, MAX_PARAM, MAX_STRING, MAX_WORKSPACES},
    source::Defaults,
    tekton::{
        fields::{field, items, text},
        run::Run,
        scope::Scope,
        variables::{references, substitute},
    },
    wrap::{
        provenance::{PREFIX, WRAP, is_provenance},
        refusal::Refusal,
    },
};

/// All params, in the order of the documentation.
pub const PARAMS: [&str; 15] = [
    "pipelineref",
    "workspaces",
    "target",
    "base",
    "wrapper",
    "conflict",
    "expires",
    "compression",
    "size",
    "paths",
    "credentials",
    "mirror",
    "insecure",
    "ca",
    "retry-for",
];

/// The placeholder in `target` and `base` for the name of a workspace.
pub const WORKSPACE: &str = "{{workspace}}";

/// The same for manifests that go through Helm, Ansible or Pipelines-as-Code, which take braces for their own.
const WORKSPACE_VARIABLE: &str = "workspace";

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A param of the resolver.
    Param,
    /// An annotation of the run.
    Annotation,
    /// An annotation of its Pipeline.
    PipelineAnnotation,
    /// A ConfigMap.
    Default(&'a Defaults),
}

/// A value's name and origin, for sentences.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    name: &'a str,
    origin: Origin<'a>,
}

/// All values of a run, and what variables in them stand for.
pub struct Values<'a> {
    given: Vec<Given<'a>>,
    scope: Scope<'a>,
    /// Where the run itself says such things.
    own: Origin<'a>,
}

struct Given<'a> {
    name: &'static str,
    value: Cow<'a, Value>,
    origin: Origin<'a>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match self.origin {
            Origin::Param => write!(f, "param {name:?} of resolver wrap"),
            Origin::Annotation if name == "workspaces" => write!(f, "annotation {WRAP:?}"),
            Origin::Annotation => write!(f, "annotation \"{PREFIX}{name}\""),
            Origin::PipelineAnnotation if name == "workspaces" => write!(f, "annotation {WRAP:?} of the Pipeline"),
            Origin::PipelineAnnotation => write!(f, "annotation \"{PREFIX}{name}\" of the Pipeline"),
            Origin::Default(Defaults { name: map, namespace, .. }) => {
                write!(f, "{name:?} of ConfigMap {map:?} in namespace {namespace:?}")
            }
        }
    }
}

impl<'a> Values<'a> {
    /// The values that `run`, about to be created in `namespace`, gives, with `defaults` for those that it does not give, the
    /// nearest first. `params` are those of the resolver; none where an annotation asks for the wrapping.
    pub fn collect(
        run: Run<'a>,
        namespace: &'a str,
        params: Option<&'a Value>,
        defaults: &'a [Defaults],
    ) -> Result<Self, Refusal> {
        Self::collect_with(run, namespace, params, None, defaults)
    }

    /// The same with the annotations of the run's Pipeline, which count less than the run's own.
    pub fn collect_with(
        run: Run<'a>,
        namespace: &'a str,
        params: Option<&'a Value>,
        of_pipeline: Option<&'a Value>,
        defaults: &'a [Defaults],
    ) -> Result<Self, Refusal> {
        let own = if params.is_some() { Origin::Param } else { Origin::Annotation };
        let mut values = Self { given: Vec::new(), scope: Scope::of_run(run, namespace), own };
        for param in params.map_or(&[][..], |reference| items(reference, "params")) {
            let name = text(param, "name");
            let Some(known) = known(name) else {
                return Err(Refusal::UnknownParam { name: name.to_owned(), hint: nearest(name, &PARAMS) });
            };
            if values.find(known).is_some() {
                return Err(Refusal::DuplicateParam(name.to_owned()));
            }
            values.add(known, Cow::Borrowed(field(param, "value").unwrap_or(&Value::Null)), Origin::Param);
        }
        values.add_annotations(run.metadata("annotations"), Origin::Annotation)?;
        values.add_annotations(of_pipeline, Origin::PipelineAnnotation)?;
        for map in defaults {
            for (name, value) in &map.values {
                if let Some(name) = known(name).filter(|name| is_default(name)) {
                    values.add(name, Cow::Owned(Value::String(value.clone())), Origin::Default(map));
                }
            }
        }
        Ok(values)
    }

    fn add_annotations(&mut self, annotations: Option<&'a Value>, origin: Origin<'a>) -> Result<(), Refusal> {
        for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
            let Some(name) = key.strip_prefix(PREFIX).filter(|_| !is_provenance(key)) else { continue };
            let name = match known(name).filter(|name| is_annotation(name)) {
                Some(known) => known,
                None if name == "wrap" => "workspaces",
                None => {
                    let names: Vec<&str> = PARAMS[2..].iter().chain(&["wrap"]).copied().collect();
                    return Err(Refusal::UnknownAnnotation { name: key.clone(), hint: nearest(name, &names) });
                }
            };
            if let Some(param) = self.find(name)
                && param.origin == Origin::Param
                && *param.value != *value
            {
                return Err(Refusal::Contradiction { name, annotation: key.clone() });
            }
            self.add(name, Cow::Borrowed(value), origin);
        }
        Ok(())
    }

    /// Adds a value unless there is one already.
    fn add(&mut self, name: &'static str, value: Cow<'a, Value>, origin: Origin<'a>) {
        if self.find(name).is_none() {
            self.given.push(Given { name, value, origin });
        }
    }

    fn find(&self, name: &str) -> Option<&Given<'a>> {
        self.given.iter().find(|given| given.name == name)
    }

    /// What is known of the run's own variables.
    pub fn scope(&self) -> &Scope<'a> {
        &self.scope
    }

    /// The value of `name` as it was given.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.find(name).map(|given| &*given.value)
    }

    /// That `name` has no value, or one that it can't have.
    pub fn invalid(&self, name: &str, problem: impl Into<String>) -> Refusal {
        Refusal::InvalidParam { place: self.place(name).to_string(), problem: problem.into() }
    }

    /// That `name` has no value though it must have one: `hint` says what it should hold.
    pub fn missing(&self, name: &str, hint: &'static str) -> Refusal {
        Refusal::MissingParam { place: self.place(name).to_string(), hint }
    }

    fn place<'n>(&self, name: &'n str) -> Place<'n>
    where
        'a: 'n,
    {
        Place { name, origin: self.find(name).map_or(self.own, |given| given.origin) }
    }

    /// The string `name`, its variables resolved; none where it is absent or empty.
    pub fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        match self.value(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(value)) if value.trim().is_empty() => Ok(None),
            Some(Value::String(value)) => self.resolve(name, value).map(Some),
            Some(_) => Err(self.invalid(name, "it must be a string")),
        }
    }

    /// The choice that the string `name` is one of; the default where it is absent.
    pub fn choice<T: Copy + Default>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, Refusal> {
        let Some(value) = self.text(name)? else { return Ok(T::default()) };
        choices.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.invalid(name, format!("{value:?} is not one of {}", quoted(&words)))
        })
    }

    /// The list `workspaces`, each once.
    pub fn workspaces(&self) -> Result<Vec<String>, Refusal> {
        let name = "workspaces";
        let mut seen = HashSet::new();
        let list = self.list(name)?;
        let workspaces: Vec<String> = list.into_iter().filter(|name| seen.insert(name.clone())).collect();
        let what = || self.place(name).to_string();
        Exceeded::check(workspaces.len(), MAX_WORKSPACES, "workspaces", what)?;
        let longest = workspaces.iter().map(String::len).max().unwrap_or_default();
        Exceeded::check(longest, MAX_NAME, "bytes in a name", what)?;
        if workspaces.is_empty() {
            return Err(self.missing(name, "name the pipeline's workspaces to wrap, separated by commas"));
        }
        Ok(workspaces)
    }

    /// A list: an array, or a string with commas. Empty items are left out.
    pub fn list(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let list: Vec<String> = match self.value(name) {
            Some(Value::Array(items)) => {
                Exceeded::check(items.len(), MAX_WORKSPACES, "items", || self.place(name).to_string())?;
                let texts = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
                let texts = texts.ok_or_else(|| self.invalid(name, "it must be an array of strings"))?;
                texts.iter().map(|text| self.resolve(name, text)).collect::<Result<_, _>>()?
            }
            _ => self.text(name)?.unwrap_or_default().split(',').map(str::to_owned).collect(),
        };
        Ok(list.iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
    }

    /// `value` with `$(params.x)` of the run resolved. `$(context.pipelineRun.…)` is left to run time, where the name and
    /// the uid exist; its older spelling `$(context.run.…)`, which Tekton does not know, becomes it.
    fn resolve(&self, param: &str, value: &str) -> Result<String, Refusal> {
        let late = matches!(param, "target" | "base");
        let mut length = value.len();
        for reference in references(value) {
            let known = match run_context(reference) {
                Some(_) if late => true,
                Some(_) => {
                    let problem = format!("$({reference}) is not known when a run is created, only in target and base");
                    return Err(self.invalid(param, problem));
                }
                None if late && reference == WORKSPACE_VARIABLE => true,
                None => {
                    let value = self.run_param(reference);
                    length += value.map_or(0, str::len);
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

    /// Refuses a value of `length` bytes that is too long for `name`.
    pub fn check_length(&self, name: &str, length: usize) -> Result<(), Refusal> {
        let limit = if ["pipelineref", "workspaces", "size"].contains(&name) { MAX_STRING } else { MAX_PARAM };
        Ok(Exceeded::check(length, limit, "bytes", || self.place(name).to_string())?)
    }

    fn run_param(&self, reference: &str) -> Option<&str> {
        reference.starts_with("params").then(|| self.scope.text(reference))?
    }
}

/// The param of this name.
pub fn known(name: &str) -> Option<&'static str> {
    PARAMS.iter().find(|known| **known == name).copied()
}

/// Whether a ConfigMap with defaults may have the key `name`: not where it is about one run or one Pipeline.
pub fn is_default(name: &str) -> bool {
    is_annotation(name) && name != "paths"
}

/// Whether an annotation of a run may have `name` behind the prefix. The workspaces are in one of another name.
fn is_annotation(name: &str) -> bool {
    known(name).is_some_and(|name| !["pipelineref", "workspaces"].contains(&name))
}

/// Words in quotes with commas.
pub fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
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

fn nearest(name: &str, known: &[&str]) -> String {
    // To compare takes the product of both lengths.
    let name = name.get(..2 * WORKSPACE.len()).unwrap_or(name);
    let distance = |param: &str| strsim::damerau_levenshtein(&name.to_lowercase(), param);
    match known.iter().min_by_key(|param| distance(param)) {
        Some(param) if distance(param) <= 3.min(param.len() / 2) => format!("did you mean {param:?}?"),
        _ => format!("it has {}", quoted(known)),
    }
}
