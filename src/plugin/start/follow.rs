//! `--showlog`: the logs of a run's steps, each when it is over, until the run is.

use std::{collections::BTreeSet, io::Write, thread, time::Duration};

use serde_json::Value;

use super::super::{Error, cluster::Cluster, stored};
use crate::{
    quote::Line,
    tekton::{
        fields::{field, items, text},
        status::{self, State},
    },
};

/// How often the cluster is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Prints until `run` is over; fails if it does.
pub fn follow(cluster: &Cluster, run: &Value, out: &mut dyn Write) -> Result<(), Error> {
    let name = run["metadata"]["name"].as_str().unwrap_or_default();
    let mut shown = BTreeSet::new();
    loop {
        let run = cluster.run(name)?;
        let state = status::state(&run);
        for child in stored::children(cluster, &run)? {
            let task = child["metadata"]["labels"]["tekton.dev/pipelineTask"].as_str().unwrap_or("-").to_owned();
            show(cluster, &child, &task, &mut shown, out)?;
        }
        out.flush().map_err(Error::Output)?;
        let message = status::condition(&run).map_or("", |condition| text(condition, "message"));
        match state {
            State::Running => thread::sleep(INTERVAL),
            State::Succeeded => {
                return writeln!(out, "{name} succeeded: {}", Line(message)).map_err(Error::Output);
            }
            State::Failed => return Err(Error::RunFailed { run: name.to_owned(), message: message.to_owned() }),
        }
    }
}

/// Prints the log of each step of a TaskRun that is over and was not shown before.
fn show(
    cluster: &Cluster,
    child: &Value,
    task: &str,
    shown: &mut BTreeSet<(String, String)>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let status = field(child, "status").unwrap_or(&Value::Null);
    let pod = text(status, "podName");
    for step in items(status, "steps").iter().filter(|step| field(step, "terminated").is_some()) {
        let container = text(step, "container");
        if !shown.insert((pod.to_owned(), container.to_owned())) {
            continue;
        }
        for line in cluster.log(pod, container, None).unwrap_or_default().lines() {
            writeln!(out, "[{task} : {}] {}", text(step, "name"), Line(line)).map_err(Error::Output)?;
        }
    }
    Ok(())
}
