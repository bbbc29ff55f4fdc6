//! What a run asks for, read and checked: by params of the resolver `wrap` or by annotations, with defaults.

mod auto;
mod conflict;
mod paths;
mod size;
mod values;

use std::collections::HashSet;

use serde_json::Value;

use self::values::{Values, WORKSPACE, quoted};
pub use self::{
    paths::Paths,
    size::Sizes,
    values::{PARAMS, is_default},
};
use super::{bounds, intact, provenance::WRAP, refusal::Refusal};
use crate::{
    limits::MAX_VALUES,
    source::{Defaults, OptInBy},
    step::{Compression, ConflictRule, OnConflict},
    target::Target,
    tekton::{
        fields::{ambiguous_key, field, items, text},
        reference::{Reference, is_object_name},
        run::Run,
        scope::{Scope, VariableError},
        variables::substitute,
    },
};

/// The word for the workspaces that tasks share, in the place of their names.
const AUTO: &str = "auto";

/// The word that keeps a run from being wrapped for its namespace's sake, in the place of names.
const NONE: &str = "none";

/// That a run is to be wrapped, and which Pipeline it runs: all that has to be known before anything is read.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    run: Run<'a>,
    namespace: &'a str,
    way: Way<'a>,
    /// Which Pipeline; none where the run has one embedded.
    pub pipeline: Option<Reference>,
}

/// How a run asks to be wrapped.
#[derive(Clone, Copy, Debug)]
enum Way<'a> {
    /// By a pipelineRef with the resolver `wrap`, or with what follows `wrap.` in its name.
    Resolver { reference: &'a Value, suffix: Option<&'a str> },
    /// By the annotation [`WRAP`].
    Annotation,
    /// By a label of its namespace.
    Namespace,
}

/// What a run asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which Pipeline; none where the run has one embedded.
    pub pipeline: Option<Reference>,
    /// How sentences name a Pipeline that has no name of its own.
    run_name: String,
    /// Names of the Pipeline's workspaces to wrap, each once.
    pub workspaces: Vec<String>,
    /// Whether a claim template that the run binds is replaced.
    pub replaces_templates: bool,
    /// Whether only what means the same on a volume is wrapped, see [`super::after_failure`].
    pub only_if_same: bool,
    /// Param `target`, with the run's params resolved and `$(context.pipelineRun.…)` left.
    target: String,
    /// Param `base`, likewise.
    base: Option<String>,
    /// Param `conflict`: what holds for all paths that no rule matches.
    pub conflict: OnConflict,
    /// Param `conflict`: the rules.
    pub conflict_rules: Vec<ConflictRule>,
    /// Param `expires`.
    pub expires: Option<String>,
    /// Param `compression`.
    pub compression: Compression,
    /// Param `size`.
    pub sizes: Sizes,
    /// Param `paths`.
    pub paths: Paths,
    /// How the injected steps reach registries.
    pub access: Access,
    /// A part of names that nobody can have guessed who wrote what is read only when a task runs: 16 hexadecimal digits.
    pub secret: Option<String>,
}

/// How the injected steps reach registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Param `credentials`: a Secret of the run's namespace that only injected steps mount.
    pub credentials: Option<String>,
    /// Param `ca`: a ConfigMap of the run's namespace with certificates of authorities.
    pub ca: Option<String>,
    /// Param `mirror`.
    pub mirror: Option<String>,
    /// Param `insecure`.
    pub insecure: Option<String>,
    /// Param `retry-for`.
    pub retry_for: Option<String>,
}

impl<'a> Ask<'a> {
    /// What `run`, about to be created in `namespace`, asks for; none if it is not to be wrapped.
    pub fn read(run: Run<'a>, namespace: &'a str, opt_in_by: OptInBy) -> Result<Option<Self>, Refusal> {
        bounds::check_run(run)?;
        let annotation = run.metadata("annotations").and_then(|annotations| annotations.get(WRAP));
        let annotated = annotation.is_some();
        let reference = run.pipeline_ref();
        let suffix = reference.and_then(|reference| wrapper_of(text(reference, "resolver")));
        match (reference, suffix) {
            (Some(_), Some(_)) if annotated => Err(Refusal::AskedTwice),
            (Some(_), Some(_)) if run.pipeline_spec().is_some() => Err(Refusal::BothRefAndSpec),
            (Some(reference), Some(suffix)) => match text(reference, "name") {
                "" => {
                    let values = Values::collect(run, namespace, Some(reference), &[])?;
                    let pipeline = Some(named_pipeline(&values)?);
                    Ok(Some(Self { run, namespace, way: Way::Resolver { reference, suffix }, pipeline }))
                }
                name => Err(Refusal::NamedTwice(name.to_owned())),
            },
            // What was wrapped before may be created again, as reruns do, or be shown to us a second time.
            _ if run.pipeline_spec().is_some_and(intact::is_wrapped) => intact::check(run).map(|()| None),
            _ if annotation.is_some_and(|workspaces| workspaces == NONE) => Ok(None),
            _ if opt_in_by == OptInBy::Namespace && !annotated => Ok(Self::of_namespace(run, namespace)),
            _ if !annotated => Ok(None),
            (Some(_), None) if run.pipeline_spec().is_some() => Err(Refusal::BothRefAndSpec),
            (Some(reference), None) => {
                let values = Values::collect(run, namespace, None, &[])?;
                let refused = |problem: String| Refusal::InvalidPipelineRef { problem };
                let reference =
                    Reference::read(reference, &["apiVersion"]).map_err(|error| refused(error.to_string()))?;
                let resolved = reference.resolved(values.scope()).map_err(|error| refused(format!(": {error}")))?;
                Ok(Some(Self { run, namespace, way: Way::Annotation, pipeline: Some(resolved) }))
            }
            (None, _) => Ok(Some(Self { run, namespace, way: Way::Annotation, pipeline: None })),
        }
    }

    /// A run whose namespace opts in; none if it can't be run, which Tekton says better.
    fn of_namespace(run: Run<'a>, namespace: &'a str) -> Option<Self> {
        let way = Way::Namespace;
        match (run.pipeline_ref(), run.pipeline_spec()) {
            (None, Some(_)) => Some(Self { run, namespace, way, pipeline: None }),
            (Some(reference), None) => {
                let reference = Reference::read(reference, &["apiVersion"]).ok()?;
                let pipeline = reference.resolved(&Scope::of_run(run, namespace)).ok()?;
                Some(Self { run, namespace, way, pipeline: Some(pipeline) })
            }
            _ => None,
        }
    }

    /// The whole request, for `pipeline`: the Pipeline, or [`Ask::embedded`]. None if there is nothing to do.
    pub fn request(&self, defaults: &[Defaults], pipeline: &Value) -> Result<Option<Request>, Refusal> {
        let metadata = field(pipeline, "metadata").unwrap_or(&Value::Null);
        let decided_by = match self.way {
            Way::Namespace => field(metadata, "annotations").filter(|annotations| annotations.get(WRAP).is_some()),
            _ => None,
        };
        if decided_by.is_some_and(|annotations| annotations[WRAP] == NONE) {
            return Ok(None);
        }
        check_keys(self.run.object(), || "the PipelineRun".to_owned())?;
        check_keys(pipeline, || format!("pipeline {:?}", text(metadata, "name")))?;
        field(pipeline, "spec").map_or(Ok(()), |spec| bounds::check_pipeline(spec, text(metadata, "name")))?;
        let (params, suffix) = match self.way {
            Way::Resolver { reference, suffix } => (Some(reference), suffix),
            Way::Annotation | Way::Namespace => (None, None),
        };
        let values = Values::collect_with(self.run, self.namespace, params, decided_by, defaults)?;
        let auto = |found: Option<Vec<String>>| found.filter(|found| !found.is_empty());
        let shared = || auto(field(pipeline, "spec").map(|spec| auto::shared_workspaces(self.run, spec)));
        let is_auto = params.is_none() && values.workspaces().is_ok_and(|words| words == [AUTO]);
        let by_default = self.way_is_namespace() && values.value("workspaces").is_none();
        if self.way_is_namespace() && (is_auto || by_default) && shared().is_none() {
            return Ok(None);
        }
        let target = values.text("target")?.ok_or_else(|| {
            values.missing(
                "target",
                "name where the workspaces go, for example quay.io/me/build-$(context.pipelineRun.name)-{{workspace}}:latest",
            )
        })?;
        let workspaces =
            if is_auto || by_default { shared().ok_or(Refusal::NothingToWrap)? } else { values.workspaces()? };
        let (conflict_rules, conflict) = conflict::read(&values)?;
        let metadata = field(self.run.object(), "metadata").unwrap_or(&Value::Null);
        let run_name = self.run.name().unwrap_or_else(|| text(metadata, "generateName")).to_owned();
        let request = Request {
            pipeline: self.pipeline.clone(),
            run_name,
            replaces_templates: params.is_none(),
            only_if_same: self.way_is_namespace() && decided_by.is_none(),
            base: values.text("base")?,
            conflict,
            conflict_rules,
            expires: values.text("expires")?,
            compression: values.choice(
                "compression",
                &[("zstd", Compression::Zstd), ("gzip", Compression::Gzip), ("none", Compression::None)],
            )?,
            sizes: Sizes::read(&values, &workspaces)?,
            paths: Paths::read(&values, &workspaces, field(pipeline, "spec"))?,
            access: access(&values)?,
            secret: None,
            workspaces,
            target,
        };
        request.check(&values, suffix)?;
        Ok(Some(request))
    }

    fn way_is_namespace(&self) -> bool {
        matches!(self.way, Way::Namespace)
    }

    /// The run's embedded Pipeline, as if it were an object.
    pub fn embedded(&self) -> Option<Value> {
        self.run.pipeline_spec().map(|spec| serde_json::json!({"spec": spec}))
    }
}

impl Request {
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

    /// The name of `pipeline`; one that a resolver brought may have none, an embedded one has that of its run.
    pub fn pipeline_name<'a>(&'a self, pipeline: &'a Value) -> &'a str {
        match &self.pipeline {
            Some(Reference::Name(name)) => name,
            Some(Reference::Remote { .. }) => field(pipeline, "metadata").map_or("", |metadata| text(metadata, "name")),
            None => &self.run_name,
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
        let names: HashSet<&str> = declared.iter().copied().collect();
        if let Some(workspace) = self.workspaces.iter().find(|name| !names.contains(name.as_str())) {
            let declared = if declared.is_empty() { "none".to_owned() } else { quoted(&declared) };
            let (workspace, pipeline) = (workspace.clone(), name());
            return Err(Refusal::UndeclaredWorkspace { workspace, pipeline, declared });
        }
        Ok(spec)
    }

    /// Checks values against each other.
    fn check(&self, values: &Values<'_>, suffix: Option<&str>) -> Result<(), Refusal> {
        check_template(values, "target", &self.target)?;
        if self.workspaces.len() > 1 && !self.target.contains(WORKSPACE) {
            let problem =
                format!("{:?} must contain {WORKSPACE}, since more than one workspace is wrapped", self.target);
            return Err(values.invalid("target", problem));
        }
        let wrapper = values.text("wrapper")?;
        for workspace in &self.workspaces {
            let target = self.target(workspace);
            values.check_length("target", target.len())?;
            let target = parse(values, "target", &target)?;
            if matches!(&target, Target::Registry(image) if image.digest.is_some()) {
                let problem = format!("{:?} is pinned to a digest, which can't be written to: name a tag", self.target);
                return Err(values.invalid("target", problem));
            }
            if let Some(base) = self.base(workspace) {
                values.check_length("base", base.len())?;
                check_template(values, "base", &base)?;
                parse(values, "base", &base)?;
            }
            for wrapper in suffix.into_iter().chain(wrapper.as_deref()) {
                check_wrapper(values, wrapper, &target, &self.target)?;
            }
        }
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match &self.expires {
            Some(text) if !text.strip_suffix(['s', 'm', 'h', 'd', 'w']).is_some_and(digits) => {
                Err(values.invalid("expires", format!("{text:?} is not a duration such as 12h, 7d or 2w")))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses an object with fields that Tekton may read differently than it is read here; `what` names it.
pub fn check_keys(object: &Value, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    let refused = |key: &str| Err(Refusal::AmbiguousField { what: what(), key: key.to_owned() });
    ambiguous_key(object).map_or(Ok(()), refused)
}

/// Param `pipelineref`: a name, or the YAML of a pipelineRef. Variables are resolved after parsing, so that no value can
/// become YAML.
fn named_pipeline(values: &Values<'_>) -> Result<Reference, Refusal> {
    let name = "pipelineref";
    let value = match values.value(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => {
            values.check_length(name, text.len())?;
            text.trim()
        }
        None | Some(Value::Null | Value::String(_)) => return Err(values.missing(name, "name the pipeline to run")),
        Some(_) => return Err(values.invalid(name, "it must be a string: a name, or the YAML of a pipelineRef")),
    };
    let bad = |problem: String| values.invalid(name, problem);
    let reference = match crate::yaml::parse_within(value, MAX_VALUES) {
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
    let unresolved = |error| match error {
        VariableError::Unknown(_) => bad(format!("{error}: only the run's own params and its namespace have")),
        VariableError::TooLong(_) => bad(error.to_string()),
    };
    match reference.resolved(values.scope()).map_err(unresolved)? {
        Reference::Name(name) if !is_object_name(&name) => Err(bad(format!("{name:?} is not the name of a pipeline"))),
        reference => Ok(reference),
    }
}

fn access(values: &Values<'_>) -> Result<Access, Refusal> {
    let object = |name: &str, kind: &str| match values.text(name)? {
        Some(text) if !is_object_name(&text) => {
            Err(values.invalid(name, format!("{text:?} is not the name of a {kind}")))
        }
        text => Ok(text),
    };
    Ok(Access {
        credentials: object("credentials", "Secret")?,
        ca: object("ca", "ConfigMap")?,
        mirror: values.text("mirror")?,
        insecure: values.text("insecure")?,
        retry_for: values.text("retry-for")?,
    })
}

/// Parses `value` as it will be once Tekton has substituted the run's name, namespace and uid, with short ones in their place.
fn parse(values: &Values<'_>, param: &str, value: &str) -> Result<Target, Refusal> {
    let sample = substitute(value, |_| Some("x".to_owned()));
    let sample = sample.as_deref().unwrap_or(value);
    sample.parse().map_err(|error| values.invalid(param, format!("{error}")))
}

/// What is left of another tool's template, which would otherwise end as an odd name of a repository.
fn check_template(values: &Values<'_>, param: &str, value: &str) -> Result<(), Refusal> {
    let rest = value.replace(WORKSPACE, "");
    let Some((_, template)) = rest.split_once("{{") else { return Ok(()) };
    let (inner, _) = template.split_once("}}").unwrap_or((template, ""));
    let problem = match inner.trim() {
        "workspace" => format!("write {WORKSPACE} without spaces, or $(workspace)"),
        _ => format!("it has {:?} in it: a template that its tool has not rendered", format!("{{{{{inner}}}}}")),
    };
    Err(values.invalid(param, problem))
}

fn check_wrapper(values: &Values<'_>, wrapper: &str, target: &Target, text: &str) -> Result<(), Refusal> {
    let scheme = match target {
        Target::Registry(_) => "oci",
        Target::Dir { .. } => "dir",
    };
    if wrapper == scheme {
        return Ok(());
    }
    let problem = format!("{wrapper:?} does not agree with the target {text:?}, which is of kind {scheme:?}");
    Err(values.invalid("wrapper", problem))
}

/// What follows `wrap.` in the name of our resolver; none where it is not ours.
fn wrapper_of(resolver: &str) -> Option<Option<&str>> {
    match resolver.strip_prefix("wrap")? {
        "" => Some(None),
        rest => rest.strip_prefix('.').map(Some),
    }
}
