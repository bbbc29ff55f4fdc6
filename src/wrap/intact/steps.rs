//! What the injected steps of a task say, read as far as every version writes it.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    limits::MAX_WORKSPACES,
    step::{
        ENV, EarlierRun, RUNTIME_VARIABLES, StepConfig,
        stored::{is_injected, told},
    },
    tekton::{
        fields::{field, items, text},
        workspaces::{Use, uses},
    },
};

/// What the injected steps of one task do, by the names of workspaces.
#[derive(Default)]
pub struct TaskSteps<'a> {
    /// For each workspace that is restored, the tasks that its snapshot comes from, with their orders.
    pub restored: HashMap<String, BTreeSet<(String, u32)>>,
    /// Those that are saved.
    pub saved: BTreeSet<String>,
    /// Where each of them is.
    pub places: HashMap<String, WorkspacePlace>,
    /// Whether a step of the task itself stands before the restore or behind the save.
    pub displaced: bool,
    /// Whether tasks of earlier runs stand before it: it is one of a rerun.
    pub goes_on: bool,
    /// The task's name when they were injected.
    pub task: Option<String>,
    /// How many combinations its matrix may have: they have as many orders, from this one on.
    pub combinations: u32,
    order: u32,
    /// The workspaces that the task has.
    pub uses: Vec<Use>,
    /// Its embedded Task.
    pub spec: Option<&'a Value>,
}

/// Where the steps have a workspace.
#[derive(Default)]
pub struct WorkspacePlace {
    /// Its targets, with variables in them: one, unless the steps of the task name several.
    pub targets: BTreeSet<String>,
    /// What it starts with, if anything: the same for all steps.
    pub bases: BTreeSet<Option<String>>,
    /// Whether a step does not have the whole volume mounted where it looks for it.
    pub is_mounted_elsewhere: bool,
}

/// Whether a variable of the environment says what a step does, and of which run.
pub fn tells_steps(variable: &str) -> bool {
    variable == ENV || RUNTIME_VARIABLES.iter().any(|known| known.env == variable)
}

/// What is read of a [`StepConfig`], of whatever version.
#[derive(Deserialize)]
struct AnyStepConfig {
    run: String,
    task: String,
    order: u32,
    matrix: Option<AnyMatrix>,
    #[serde(default)]
    earlier: Vec<EarlierRun>,
    workspaces: Vec<ConfigWorkspace>,
}

#[derive(Deserialize)]
struct AnyMatrix {
    most: u32,
}

#[derive(Deserialize)]
struct ConfigWorkspace {
    name: String,
    path: String,
    target: String,
    base: Option<String>,
    #[serde(default)]
    after: Vec<ConfigPredecessor>,
}

#[derive(Deserialize)]
struct ConfigPredecessor {
    task: String,
    order: u32,
}

impl<'a> TaskSteps<'a> {
    /// Those of `pipeline_task`; a clause that follows its name if they are not as they were injected.
    pub fn read(pipeline_task: &'a Value) -> Result<Self, &'static str> {
        let spec = field(pipeline_task, "taskSpec");
        let mut injected = Self { uses: uses(pipeline_task), spec, ..Self::default() };
        let steps = spec.map_or(&[][..], |spec| items(spec, "steps"));
        let own = steps.iter().enumerate().filter(|(_, step)| is_injected(step));
        for (before, (index, step)) in own.enumerate() {
            let is_last = index == steps.len().saturating_sub(1);
            let is_restore = match (items(step, "command"), items(step, "args")) {
                ([_], [verb]) if verb == "restore" => true,
                ([_], [verb]) if verb == "save" => false,
                _ => return Err("has an injected step with other arguments"),
            };
            if !items(step, "when").is_empty() || !text(step, "onError").is_empty() {
                return Err("has an injected step that may be skipped or whose failure is ignored");
            }
            if before >= INJECTED {
                return Err("has more injected steps than are injected");
            }
            let unreadable = "has an injected step that can't be read";
            let told = told(step).ok().flatten().ok_or(unreadable)?;
            let config = serde_json::from_str(told).ok();
            let config: AnyStepConfig =
                config.filter(|config: &AnyStepConfig| config.workspaces.len() <= MAX_WORKSPACES).ok_or(unreadable)?;
            if config.run != RUN || !has_own_variables(step, told) {
                return Err("has an injected step that is told of another run");
            }
            injected.displaced |= if is_restore { index != 0 } else { !is_last };
            injected.take(config, is_restore, items(step, "volumeMounts"));
        }
        Ok(injected)
    }

    fn take(&mut self, config: AnyStepConfig, is_restore: bool, mounts: &[Value]) {
        self.task = Some(config.task);
        self.order = config.order;
        self.combinations = config.matrix.map_or(1, |matrix| matrix.most);
        self.goes_on |= !config.earlier.is_empty();
        let is_earlier = |order| config.earlier.iter().any(|earlier| StepConfig::in_ranges(&earlier.tasks, order));
        for workspace in config.workspaces {
            let used = self.uses.iter().find(|used| used.pipeline == workspace.name);
            let volume = format!("$(workspaces.{}.volume)", used.map_or(&workspace.name, |used| &used.task));
            let is_whole = |mount: &Value| ["subPath", "subPathExpr"].iter().all(|part| text(mount, part).is_empty());
            let is_its_own = |mount: &Value| {
                text(mount, "mountPath") == workspace.path && text(mount, "name") == volume && is_whole(mount)
            };
            let place = self.places.entry(workspace.name.clone()).or_default();
            place.is_mounted_elsewhere |= !mounts.iter().any(is_its_own);
            place.targets.insert(workspace.target);
            place.bases.insert(workspace.base);
            if is_restore {
                let here = workspace.after.into_iter().filter(|before| !is_earlier(before.order));
                let tasks = here.map(|before| (before.task, before.order)).collect();
                self.restored.insert(workspace.name, tasks);
            } else {
                self.saved.insert(workspace.name);
            }
        }
    }

    /// Whether one of its combinations has this order.
    pub fn has_order(&self, order: u32) -> bool {
        order.checked_sub(self.order).is_some_and(|combination| combination < self.combinations)
    }
}

/// A restore step and a save step.
const INJECTED: usize = 2;

/// How a configuration names the run that it is for.
const RUN: &str = "$(context.pipelineRun.uid)";

/// Whether each variable that is known only when the step runs has the value that Tekton gives it, where the configuration `told` leaves
/// it to one: earlier versions wrote Tekton's variables into the configuration itself.
fn has_own_variables(step: &Value, told: &str) -> bool {
    let env = items(step, "env");
    RUNTIME_VARIABLES.iter().all(|variable| {
        let own: Vec<&Value> = env.iter().filter(|own| text(own, "name") == variable.env).collect();
        let is_left_to_it = told.contains(&format!("\\u0024({})", variable.reference));
        match own[..] {
            [] => !is_left_to_it,
            [own] => text(own, "value") == format!("$({})", variable.reference),
            _ => false,
        }
    })
}
