//! The values that decide how a run is wrapped, each with where it came from: params of the resolver, annotations of the run,
//! ConfigMaps with defaults.

mod variables;

use std::{borrow::Cow, collections::HashSet, fmt};

use serde_json::Value;

use crate::{
    annotations::{PREFIX, WRAP, is_provenance},
    limits::{Exceeded, MAX_NAME, MAX_PARAM, MAX_STRING, MAX_WORKSPACES},
    source::Defaults,
    tekton::{
        fields::{field, items, text},
        run::Run,
        scope::Scope,
    },
    wrap::refusal::Refusal,
};

/// All params, in the order of the documentation.
pub const PARAMS: [&str; 21] = [
    "pipelineref",
    "workspaces",
    "target",
    "base",
    "wrapper",
    "conflict",
    "failed",
    "expires",
    "target-expires",
    "keep",
    "compression",
    "size",
    "paths",
    "cache",
    "credentials",
    "mirror",
    "insecure",
    "ca",
    "retry-for",
    "endpoint",
    "region",
];

/// The placeholder in `target` and `base` for the name of a workspace.
pub const WORKSPACE: &str = "{{workspace}}";

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueOrigin<'a> {
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
pub struct ValuePlace<'a> {
    name: &'a str,
    origin: ValueOrigin<'a>,
}

/// All values of a run, and what variables in them stand for.
pub struct Values<'a> {
    given: Vec<GivenValue<'a>>,
    run: Run<'a>,
    scope: Scope<'a>,
    /// Where the run itself says such things.
    own: ValueOrigin<'a>,
}

struct GivenValue<'a> {
    name: &'static str,
    value: Cow<'a, Value>,
    origin: ValueOrigin<'a>,
}

impl fmt::Display for ValuePlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match self.origin {
            ValueOrigin::Param => write!(f, "param {name:?} of resolver wrap"),
            ValueOrigin::Annotation if name == "workspaces" => write!(f, "annotation {WRAP:?}"),
            ValueOrigin::Annotation => write!(f, "annotation \"{PREFIX}{name}\""),
            ValueOrigin::PipelineAnnotation if name == "workspaces" => write!(f, "annotation {WRAP:?} of the Pipeline"),
            ValueOrigin::PipelineAnnotation => write!(f, "annotation \"{PREFIX}{name}\" of the Pipeline"),
            ValueOrigin::Default(Defaults { name: map, namespace, .. }) => {
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
        let own = if params.is_some() { ValueOrigin::Param } else { ValueOrigin::Annotation };
        let mut values = Self { given: Vec::new(), run, scope: Scope::of_run(run, namespace), own };
        for param in params.map_or(&[][..], |reference| items(reference, "params")) {
            let name = text(param, "name");
            let Some(known) = known(name) else {
                let hint = match name {
                    // Of the original's caches.
                    "files" => {
                        "the files of a cache are in param \"cache\", such as cache=sources/**/go.sum".to_owned()
                    }
                    _ => nearest(name, &PARAMS),
                };
                return Err(Refusal::UnknownParam { name: name.to_owned(), hint });
            };
            if values.find(known).is_some() {
                return Err(Refusal::DuplicateParam(name.to_owned()));
            }
            values.add(known, Cow::Borrowed(field(param, "value").unwrap_or(&Value::Null)), ValueOrigin::Param);
        }
        values.add_annotations(run.metadata("annotations"), ValueOrigin::Annotation)?;
        values.add_annotations(of_pipeline, ValueOrigin::PipelineAnnotation)?;
        for map in defaults {
            for (name, value) in &map.values {
                if let Some(name) = known(name).filter(|name| is_default(name)) {
                    values.add(name, Cow::Owned(Value::String(value.clone())), ValueOrigin::Default(map));
                }
            }
        }
        Ok(values)
    }

    fn add_annotations(&mut self, annotations: Option<&'a Value>, origin: ValueOrigin<'a>) -> Result<(), Refusal> {
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
                && param.origin == ValueOrigin::Param
                && *param.value != *value
            {
                return Err(Refusal::Contradiction { name, annotation: key.clone() });
            }
            self.add(name, Cow::Borrowed(value), origin);
        }
        Ok(())
    }

    /// Adds a value unless there is one already.
    fn add(&mut self, name: &'static str, value: Cow<'a, Value>, origin: ValueOrigin<'a>) {
        if self.find(name).is_none() {
            self.given.push(GivenValue { name, value, origin });
        }
    }

    fn find(&self, name: &str) -> Option<&GivenValue<'a>> {
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

    /// Whether the value of `name` is one of the defaults.
    pub fn is_default_value(&self, name: &str) -> bool {
        self.find(name).is_some_and(|given| matches!(given.origin, ValueOrigin::Default(_)))
    }

    /// That `name` has no value, or one that it can't have.
    pub fn invalid(&self, name: &str, problem: impl Into<String>) -> Refusal {
        Refusal::InvalidParam { place: self.place(name).to_string(), problem: problem.into() }
    }

    /// That `name` has no value though it must have one: `hint` says what it should hold.
    pub fn missing(&self, name: &str, hint: &'static str) -> Refusal {
        Refusal::MissingParam { place: self.place(name).to_string(), hint }
    }

    fn place<'n>(&self, name: &'n str) -> ValuePlace<'n>
    where
        'a: 'n,
    {
        ValuePlace { name, origin: self.find(name).map_or(self.own, |given| given.origin) }
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

    /// A list: an array, or a string with commas. Empty items are left out. The value of a param is a part of one item, whatever
    /// commas it has, unless the item is nothing but that param.
    pub fn list(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let list: Vec<String> = match self.value(name) {
            Some(Value::Array(items)) => {
                Exceeded::check(items.len(), MAX_WORKSPACES, "items", || self.place(name).to_string())?;
                let texts = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
                let texts = texts.ok_or_else(|| self.invalid(name, "it must be an array of strings"))?;
                texts.iter().map(|text| self.resolve(name, text)).collect::<Result<_, _>>()?
            }
            _ => {
                // The whole is checked first: that it is a string, and its length.
                self.text(name)?;
                let mut list = Vec::new();
                for item in items_of(self.value(name).and_then(Value::as_str).unwrap_or_default()) {
                    let resolved = self.resolve(name, item)?;
                    match is_variable(item.trim()) {
                        true => list.extend(resolved.split(',').map(str::to_owned)),
                        false => list.push(resolved),
                    }
                }
                list
            }
        };
        Ok(list.iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
    }

    /// The same as a string with commas, for a step to take apart; none if it has no items.
    pub fn joined(&self, name: &str) -> Result<Option<String>, Refusal> {
        self.text(name)?;
        let list = self.list(name)?;
        match list.iter().find(|item| item.contains(',')) {
            Some(item) => {
                Err(self.invalid(name, format!("{item:?} is one item and has a comma in it: change the run's param")))
            }
            None => Ok((!list.is_empty()).then(|| list.join(","))),
        }
    }

    /// Refuses a value of `length` bytes that is too long for `name`.
    pub fn check_length(&self, name: &str, length: usize) -> Result<(), Refusal> {
        let limit = if ["pipelineref", "workspaces", "size"].contains(&name) { MAX_STRING } else { MAX_PARAM };
        Ok(Exceeded::check(length, limit, "bytes", || self.place(name).to_string())?)
    }
}

/// The items of a list with commas: those in the names of variables separate nothing.
fn items_of(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find([',', '$'])) {
        at = at.saturating_add(found);
        let rest = text.get(at..).unwrap_or_default();
        match rest.strip_prefix("$(").and_then(|rest| rest.find(')')) {
            Some(end) => at = at.saturating_add(end),
            None if rest.starts_with(',') => {
                items.push(text.get(start..at).unwrap_or_default());
                start = at.saturating_add(1);
            }
            None => {}
        }
        at = at.saturating_add(1);
    }
    items.push(text.get(start..).unwrap_or_default());
    items
}

/// Whether it is one variable and nothing else.
fn is_variable(text: &str) -> bool {
    let inner = text.strip_prefix("$(").and_then(|text| text.strip_suffix(')'));
    inner.is_some_and(|inner| !inner.contains(['(', ')']))
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

fn nearest(name: &str, known: &[&str]) -> String {
    const LONGEST_TYPO: usize = 30;
    // To compare takes the product of both lengths.
    let name = name.chars().take(LONGEST_TYPO).collect::<String>().to_lowercase();
    let distance = |param: &str| strsim::damerau_levenshtein(&name, param);
    match known.iter().min_by_key(|param| distance(param)) {
        Some(param) if distance(param) <= 3.min(param.len() / 2) => format!("did you mean {param:?}?"),
        _ => format!("it has {}", quoted(known)),
    }
}
