//! The runner against what Tekton documents: pipelines whose tasks share nothing, or what a claim keeps for them.

use serde_json::{Value, json};

use support::{
    manifests,
    runner::{Outcome, Runner, Skip, Status, TaskRun},
};

mod rules;

#[test]
fn variables_arrive_where_tekton_puts_them() {
    let outcome = play(include_str!("runner/variables.yaml"));
    assert_eq!(outcome.failure, None, "{}", outcome.full_log());
}

#[test]
fn volumes_are_mounted_as_declared() {
    let outcome = play(include_str!("runner/volumes.yaml"));
    assert_eq!(outcome.failure, None, "{}", outcome.full_log());
}

#[test]
fn tasks_are_skipped_as_tekton_skips_them() {
    let outcome = play(include_str!("runner/skips.yaml"));
    assert_eq!(outcome.failure, None, "{}", outcome.full_log());
    let skipped: Vec<_> = outcome.tasks.iter().filter_map(skip).collect();
    assert_eq!(skipped, [("guarded", Skip::When), ("uses-result", Skip::Results), ("after-that", Skip::Parent)]);
}

#[test]
fn a_failed_task_stops_the_graph_and_finally_runs() {
    let outcome = play(include_str!("runner/failure.yaml"));
    assert_eq!(
        outcome.failure.as_deref(),
        Some("task \"fails\": step \"two\" exited with code 3"),
        "{}",
        outcome.full_log()
    );
    assert_eq!(skip(outcome.task("after")), Some(("after", Skip::Stopping)));
    assert_eq!(outcome.task("ignored").status, Status::Failed("step \"one\" exited with code 1".to_owned()));
    assert_eq!(outcome.task("after-ignored").status, Status::Succeeded);
    assert_eq!(outcome.log_of("fails", None), "first\nsecond\n");
    assert_eq!(outcome.log_of("last", None), "Failed Failed Succeeded None\n");
    assert_eq!(outcome.task("retried").attempts, 2);
    assert_eq!(outcome.task("slow").status, Status::Failed("step \"sleeps\" was killed at its deadline".to_owned()));
}

/// The container's working directory is made before the first step runs; on a read-only volume that fails, and what comes
/// before it runs all the same.
#[test]
fn containers_start_before_the_first_step() {
    let outcome = play(include_str!("runner/start.yaml"));
    assert_eq!(outcome.task("sees").status, Status::Succeeded, "{}", outcome.full_log());
    let Status::Failed(why) = &outcome.task("cannot").status else { panic!("{:?}", outcome.tasks) };
    assert!(why.contains("the container of step \"b\" can't start") && why.contains("Read-only file system"), "{why}");
    assert_eq!(outcome.log_of("cannot", None), "started\n");
}

#[test]
fn what_it_cannot_play_it_says() {
    for (task, sentence) in [
        (json!({"taskSpec": {"steps": [{"image": "i"}]}}), "neither command nor script"),
        (json!({"taskSpec": {"steps": [{"ref": {"name": "absent"}}]}}), "there is no StepAction \"absent\""),
        (json!({"taskSpec": {"steps": [{"ref": {"resolver": "git"}}]}}), "can't play resolvers"),
        (json!({"taskRef": {"name": "absent"}}), "there is no Task \"absent\""),
        (json!({"runAfter": ["absent"], "taskSpec": {"steps": []}}), "follows \"absent\""),
        (json!({"runAfter": ["a"], "taskSpec": {"steps": []}}), "waits for itself"),
    ] {
        let mut task = task;
        task["name"] = json!("a");
        let run = json!({"spec": {"pipelineSpec": {"tasks": [task]}}});
        let failure = Runner::default().play(&run).failure.unwrap_or_default();
        assert!(failure.contains(sentence), "{failure}");
    }
}

fn play(yaml: &str) -> Outcome {
    let (runs, objects): (Vec<Value>, Vec<Value>) =
        manifests::parse(yaml).into_iter().partition(|o| o["kind"] == "PipelineRun");
    Runner { objects, ..Runner::default() }.play(&runs[0])
}

fn skip(task: &TaskRun) -> Option<(&str, Skip)> {
    match task.status {
        Status::Skipped(why) => Some((&task.task, why)),
        _ => None,
    }
}
