//! The image that is pushed and pulled: an OCI image layout that this program saved.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tekton_wrap::{digest::Digest, store::Blob};

/// How many blobs travel at a time.
pub const AT_ONCE: usize = 8;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Environment variables with the credentials for oci-client, which reads no `config.json`.
pub const USERNAME: &str = "BENCH_USERNAME";
pub const PASSWORD: &str = "BENCH_PASSWORD";

/// An image with all its blobs, in a folder.
pub struct Layout {
    pub dir: PathBuf,
    pub blobs: Blobs,
}

/// A manifest, and what it names.
pub struct Blobs {
    pub manifest: Vec<u8>,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

impl Layout {
    /// Saves the files of `tree` as an image in the folder `dir`.
    pub fn save(tree: &Path, dir: &Path) -> Self {
        let target = format!("dir://{}:v1", dir.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
        let saved = command.arg("save").args([tree.to_str().expect("UTF-8"), &target]).output().expect("it starts");
        assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
        Self::open(dir)
    }

    pub fn open(dir: &Path) -> Self {
        let index: Value =
            serde_json::from_slice(&fs::read(dir.join("index.json")).expect("index.json")).expect("an index");
        let digest: Digest = index["manifests"][0]["digest"].as_str().and_then(|d| d.parse().ok()).expect("a digest");
        let blobs = Blobs::of(fs::read(dir.join("blobs/sha256").join(digest.hex())).expect("a manifest"));
        Self { dir: dir.to_owned(), blobs }
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    pub fn read(&self, digest: &Digest) -> Vec<u8> {
        fs::read(self.path(digest)).expect("a blob")
    }
}

impl Blobs {
    pub fn of(manifest: Vec<u8>) -> Self {
        let json: Value = serde_json::from_slice(&manifest).expect("a manifest");
        let blob = |json: &Value| Blob {
            digest: json["digest"].as_str().and_then(|digest| digest.parse().ok()).expect("a digest"),
            size: json["size"].as_u64().expect("a size"),
        };
        let layers = json["layers"].as_array().expect("layers").iter().map(blob).collect();
        Self { config: blob(&json["config"]), layers, manifest }
    }

    /// The layers, then the configuration.
    pub fn all(&self) -> Vec<Blob> {
        self.layers.iter().copied().chain([self.config]).collect()
    }
}
