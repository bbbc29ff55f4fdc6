//! Plays a random run: the real rewrite, restore and save, each task in folders of its own, compared with the model at
//! every step.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
};

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tekton_wrap::{
    render::FileObjects,
    rerun::{self, Rerun, RerunRefusal, RerunScope},
    resolve::wrap_run,
    step::{ENV, STATE_DIR, StepConfig},
    tekton::graph::Graph,
    workspace::{self, Error},
    wrap::Settings,
};

use crate::{
    edits,
    model::{Key, Left, Merged, Model, Observed},
    pipeline::{End, Next, Pipeline, Script, Use, WORKSPACES},
    place::Place,
    seen,
};

/// Key of what the workspaces start with.
const BASE: Key = (0, 0);

const UID: &str = "0f0e8a3c-5b7d-4a55-9a8f-1c2d3e4f5a6";

/// A run in a folder of its own.
struct Play<'a> {
    pipeline: &'a Pipeline,
    folder: &'a Path,
    place: Place,
    /// Which of its reruns it is; 0 for the first run.
    number: usize,
    /// The wrapped run.
    run: Value,
    /// The place of each task in pipeline order, counted from 1.
    places: Vec<usize>,
    /// The injected steps of each task.
    steps: Vec<Steps>,
    models: [Model; 2],
    /// What each target holds, once it is written.
    targets: [Option<Merged>; 2],
    /// Whether a task of this run has saved each workspace.
    written: [bool; 2],
}

/// The configurations of a task's injected steps, variables not yet replaced.
struct Steps {
    restore: Option<String>,
    save: Option<String>,
    /// Whether they share a volume for what restore leaves for save.
    state: bool,
}

/// How a TaskRun ended: what it left of each workspace that it saved.
enum Ended {
    Saved(Vec<(usize, Left)>),
    Failed(Vec<(usize, Left)>),
    NotRestored,
}

/// The exit code of steps that fail.
const CODE: u8 = 3;

/// Plays `pipeline`; the error says where the product and the model differ.
pub fn play(pipeline: &Pipeline) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let result = Play::new(pipeline, folder.path()).and_then(|mut play| play.all().map(drop));
    // So that directories with odd modes can be removed.
    seen::open_up(folder.path());
    result
}

/// Plays `pipeline`, and then reruns of it in which no task fails by itself: each from the task of the run before that the
/// number picks, or from what failed. The error says where a rerun sees something else than the whole run would.
pub fn play_again(pipeline: &Pipeline, starts: &[Option<usize>]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut whole = pipeline.clone();
    whole.tasks.iter_mut().for_each(|task| task.fails = 0);
    let result = Play::new(pipeline, folder.path()).and_then(|play| all_again(play, &whole, starts));
    seen::open_up(folder.path());
    result
}

fn all_again<'a>(mut play: Play<'a>, whole: &'a Pipeline, starts: &[Option<usize>]) -> Result<(), String> {
    let mut ends = play.all()?;
    for start in starts {
        let Some(rerun) = play.planned(&ends, *start)? else { return Ok(()) };
        play = play.again(whole, rerun);
        ends = play.all().map_err(|problem| format!("rerun {}: {problem}", play.number))?;
    }
    Ok(())
}

impl<'a> Play<'a> {
    fn new(pipeline: &'a Pipeline, folder: &'a Path) -> Result<Self, String> {
        let mut models = [Model::default(), Model::default()];
        let place = Place::new(folder);
        let base = match &pipeline.base {
            Some(script) => {
                let dir = folder.join("base");
                fs::create_dir(&dir).expect("a new folder");
                edits::apply(&dir, script);
                let image = place.image("base-image");
                workspace::save_dir(&dir, &image, None).map_err(|e| format!("the base can't be saved: {e}"))?;
                let nothing = (Merged::default(), Observed::nothing());
                let left = Left::new(BTreeSet::new(), &nothing.0, &nothing.0, &nothing.1, &Observed::new(&dir));
                models.iter_mut().for_each(|model| model.add(BASE, left.clone()));
                Some(image)
            }
            None => None,
        };
        let run = wrapped(&pipeline.objects(&place.image("store/{{workspace}}"), base.as_deref()))?;
        let steps = steps(pipeline, &run);
        let order = pipeline.order();
        let in_order = |task| 1 + order.iter().position(|placed| *placed == task).expect("all tasks have a place");
        let places = (0..pipeline.tasks.len()).map(in_order).collect();
        let (targets, written) = ([None, None], [false; 2]);
        Ok(Self { pipeline, folder, place, number: 0, run, places, steps, models, targets, written })
    }

    /// The rerun of this run, whose tasks ended like this; none where nothing failed.
    fn planned(&self, ends: &[Option<End>], start: Option<usize>) -> Result<Option<Rerun>, String> {
        let here: Vec<usize> = (0..ends.len()).filter(|&task| self.has(task)).collect();
        let scope =
            start.map_or(RerunScope::Failed, |start| RerunScope::From(format!("t{}", here[start % here.len()])));
        let (run, children) = self.stored(&here, ends);
        let rerun = match rerun::plan(&run, &children, &scope, &[]) {
            Err(RerunRefusal::NothingFailed(_)) => return Ok(None),
            planned => planned.map_err(|refusal| format!("{scope:?}: {refusal}"))?,
        };
        for name in &rerun.left_out {
            let text = rerun.run.to_string();
            if text.contains(&format!("$(tasks.{name}.")) || text.contains(&format!("{name:?}]")) {
                return Err(format!("{name} is left out, but {:#} refers to it", rerun.run["spec"]));
            }
        }
        Graph::new(&rerun.run["spec"]["pipelineSpec"]).map_err(|e| e.to_string())?;
        // Once more through the webhook, which must leave it alone.
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let again = runtime.block_on(wrap_run(&FileObjects::default(), &rerun.run, "ns", &settings()));
        if again.map_err(|refusal| format!("the webhook refuses the rerun: {refusal}"))?.is_some() {
            return Err("the webhook wraps the rerun again".to_owned());
        }
        Ok(Some(rerun))
    }

    /// The run and its TaskRuns as Tekton would store them.
    fn stored(&self, here: &[usize], ends: &[Option<End>]) -> (Value, Vec<Value>) {
        let (mut references, mut children, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        let condition = |is: bool| json!([{"type": "Succeeded", "status": if is { "True" } else { "False" }}]);
        for &task in here {
            let end = ends[task].expect("the run is over");
            let name = format!("t{task}");
            if let End::SkippedByWhen | End::SkippedOtherwise = end {
                skipped.push(json!({"name": name, "reason": self.pipeline.skipping_reason(task, ends)}));
                continue;
            }
            let combinations = self.pipeline.tasks[task].combinations();
            for number in 0..combinations {
                let run = self.task_run(task, number);
                references.push(json!({"kind": "TaskRun", "name": run, "pipelineTaskName": name}));
                // The first combination is the one that fails.
                let failed = end != End::Succeeded && number == 0;
                let list: Vec<String> = (0..self.pipeline.list()).map(|number| number.to_string()).collect();
                let results = json!([{"name": "r", "type": "string", "value": format!("of {name}")},
                    {"name": "list", "type": "array", "value": list}]);
                let status = json!({"conditions": condition(!failed), "results": results});
                children.push(json!({"kind": "TaskRun", "metadata": {"name": run}, "status": status}));
            }
        }
        let mut run = self.run.clone();
        run["metadata"]["name"] = json!("r");
        run["metadata"]["uid"] = json!(self.uid());
        run["metadata"]["namespace"] = json!("ns");
        let failed = ends.iter().any(|end| *end != Some(End::Succeeded));
        run["status"] =
            json!({"conditions": condition(!failed), "childReferences": references, "skippedTasks": skipped});
        (run, children)
    }

    /// The same run again, as `rerun` says.
    fn again(self, pipeline: &'a Pipeline, rerun: Rerun) -> Self {
        let steps = steps(pipeline, &rerun.run);
        let mut play = Self {
            pipeline,
            folder: self.folder,
            place: self.place,
            number: self.number + 1,
            run: rerun.run,
            places: self.places,
            steps,
            models: self.models,
            targets: self.targets,
            written: [false; 2],
        };
        // What tasks that run again left before counts for nothing.
        for task in (0..pipeline.tasks.len()).filter(|&task| play.has(task)).collect::<Vec<_>>() {
            play.models.iter_mut().for_each(|model| model.forget(play.places[task]));
        }
        play
    }

    fn uid(&self) -> String {
        format!("{UID}{}", self.number)
    }

    fn task_run(&self, task: usize, number: usize) -> String {
        match self.pipeline.tasks[task].combinations() {
            1 => format!("r-t{task}"),
            _ => format!("r-t{task}-{number}"),
        }
    }

    /// Whether the run has this task.
    fn has(&self, task: usize) -> bool {
        let spec = &self.run["spec"]["pipelineSpec"];
        let lists = ["tasks", "finally"].into_iter().filter_map(|list| spec[list].as_array());
        lists.flatten().any(|found| found["name"] == format!("t{task}"))
    }

    /// Tasks one after the other where conflicts are errors, for it depends on who comes first what fails; else as parallel
    /// as they are.
    fn all(&mut self) -> Result<Vec<Option<End>>, String> {
        let end = |task| if self.has(task) { None } else { Some(End::Succeeded) };
        let mut ends: Vec<Option<End>> = (0..self.pipeline.tasks.len()).map(end).collect();
        while ends.iter().any(Option::is_none) {
            let mut ready = Vec::new();
            for task in (0..ends.len()).filter(|&task| ends[task].is_none()).collect::<Vec<_>>() {
                match self.pipeline.next(task, &ends) {
                    Next::Wait => {}
                    Next::Skip(end) => ends[task] = Some(end),
                    Next::Start => ready.push(task),
                }
            }
            if !self.pipeline.last {
                ready.sort_by_key(|&task| self.pipeline.tasks[task].urgency);
                ready = ready.pop().into_iter().collect();
            }
            for (task, end) in self.start(&ready)? {
                ends[task] = Some(end);
            }
        }
        Ok(ends)
    }

    /// Plays all combinations of `tasks`.
    fn start(&mut self, tasks: &[usize]) -> Result<Vec<(usize, End)>, String> {
        let numbers = |&task: &usize| (0..self.pipeline.tasks[task].combinations()).map(move |number| (task, number));
        let all: Vec<(usize, usize)> = tasks.iter().flat_map(numbers).collect();
        let mut ends = vec![End::Succeeded; self.pipeline.tasks.len()];
        let together = if self.pipeline.last { all.len().max(1) } else { 1 };
        for all in all.chunks(together) {
            let play: &Self = self;
            let played: Vec<_> = thread::scope(|scope| {
                let start = |&(task, number)| scope.spawn(move || play.attempts(task, number));
                let threads: Vec<_> = all.iter().map(start).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
                    .collect()
            });
            for (&(task, number), ended) in all.iter().zip(played) {
                let left = match ended.map_err(|problem| format!("t{task}[{number}]: {problem}"))? {
                    Ended::Saved(left) => left,
                    Ended::Failed(left) => {
                        ends[task] = End::Failed;
                        left
                    }
                    Ended::NotRestored => {
                        ends[task] = End::NotRestored;
                        Vec::new()
                    }
                };
                for (workspace, left) in left {
                    self.models[workspace].add((self.places[task], number), left);
                    self.written[workspace] = true;
                }
            }
            self.check_targets().map_err(|problem| format!("after {all:?}: {problem}"))?;
        }
        Ok(tasks.iter().map(|&task| (task, ends[task])).collect())
    }

    /// One TaskRun.
    fn attempts(&self, task: usize, number: usize) -> Result<Ended, String> {
        let uses = |workspace: usize| self.pipeline.tasks[task].uses[workspace];
        let used: Vec<usize> = (0..2).filter(|&workspace| uses(workspace) != Use::No).collect();
        let ancestors: BTreeSet<usize> = self.pipeline.ancestors(task).iter().map(|&task| self.places[task]).collect();
        let given = |workspace: usize| -> BTreeSet<Key> {
            let before = |key: &Key| *key == BASE || ancestors.contains(&key.0);
            self.models[workspace].saved().into_iter().filter(before).collect()
        };
        let wanted: Vec<Merged> =
            used.iter().map(|&workspace| self.models[workspace].merge(&given(workspace))).collect();
        let in_conflict = !self.pipeline.last && wanted.iter().any(|merged| !merged.conflicts.is_empty());
        let mut ended = Ended::Failed(Vec::new());
        for attempt in 0..=self.pipeline.tasks[task].retries {
            let folder = self.folder.join(format!("{}-t{task}-{number}-{attempt}", self.number));
            let dir = |workspace: usize| folder.join(WORKSPACES[workspace]);
            fs::create_dir_all(&folder).expect("a new folder");
            used.iter().for_each(|&workspace| fs::create_dir_all(dir(workspace)).expect("a new folder"));
            let state = folder.join("state");
            if self.steps[task].state {
                fs::create_dir(&state).expect("a new folder");
            }
            let config = |text: &Option<String>| self.config(text, task, number, attempt, &folder);
            let restore = config(&self.steps[task].restore);
            let steps = restore.iter().flat_map(|config| &config.workspaces);
            let restores: Vec<String> = steps.map(|workspace| workspace.name.clone()).collect();
            let restored = restore.map_or(Ok(()), |config| workspace::restore_task(config, &state));
            match (restored, in_conflict) {
                (Err(Error::Conflict { workspace, conflicts }), true) => {
                    lists(&wanted, &used, &workspace, &conflicts.to_string())?;
                    ended = Ended::NotRestored;
                    continue;
                }
                (Err(problem), _) => return Err(format!("attempt {attempt}: restore: {problem}")),
                (Ok(()), true) => return Err("restore does not see the conflict".to_owned()),
                (Ok(()), false) => {}
            }
            let mut left = Vec::new();
            for (&workspace, wanted) in used.iter().zip(&wanted) {
                let before = Observed::new(&dir(workspace));
                let place = |problem| format!("attempt {attempt}: workspace {}: {problem}", WORKSPACES[workspace]);
                let is_restored = restores.iter().any(|name| name == WORKSPACES[workspace]);
                let paths = &self.pipeline.tasks[task].paths;
                let part = if is_restored { wanted.part(paths) } else { wanted.clone() };
                part.compare(before.tree()).map_err(place)?;
                if uses(workspace) == Use::Write {
                    let before = if is_restored { before } else { Observed::nothing() };
                    let script = &self.pipeline.tasks[task].scripts[number][workspace];
                    let after = work(&dir(workspace), script, task);
                    left.push((workspace, Left::new(given(workspace), wanted, &part, &before, &after)));
                }
            }
            let fails = number == 0 && attempt < self.pipeline.tasks[task].fails;
            if fails && !self.pipeline.saves_failed {
                continue;
            }
            let refused = left.iter().any(|(workspace, left)| self.refuses(*workspace, task, number, left));
            fs::write(folder.join("exitCode"), if fails { CODE.to_string() } else { "0".to_owned() })
                .expect("a new file");
            let saved = match config(&self.steps[task].save) {
                Some(config) => workspace::save_task(config, &state),
                None if left.is_empty() => Ok(if fails { CODE } else { 0 }),
                None => return Err("it has no save step".to_owned()),
            };
            match (saved, refused) {
                (Ok(CODE), _) if fails => {
                    let is_last = attempt == self.pipeline.tasks[task].retries;
                    ended = Ended::Failed(if is_last && !refused { left } else { Vec::new() });
                }
                (Err(Error::Conflict { .. }), true) => {}
                (Err(problem), _) => return Err(format!("attempt {attempt}: save: {problem}")),
                (Ok(0), true) => return Err("save does not see the conflict".to_owned()),
                (Ok(0), false) if !fails => return Ok(Ended::Saved(left)),
                (Ok(code), _) => return Err(format!("attempt {attempt}: save ends with exit code {code}")),
            }
        }
        Ok(ended)
    }

    /// Whether what `task` leaves is in conflict with a parallel task, and nobody later will certainly find that out.
    fn refuses(&self, workspace: usize, task: usize, number: usize, left: &Left) -> bool {
        let own = (self.places[task], number);
        let mut model = self.models[workspace].clone();
        model.add(own, left.clone());
        let merged = model.merge(&model.saved());
        let found_out = |other: &Key| {
            let other = self.places.iter().position(|place| *place == other.0).expect("a task has this place");
            let finds = |later: usize| {
                let ancestors = self.pipeline.ancestors(later);
                self.pipeline.tasks[later].uses[workspace] != Use::No
                    && self.pipeline.is_certain(later)
                    && [task, other].iter().all(|task| ancestors.contains(task))
            };
            (0..self.places.len()).any(finds)
        };
        let refused = |(winner, others): &(Key, BTreeSet<Key>)| match *winner == own {
            true => others.iter().any(|other| !found_out(other)),
            false => others.contains(&own) && !found_out(winner),
        };
        !self.pipeline.last && merged.conflicts.values().any(refused)
    }

    /// A target holds what all tasks so far left together, unless they are in conflict: then it stays as it was.
    fn check_targets(&mut self) -> Result<(), String> {
        for (workspace, name) in WORKSPACES.iter().enumerate() {
            let model = &self.models[workspace];
            let saved = model.saved();
            if self.written[workspace] {
                let merged = model.merge(&saved);
                if self.pipeline.last || merged.conflicts.is_empty() {
                    self.targets[workspace] = Some(merged);
                }
            }
            let found = self.place.read(&format!("store/{name}"));
            match (&self.targets[workspace], found) {
                (Some(wanted), Some(found)) => {
                    let mut wanted = wanted.clone();
                    wanted.tree.remove(Path::new(""));
                    wanted.compare(&found).map_err(|problem| format!("target {name}: {problem}"))?;
                }
                (None, None) => {}
                (wanted, found) => {
                    return Err(format!("target {name}: wanted: {}, there: {}", wanted.is_some(), found.is_some()));
                }
            }
        }
        Ok(())
    }

    /// The configuration that Tekton would give a step of an attempt, for workspaces in `folder`, where the exit code of the
    /// task's own step is too.
    fn config(
        &self,
        text: &Option<String>,
        task: usize,
        number: usize,
        attempt: u32,
        folder: &Path,
    ) -> Option<StepConfig> {
        let value = |name: &str| match name {
            "TEKTON_WRAP_RUN_UID" => Some(self.uid()),
            "TEKTON_WRAP_TASK_RUN" => Some(self.task_run(task, number)),
            "TEKTON_WRAP_RUN_NAME" => Some("r".to_owned()),
            "TEKTON_WRAP_RETRY" => Some(attempt.to_string()),
            _ => None,
        };
        let mut config = StepConfig::parse(text.as_ref()?, value).expect("a step's configuration");
        for step in &mut config.workspaces {
            step.path = folder.join(&step.name).display().to_string();
        }
        for own in config.after_failure.iter_mut().flat_map(|after| &mut after.steps) {
            own.exit_code = folder.join("exitCode").display().to_string();
        }
        Some(config)
    }
}

/// Does what the script says in `dir`.
fn work(dir: &Path, script: &Script, task: usize) -> Observed {
    seen::open_up(dir);
    // While a file is open, no new one has its inode.
    let open = |path: &PathBuf| rustix::fs::open(dir.join(path), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).ok();
    let _held: Vec<_> = seen::see(dir).keys().map(open).collect();
    if let Some((name, content)) = script.common {
        let path = dir.join(format!("common{name}"));
        let _ = fs::remove_dir_all(&path);
        let _ = fs::remove_file(&path);
        fs::write(path, content.to_string()).expect("the folder is writable");
    }
    let apart = dir.join(format!("t{task}"));
    match script.apart {
        true if fs::create_dir(&apart).is_ok() || apart.is_dir() && !apart.is_symlink() => {
            edits::apply(&apart, &script.edits);
        }
        _ => edits::apply(dir, &script.edits),
    }
    Observed::new(dir)
}

/// Whether a conflict's sentence is about the first workspace that has one and names all its paths, up to as many as are
/// listed.
fn lists(wanted: &[Merged], used: &[usize], workspace: &str, sentence: &str) -> Result<(), String> {
    let first = wanted.iter().zip(used).find(|(merged, _)| !merged.conflicts.is_empty());
    let Some((merged, &first)) = first else { return Err("there is no conflict".to_owned()) };
    let (listed, count) = (sentence.matches("(task ").count(), merged.conflicts.len());
    let plain =
        |path: &&PathBuf| path.to_str().is_some_and(|path| path.chars().all(|c| c.is_ascii_alphanumeric() || c == '/'));
    let missing = merged
        .conflicts
        .keys()
        .filter(plain)
        .find(|path| count <= listed && !sentence.contains(path.to_str().unwrap_or_default()));
    match workspace == WORKSPACES[first] && listed == count.min(20) && missing.is_none() {
        true => Ok(()),
        false => Err(format!("{:?} are in conflict, but the message is {workspace}: {sentence}", merged.conflicts)),
    }
}

/// Those of the webhook.
fn settings() -> Settings {
    Settings { has_rsync: true, ..Settings::new("i") }
}

/// The rewrite of the run among `objects`.
fn wrapped(objects: &Value) -> Result<Value, String> {
    let mut files = FileObjects::default();
    files.add(&objects.to_string()).expect("YAML");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let run = &objects["items"][0];
    let rewrite = runtime.block_on(wrap_run(&files, run, "ns", &settings())).map_err(|refusal| refusal.to_string())?;
    Ok(rewrite.expect("a run for the resolver wrap").run)
}

/// The injected steps of a wrapped run, by task. A task that a rerun leaves out has none.
fn steps(pipeline: &Pipeline, run: &Value) -> Vec<Steps> {
    let spec = &run["spec"]["pipelineSpec"];
    let lists: Vec<&Value> = ["tasks", "finally"].iter().filter_map(|list| spec[list].as_array()).flatten().collect();
    let of = |task: usize| {
        let name = format!("t{task}");
        let Some(task) = lists.iter().find(|found| found["name"] == *name) else {
            return Steps { restore: None, save: None, state: false };
        };
        let steps = task["taskSpec"]["steps"].as_array().expect("steps");
        let find = |verb: &str| steps.iter().find(|step| step["name"] == format!("tekton-wrap-{verb}"));
        let config = |step: &Value| {
            let env =
                step["env"].as_array().expect("env").iter().find(|env| env["name"] == ENV).expect("a configuration");
            env["value"].as_str().expect("text").to_owned()
        };
        let has_state = |step: Option<&Value>| {
            let mounts = step.and_then(|step| step["volumeMounts"].as_array());
            mounts.is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == STATE_DIR))
        };
        let (restore, save) = (find("restore"), find("save"));
        Steps { state: has_state(restore) && has_state(save), restore: restore.map(config), save: save.map(config) }
    };
    (0..pipeline.tasks.len()).map(of).collect()
}
