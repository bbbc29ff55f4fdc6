//! A registry (distribution) on the loopback interface that keeps its blobs in a folder.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

pub struct Registry {
    pub address: String,
    data: PathBuf,
    child: Child,
}

impl Registry {
    pub fn start(dir: &str, program: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {dir}/registry}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: '{address}'\n"
        );
        fs::write(format!("{dir}/registry.yml"), config).expect("the configuration is written");
        let mut command = Command::new(program);
        command.args(["serve", &format!("{dir}/registry.yml")]).env("OTEL_TRACES_EXPORTER", "none");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the registry starts");
        let registry = Self { address, data: Path::new(dir).join("registry"), child };
        for _ in 0..500 {
            if TcpStream::connect(&registry.address).is_ok() {
                return registry;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the registry does not answer");
    }

    /// Forgets all images.
    pub fn wipe(&self) {
        let _ = fs::remove_dir_all(self.data.join("docker"));
    }

    /// Bytes of all blobs and manifests.
    pub fn stored(&self) -> u64 {
        bytes_in(&self.data.join("docker/registry/v2/blobs"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of all files in it.
pub fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        meta => meta.map_or(0, |meta| meta.len()),
    };
    entries.flatten().map(size).sum()
}

/// The path of a program that the tests or benchmarks run beside the product.
pub fn asset(name: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/assets/build");
    let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output().expect("tests/assets/build starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim_end().split_once('=').expect("tests/assets/build prints NAME=PATH").1.to_owned()
}
