//! Registries of other makers, as they differ from each other.

use std::{fs, path::PathBuf, process::Command};

use super::{
    assets,
    process::{self, Program},
};

/// A running registry, empty at first.
pub struct Server {
    /// What it is.
    pub name: &'static str,
    /// Host and port.
    pub address: String,
    /// Whether it makes a blob of another repository available.
    pub mounts: bool,
    /// Whether it tells what a repository has, deletes, and refuses a manifest whose blobs it lacks.
    pub complete: bool,
    _program: Program,
}

impl Server {
    /// Those that can be had: `crane registry serve`, distribution 2 where it is installed (Debian: docker-registry), and
    /// container-registry and cuelabs' ocimem where `TEKTON_WRAP_ALL_REGISTRIES` is set, as they take minutes to build.
    pub async fn start_all() -> Vec<Self> {
        let mut all = vec![Self::crane().await];
        if Command::new("docker-registry").arg("--version").output().is_ok() {
            all.push(Self::distribution_2().await);
        } else {
            eprintln!("skipped: docker-registry (distribution 2) is not installed");
        }
        match std::env::var_os("TEKTON_WRAP_ALL_REGISTRIES") {
            Some(_) => all.extend([Self::container_registry().await, Self::ocimem().await]),
            None => eprintln!("skipped: container-registry and ocimem, which TEKTON_WRAP_ALL_REGISTRIES=1 builds"),
        }
        all
    }

    async fn crane() -> Self {
        let (dir, address) = place();
        let args = ["registry", "serve", "--address", &address].map(str::to_owned);
        let program = Program::start(dir, &assets::path("crane"), &args, &[]);
        Self::ready("crane registry serve", address, program, false, true).await
    }

    async fn distribution_2() -> Self {
        let (dir, address) = place();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{address}'}}\n",
            dir.join("data").display()
        );
        fs::write(dir.join("config.yml"), config).expect("config.yml");
        let args = ["serve".to_owned(), dir.join("config.yml").display().to_string()];
        let program = Program::start(dir, &PathBuf::from("docker-registry"), &args, &[]);
        Self::ready("docker-registry", address, program, true, true).await
    }

    async fn container_registry() -> Self {
        let (dir, address) = place();
        let storage = dir.join("data").display().to_string();
        let args = ["--bind", &address, "--storage", &storage].map(str::to_owned);
        let program = Program::start(dir, &assets::path("container-registry"), &args, &[]);
        Self::ready("container-registry", address, program, false, false).await
    }

    async fn ocimem() -> Self {
        let (dir, address) = place();
        let program = Program::start(dir, &assets::path("ocimem"), std::slice::from_ref(&address), &[]);
        Self::ready("ocimem", address, program, true, true).await
    }

    async fn ready(name: &'static str, address: String, program: Program, mounts: bool, complete: bool) -> Self {
        let url = format!("http://{address}/v2/");
        // 401 is an answer too.
        let answers =
            async || !matches!(ureq::get(&url).call(), Err(error) if !matches!(error, ureq::Error::StatusCode(_)));
        program.wait_until(name, answers).await;
        Self { name, address, mounts, complete, _program: program }
    }
}

fn place() -> (PathBuf, String) {
    (process::folder("registry"), format!("127.0.0.1:{}", process::free_port()))
}
