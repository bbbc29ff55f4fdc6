//! Buckets on the loopback interface.

use std::{collections::HashMap, env, fs, path::PathBuf, time::SystemTime};

use super::{
    assets,
    process::{self, Program},
};

/// The access key that [`S3`] knows, and its secret.
pub const ACCESS_KEY: (&str, &str) = ("AKIATEST", "not-a-secret");

/// A server of S3 (versitygw) that checks signatures. Its buckets are folders.
pub struct S3 {
    /// Host and port.
    pub address: String,
    program: Program,
}

impl S3 {
    /// None where versitygw was not built yet and `TEKTON_WRAP_ALL_STORES` does not ask for it.
    pub async fn start() -> Option<Self> {
        let Some(path) = optional("versitygw") else {
            eprintln!("skipped: S3, as versitygw is not built; TEKTON_WRAP_ALL_STORES=1 builds it");
            return None;
        };
        let (dir, address) = (process::folder("s3"), format!("127.0.0.1:{}", process::free_port()));
        ["data", "meta"].iter().for_each(|name| fs::create_dir(dir.join(name)).expect("a folder"));
        let (data, meta) = (dir.join("data").display().to_string(), dir.join("meta").display().to_string());
        let args = ["--access", ACCESS_KEY.0, "--secret", ACCESS_KEY.1, "--port", &address, "--keep-alive"];
        let args = [&args[..], &["posix", "--sidecar", &meta, &data]].concat();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let program = Program::start(dir, &path, &args, &[]);
        let url = format!("http://{address}/");
        let answers =
            async || !matches!(ureq::get(&url).call(), Err(error) if !matches!(error, ureq::Error::StatusCode(_)));
        program.wait_until("versitygw", answers).await;
        Some(Self { address, program })
    }

    /// Makes a bucket, if it is not there.
    pub fn make_bucket(&self, name: &str) {
        fs::create_dir_all(self.program.dir().join("data").join(name)).expect("a folder");
    }

    /// Where an object is kept.
    pub fn file(&self, bucket: &str, key: &str) -> PathBuf {
        self.program.dir().join("data").join(bucket).join(key)
    }

    /// The object looks as if it had been stored then.
    pub fn set_modified(&self, bucket: &str, key: &str, time: SystemTime) {
        let file = fs::File::options().write(true).open(self.file(bucket, key)).expect("the object is there");
        file.set_modified(time).expect("its time is set");
    }

    /// The variables that lead here, or to what stands before it at `address`.
    pub fn variables(&self, address: &str) -> HashMap<String, String> {
        let variables = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.0.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", ACCESS_KEY.1.to_owned()),
            ("AWS_ENDPOINT_URL_S3", format!("http://{address}")),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What the server printed so far.
    pub fn log(&self) -> String {
        self.program.log()
    }
}

/// A server of Google Cloud Storage (fake-gcs-server), which knows no users.
pub struct Gcs {
    /// Host and port.
    pub address: String,
    _program: Program,
}

impl Gcs {
    /// None where fake-gcs-server was not built yet and `TEKTON_WRAP_ALL_STORES` does not ask for it.
    pub async fn start() -> Option<Self> {
        let Some(path) = optional("fake-gcs-server") else {
            eprintln!(
                "skipped: Google Cloud Storage, as fake-gcs-server is not built; TEKTON_WRAP_ALL_STORES=1 builds it"
            );
            return None;
        };
        let (dir, port) = (process::folder("gcs"), process::free_port());
        let address = format!("127.0.0.1:{port}");
        let args = [
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            &port.to_string(),
            "-backend",
            "memory",
            "-public-host",
            &address,
        ];
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let program = Program::start(dir, &path, &args, &[]);
        let url = format!("http://{address}/storage/v1/b?project=test");
        program.wait_until("fake-gcs-server", async || ureq::get(&url).call().is_ok()).await;
        Some(Self { address, _program: program })
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) {
        let url = format!("http://{}/storage/v1/b?project=test", self.address);
        let body = format!(r#"{{"name":"{name}"}}"#);
        ureq::post(&url).header("content-type", "application/json").send(&body).expect("the bucket is made");
    }

    /// The variables that lead here.
    pub fn variables(&self) -> HashMap<String, String> {
        [("STORAGE_EMULATOR_HOST".to_owned(), self.address.clone())].into()
    }
}

/// Whether every kind of store is to be tested, whatever it takes.
pub fn all_stores() -> bool {
    env::var_os("TEKTON_WRAP_ALL_STORES").is_some()
}

/// A program that is built only on demand.
fn optional(name: &str) -> Option<PathBuf> {
    if all_stores() { Some(assets::path(name)) } else { assets::built(name) }
}
