//! A registry on the loopback interface.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use super::{
    assets,
    certificate::Authority,
    process::{self, Program},
};

/// The user of a registry that asks for one, and its password.
pub const USER: (&str, &str) = ("user", "secret");

/// Made by bcrypt from [`USER`], with few rounds.
const HTPASSWD: &str = "user:$2b$04$Fkf8D0NZKqyEWFaiofbfGOU2UPRzPFWnmYoHyKhx7J9kaX6n/oCOi\n";

/// A running registry (distribution), empty at first. Deleting is enabled.
pub struct Registry {
    /// Host and port.
    pub address: String,
    program: Program,
    folder: PathBuf,
}

/// What a registry has on its disk: hexadecimal digests, and tags.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Tags of a repository.
    pub tags: BTreeSet<String>,
    /// Manifests of the repository, with a tag or without.
    pub revisions: BTreeSet<String>,
    /// Blobs of all repositories, manifests among them.
    pub blobs: BTreeSet<String>,
}

impl Registry {
    /// A registry that lets everybody read and write.
    pub async fn start() -> Self {
        Self::start_in(process::folder("registry"), "", true).await
    }

    /// The same at this address (host and port), which has to be free.
    pub async fn start_at(address: &str) -> Self {
        Self::start_in_at(process::folder("registry"), "", true, address.to_owned()).await
    }

    /// A registry that knows only [`USER`] (basic authentication).
    pub async fn start_with_user() -> Self {
        let dir = process::folder("registry");
        fs::write(dir.join("htpasswd"), HTPASSWD).expect("htpasswd");
        Self::start_in(dir, "auth: {htpasswd: {realm: test, path: DIR/htpasswd}}\n", true).await
    }

    /// A registry that wants tokens (service and issuer `test`) of the token server at `realm`, which signs them with a key
    /// that `authority` vouches for.
    pub async fn start_with_tokens(realm: &str, authority: &Authority) -> Self {
        let dir = process::folder("registry");
        fs::write(dir.join("ca.crt"), authority.pem()).expect("ca.crt");
        let token = format!("{{realm: '{realm}', service: test, issuer: test, rootcertbundle: DIR/ca.crt}}");
        Self::start_in(dir, &format!("auth: {{token: {token}}}\n"), true).await
    }

    /// A registry that speaks HTTPS, with a certificate for `names`.
    pub async fn start_with_tls(authority: &Authority, names: &[&str]) -> Self {
        let dir = process::folder("registry");
        authority.issue_for(names, &dir);
        Self::start_in(dir, "  tls: {certificate: DIR/tls.crt, key: DIR/tls.key}\n", true).await
    }

    /// A registry that reads what it does not have from another one (pull-through).
    pub async fn start_mirror_of(remote: &str) -> Self {
        let dir = process::folder("registry");
        Self::start_in(dir, &format!("proxy: {{remoteurl: '{remote}'}}\n"), true).await
    }

    /// A registry that deletes nothing.
    pub async fn start_that_keeps_all() -> Self {
        let dir = process::folder("registry");
        Self::start_in(dir, "", false).await
    }

    /// What the registry printed so far: one line for each request among it.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// Deletes blobs that no manifest needs, as its operator does: `registry garbage-collect`, without `-m`.
    pub fn collect_garbage(&self) {
        let config = self.folder.join("config.yml");
        let mut command = assets::command("registry");
        let output = command.arg("garbage-collect").arg(config).env("OTEL_TRACES_EXPORTER", "none").output();
        let output = output.expect("the registry's garbage collection");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What is on its disk (distribution: registry/storage/paths.go).
    pub fn stored(&self, repository: &str) -> Stored {
        let root = self.folder.join("data/docker/registry/v2");
        let manifests = root.join("repositories").join(repository).join("_manifests");
        let with = |folder: PathBuf, file: &str| {
            let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("entry"));
            entries.filter(|entry| entry.path().join(file).exists()).collect::<Vec<_>>()
        };
        let names =
            |entries: Vec<fs::DirEntry>| entries.iter().map(|e| e.file_name().into_string().expect("UTF-8")).collect();
        let folders = with(root.join("blobs/sha256"), "");
        Stored {
            tags: names(with(manifests.join("tags"), "current/link")),
            revisions: names(with(manifests.join("revisions/sha256"), "link")),
            blobs: names(folders.into_iter().flat_map(|folder| with(folder.path(), "data")).collect()),
        }
    }

    /// `more` is added to the configuration, the last part of which is `http`.
    async fn start_in(dir: PathBuf, more: &str, deletes: bool) -> Self {
        let address = format!("127.0.0.1:{}", process::free_port());
        Self::start_in_at(dir, more, deletes, address).await
    }

    async fn start_in_at(dir: PathBuf, more: &str, deletes: bool, address: String) -> Self {
        let config = format!(
            "version: 0.1\n\
             log: {{level: info}}\n\
             storage: {{filesystem: {{rootdirectory: DIR/data}}, delete: {{enabled: {deletes}}}}}\n\
             http:\n  addr: '{address}'\n{more}"
        );
        let config = config.replace("DIR", dir.to_str().expect("UTF-8"));
        fs::write(dir.join("config.yml"), config).expect("config.yml");
        let args = ["serve".to_owned(), dir.join("config.yml").display().to_string()];
        // It would look for a collector of traces.
        let env = [("OTEL_TRACES_EXPORTER", "none")];
        let program = Program::start(dir.clone(), &assets::path("registry"), &args, &env);
        let url = format!("http://{address}/v2/");
        // 401 is an answer too.
        let answers =
            async || !matches!(ureq::get(&url).call(), Err(error) if !matches!(error, ureq::Error::StatusCode(_)));
        program.wait_until("registry", answers).await;
        Self { address, program, folder: dir }
    }
}

/// crane, to look at images with eyes that are not ours.
pub fn crane() -> Command {
    assets::command("crane")
}
