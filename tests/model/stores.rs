//! The same runs in every other store that there is, fewer of them, on a server of its own: this program again, with [`STORE`] set.
//! What is merged is the same everywhere; here it goes to a store and comes from it in the order that random runs have.

use std::{collections::HashMap, env, process::Command};

use support::{
    buckets::{Gcs, S3},
    registry::Registry,
    rsync::{self, Rsyncd},
};

use crate::place::STORE;

/// One run of how many goes to a store: it takes some hundred requests, and a few seconds.
const ONE_OF: u32 = 40;

/// With rsync each look is a process.
const ONE_OF_WITH_RSYNC: u32 = 120;

const BUCKET: &str = "model";

#[tokio::test]
async fn a_registry() {
    let server = Registry::start().await;
    play(&format!("{}/model", server.address), &HashMap::new(), ONE_OF);
}

#[tokio::test]
async fn s3() {
    for server in S3::start_all().await {
        println!("{}", server.name);
        server.make_bucket(BUCKET);
        play(&format!("s3://{BUCKET}"), &server.variables(&server.address), ONE_OF);
    }
}

#[tokio::test]
async fn google_cloud_storage() {
    if let Some(server) = Gcs::start().await {
        server.make_bucket(BUCKET);
        play(&format!("gs://{BUCKET}"), &server.variables(), ONE_OF);
    }
}

#[tokio::test]
async fn rsync() {
    if let Some(server) = Rsyncd::start().await {
        let (user, password) = rsync::USER;
        let variables = HashMap::from([("RSYNC_PASSWORD".to_owned(), password.to_owned())]);
        play(&format!("rsync://{user}@{}/locked/model", server.address), &variables, ONE_OF_WITH_RSYNC);
    }
}

/// Plays random runs whose images are below `store`.
fn play(store: &str, variables: &HashMap<String, String>, one_of: u32) {
    let runs = crate::config().cases.div_ceil(one_of).to_string();
    let program = env::current_exe().expect("this program");
    let played = Command::new(program)
        .arg("runs::")
        .envs([(STORE, store), ("PROPTEST_CASES", &runs)])
        .envs(variables)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&played.stdout);
    print!("{text}");
    assert!(
        played.status.success() && text.contains("3 passed"),
        "{store}: {}",
        String::from_utf8_lossy(&played.stderr)
    );
}
