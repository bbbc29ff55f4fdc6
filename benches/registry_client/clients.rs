//! The clients, each in a process of its own.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::LazyLock,
    time::Instant,
};

use serde_json::json;

use super::{
    image::{Layout, PASSWORD, USERNAME},
    oci::{self, Upload},
    ours, registry,
};
use support::registry::USER;

/// A client under its name in the tables.
pub struct Client {
    pub name: &'static str,
    /// The method of the request that carries a layer.
    pub sends_by: &'static str,
}

pub const OURS: &str = "tekton-wrap";
const CHUNKS: &str = "oci-client";
const ONE_PUT: &str = "oci-client, digest known";
pub const CRANE: &str = "crane";

pub const CLIENTS: &[Client] = &[
    Client { name: OURS, sends_by: "PATCH" },
    Client { name: CHUNKS, sends_by: "PATCH" },
    Client { name: ONE_PUT, sends_by: "PUT" },
    Client { name: CRANE, sends_by: "PATCH" },
];

/// What to do with an image.
pub enum Work<'a> {
    Push {
        layout: &'a Path,
    },
    Pull {
        out: &'a Path,
    },
    /// From another repository of the same registry.
    Copy {
        from: &'a str,
    },
    Delete {
        digest: &'a str,
    },
}

/// How it went.
pub struct Outcome {
    pub ok: bool,
    pub seconds: f64,
    /// The last line that it printed.
    pub said: String,
}

impl Client {
    pub fn is_oci_client(&self) -> bool {
        self.name == CHUNKS || self.name == ONE_PUT
    }

    /// `home` is a folder with the `config.json` that [`log_in`] wrote, or without one.
    pub fn command(&self, work: &Work<'_>, image: &str, home: &Path) -> Command {
        static CRANE_PATH: LazyLock<String> = LazyLock::new(|| registry::asset("crane"));
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (program, args) = if self.name == CRANE {
            let args = match work {
                Work::Push { layout } => vec!["push".to_owned(), path(layout), image.to_owned()],
                Work::Pull { out } => {
                    vec!["pull".to_owned(), "--format=oci".to_owned(), image.to_owned(), path(&out.join("image"))]
                }
                Work::Copy { from } => vec!["copy".to_owned(), (*from).to_owned(), image.to_owned()],
                Work::Delete { digest } => {
                    let repository = image.rsplit_once(':').expect("a tag").0;
                    vec!["delete".to_owned(), format!("{repository}@{digest}")]
                }
            };
            (CRANE_PATH.clone().into(), args)
        } else {
            let (what, operand) = match work {
                Work::Push { layout } => ("push", path(layout)),
                Work::Pull { out } => ("pull", path(out)),
                Work::Copy { from } => ("copy", (*from).to_owned()),
                Work::Delete { .. } => ("delete", String::new()),
            };
            let own = env::current_exe().expect("it has a path");
            (own, vec!["--client".to_owned(), self.name.to_owned(), what.to_owned(), image.to_owned(), operand])
        };
        let mut command = Command::new(program);
        command.args(args).env("DOCKER_CONFIG", home).env("HOME", home);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        if home.join("config.json").exists() {
            command.env(USERNAME, USER.0).env(PASSWORD, USER.1);
        }
        command
    }

    /// Does it, and tells how it went.
    pub fn tries(&self, work: &Work<'_>, image: &str, home: &Path) -> Outcome {
        let start = Instant::now();
        let mut command = self.command(work, image, home);
        let output = command.stdin(Stdio::null()).output().expect("the client starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
        Outcome { ok: output.status.success(), seconds: start.elapsed().as_secs_f64(), said }
    }
}

/// Writes a `config.json` with [`USER`] for `host` into `home`.
pub fn log_in(home: &Path, host: &str) {
    let config = json!({"auths": {host: {"username": USER.0, "password": USER.1}}});
    fs::write(home.join("config.json"), config.to_string()).expect("config.json is written");
}

/// What a process of a client does.
pub fn run(client: &str, work: &str, operands: &[String]) -> ExitCode {
    let [image, operand] = operands else { panic!("an image and another operand") };
    let result = match client {
        OURS => match work {
            "push" => ours::push(&Layout::open(Path::new(operand)), image),
            "pull" => ours::pull(image, Path::new(operand)),
            "copy" => ours::copy(operand, image),
            "delete" => ours::delete(image),
            _ => panic!("{work}"),
        },
        _ => {
            let upload = if client == ONE_PUT { Upload::OnePut } else { Upload::Chunks };
            // The features that oci-client is built with choose no provider.
            rustls::crypto::ring::default_provider().install_default().expect("it is the first one");
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let result = runtime.block_on(async {
                match work {
                    "push" => oci::push(&Layout::open(Path::new(operand)), image, upload).await,
                    "pull" => oci::pull(image, Path::new(operand)).await,
                    "copy" => oci::copy(operand, image).await,
                    _ => panic!("oci-client has no such call: {work}"),
                }
            });
            result.map_err(|error| {
                let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
                causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
            })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
