//! What a run asks for, read and checked: by params of the resolver `wrap` or by annotations, with defaults.

mod access;
mod auto;
mod cache;
mod conflict;
mod opt_in;
mod paths;
mod retention;
mod size;
mod values;

use std::collections::HashSet;

use serde_json::Value;

use self::values::{Values, WORKSPACE, quoted};
pub use self::{
    access::RegistryAccess,
    cache::Cache,
    opt_in::OptIn,
    paths::Paths,
    retention::Retention,
    size::Sizes,
    values::{PARAMS, is_default},
};
use super::refusal::Refusal;
use crate::{
    step::{Compression, ConflictRule, OnConflict},
    target::{RsyncTransport, Target},
    tekton::{
        fields::{ambiguous_key, field, items, text},
        reference::Reference,
        run::Run,
        workspaces::workspaces,
    },
};

/// Schemes of places that the program rsync reaches.
const RSYNC: [&str; 2] = ["rsync", "rsync+ssh"];

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
    /// What is kept, and how long.
    pub retention: Retention,
    /// Param `failed`: whether the files of failed tasks are saved.
    pub saves_failed: bool,
    /// Param `compression`.
    pub compression: Compression,
    /// Param `size`.
    pub sizes: Sizes,
    /// Param `paths`.
    pub paths: Paths,
    /// Param `cache`.
    pub caches: Vec<Cache>,
    /// How the injected steps reach registries.
    pub access: RegistryAccess,
    /// A part of names that nobody can have guessed who wrote what is read only when a task runs: 16 hexadecimal digits.
    pub secret: Option<String>,
}

/// Refuses an object with fields that Tekton may read differently than they are read here; `what` names it.
pub fn check_keys(object: &Value, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    let refused = |key: &str| Err(Refusal::AmbiguousField { what: what(), key: key.to_owned() });
    ambiguous_key(object).map_or(Ok(()), refused)
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

    /// Whether the injected steps run rsync.
    pub fn uses_rsync(&self) -> bool {
        let places = [Some(&self.target), self.base.as_ref()].into_iter().flatten();
        places.filter_map(|place| place.split_once("://")).any(|(scheme, _)| RSYNC.contains(&scheme))
    }

    /// The name of `pipeline`; one that a resolver brought may have none, an embedded one has that of its run.
    pub fn pipeline_name<'a>(&'a self, pipeline: &'a Value) -> &'a str {
        match &self.pipeline {
            Some(Reference::Name(name)) => name,
            Some(Reference::Remote { .. }) => field(pipeline, "metadata").map_or("", |metadata| text(metadata, "name")),
            None => &self.run_name,
        }
    }

    /// The value of `$(context.pipeline.name)` in `pipeline`: that of an embedded one is the name of `run`, which the API server may
    /// have yet to generate (Tekton: pipelinespec.go).
    pub fn known_name<'a>(&'a self, run: Run<'a>, pipeline: &'a Value) -> Option<&'a str> {
        match self.pipeline {
            Some(_) => Some(self.pipeline_name(pipeline)),
            None => run.name(),
        }
    }

    /// The spec of `pipeline`, which must have the workspaces to wrap: declared, or used by embedded tasks.
    pub fn pipeline_spec<'a>(&self, pipeline: &'a Value) -> Result<&'a Value, Refusal> {
        let name = || self.pipeline_name(pipeline).to_owned();
        let incomplete = |field| Refusal::Incomplete { kind: "pipeline", name: name(), field };
        let spec = field(pipeline, "spec").ok_or_else(|| incomplete("spec"))?;
        if items(spec, "tasks").is_empty() {
            return Err(incomplete("tasks"));
        }
        let declared: Vec<&str> = items(spec, "workspaces").iter().map(|declared| text(declared, "name")).collect();
        let names: HashSet<&str> = declared.iter().copied().collect();
        let undeclared: Vec<&String> = self.workspaces.iter().filter(|name| !names.contains(name.as_str())).collect();
        if undeclared.is_empty() {
            return Ok(spec);
        }
        let used: HashSet<String> = workspaces(spec).into_iter().collect();
        if let Some(&workspace) = undeclared.iter().find(|name| !used.contains(**name)) {
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
            if matches!(&target, Target::Rsync(place) if place.transport == RsyncTransport::Ssh && self.access.credentials.is_none())
            {
                let hint = "rsync+ssh:// takes a Secret with a private key and known_hosts, name it";
                return Err(values.missing("credentials", hint));
            }
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
        Ok(())
    }
}

/// Parses `value` as it may be once Tekton has substituted the run's name, namespace and uid.
fn parse(values: &Values<'_>, param: &str, value: &str) -> Result<Target, Refusal> {
    values.longest(value).parse().map_err(|error| values.invalid(param, format!("{error}")))
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
        Target::S3(_) => "s3",
        Target::Gcs(_) => "gcs",
        Target::Rsync(_) => "rsync",
    };
    if wrapper == scheme {
        return Ok(());
    }
    if wrapper == "cache" {
        return Err(values.invalid("wrapper", "there is no kind \"cache\": use resolver wrap with param \"cache\""));
    }
    let problem = format!("{wrapper:?} does not agree with the target {text:?}, which is of kind {scheme:?}");
    Err(values.invalid("wrapper", problem))
}
