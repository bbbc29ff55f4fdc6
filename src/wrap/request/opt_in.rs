//! That a run asks to be wrapped, and how it asks.

use serde_json::Value;

use super::{
    Paths, Request, Retention, Sizes, access::RegistryAccess, auto, cache, check_keys, conflict, values::Values,
};
use crate::{
    annotations::WRAP,
    limits::{Exceeded, MAX_VALUES, MAX_WORKSPACES},
    source::{Defaults, OptInBy},
    step::{Compression, stored::is_wrapped},
    tekton::{
        fields::{field, items, text},
        reference::{Reference, is_object_name},
        run::Run,
        scope::{Scope, VariableError},
    },
    wrap::{bounds, intact, refusal::Refusal},
};

/// The word for the workspaces that tasks share, in the place of their names.
const AUTO: &str = "auto";

/// The word that keeps a run from being wrapped for its namespace's sake, in the place of names.
const NONE: &str = "none";

/// That a run is to be wrapped, and which Pipeline it runs: all that has to be known before anything is read.
#[derive(Clone, Debug)]
pub struct OptIn<'a> {
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

impl<'a> OptIn<'a> {
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
            (Some(reference), Some(Some("cache"))) => Err(cache_resolver(reference)),
            (Some(reference), Some(suffix)) => match text(reference, "name") {
                "" => {
                    let values = Values::collect(run, namespace, Some(reference), &[])?;
                    let pipeline = Some(named_pipeline(&values)?);
                    Ok(Some(Self { run, namespace, way: Way::Resolver { reference, suffix }, pipeline }))
                }
                name => Err(Refusal::NamedTwice(name.to_owned())),
            },
            // What was wrapped before may be created again, as reruns do, or be shown to us a second time.
            _ if run.pipeline_spec().is_some_and(is_wrapped) => intact::check(run).map(|()| None),
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

    /// The whole request, for `pipeline`: the Pipeline, or [`OptIn::embedded`]. None if there is nothing to do.
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
        let of_namespace = matches!(self.way, Way::Namespace);
        let is_auto = match values.value("workspaces") {
            None => of_namespace,
            Some(_) => params.is_none() && values.workspaces().is_ok_and(|words| words == [AUTO]),
        };
        let spec = field(pipeline, "spec").filter(|_| is_auto);
        let shared = spec.map(|spec| auto::shared_workspaces(self.run, spec)).unwrap_or_default();
        if of_namespace && is_auto && shared.is_empty() {
            return Ok(None);
        }
        let target = values.text("target")?.ok_or_else(|| {
            values.missing(
                "target",
                "name where the workspaces go, for example quay.io/me/ci:$(context.pipelineRun.name)-{{workspace}}",
            )
        })?;
        let workspaces = if is_auto { shared } else { values.workspaces()? };
        if workspaces.is_empty() {
            return Err(Refusal::NothingToWrap);
        }
        // Names in variables are workspaces too, and nothing bounds their number.
        Exceeded::check(workspaces.len(), MAX_WORKSPACES, "workspaces that its tasks share", || {
            format!("pipeline {:?}", text(metadata, "name"))
        })?;
        let saves_failed = values.choice("failed", &[("discard", false), ("save", true)])?;
        let (conflict_rules, conflict) = conflict::read(&values)?;
        let metadata = field(self.run.object(), "metadata").unwrap_or(&Value::Null);
        let run_name = self.run.name().unwrap_or_else(|| text(metadata, "generateName")).to_owned();
        let request = Request {
            pipeline: self.pipeline.clone(),
            run_name,
            replaces_templates: params.is_none(),
            only_if_same: of_namespace && decided_by.is_none() && !saves_failed,
            base: values.text("base")?,
            conflict,
            conflict_rules,
            retention: Retention::read(&values)?,
            saves_failed,
            compression: values.choice(
                "compression",
                &[("zstd", Compression::Zstd), ("gzip", Compression::Gzip), ("none", Compression::None)],
            )?,
            sizes: Sizes::read(&values, &workspaces)?,
            paths: Paths::read(&values, &workspaces, field(pipeline, "spec"))?,
            caches: cache::read(&values, &workspaces, field(pipeline, "spec"), &target)?,
            access: RegistryAccess::read(&values)?,
            secret: None,
            workspaces,
            target,
        };
        request.check(&values, suffix)?;
        Ok(Some(request))
    }

    /// The run's embedded Pipeline, as if it were an object.
    pub fn embedded(&self) -> Option<Value> {
        self.run.pipeline_spec().map(|spec| serde_json::json!({"spec": spec}))
    }
}

/// What is said of `resolver: wrap.cache`, with the run's own words as far as they are short.
fn cache_resolver(reference: &Value) -> Refusal {
    let param = |name: &str| {
        let param = items(reference, "params").iter().find(|param| text(param, "name") == name);
        param.map_or("", |param| text(param, "value")).trim()
    };
    let fits = |value: &&str| !value.is_empty() && value.len() <= 100 && !value.contains(['$', '\n']);
    let files = Some(param("files")).filter(fits).unwrap_or("**/go.sum");
    let workspaces = Some(param("workspaces")).filter(fits).unwrap_or("cache");
    let entry = |name: &str| format!("{}=SOURCES/{}", name.trim(), files.trim_start_matches('/'));
    Refusal::CacheResolver { example: workspaces.split(',').map(entry).collect::<Vec<_>>().join(", ") }
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
    let documents = if is_object_name(value) { Ok(Vec::new()) } else { crate::yaml::parse_within(value, MAX_VALUES) };
    let reference = match documents.as_deref() {
        Ok([document @ Value::Object(_)]) => {
            Reference::read(document, &["apiVersion"]).map_err(|problem| bad(format!("it {problem}")))?
        }
        Ok([_, _, ..]) => return Err(bad("it has several YAML documents: keep one".to_owned())),
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

/// What follows `wrap.` in the name of our resolver; none where it is not ours.
fn wrapper_of(resolver: &str) -> Option<Option<&str>> {
    match resolver.strip_prefix("wrap")? {
        "" => Some(None),
        rest => rest.strip_prefix('.').map(Some),
    }
}
