//! Where a run's images are: in a folder of its own, or in a store.

use std::{
    env, fs,
    io::Read,
    path::Path,
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;
use tekton_wrap::{
    store::{self, Blob},
    target::Target,
};

use crate::{image, seen::Seen};

/// The variable that names a place for the images of all runs, as a target does: `s3://bucket/prefix`. How to reach it is said by
/// the variables that the injected steps read.
pub const STORE: &str = "TEKTON_WRAP_MODEL_STORE";

/// The tag of all images.
const TAG: &str = "done";

/// Where the images of one run and of its reruns are.
pub struct Place(String);

impl Place {
    /// Below [`STORE`]; where nothing is named there, in `folder`.
    pub fn new(folder: &Path) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let own = || format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(match env::var(STORE) {
            Ok(store) => format!("{store}/{}", own()),
            Err(_) => format!("dir://{}", folder.display()),
        })
    }

    /// The image `name`, which may hold variables.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:{TAG}", self.0)
    }

    /// What the image `name` holds; none where there is no such image.
    pub fn read(&self, name: &str) -> Option<Seen> {
        match self.image(name).parse().expect("a target") {
            Target::Dir { path, .. } => in_folder(&path),
            target => in_store(&target),
        }
    }
}

/// Read as any tool does: an OCI image layout.
fn in_folder(folder: &Path) -> Option<Seen> {
    let index = json(&fs::read(folder.join("index.json")).ok()?);
    let name = "org.opencontainers.image.ref.name";
    let entry = index["manifests"].as_array()?.iter().find(|entry| entry["annotations"][name] == TAG)?;
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest").replace(':', "/");
        fs::read(folder.join("blobs").join(digest)).expect("the blob is there")
    };
    Some(image::read(&json(&blob(entry)), &blob))
}

fn in_store(target: &Target) -> Option<Seen> {
    let store = store::open(target).expect("a store");
    let manifest = store.manifest(TAG).expect("the store answers")?;
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.parse().ok()).expect("a digest");
        let blob = Blob { digest, size: descriptor["size"].as_u64().expect("a size") };
        let mut bytes = Vec::new();
        store.blob(&blob).expect("the blob is there").read_to_end(&mut bytes).expect("all of it");
        bytes
    };
    Some(image::read(&json(&manifest.bytes), &blob))
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}
