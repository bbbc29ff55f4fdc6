//! The first driver: the runner of the tests, with a real registry or a folder.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::OnceLock, thread};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    case::{Case, Rendered, Store, Values},
    image,
};
use support::{
    buckets::{Gcs, S3, all_stores},
    manifests,
    registry::{Registry, USER},
    render::render,
    rsync::{self, Rsyncd, Sshd},
    runner::{Outcome, Runner, Status},
};

/// The cases that rsync's folders are tried with: each request there is a process, so that a case takes most of a minute.
const WITH_RSYNC: [&str; 4] = ["cache", "deleted", "join", "sequential"];

/// Plays a case with each of its stores, and one that needs no registry with buckets too.
pub fn play(case: &Case) {
    let registry = &shared().registry;
    let base = format!("{}/base", registry.address);
    for store in &case.head.stores {
        match store {
            Store::Registry => {
                let target = format!("{}/{}", registry.address, case.name.replace('_', "-"));
                for case in case.runs() {
                    for (rendered, outcome) in play_times(&case, &target, &base, Runner::default()) {
                        case.check(&outcome);
                        image::check(&case, &rendered, &outcome, None);
                    }
                }
            }
            Store::Dir => {
                let dir = tempfile::tempdir().unwrap();
                let target = format!("dir://{}/store", dir.path().display());
                for case in case.runs() {
                    let runner = Runner { shared: vec![dir.path().to_owned()], ..Runner::default() };
                    play_times(&case, &target, &base, runner).iter().for_each(|(_, outcome)| case.check(outcome));
                }
            }
        }
    }
    if all_stores() || case.head.stores.contains(&Store::Dir) {
        play_with_buckets(case);
    }
    if WITH_RSYNC.contains(&&*case.name) {
        play_with_rsync(case);
    }
}

/// Plays a case with the folders that rsync reaches.
fn play_with_rsync(case: &Case) {
    if let Some(server) = &shared().rsyncd {
        let password = json!({"RSYNC_PASSWORD": rsync::USER.1});
        let place = format!("rsync://{}@{}/locked", rsync::USER.0, server.address);
        play_with_secret(case, &place, &password, &json!({"credentials": "keys"}));
    }
    if let Some(server) = &shared().sshd {
        let keys = ["ssh-privatekey", "known_hosts"].map(|name| (name, server.secret(name)));
        let place = format!("rsync+ssh://{}{}", server.login, server.folder.display());
        play_with_secret(case, &place, &json!(BTreeMap::from(keys)), &json!({"credentials": "keys"}));
    }
}

/// Plays a case with the buckets that there are.
fn play_with_buckets(case: &Case) {
    for server in &shared().s3 {
        // Of its own: moto goes through all keys of a bucket to list some.
        let bucket = case.name.replace('_', "-");
        server.make_bucket(&bucket);
        let variables = server.variables(&server.address);
        let keys = json!({"AWS_ACCESS_KEY_ID": server.key.id, "AWS_SECRET_ACCESS_KEY": server.key.secret});
        let defaults = json!({"credentials": "keys", "endpoint": variables["AWS_ENDPOINT_URL_S3"], "region": variables["AWS_REGION"]});
        play_with_secret(case, &format!("s3://{bucket}"), &keys, &defaults);
    }
    if let Some(server) = &shared().gcs {
        play_with_secret(case, &format!("gs://{BUCKET}"), &json!(server.variables()), &json!({"credentials": "keys"}));
    }
}

/// How to reach the place comes from defaults and from a Secret.
fn play_with_secret(case: &Case, place: &str, keys: &Value, defaults: &Value) {
    let objects = [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tekton-wrap"}, "data": defaults}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": keys}),
    ];
    let target = format!("{place}/{}", case.name);
    let base = format!("{}/base", shared().registry.address);
    for case in case.with_objects(&objects).runs() {
        play_times(&case, &target, &base, Runner::default()).iter().for_each(|(_, outcome)| case.check(outcome));
    }
}

/// Plays a case with a registry that knows only its user.
pub fn play_with_credentials(case: &Case) {
    let registry = runtime().block_on(Registry::start_with_user());
    let (user, password) = USER;
    let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let config = json!({"auths": {&registry.address: {"auth": auth}}});
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let target = format!("{}/private", registry.address);
    let runner = Runner { docker_config: Some(config), ..Runner::default() };
    for (rendered, outcome) in play_times(case, &target, "", runner) {
        case.check(&outcome);
        image::check(case, &rendered, &outcome, Some(folder.path()));
    }
}

/// Plays a file of `examples/`, its registry replaced.
pub fn play_example(name: &str) {
    let file = format!("{}/examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(file).expect("the example is there");
    let text = text.replace("quay.io/me/", &format!("{}/examples/", shared().registry.address));
    let run = render(&text, "tekton-wrap").unwrap_or_else(|problem| panic!("{name}: {problem}"));
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tekton-wrap"));
    let outcome = Runner { program, objects: manifests::parse(&text), ..Runner::default() }.play(&run);
    assert_eq!(outcome.failure, None, "{name}:\n{}", outcome.full_log());
    assert!(outcome.tasks.iter().all(|task| task.status == Status::Succeeded), "{name}: {:?}", outcome.tasks);
}

/// Plays the run whose store is on a claim that its tasks declare.
pub fn play_with_store_on_claim() {
    let file = format!("{}/tests/e2e/store_on_claim.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(file).expect("the run is there");
    let run = render(&text, "tekton-wrap").expect("it can be wrapped");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tekton-wrap"));
    let outcome = Runner { program, objects: manifests::parse(&text), ..Runner::default() }.play(&run);
    assert_eq!(outcome.failure, None, "{}", outcome.full_log());
    assert!(outcome.tasks.iter().all(|task| task.status == Status::Succeeded), "{:?}", outcome.tasks);
}

/// Plays a wrapped run of `tests/e2e/stored/`.
pub fn play_stored(name: &str) {
    let file = format!("{}/tests/e2e/stored/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(file).expect("the run is there");
    let text = text.replace("${TARGET}", &format!("{}/stored", shared().registry.address)).replace("${IMAGE}", "sh");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tekton-wrap"));
    let outcome = Runner { program, ..Runner::default() }.play(&manifests::parse(&text)[0]);
    assert_eq!(outcome.failure, None, "{name}:\n{}", outcome.full_log());
    assert!(outcome.tasks.iter().all(|task| task.status == Status::Succeeded), "{name}: {:?}", outcome.tasks);
}

/// Plays a case as often as it wants, all at the same time.
fn play_times(case: &Case, target: &str, base: &str, mut runner: Runner) -> Vec<(Rendered, Outcome)> {
    let values = Values { target, image: "sh", base, steps: "tekton-wrap" };
    runner.program = PathBuf::from(env!("CARGO_BIN_EXE_tekton-wrap"));
    runner.objects = case.render(&values).objects;
    let runner = &runner;
    thread::scope(|scope| {
        let play = || {
            let rendered = case.render(&values);
            let outcome = runner.play(&rendered.run);
            (rendered, outcome)
        };
        let runs: Vec<_> = (0..case.head.times).map(|_| scope.spawn(play)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

/// What all cases share.
struct Shared {
    registry: Registry,
    s3: Vec<S3>,
    gcs: Option<Gcs>,
    rsyncd: Option<Rsyncd>,
    sshd: Option<Sshd>,
}

const BUCKET: &str = "workspaces";

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let registry = runtime().block_on(Registry::start());
        image::push_base(&format!("{}/base", registry.address), None);
        let s3 = runtime().block_on(S3::start_all());
        let gcs = runtime().block_on(Gcs::start());
        gcs.iter().for_each(|server| server.make_bucket(BUCKET));
        let (rsyncd, sshd) = (runtime().block_on(Rsyncd::start()), runtime().block_on(Sshd::start()));
        Shared { registry, s3, gcs, rsyncd, sshd }
    })
}

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}
