//! One attempt of a TaskRun: fresh volumes, one container for each step, the steps one after the other (Tekton:
//! pkg/pod/pod.go, pkg/workspace/apply.go, cmd/entrypoint).

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};

use super::{
    Line, Log, Runner,
    container::{Container, Exit, Mount},
    env,
    json::{items, name, text},
    replace,
    taskrun::Binding,
    vars::Vars,
    volume::{self, Places},
    when,
};

/// Where Tekton shows credentials: `$(credentials.path)`.
pub const CREDENTIALS: &str = "/tekton/creds";

/// The product's program in the image of the injected steps.
const PROGRAM: &str = "/tekton-wrap/bin/tekton-wrap";

/// What one attempt runs.
pub struct Pod<'a> {
    /// What the test gave.
    pub runner: &'a Runner,
    /// Where the steps' lines go.
    pub log: &'a Log,
    /// Name of the task in the pipeline.
    pub task: &'a str,
    /// The task's spec: variables replaced, stepTemplate merged, every step named.
    pub spec: &'a Value,
    /// Its workspaces.
    pub bindings: &'a [Binding],
    /// The pod's `metadata`, for the downward API.
    pub metadata: &'a Value,
    /// Where its volumes are.
    pub places: Places<'a>,
    /// When it is killed.
    pub deadline: Instant,
}

/// The step at hand.
struct Step<'a> {
    spec: &'a Value,
    name: &'a str,
    /// What is executed, unless its `script` says it.
    argv: Vec<String>,
}

/// Steps or sidecars, their containers, and whether these are in place.
type Started<'a> = (Vec<Step<'a>>, Vec<Container>, Vec<Result<(), String>>);

impl Pod<'_> {
    /// Runs the steps; the error says why the attempt failed.
    pub fn run(&self) -> Result<(), String> {
        let volumes = self.volumes()?;
        let (steps, containers, ready) = self.containers("steps", &volumes)?;
        let (sidecars, beside, beside_ready) = self.containers("sidecars", &volumes)?;
        if let Some(why) = beside_ready.into_iter().find_map(Result::err) {
            return Err(format!("a sidecar can't start: {why}"));
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Sidecars run as long as the steps do (Tekton: pkg/pod/entrypoint.go, StopSidecars).
            for (sidecar, container) in sidecars.iter().zip(beside) {
                let over = || over.load(Ordering::Relaxed);
                scope.spawn(move || self.run_container(sidecar, container, over));
            }
            let result = self.run_steps(&steps, containers, ready);
            over.store(true, Ordering::Relaxed);
            result
        })
    }

    /// The containers of all steps or sidecars, started, and whether they are in place.
    fn containers<'s>(&'s self, list: &str, volumes: &BTreeMap<&str, PathBuf>) -> Result<Started<'s>, String> {
        let specs = items(self.spec, list).iter().enumerate();
        let steps: Vec<_> = specs.map(|(i, spec)| self.step(list, i, spec)).collect::<Result<_, _>>()?;
        let mut containers = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let mounts = self.mounts(step, volumes)?;
            let dir = text(step.spec, "workingDir").unwrap_or("/workspace");
            let root = self.places.pod.join(format!("root-{list}-{i}"));
            containers.push(Container::start(&root, &mounts, dir).map_err(|e| e.to_string())?);
        }
        let ready = containers.iter_mut().map(Container::ready).collect();
        Ok((steps, containers, ready))
    }

    fn run_steps(
        &self,
        steps: &[Step<'_>],
        containers: Vec<Container>,
        ready: Vec<Result<(), String>>,
    ) -> Result<(), String> {
        let mut failure = None;
        for ((step, container), ready) in steps.iter().zip(containers).zip(ready) {
            // The steps before one that can't start run all the same; where more follow it, a real TaskRun never ends.
            let can_start = ready.map_err(|e| format!("the container of step {:?} can't start: {e}", step.name));
            match (&failure, can_start) {
                (Some(_), _) => container.drop_unused(),
                (None, Err(why)) => failure = Some(why),
                (None, Ok(())) => failure = self.run_step(step, container).err(),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// What the steps left of the task's results: strings, arrays or objects as declared.
    pub fn results(&self) -> BTreeMap<String, Value> {
        let mut vars = Vars::default();
        self.define_step_results(&mut vars);
        let result = |declared: &Value| {
            let value = match declared.get("value") {
                Some(value) => vars.value(value),
                None => read_result(&self.dir("results").join(name(declared)), text(declared, "type"))?,
            };
            Some((name(declared).to_owned(), value))
        };
        items(self.spec, "results").iter().filter_map(result).collect()
    }

    fn step<'s>(&self, list: &str, index: usize, spec: &'s Value) -> Result<Step<'s>, String> {
        let words = |key: &str| items(spec, key).iter().map(super::json::shown).collect::<Vec<_>>();
        let step = name(spec);
        fs::create_dir_all(self.dir("steps").join(format!("step-{step}/results"))).map_err(|e| e.to_string())?;
        let mut argv = words("command");
        if let Some(script) = text(spec, "script") {
            let file = format!("script-{list}-{index}");
            self.write_script(&file, script).map_err(|e| e.to_string())?;
            argv = vec![format!("/tekton/scripts/{file}")];
        }
        if argv.is_empty() {
            return Err(format!(
                "step {step:?} has neither command nor script: the runner knows no image's entrypoint"
            ));
        }
        argv.extend(words("args"));
        Ok(Step { spec, name: step, argv })
    }

    /// Tekton: pkg/pod/script.go.
    fn write_script(&self, file: &str, script: &str) -> std::io::Result<()> {
        let shebang = if script.starts_with("#!") { "" } else { "#!/bin/sh\nset -e\n" };
        let path = self.dir("scripts").join(file);
        fs::write(&path, format!("{shebang}{script}"))?;
        fs::set_permissions(path, PermissionsExt::from_mode(0o755))
    }

    fn run_step(&self, step: &Step<'_>, container: Container) -> Result<(), String> {
        let mut vars = Vars::default();
        self.define_step_results(&mut vars);
        let mut spec = step.spec.clone();
        replace::in_container(&vars, &mut spec);
        if !when::holds(items(&spec, "when"))? {
            container.drop_unused();
            return Ok(());
        }
        let argv = vars.list(&step.argv.iter().cloned().map(Value::String).collect::<Vec<_>>());
        let argv: Vec<_> = argv.iter().map(super::json::shown).collect();
        let limit = text(&spec, "timeout").map(duration).transpose()?;
        let deadline = limit.map_or(self.deadline, |l| self.deadline.min(Instant::now() + l));
        let step = Step { spec: &spec, name: step.name, argv };
        let code = match self.run_container(&step, container, || Instant::now() >= deadline)? {
            Exit::Killed => return Err(format!("step {:?} was killed at its deadline", step.name)),
            Exit::Status(status) => status.code().unwrap_or(-1),
        };
        let file = self.dir("steps").join(format!("step-{}/exitCode", step.name));
        fs::write(file, code.to_string()).map_err(|e| e.to_string())?;
        if code == 0 || text(&spec, "onError") == Some("continue") {
            return Ok(());
        }
        Err(format!("step {:?} exited with code {code}", step.name))
    }

    fn run_container(&self, step: &Step<'_>, container: Container, over: impl Fn() -> bool) -> Result<Exit, String> {
        let env = env::of_step(self.runner, step.spec, self.metadata)?;
        let argv: Vec<_> = step.argv.iter().map(|word| env::expand(word, &env)).collect();
        let print = |text| self.log.add(Line { task: self.task.to_owned(), step: step.name.to_owned(), text });
        container.run(&argv, &env, over, print).map_err(|e| e.to_string())
    }

    /// The folder behind each volume's name.
    fn volumes(&self) -> Result<BTreeMap<&str, PathBuf>, String> {
        let mut volumes = BTreeMap::new();
        for volume in items(self.spec, "volumes") {
            volumes.insert(name(volume), volume::folder(self.runner, self.places, volume, name(volume))?);
        }
        for binding in self.bindings {
            let folder = volume::folder(self.runner, self.places, &binding.source, &binding.volume)?;
            volumes.insert(&binding.volume, folder);
        }
        for dir in ["workspace", "home", "results", "steps", "scripts", "run"] {
            volume::open_folder(self.dir(dir))?;
        }
        Ok(volumes)
    }

    /// What a step's container mounts, outer paths first.
    fn mounts(&self, step: &Step<'_>, volumes: &BTreeMap<&str, PathBuf>) -> Result<Vec<Mount>, String> {
        let mount =
            |host: &Path, path: &str, read_only| Mount { host: host.to_owned(), path: path.to_owned(), read_only };
        let mut mounts = vec![
            mount(&self.dir("workspace"), "/workspace", false),
            mount(&self.dir("home"), "/tekton/home", false),
            mount(&self.dir("results"), "/tekton/results", false),
            mount(&self.dir("steps"), "/tekton/steps", false),
            mount(&self.dir("scripts"), "/tekton/scripts", true),
            mount(&self.dir("run"), "/tekton/run", true),
        ];
        if let Some(config) = &self.runner.docker_config {
            mounts.push(mount(&self.credentials(step.name, config)?, CREDENTIALS, false));
        }
        if step.argv.first().is_some_and(|program| program == PROGRAM) {
            mounts.push(mount(&self.runner.program, PROGRAM, true));
        }
        for path in &self.runner.shared {
            mounts.push(mount(path, &path.display().to_string(), false));
        }
        for binding in self.bindings.iter().filter(|b| b.is_mounted_in(self.spec, step.spec)) {
            let folder = sub_folder(&volumes[binding.volume.as_str()], &binding.sub_path)?;
            mounts.push(mount(&folder, binding.path_in(step.spec), binding.read_only));
        }
        for wanted in items(step.spec, "volumeMounts") {
            let volume = volumes.get(name(wanted)).ok_or_else(|| {
                format!("step {:?} mounts the volume {:?}, which does not exist", step.name, name(wanted))
            })?;
            let folder = sub_folder(volume, text(wanted, "subPath").unwrap_or_default())?;
            let path = text(wanted, "mountPath").ok_or("a volumeMount has no mountPath")?;
            mounts.push(mount(&folder, path, wanted["readOnly"] == true));
        }
        mounts.sort_by_key(|m| Path::new(&m.path).components().count());
        Ok(mounts)
    }

    /// What Tekton's creds-init writes before each step (Tekton: pkg/credentials/dockercreds/creds.go).
    fn credentials(&self, step: &str, config: &Value) -> Result<PathBuf, String> {
        let dir = volume::open_folder(self.dir("creds").join(step))?;
        let docker = dir.join(".docker");
        let written = fs::create_dir_all(&docker).and_then(|()| {
            fs::write(docker.join("config.json"), config.to_string())?;
            fs::set_permissions(docker.join("config.json"), PermissionsExt::from_mode(0o600))
        });
        written.map(|()| dir).map_err(|e| e.to_string())
    }

    /// `$(steps.S.results.R)` of all steps that have run.
    fn define_step_results(&self, vars: &mut Vars) {
        for step in items(self.spec, "steps") {
            for declared in items(step, "results") {
                let (step, result) = (name(step), name(declared));
                let file = self.dir("steps").join(format!("step-{step}/results/{result}"));
                if let Some(value) = read_result(&file, text(declared, "type")) {
                    vars.define(&format!("steps.{step}.results.{result}"), &value);
                }
            }
        }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.places.pod.join("tekton").join(name)
    }
}

/// A length of time as Go writes it: `1h30m`, `10s`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is no length of time");
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let letters = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let seconds = match &rest[digits..digits + letters] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "" if rest == "0" => 0.0,
            _ => return Err(invalid()),
        };
        total += Duration::from_secs_f64(rest[..digits].parse::<f64>().map_err(|_| invalid())? * seconds);
        rest = &rest[digits + letters..];
    }
    Ok(total)
}

/// The kubelet makes the folder of a subPath before the pod starts, unless there is a folder or a file of this name.
fn sub_folder(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    if sub_path.is_empty() {
        return Ok(volume.to_owned());
    }
    let folder = volume.join(sub_path);
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).map_err(|e| format!("subPath {sub_path:?}: {e}"))?;
    Ok(folder)
}

/// A result that a step wrote: as declared where it is JSON of that kind.
fn read_result(file: &Path, kind: Option<&str>) -> Option<Value> {
    let content = fs::read_to_string(file).ok()?;
    match kind {
        Some("array") => serde_json::from_str::<Vec<Value>>(&content).ok().map(Value::Array),
        Some("object") => serde_json::from_str::<Map<_, _>>(&content).ok().map(Value::Object),
        _ => Some(Value::String(content)),
    }
}
