//! What a stored run says of itself and of its tasks, as a page shows it. Pure.

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

use serde_json::Value;

use super::super::{PluginError, cluster::created, outcome::TaskOutcome, stored};
use crate::{
    annotations,
    page::model::{Badge, ShownRun, ShownTask, ShownTaskRun, TaskTimes, TimeSpan, Tone},
    tekton::{self, fields::text, graph::Graph, status},
    units,
};

/// The run with its tasks in pipeline order; what they did with the workspaces is not in it yet. `now` is RFC 3339.
pub fn described(object: &Value, outcomes: Vec<TaskOutcome>, now: &str) -> Result<ShownRun, PluginError> {
    let view = tekton::run::Run::new(object);
    let name = view.name().unwrap_or_default();
    let spec = view.pipeline_spec().unwrap_or(&Value::Null);
    let graph = Graph::new(spec).map_err(|problem| PluginError::Argument(format!("run {name:?}: {problem}")))?;
    let order = graph.in_order();
    let place = |task: usize| order.iter().position(|other| *other == task);
    let mut runs: Vec<(String, ShownTaskRun)> =
        outcomes.into_iter().map(|outcome| (outcome.task.clone(), task_run(outcome, now))).collect();
    let task = |&index: &usize| ShownTask {
        name: graph.names[index].clone(),
        finally: index >= graph.dag_len,
        after: match index < graph.dag_len {
            true => graph.dependencies[index].iter().filter_map(|&before| place(before)).collect(),
            false => Vec::new(),
        },
        runs: runs.extract_if(.., |(of, _)| *of == graph.names[index]).map(|(_, run)| run).collect(),
        ..ShownTask::default()
    };
    Ok(ShownRun {
        name: name.to_owned(),
        badge: Some(Badge { tone: tone(Some(status::state(object))), word: stored::word(object).to_owned() }),
        facts: facts(object, now),
        tasks: order.iter().map(task).collect(),
        ..ShownRun::default()
    })
}

fn facts(object: &Value, now: &str) -> Vec<(&'static str, String)> {
    let view = tekton::run::Run::new(object);
    let annotation = |name: &str| view.metadata("annotations").map_or("", |all| text(all, name));
    let (start, end) = (stored::time(object, "startTime"), stored::time(object, "completionTime"));
    let took = span(start, if end.is_empty() { now } else { end })
        .map(|span| units::duration(std::time::Duration::from_millis(span.length())));
    [
        ("namespace", text(&object["metadata"], "namespace").to_owned()),
        ("pipeline", annotation(annotations::PIPELINE).to_owned()),
        ("rerun of", annotation(annotations::RERUN_OF).to_owned()),
        ("created", created(object).replace('T', " ").replace('Z', " UTC")),
        ("took", took.unwrap_or_default()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

fn task_run(outcome: TaskOutcome, now: &str) -> ShownTaskRun {
    let TaskOutcome { name, word, state: ended, times: (start, end), injected, failure, .. } = outcome;
    let [restore, save] = injected.map(|times| times.and_then(|(from, to)| span(&from, &to)));
    let whole = span(&start, if end.is_empty() { now } else { &end });
    ShownTaskRun {
        name,
        badge: Badge { tone: tone(ended), word },
        times: whole.map(|whole| TaskTimes { whole, restore, save }),
        failure,
    }
}

fn tone(state: Option<status::State>) -> Tone {
    match state {
        None => Tone::Waiting,
        Some(status::State::Running) => Tone::Running,
        Some(status::State::Succeeded) => Tone::Succeeded,
        Some(status::State::Failed) => Tone::Failed,
    }
}

/// Between two times (RFC 3339), if both are.
fn span(from: &str, to: &str) -> Option<TimeSpan> {
    let millis = |time: &str| time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    Some(TimeSpan { from: millis(from)?, to: millis(to)? })
}
