//! `prune`: the snapshots of a run go, its target stays whole.

use std::process::Command;

use super::*;

/// Whether the program succeeded, and its output and error.
pub fn run(args: &[&str], env: &[(&str, String)]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    let output = command.args(args).envs(env.iter().map(|(name, value)| (name, value))).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Two parallel tasks save a workspace each as the injected step does it.
pub fn play(folder: &Path, target: &str) {
    for (order, task) in ["one", "two"].iter().enumerate() {
        let dir = folder.join(task);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(task), task).unwrap();
        let workspace = json!({"name": "ws", "path": dir, "target": target, "parallel": [[0, 1]]});
        let step = json!({"run": uid(target), "task": task, "order": order, "workspaces": [workspace]}).to_string();
        let (succeeded, _, error) = run(&["save"], &[("TEKTON_WRAP_STEP", step)]);
        assert!(succeeded, "{error}");
    }
}

fn check(target: &str) {
    let folder = tempfile::tempdir().unwrap();
    play(folder.path(), target);
    let snapshot = |order: u32| target.replace(":done", &format!(":{}.{order}.ws", uid(target)));
    let exists = |image: &str| run(&["inspect", image], &[]).0;

    let (_, dry, _) = run(&["prune", target, "--dry-run"], &[]);
    let lines: Vec<_> = dry.lines().map(|line| line.split(" (").next().unwrap().to_owned()).collect();
    // Each of the two parallel tasks lists what it wrote, so that nothing is lost where both write at the same time.
    let list = |order: u32| target.replace(":done", &format!(":{}.r{order}.ws", uid(target)));
    let tagged = [snapshot(0), list(0), snapshot(1), list(1)].map(|image| format!("would delete: {image}"));
    assert_eq!(lines[1..], tagged);
    assert!(lines[0].starts_with("would delete: ") && lines[0].contains("@sha256:"), "{dry}");
    assert!(exists(&snapshot(0)) && exists(&snapshot(1)));
    let (succeeded, _, error) = run(&["prune", &snapshot(0)], &[]);
    assert!(!succeeded && error.contains("name the target of the run"), "{error}");

    let (succeeded, said, error) = run(&["prune", target], &[]);
    assert!(succeeded && said.ends_with("5 images deleted\n"), "{said}{error}");
    assert!(!exists(&snapshot(0)) && !exists(&snapshot(1)));
    let copy = folder.path().join("copy");
    let (succeeded, _, error) = run(&["restore", target, copy.to_str().unwrap()], &[]);
    assert!(succeeded, "{error}");
    assert_eq!(
        (fs::read(copy.join("one")).unwrap(), fs::read(copy.join("two")).unwrap()),
        (b"one".into(), b"two".into())
    );
    let (_, again, _) = run(&["prune", target], &[]);
    assert_eq!(again, "0 images deleted\n");
    assert!(run(&["prune", target, "--all"], &[]).1.ends_with("1 image deleted\n"));
    assert!(!exists(target));
}

#[test]
fn of_a_registry() {
    check(&format!("{}/{}:done", REGISTRY.address, repository()));
}

#[test]
fn of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    check(&format!("dir://{}:done", folder.path().join("store").display()));
    // What no image needs any more stays for a day: a save may have found it. Then the next prune takes it.
    let blobs = || fs::read_dir(folder.path().join("store/blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    assert!(blobs().count() > 0);
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60);
    blobs().for_each(|blob| fs::File::options().write(true).open(blob).unwrap().set_modified(then).unwrap());
    let repository = format!("dir://{}", folder.path().join("store").display());
    let (_, said, _) = run(&["prune", "--repository", &repository, "--expired"], &[]);
    assert_eq!((&*said, blobs().count()), ("0 images deleted\n", 0));
}

#[test]
fn a_registry_that_deletes_nothing_says_so() {
    let registry = wait_for(Registry::start_that_keeps_all());
    let folder = tempfile::tempdir().unwrap();
    let target = format!("{}/{}:done", registry.address, repository());
    play(folder.path(), &target);
    let (succeeded, _, error) = run(&["prune", &target], &[]);
    // It removes tags all the same: what is left has no name, and goes when the operator collects it.
    assert!(succeeded && error.contains("only the tag is gone") && error.contains("deletes no images"), "{error}");
    assert!(error.contains("(405"), "{error}");
    let saved = folder.path().join("one");
    assert!(run(&["save", saved.to_str().unwrap(), &target.replace("done", "hand")], &[]).0);
    let (succeeded, _, error) = run(&["prune", &target.replace("done", "hand")], &[]);
    assert!(!succeeded && error.contains("it is not the target of a run"), "{error}");
}

/// For cron: what could not be deleted is said and fails, and the rest is deleted.
#[test]
fn one_that_can_not_be_deleted_does_not_stop_the_others() {
    let faults = support::faults::Faults::start(&REGISTRY.address);
    let (folder, name) = (tempfile::tempdir().unwrap(), repository());
    play(folder.path(), &format!("{}/{name}:done", faults.address));
    let body = json!({"errors": [{"code": "DENIED", "message": "not you"}]}).to_string().into_bytes();
    let denied = support::faults::Fault::Answer("403 Forbidden", Vec::new(), body);
    let snapshot = format!("{}.0.ws", uid(&name));
    faults.on("DELETE", &format!("/manifests/{snapshot}"), usize::MAX, denied);
    let args =
        |host: &str| ["prune", "--repository", &format!("{host}/{name}"), "--older-than", "0s"].map(str::to_owned);
    let prune = |host: &str| run(&args(host).each_ref().map(String::as_str), &[]);
    let (succeeded, said, error) = prune(&faults.address);
    assert!(!succeeded && said.ends_with("4 images deleted\n"), "{said}{error}");
    assert!(error.contains("1 of 5 images could not be deleted; the first: "), "{error}");
    assert!(said.contains(&format!(":{snapshot} (sha256:")) && said.contains("not deleted: "), "{said}");
    // Again, without the fault: only that one is left, and nothing after it.
    assert!(prune(&REGISTRY.address).1.ends_with("1 image deleted\n"));
    assert_eq!(prune(&REGISTRY.address), (true, "0 images deleted\n".to_owned(), String::new()));
    for wrong in ["prune", "prune --repository a.io/x", "prune a.io/x:y --older-than 1d", "prune --run u"] {
        let output = Command::new(env!("CARGO_BIN_EXE_tekton-wrap")).args(wrong.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_run_without_a_target_is_found_by_its_uid() {
    let (folder, name) = (tempfile::tempdir().unwrap(), repository());
    let workspace = json!({"name": "ws", "path": folder.path(), "target": format!("{}/{name}:done", REGISTRY.address)});
    let step =
        json!({"run": uid(&name), "task": "t", "order": 0, "keep": "none", "workspaces": [workspace]}).to_string();
    assert!(run(&["save"], &[("TEKTON_WRAP_STEP", step)]).0);
    let repository = format!("{}/{name}", REGISTRY.address);
    assert!(!run(&["inspect", &format!("{repository}:done")], &[]).0, "no target was written");
    let (succeeded, said, _) = run(&["prune", "--repository", &repository, "--run", &uid(&name)], &[]);
    assert!(
        succeeded && said.ends_with("1 image deleted\n") && said.contains(&format!(":{}.0.ws (", uid(&name))),
        "{said}"
    );
}
