//! Buckets on the loopback interface.

use std::{collections::HashMap, env, fs, path::PathBuf, time::SystemTime};

use serde_json::json;

use super::{
    assets,
    moto::{self, Moto},
    process::{self, Program},
};

/// An access key and its secret.
#[derive(Clone)]
pub struct AccessKey {
    /// `AKIA…`
    pub id: String,
    /// What requests are signed with.
    pub secret: String,
}

/// A server of S3 that checks signatures.
pub struct S3 {
    /// What it is.
    pub name: &'static str,
    /// Host and port.
    pub address: String,
    /// Of a user who may do with every object what docs/stores.md asks for, and no more where the server knows policies.
    pub key: AccessKey,
    kind: Kind,
}

enum Kind {
    /// Buckets are folders in a folder.
    Versitygw(Program),
    Moto(Moto),
}

impl S3 {
    /// Those that there are.
    pub async fn start_all() -> Vec<Self> {
        [Self::start().await, Self::start_moto().await].into_iter().flatten().collect()
    }

    /// versitygw, whose one user may do everything. None where it was not built yet and `TEKTON_WRAP_ALL_STORES` does not ask for it.
    pub async fn start() -> Option<Self> {
        let path = optional("versitygw")?;
        let (dir, address) = (process::folder("s3"), format!("127.0.0.1:{}", process::free_port()));
        ["data", "meta"].iter().for_each(|name| fs::create_dir(dir.join(name)).expect("a folder"));
        let (data, meta) = (dir.join("data").display().to_string(), dir.join("meta").display().to_string());
        let key = AccessKey { id: "AKIATEST".to_owned(), secret: "not-a-secret".to_owned() };
        let args = ["--access", &key.id, "--secret", &key.secret, "--port", &address, "--keep-alive"];
        let args = [&args[..], &["posix", "--sidecar", &meta, &data]].concat();
        let program = Program::start(dir, &path, &owned(&args), &[]);
        let url = format!("http://{address}/");
        let answers =
            async || !matches!(ureq::get(&url).call(), Err(error) if !matches!(error, ureq::Error::StatusCode(_)));
        program.wait_until("versitygw", answers).await;
        Some(Self { name: "versitygw", address, key, kind: Kind::Versitygw(program) })
    }

    /// moto; none as above.
    async fn start_moto() -> Option<Self> {
        let server = Moto::start(&optional("moto")?).await;
        let (objects, bucket) = moto::RIGHTS;
        let rights = [objects, &[bucket]].concat();
        let policy = json!([{"Effect": "Allow", "Action": rights, "Resource": "*"}]);
        let key = server.user("user", &policy);
        Some(Self { name: "moto", address: server.address.clone(), key, kind: Kind::Moto(server) })
    }

    /// Makes a bucket, if it is not there.
    pub fn make_bucket(&self, name: &str) {
        match &self.kind {
            Kind::Versitygw(_) => fs::create_dir_all(self.path(name)).expect("a folder"),
            Kind::Moto(server) => server.make_bucket(name),
        }
    }

    /// What the objects right below `folder` are called there, in order.
    pub fn names(&self, bucket: &str, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = match &self.kind {
            Kind::Versitygw(_) => {
                let entries = fs::read_dir(self.path(bucket).join(folder)).into_iter().flatten();
                entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
            }
            Kind::Moto(server) => {
                let prefix = format!("{folder}/");
                let keys = server.keys(bucket, &prefix);
                keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect()
            }
        };
        names.sort();
        names
    }

    /// An object whose content is text.
    pub fn object(&self, bucket: &str, key: &str) -> String {
        match &self.kind {
            Kind::Versitygw(_) => fs::read_to_string(self.path(bucket).join(key)).expect("the object is there"),
            Kind::Moto(server) => server.object(bucket, key),
        }
    }

    /// Replaces an object behind the back of its users.
    pub fn set_object(&self, bucket: &str, key: &str, text: &str) {
        match &self.kind {
            Kind::Versitygw(_) => fs::write(self.path(bucket).join(key), text).expect("the object is written"),
            Kind::Moto(server) => server.set_object(bucket, key, text),
        }
    }

    /// The folder whose folders are the buckets, where it has one: there the times of objects can be set.
    pub fn folder(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Versitygw(program) => Some(program.dir().join("data")),
            Kind::Moto(_) => None,
        }
    }

    /// The object looks as if it had been stored then; only where there is a [folder](Self::folder).
    pub fn set_modified(&self, bucket: &str, key: &str, time: SystemTime) {
        let path = self.path(bucket).join(key);
        let file = fs::File::options().write(true).open(path).expect("the object is there");
        file.set_modified(time).expect("its time is set");
    }

    /// The server as one that knows users and their rights, if it does.
    pub fn moto(&self) -> Option<&Moto> {
        match &self.kind {
            Kind::Versitygw(_) => None,
            Kind::Moto(server) => Some(server),
        }
    }

    /// The variables that lead here, or to what stands before it at `address`.
    pub fn variables(&self, address: &str) -> HashMap<String, String> {
        let variables = [
            ("AWS_ACCESS_KEY_ID", self.key.id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.key.secret.clone()),
            ("AWS_ENDPOINT_URL_S3", format!("http://{address}")),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn path(&self, bucket: &str) -> PathBuf {
        self.folder().expect("a folder").join(bucket)
    }
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
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
        let path = optional("fake-gcs-server")?;
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
        let program = Program::start(dir, &path, &owned(&args), &[]);
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

/// A program that is built only on demand; says so where it is not.
fn optional(name: &str) -> Option<PathBuf> {
    if all_stores() {
        return Some(assets::path(name));
    }
    let found = assets::built(name);
    if found.is_none() {
        eprintln!("skipped: {name}, which TEKTON_WRAP_ALL_STORES=1 builds");
    }
    found
}
