//! What the injected steps mount is theirs alone: names of volumes that no step of the user mounts, and paths that nothing else is
//! put over.

use serde_json::Value;

use super::{
    known::{KnownText, TaskValues},
    refusal::TaskProblem,
    request::Request,
};
use crate::{
    step::ROOT,
    tekton::{
        fields::{field, items, text},
        run::Run,
        scope::Scope,
        workspaces::mount_path,
    },
};

/// Folders that injected steps with a Secret of their own read besides: programs, certificates, addresses, credentials.
const READ: [&str; 4] = ["/etc", "/bin", "/usr", "/.docker"];

/// A path that all steps mount and that hides, or may hide, files of the injected ones, and which these are. A stepTemplate does
/// not reach `isolated` ones, but nothing else may be put before them either.
pub fn mounted_over(task: &Value, scope: &Scope<'_>, isolated: bool) -> Option<(String, &'static str)> {
    let spec = field(task, "taskSpec")?;
    let workspaces: Vec<String> = items(spec, "workspaces").iter().map(mount_path).collect();
    let template = field(spec, "stepTemplate").map_or(&[][..], |template| items(template, "volumeMounts"));
    let mounts = template.iter().map(|mount| text(mount, "mountPath").to_owned());
    let values = TaskValues::new(task, scope);
    let hides = |path: &str, root: &str| {
        let (path, root) = (values.path(path), values.path(root));
        path.may_be_in(&root) || root.may_be_in(&path)
    };
    let read = if isolated { &READ[..] } else { &[] };
    let own = workspaces.iter().find_map(|path| Some((path.clone(), *read.iter().find(|root| hides(path, root))?)));
    let root = || workspaces.iter().cloned().chain(mounts).find(|path| hides(path, ROOT)).map(|path| (path, ROOT));
    root().or(own)
}

/// The names of the volumes of a task's pod.
pub struct VolumeNames {
    /// The names of those that the task or a pod template declares.
    declared: Vec<KnownText>,
    /// The names of those that the task's own containers mount, declared or not; each as it is written, with what it will be.
    mounted: Vec<(String, KnownText)>,
    /// What stands behind our names where a step is a StepAction: what that mounts is known only when the task runs.
    secret: Option<String>,
}

impl VolumeNames {
    /// Those of `task`, before anything is injected.
    pub fn new(task: &Value, run: Run<'_>, request: &Request, scope: &Scope<'_>) -> Self {
        let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
        let steps = items(spec, "steps");
        let containers = steps.iter().chain(items(spec, "sidecars")).chain(field(spec, "stepTemplate"));
        let mounts = containers.flat_map(|container| {
            ["volumeMounts", "volumeDevices"].into_iter().flat_map(|list| items(container, list))
        });
        let of_pods = run.pod_templates().flat_map(|template| items(template, "volumes"));
        let declared = items(spec, "volumes").iter().chain(of_pods).map(|volume| text(volume, "name"));
        let values = TaskValues::new(task, scope);
        let has_actions = steps.iter().any(|step| field(step, "ref").is_some());
        Self {
            declared: declared.map(|name| values.text(name)).collect(),
            mounted: mounts.map(|mount| text(mount, "name")).map(|name| (name.to_owned(), values.text(name))).collect(),
            secret: request.secret.clone().filter(|_| has_actions),
        }
    }

    /// A name like `wanted` that none of them has, and that none that is mounted may have.
    pub fn free(&self, wanted: &str) -> Result<String, TaskProblem> {
        let wanted = self.secret.as_ref().map_or_else(|| wanted.to_owned(), |secret| format!("{wanted}-{secret}"));
        let mounted = self.mounted.iter().map(|(_, name)| name);
        let known: Vec<&str> = self.declared.iter().chain(mounted).filter_map(KnownText::whole).collect();
        let name = free_name(&wanted, &known);
        match self.mounted.iter().find(|(_, other)| other.may_be(&name)) {
            Some((template, _)) => Err(TaskProblem::LateVolume(template.clone())),
            None => Ok(name),
        }
    }
}

/// `wanted`, or with a number appended if it is one of `others`.
pub fn free_name(wanted: &str, others: &[&str]) -> String {
    let taken = |name: &str| others.contains(&name);
    let numbered = (1..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}
