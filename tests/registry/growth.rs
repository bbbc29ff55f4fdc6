//! What is left in a registry after many runs, `prune`, and the registry's own garbage collection: what the targets need.

use std::{collections::BTreeSet, process::Command, thread};

use serde_json::Value;
use support::registry::Stored;
use tekton_wrap::{
    digest::Digest,
    step::StepConfig,
    workspace::{restore_task, save_task},
};

use super::*;

const RUNS: u64 = 20;

/// One task, then two parallel ones that end at the same time, then one that joins them.
fn play(folder: &Path, run: u64, target: &str) {
    let task = |order: u64, after: &[u64], parallel: Value| {
        let (path, state) = (folder.join(format!("{run}/{order}")), folder.join(format!("{run}/state{order}")));
        fs::create_dir_all(&path).unwrap();
        fs::create_dir_all(&state).unwrap();
        let after: Vec<Value> =
            after.iter().map(|order| json!({"task": format!("t{order}"), "order": order})).collect();
        let workspace = |after| json!({"name": "ws", "path": path, "target": target, "after": after, "parallel": parallel, "joined": parallel});
        let step = |workspace: Value| -> StepConfig {
            let uid = format!("{run:08}-5b7d-4a55-9a8f-1c2d3e4f5a6b");
            let step = json!({"run": uid, "task": format!("t{order}"), "order": order, "workspaces": [workspace]});
            serde_json::from_value(step).unwrap()
        };
        if !after.is_empty() {
            restore_task(step(workspace(after)), &state).unwrap();
        }
        // What all runs have in common is stored once.
        fs::write(path.join(format!("common{order}")), content(order, 50_000)).unwrap();
        fs::write(path.join(format!("own{order}")), content(1000 * run + order, 20_000)).unwrap();
        save_task(step(workspace(Vec::new())), &state).unwrap();
    };
    task(0, &[], json!([]));
    thread::scope(|scope| {
        scope.spawn(|| task(1, &[0], json!([[2, 2]])));
        scope.spawn(|| task(2, &[0], json!([[1, 1]])));
    });
    task(3, &[1, 2], json!([]));
}

/// What the images under these tags need.
fn needed(address: &str, repository: &str, tags: &[String]) -> Stored {
    let store = open(address, repository, &options());
    let hex = |digest: &Value| digest.as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let mut needed = Stored { tags: tags.iter().cloned().collect(), ..Stored::default() };
    for tag in tags {
        let manifest = store.manifest(tag).unwrap().unwrap();
        needed.revisions.insert(manifest.digest.hex());
        needed.blobs.insert(Digest::of(&manifest.bytes).hex());
        let manifest: Value = serde_json::from_slice(&manifest.bytes).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
        needed.blobs.extend(layers.map(|blob| hex(&blob["digest"])));
    }
    needed
}

fn prune(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tekton-wrap")).arg("prune").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn nothing_is_left_but_what_targets_need() {
    let registry = wait_for(Registry::start());
    let (folder, name) = (tempfile::tempdir().unwrap(), "team/builds");
    let repository = format!("{}/{name}", registry.address);
    // Half of the runs have a tag of their own, the others write the same one.
    let tag = |run: u64| if run < RUNS / 2 { format!("run-{run}") } else { "latest".to_owned() };
    for run in 0..RUNS {
        play(folder.path(), run, &format!("{repository}:{}", tag(run)));
    }
    let tags: Vec<String> = (0..RUNS).map(tag).collect::<BTreeSet<_>>().into_iter().collect();
    let before = registry.stored(name);

    // All runs are younger than the week of the CronJob.
    let example = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prune.yaml")).unwrap();
    let example = tekton_wrap::yaml::parse(&example).unwrap().remove(0);
    let container = &example["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    let args = container["args"].as_array().unwrap().iter().skip(1).map(|arg| arg.as_str().unwrap());
    let args: Vec<_> = args.map(|arg| arg.replace("quay.io/my-team/builds", &repository)).collect();
    assert_eq!(prune(&args.iter().map(String::as_str).collect::<Vec<_>>()), "0 images deleted\n");

    // A run, by its target; then all others.
    let said = prune(&[&format!("{repository}:run-0")]);
    assert!(said.contains(".r1.ws (sha256:") && said.contains(" (replaced)"), "{said}");
    let dry = prune(&["--repository", &repository, "--older-than", "0s", "--dry-run"]);
    let said = prune(&["--repository", &repository, "--older-than", "0s"]);
    assert_eq!(said.lines().count(), dry.lines().count() + 1);
    assert_eq!(prune(&["--repository", &repository, "--older-than", "0s"]), "0 images deleted\n");
    registry.collect_garbage();
    let (after, needed) = (registry.stored(name), needed(&registry.address, name, &tags));
    println!(
        "{RUNS} runs: {} tags, {} revisions, {} blobs; after prune and garbage collection {}, {}, {}",
        before.tags.len(),
        before.revisions.len(),
        before.blobs.len(),
        after.tags.len(),
        after.revisions.len(),
        after.blobs.len()
    );
    assert_eq!(after, needed);

    // The targets are whole, the last one too, which ten runs have written.
    let copy = folder.path().join("copy");
    tekton_wrap::workspace::restore_image(&format!("{repository}:latest"), &copy, None).unwrap();
    for order in 0..4 {
        let own = content(1000 * (RUNS - 1) + order, 20_000);
        assert!(fs::read(copy.join(format!("own{order}"))).unwrap() == own, "{order}");
    }

    // If targets are asked for too, nothing is left at all.
    prune(&["--repository", &repository, "--older-than", "0s", "--all"]);
    registry.collect_garbage();
    assert_eq!(registry.stored(name), Stored::default());
}
