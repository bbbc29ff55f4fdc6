//! What a run asks of the resolver `wrap`: its params, read and checked.

use serde_json::Value;

use super::refusal::Refusal;
use crate::{
    step::{Compression, Conflict},
    target::Target,
    tekton::{
        fields::{field, items, text},
        reference::{Reference, is_object_name},
        run::Run,
        scope::Scope,
        variables::{references, substitute},
    },
};

/// The params of the resolver, in the order of the documentation.
const PARAMS: [&str; 8] =
    ["pipelineref", "workspaces", "target", "base", "wrapper", "conflict", "expires", "compression"];

/// The placeholder in `target` and `base` for the name of a workspace.
const WORKSPACE: &str = "{{workspace}}";

/// What a run asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which Pipeline.
    pub pipeline: Reference,
    /// Names of the Pipeline's workspaces to wrap, each once.
    pub workspaces: Vec<String>,
    /// Param `target`, with the run's params resolved and `$(context.pipelineRun.…)` left.
    target: String,
    /// Param `base`, likewise.
    base: Option<String>,
    /// Param `conflict`.
    pub conflict: Conflict,
    /// Param `expires`.
    pub expires: Option<String>,
    /// Param `compression`.
    pub compression: Compression,
}

impl Request {
    /// What `run`, about to be created in `namespace`, asks for; none where its pipelineRef is not for the resolver `wrap`.
    pub fn read(run: Run<'_>, namespace: &str) -> Result<Option<Self>, Refusal> {
        let Some(pipeline_ref) = run.pipeline_ref() else { return Ok(None) };
        let resolver = text(pipeline_ref, "resolver");
        let Some(suffix) = wrapper_of(resolver) else { return Ok(None) };
        if run.pipeline_spec().is_some() {
            return Err(Refusal::BothRefAndSpec);
        }
        match text(pipeline_ref, "name") {
            "" => {}
            name => return Err(Refusal::NamedTwice(name.to_owned())),
        }
        let params = Params::new(pipeline_ref, Scope::of_run(run, namespace))?;
        let target = params.required(
            "target",
            "name where the workspaces go, for example quay.io/me/build-$(context.pipelineRun.name)-{{workspace}}:latest",
        )?;
        let request = Self {
            pipeline: params.pipeline()?,
            workspaces: params.workspaces()?,
            base: params.text("base")?,
            conflict: params.choice("conflict", &[("fail", Conflict::Fail), ("last", Conflict::Last)])?,
            expires: params.text("expires")?,
            compression: params.choice(
                "compression",
                &[("zstd", Compression::Zstd), ("gzip", Compression::Gzip), ("none", Compression::None)],
            )?,
            target,
        };
        request.check(suffix, params.text("wrapper")?.as_deref())?;
        Ok(Some(request))
    }

    /// Whether the Pipeline's workspace `name` is to be wrapped.
    pub fn wraps(&self, name: &str) -> bool {
        self.workspaces.iter().any(|wrapped| wrapped == name)
    }

    /// Where `workspace` goes.
    pub fn target(&self, workspace: &str) -> String {
        self.target.replace(WORKSPACE, workspace)
    }

    /// What `workspace` starts with.
    pub fn base(&self, workspace: &str) -> Option<String> {
        self.base.as_ref().map(|base| base.replace(WORKSPACE, workspace))
    }

    /// The name of `pipeline`; one that a resolver brought may have none.
    pub fn pipeline_name<'a>(&'a self, pipeline: &'a Value) -> &'a str {
        match &self.pipeline {
            Reference::Name(name) => name,
            Reference::Remote { .. } => field(pipeline, "metadata").map_or("", |metadata| text(metadata, "name")),
        }
    }

    /// The spec of `pipeline`, which must declare the workspaces to wrap.
    pub fn pipeline_spec<'a>(&self, pipeline: &'a Value) -> Result<&'a Value, Refusal> {
        let name = || self.pipeline_name(pipeline).to_owned();
        let incomplete = |field| Refusal::Incomplete { kind: "pipeline", name: name(), field };
        let spec = field(pipeline, "spec").ok_or_else(|| incomplete("spec"))?;
        if items(spec, "tasks").is_empty() {
            return Err(incomplete("tasks"));
        }
        let declared: Vec<&str> = items(spec, "workspaces").iter().map(|declared| text(declared, "name")).collect();
        if let Some(workspace) = self.workspaces.iter().find(|name| !declared.contains(&name.as_str())) {
            let declared = if declared.is_empty() { "none".to_owned() } else { quoted(&declared) };
            let (workspace, pipeline) = (workspace.clone(), name());
            return Err(Refusal::UndeclaredWorkspace { workspace, pipeline, declared });
        }
        Ok(spec)
    }

    /// What params say about each other.
    fn check(&self, suffix: Option<&str>, wrapper: Option<&str>) -> Result<(), Refusal> {
        if self.workspaces.len() > 1 && !self.target.contains(WORKSPACE) {
            let problem =
                format!("{:?} must contain {WORKSPACE}, since more than one workspace is wrapped", self.target);
            return Err(invalid("target", problem));
        }
        for workspace in &self.workspaces {
            let target = parse("target", &self.target(workspace))?;
            if matches!(&target, Target::Registry(image) if image.digest.is_some()) {
                let problem = format!("{:?} is pinned to a digest, which can't be written to: name a tag", self.target);
                return Err(invalid("target", problem));
            }
            if let Some(base) = self.base(workspace) {
                parse("base", &base)?;
            }
            for wrapper in suffix.into_iter().chain(wrapper) {
                check_wrapper(wrapper, &target, &self.target)?;
            }
        }
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match &self.expires {
            Some(text) if !text.strip_suffix(['s', 'm', 'h', 'd', 'w']).is_some_and(digits) => {
                Err(invalid("expires", format!("{text:?} is not a duration such as 12h, 7d or 2w")))
            }
            _ => Ok(()),
        }
    }
}

/// A text as it will be when Tekton has substituted the run's name, namespace and uid: checked with short ones.
fn parse(param: &str, value: &str) -> Result<Target, Refusal> {
    let sample = substitute(value, |_| Some("x".to_owned()));
    let sample = sample.as_deref().unwrap_or(value);
    sample.parse().map_err(|error| invalid(param, format!("{error}")))
}

fn check_wrapper(wrapper: &str, target: &Target, text: &str) -> Result<(), Refusal> {
    let scheme = match target {
        Target::Registry(_) => "oci",
        Target::Dir { .. } => "dir",
    };
    if wrapper == scheme {
        return Ok(());
    }
    Err(invalid("wrapper", format!("{wrapper:?} does not agree with the target {text:?}, which is of kind {scheme:?}")))
}

/// What follows `wrap.` in the name of our resolver; none where it is not ours.
fn wrapper_of(resolver: &str) -> Option<Option<&str>> {
    match resolver.strip_prefix("wrap")? {
        "" => Some(None),
        rest => rest.strip_prefix('.').map(Some),
    }
}

/// The params of the pipelineRef, and what variables in them stand for.
struct Params<'a> {
    given: Vec<(&'a str, &'a Value)>,
    scope: Scope<'a>,
}

impl<'a> Params<'a> {
    fn new(pipeline_ref: &'a Value, scope: Scope<'a>) -> Result<Self, Refusal> {
        let mut given: Vec<(&str, &Value)> = Vec::new();
        for param in items(pipeline_ref, "params") {
            let name = text(param, "name");
            if !PARAMS.contains(&name) {
                return Err(Refusal::UnknownParam { name: name.to_owned(), hint: nearest(name) });
            }
            if given.iter().any(|(other, _)| *other == name) {
                return Err(Refusal::DuplicateParam(name.to_owned()));
            }
            given.push((name, field(param, "value").unwrap_or(&Value::Null)));
        }
        Ok(Self { given, scope })
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| *value)
    }

    /// The text of param `name`, its variables resolved; none where it is absent or empty.
    fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        match self.value(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(value)) if value.trim().is_empty() => Ok(None),
            Some(Value::String(value)) => self.resolve(name, value).map(Some),
            Some(_) => Err(invalid(name, "it must be a string".to_owned())),
        }
    }

    /// Param `pipelineref`: a name, or the YAML of a pipelineRef. Variables are put in where its values are, so that no
    /// value can become YAML.
    fn pipeline(&self) -> Result<Reference, Refusal> {
        let name = "pipelineref";
        let value = match self.value(name) {
            Some(Value::String(text)) if !text.trim().is_empty() => text.trim(),
            None | Some(Value::Null | Value::String(_)) => {
                return Err(Refusal::MissingParam { name, hint: "name the pipeline to run" });
            }
            Some(_) => {
                return Err(invalid(name, "it must be a string: a name, or the YAML of a pipelineRef".to_owned()));
            }
        };
        let bad = |problem: String| invalid(name, problem);
        let reference = match crate::yaml::parse(value) {
            Ok(documents) if matches!(documents[..], [Value::Object(_)]) => {
                Reference::read(&documents[0], &["apiVersion"]).map_err(|problem| bad(format!("it {problem}")))?
            }
            Ok(documents) if documents.len() > 1 => {
                return Err(bad("it has several YAML documents: keep one".to_owned()));
            }
            Err(error) if value.contains('\n') => return Err(bad(format!("it is neither a name nor YAML: {error}"))),
            _ => Reference::Name(value.to_owned()),
        };
        if reference.resolver().and_then(wrapper_of).is_some() {
            let problem = "it names the resolver wrap itself: name the pipeline, or the resolver that brings it";
            return Err(bad(problem.to_owned()));
        }
        let unknown = |variable| bad(format!("{variable}: only the run's own params and its namespace have"));
        match reference.resolved(&self.scope).map_err(unknown)? {
            Reference::Name(name) if !is_object_name(&name) => {
                Err(bad(format!("{name:?} is not the name of a pipeline")))
            }
            reference => Ok(reference),
        }
    }

    fn required(&self, name: &'static str, hint: &'static str) -> Result<String, Refusal> {
        self.text(name)?.ok_or(Refusal::MissingParam { name, hint })
    }

    fn choice<T: Copy + Default>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, Refusal> {
        let Some(value) = self.text(name)? else { return Ok(T::default()) };
        choices.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            invalid(name, format!("{value:?} is none of {}", quoted(&words)))
        })
    }

    /// Param `workspaces`: an array, or a text with commas.
    fn workspaces(&self) -> Result<Vec<String>, Refusal> {
        let name = "workspaces";
        let list: Vec<String> = match self.value(name) {
            Some(Value::Array(items)) => {
                let text = |item: &Value| item.as_str().map(str::to_owned);
                let texts = items.iter().map(text).collect::<Option<Vec<_>>>();
                let texts = texts.ok_or_else(|| invalid(name, "it must be an array of strings".to_owned()))?;
                texts.iter().map(|text| self.resolve(name, text)).collect::<Result<_, _>>()?
            }
            _ => self.text(name)?.unwrap_or_default().split(',').map(str::to_owned).collect(),
        };
        let mut workspaces: Vec<String> = Vec::new();
        for workspace in list.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            if !workspaces.iter().any(|other| other == workspace) {
                workspaces.push(workspace.to_owned());
            }
        }
        if workspaces.is_empty() {
            let hint = "name the pipeline's workspaces to wrap, separated by commas";
            return Err(Refusal::MissingParam { name, hint });
        }
        Ok(workspaces)
    }

    /// `value` with `$(params.x)` of the run resolved. `$(context.pipelineRun.…)` is left to run time, where the name and
    /// the uid exist; its older spelling `$(context.run.…)`, which Tekton does not know, becomes it.
    fn resolve(&self, param: &str, value: &str) -> Result<String, Refusal> {
        let late = matches!(param, "target" | "base");
        for reference in references(value) {
            let known = match run_context(reference) {
                Some(_) if late => true,
                Some(_) => {
                    let problem = format!("$({reference}) is not known when a run is created, only in target and base");
                    return Err(invalid(param, problem));
                }
                None => self.run_param(reference).is_some(),
            };
            if !known {
                let problem = format!(
                    "$({reference}) is not a param that the run gives as a string; $(params.x) of the run and $(context.pipelineRun.name|namespace|uid) can be used"
                );
                return Err(invalid(param, problem));
            }
        }
        let new = |reference: &str| match run_context(reference) {
            Some(field) => Some(format!("$(context.pipelineRun.{field})")),
            None => self.run_param(reference),
        };
        let resolved = substitute(value, new).unwrap_or_else(|| value.to_owned());
        // A value may look like a variable, or make one together with what stands around it: Tekton would substitute it later.
        match leftover(&resolved, late) {
            Some(found) => Err(invalid(
                param,
                format!(
                    "the value {resolved:?} has {found:?} in it, which would be taken for a variable: change the run's param"
                ),
            )),
            None => Ok(resolved),
        }
    }

    fn run_param(&self, reference: &str) -> Option<String> {
        reference.starts_with("params").then(|| self.scope.text(reference).map(str::to_owned))?
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

fn nearest(name: &str) -> String {
    let distance = |param: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), param);
    match PARAMS.iter().min_by_key(|param| distance(param)) {
        Some(param) if distance(param) <= 3.min(param.len() / 2) => format!("did you mean {param:?}?"),
        _ => format!("it has {}", quoted(&PARAMS)),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

fn invalid(name: &str, problem: String) -> Refusal {
    Refusal::InvalidParam { name: name.to_owned(), problem }
}
