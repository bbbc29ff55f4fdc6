//! `--showlog`: the logs of a run's steps while they are written, until the run is over. Children without a pod of their own (a
//! CustomRun, a PipelineRun) are named instead.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what it does not have")]

use std::{collections::BTreeSet, io::Write, time::Duration};

use futures_util::{AsyncBufReadExt, AsyncReadExt, StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use tokio::{
    sync::mpsc::{self, Sender},
    time,
};

use super::super::{
    PluginError,
    cluster::{PIPELINE_RUN, TASK_RUN, UserCluster},
};
use crate::{
    quote::Line,
    tekton::{
        fields::{field, items, text},
        status::{self, Child, State},
    },
};

/// How often the cluster is asked how far the run and its tasks are.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the logs of a run that is over may take to end.
const REST: Duration = Duration::from_secs(10);

/// Longer lines are cut into several: bytes.
const MAX_LINE: u64 = 64 << 10;

/// Lines that may wait to be printed.
const WAITING: usize = 1024;

/// Prints until `run` is over, the lines of all its tasks as they come; fails if it does.
pub fn follow(cluster: &UserCluster, run: &Value, out: &mut dyn Write) -> Result<(), PluginError> {
    let name = run["metadata"]["name"].as_str().unwrap_or_default();
    let ended = cluster.block_on(printed(cluster, name, out))?;
    let message = status::condition(&ended).map_or("", |condition| text(condition, "message"));
    if status::state(&ended) == State::Succeeded {
        return writeln!(out, "{name} succeeded: {}", Line(message)).map_err(PluginError::Output);
    }
    Err(PluginError::RunFailed { run: name.to_owned(), message: message.to_owned() })
}

/// Prints until the run `name` is over; the run as it is then.
async fn printed(cluster: &UserCluster, name: &str, out: &mut dyn Write) -> Result<Value, PluginError> {
    let (sender, mut lines) = mpsc::channel::<String>(WAITING);
    let mut followers = FuturesUnordered::new();
    let mut seen = SeenChildren::default();
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            line = lines.recv() => line.map_or(Ok(()), |line| print(out, &line))?,
            Some(()) = followers.next() => {}
            _ = ticks.tick() => {
                let run = cluster.get(PIPELINE_RUN, name).await?.ok_or_else(|| cluster.no_run(name))?;
                let pods = seen.new_pods(cluster, &run).await?;
                followers.extend(pods.into_iter().map(|pod| pod.follow(sender.clone())));
                if status::state(&run) != State::Running {
                    break run;
                }
            }
        }
    };
    drop(sender);
    let rest = async {
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some(line) => print(out, &line)?,
                    None => return Ok(()),
                },
                Some(()) = followers.next() => {}
            }
        }
    };
    match time::timeout(REST, rest).await {
        Ok(done) => done.map(|()| ended),
        Err(_) => {
            tracing::warn!("the run is over, but the log of one of its steps does not end: it is not waited for");
            Ok(ended)
        }
    }
}

/// What has been seen of the children of a run.
#[derive(Default)]
struct SeenChildren {
    /// Pods whose logs are followed.
    pods: BTreeSet<String>,
    /// TaskRuns that get no more pods.
    over: BTreeSet<String>,
    /// Children without a pod of their own.
    others: BTreeSet<String>,
}

impl SeenChildren {
    /// The pods of `run` that have not been seen yet. New children that have none are named in the log.
    async fn new_pods<'a>(&mut self, cluster: &'a UserCluster, run: &Value) -> Result<Vec<Pod<'a>>, PluginError> {
        let children = status::children(run);
        let (task_runs, others): (Vec<&Child<'_>>, Vec<&Child<'_>>) =
            children.iter().partition(|child| child.kind == TASK_RUN.name);
        for child in others {
            if self.others.insert(child.name.to_owned()) {
                tracing::info!("{}", not_followed(child));
            }
        }
        let mut found = Vec::new();
        for child in task_runs {
            if self.over.contains(child.name) {
                continue;
            }
            let Some(task_run) = cluster.get(TASK_RUN, child.name).await? else { continue };
            if status::state(&task_run) != State::Running {
                self.over.insert(child.name.to_owned());
            }
            let names = attempts(&task_run).into_iter().map(|attempt| text(attempt, "podName").to_owned());
            for name in names.filter(|name| !name.is_empty() && self.pods.insert(name.clone())) {
                found.push(Pod { cluster, task: status::name_of(child, &children), run: child.name.to_owned(), name });
            }
        }
        Ok(found)
    }
}

/// The statuses of a TaskRun that is tried again, the last one last: each has a pod of its own (Tekton: taskrun_types.go,
/// `RetriesStatus`).
fn attempts(task_run: &Value) -> Vec<&Value> {
    let Some(status) = field(task_run, "status") else { return Vec::new() };
    items(status, "retriesStatus").iter().chain([status]).collect()
}

/// What is said of a child whose logs are not followed.
fn not_followed(child: &Child<'_>) -> String {
    let (task, kind, name) = (Line(child.task), Line(child.kind), Line(child.name));
    let next = match child.kind {
        "PipelineRun" => format!("tkn pipelinerun logs -f {name} does"),
        _ => format!(
            "it has no pod that is known here; kubectl describe {} {name} shows how it is",
            kind.to_string().to_lowercase()
        ),
    };
    format!("[{task}] is the {kind} {name}, whose logs are not followed: {next}")
}

fn print(out: &mut dyn Write, line: &str) -> Result<(), PluginError> {
    // Whoever looks at it wants to see it now.
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(PluginError::Output)
}

/// A pod whose steps are followed, one after the other.
struct Pod<'a> {
    cluster: &'a UserCluster,
    task: String,
    /// Its TaskRun.
    run: String,
    name: String,
}

impl Pod<'_> {
    /// Sends each line of the logs of its steps to `lines`, until its TaskRun is over or is tried again with another pod.
    async fn follow(self, lines: Sender<String>) {
        let mut shown = BTreeSet::new();
        loop {
            // Whether the TaskRun can be read is asked elsewhere too.
            let Ok(Some(found)) = self.cluster.get(TASK_RUN, &self.run).await else { return };
            let attempts = attempts(&found);
            let Some(place) = attempts.iter().position(|attempt| text(attempt, "podName") == self.name) else { return };
            let Some(status) = attempts.get(place) else { return };
            let is_over = attempts.len().saturating_sub(place) > 1 || status::state(&found) != State::Running;
            let is_next = |step: &&Value| {
                let has_begun = field(step, "running").or(field(step, "terminated")).is_some();
                has_begun && !shown.contains(text(step, "container"))
            };
            match items(status, "steps").iter().find(is_next) {
                Some(step) => {
                    let has_ended = field(step, "terminated").is_some();
                    match self.step(step, &lines).await {
                        Err(PluginError::Refused(_) | PluginError::Unreachable { .. }) if !has_ended => {
                            time::sleep(INTERVAL).await
                        }
                        Err(problem) => {
                            tracing::warn!(
                                "[{} : {}] the log can't be read: {problem}",
                                Line(&self.task),
                                Line(text(step, "name"))
                            );
                            shown.insert(text(step, "container").to_owned());
                        }
                        Ok(()) => drop(shown.insert(text(step, "container").to_owned())),
                    }
                }
                None if is_over => return,
                None => time::sleep(INTERVAL).await,
            }
        }
    }

    /// Sends the log of one step, to its end.
    async fn step(&self, step: &Value, lines: &Sender<String>) -> Result<(), PluginError> {
        let mut log = self.cluster.follow_log(&self.name, text(step, "container")).await?;
        loop {
            let mut line = Vec::new();
            let read = (&mut log).take(MAX_LINE).read_until(b'\n', &mut line).await;
            if read.map_or(true, |bytes| bytes == 0) {
                return Ok(());
            }
            let line = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
            // As tkn has it.
            let line = format!("[{} : {}] {}", Line(&self.task), Line(text(step, "name")), Line(&line));
            if lines.send(line).await.is_err() {
                return Ok(());
            }
        }
    }
}
