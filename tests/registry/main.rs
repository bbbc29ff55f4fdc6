//! The stores against real registries, real token servers and real faults, over real sockets; and the images that are
//! installed, pushed to such a registry.

mod again;
mod attacks;
mod auth;
mod contract;
mod deletion;
mod environment;
mod faults;
mod gcs;
mod growth;
mod hosts;
mod images;
mod inspect;
mod lying_buckets;
mod messages;
mod mirror;
mod prune;
mod prune_attacks;
mod requests;
mod rsync;
mod s3;
mod signatures;
mod soak;
mod tools;
mod uploads;

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use support::{
    buckets::{Gcs, S3},
    registry::Registry,
    rsync::{Rsyncd, Sshd},
};
use tekton_wrap::{
    store::{self, Blob, Credentials, Environment, RetryPolicy, Store, StoreError, StoreOptions},
    target::Target,
};

/// The registry that the tests share, open to everybody.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| wait_for(Registry::start()));

/// The servers of S3 that the tests share, each with [`BUCKET`]; those that there are.
fn s3() -> &'static [S3] {
    static ALL: LazyLock<Vec<S3>> = LazyLock::new(|| {
        let servers = wait_for(S3::start_all());
        servers.iter().for_each(|server| server.make_bucket(BUCKET));
        servers
    });
    &ALL
}

/// The same of Google, where there is one.
fn gcs() -> Option<&'static Gcs> {
    static GCS: LazyLock<Option<Gcs>> = LazyLock::new(|| {
        let server = wait_for(Gcs::start())?;
        server.make_bucket(BUCKET);
        Some(server)
    });
    GCS.as_ref()
}

/// A folder that a daemon gives, where there is rsync.
fn rsyncd() -> Option<&'static Rsyncd> {
    static RSYNCD: LazyLock<Option<Rsyncd>> = LazyLock::new(|| wait_for(Rsyncd::start()));
    RSYNCD.as_ref()
}

/// The same over ssh.
fn sshd() -> Option<&'static Sshd> {
    static SSHD: LazyLock<Option<Sshd>> = LazyLock::new(|| wait_for(Sshd::start()));
    SSHD.as_ref()
}

const BUCKET: &str = "test-bucket";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Runs what the support for tests does in an asynchronous way.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// Anonymous, with short waits.
fn options() -> StoreOptions {
    StoreOptions {
        retry: RetryPolicy {
            deadline: Duration::from_secs(20),
            first: Duration::from_millis(5),
            longest: Duration::from_millis(20),
        },
        ..StoreOptions::default()
    }
}

/// The same, soon out of patience: for what never goes well.
fn impatient() -> StoreOptions {
    StoreOptions { retry: RetryPolicy { deadline: Duration::from_millis(300), ..options().retry }, ..options() }
}

/// With the credentials of a `config.json`.
fn options_with(config: &Path) -> StoreOptions {
    StoreOptions { credentials: Credentials::from_files(vec![config.to_owned()]), ..options() }
}

/// Writes a `config.json` with one entry of `auths`.
fn config(folder: &Path, host: &str, entry: serde_json::Value) -> PathBuf {
    let path = folder.join("config.json");
    fs::write(&path, json!({"auths": {host: entry}}).to_string()).unwrap();
    path
}

/// A repository of its own for each call.
fn repository() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("test/repo-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The UID of the run whose target is in this repository. Restores leave their records by it in a folder of the machine, where there
/// is one, so that no two tests may have the same; nor two runs of one.
fn uid(image: &str) -> String {
    let (name, _) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((image, ""));
    let names: Vec<&str> = name.rsplit('/').take(2).collect();
    format!("uid{}{}", std::process::id(), names.concat().replace(['.', '-'], ""))
}

/// A part of [`BUCKET`] of its own for each call.
fn bucket(scheme: &str) -> Target {
    format!("{scheme}://{BUCKET}/{}:v1", repository()).parse().unwrap()
}

fn target(host: &str, repository: &str) -> Target {
    format!("{host}/{repository}:v1").parse().unwrap()
}

fn open(host: &str, repository: &str, options: &StoreOptions) -> Box<dyn Store> {
    store::open_with(&target(host, repository), options).unwrap()
}

/// Bytes that don't repeat.
fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

fn put(store: &dyn Store, content: &[u8]) -> Result<Blob, StoreError> {
    store.put_blob(&mut |to| content.chunks(10_007).try_for_each(|part| to.write_all(part)))
}

fn get(store: &dyn Store, blob: &Blob) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    store.blob(blob).map_err(|e| e.to_string())?.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// A manifest whose only blobs are its config and one layer.
fn manifest(config: &Blob, layer: &Blob) -> Vec<u8> {
    let describe = |media_type: &str, blob: &Blob| json!({"mediaType": media_type, "digest": blob.digest.to_string(), "size": blob.size});
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe("application/vnd.oci.image.config.v1+json", config),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar", layer)],
    })
    .to_string()
    .into_bytes()
}
