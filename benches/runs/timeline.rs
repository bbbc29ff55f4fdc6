//! Where the time of a run went: the sum over the tasks that it waited for, one after the other.

use serde_json::Value;

/// Seconds.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// From the creation of the run to its end, as the client sees it.
    pub whole: f64,
    /// In the steps that restore.
    pub restore: f64,
    /// In the steps of the Pipeline.
    pub steps: f64,
    /// In the steps that save.
    pub save: f64,
    /// Between the steps of a pod: each looks once a second whether the one before has ended (Tekton: cmd/entrypoint/waiter.go).
    pub gaps: f64,
}

/// The steps of one task, in their order.
#[derive(Debug)]
pub struct TaskTimes {
    pub name: String,
    /// Those that it runs after.
    pub after: Vec<String>,
    /// Each with when it began and when it ended, in seconds of the node's clock.
    pub steps: Vec<(String, f64, f64)>,
}

impl Timeline {
    /// Of a run that took `whole` seconds, with what its tasks say.
    pub fn new(whole: f64, tasks: &[TaskTimes]) -> Self {
        let mut times = Self { whole, ..Self::default() };
        let mut next = last(tasks.iter());
        while let Some(task) = next {
            for (step, begin, end) in &task.steps {
                let sum = match step.as_str() {
                    "tekton-wrap-restore" => &mut times.restore,
                    "tekton-wrap-save" => &mut times.save,
                    _ => &mut times.steps,
                };
                *sum += end - begin;
            }
            times.gaps += task.steps.windows(2).map(|pair| pair[1].1 - pair[0].2).sum::<f64>();
            next = last(tasks.iter().filter(|other| task.after.contains(&other.name)));
        }
        times
    }

    /// In all else: what Tekton, the scheduler and the kubelet do before and after the steps of a task.
    pub fn cluster(&self) -> f64 {
        self.whole - self.restore - self.steps - self.save - self.gaps
    }

    /// The median of each.
    pub fn medians(all: &[Self]) -> Self {
        let median = |of: fn(&Self) -> f64| {
            let mut values: Vec<f64> = all.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            whole: median(|t| t.whole),
            restore: median(|t| t.restore),
            steps: median(|t| t.steps),
            save: median(|t| t.save),
            gaps: median(|t| t.gaps),
        }
    }
}

impl TaskTimes {
    fn end(&self) -> f64 {
        self.steps.last().map_or(0.0, |(_, _, end)| *end)
    }
}

/// The one that ended last.
fn last<'a>(tasks: impl Iterator<Item = &'a TaskTimes>) -> Option<&'a TaskTimes> {
    tasks.max_by(|a, b| a.end().total_cmp(&b.end()))
}

/// When Tekton's entrypoint began a step, from what it leaves in its container (Tekton: pkg/termination).
pub fn started(message: &str) -> Option<f64> {
    let entries: Vec<Value> = serde_json::from_str(message).ok()?;
    seconds(entries.iter().find(|entry| entry["key"] == "StartedAt")?["value"].as_str()?)
}

/// When the last line of a log with timestamps was written.
pub fn last_line(log: &str) -> Option<f64> {
    seconds(log.lines().last()?.split_once(' ')?.0)
}

fn seconds(time: &str) -> Option<f64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(time.as_nanosecond() as f64 / 1e9)
}
