//! The folders that stand for volumes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::{
    Runner,
    json::{items, name, text},
};

/// Where volumes are made.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// For what lives as long as the run: claims.
    pub run: &'a Path,
    /// For what lives as long as one pod.
    pub pod: &'a Path,
}

/// The folder for a volume or a workspace binding. `id` is unique in the pod.
pub fn folder(runner: &Runner, places: Places<'_>, source: &Value, id: &str) -> Result<PathBuf, String> {
    if source["emptyDir"].is_object() {
        return open_folder(places.pod.join("volumes").join(id));
    }
    if let Some(claim) = text(&source["persistentVolumeClaim"], "claimName") {
        return open_folder(places.run.join("claims").join(claim));
    }
    if source["volumeClaimTemplate"].is_object() {
        return open_folder(places.run.join("claims").join(format!("template-{}", name(source))));
    }
    let sources = match items(&source["projected"], "sources") {
        [] => std::slice::from_ref(source),
        projected => projected,
    };
    let folder = open_folder(places.pod.join("volumes").join(id))?;
    for source in sources {
        write_object(runner, source, &folder)?;
    }
    Ok(folder)
}

/// A folder into which every user may write, as an emptyDir is (mode 0777).
pub fn open_folder(path: PathBuf) -> Result<PathBuf, String> {
    let made = fs::create_dir_all(&path).and_then(|()| fs::set_permissions(&path, PermissionsExt::from_mode(0o777)));
    made.map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// Writes the keys of a ConfigMap or a Secret as files.
fn write_object(runner: &Runner, source: &Value, folder: &Path) -> Result<(), String> {
    let (kind, reference) = match (&source["configMap"], &source["secret"]) {
        (reference @ Value::Object(_), _) => ("ConfigMap", reference),
        (_, reference @ Value::Object(_)) => ("Secret", reference),
        _ => return Err(format!("the runner can't play the volume {source}")),
    };
    let object = text(reference, "name").or(text(reference, "secretName")).unwrap_or_default();
    for (key, bytes) in contents(runner.object(kind, object)?) {
        let picked = items(reference, "items").iter().find(|item| item["key"] == *key);
        let path = match picked {
            Some(item) => text(item, "path").unwrap_or(&key).to_owned(),
            None if items(reference, "items").is_empty() => key,
            None => continue,
        };
        fs::write(folder.join(&path), bytes).map_err(|e| format!("{kind} {object}: {path}: {e}"))?;
    }
    Ok(())
}

/// The keys of a ConfigMap or a Secret with their bytes.
pub fn contents(object: &Value) -> Vec<(String, Vec<u8>)> {
    let plain = if object["kind"] == "Secret" { "stringData" } else { "data" };
    let encoded = if object["kind"] == "Secret" { "data" } else { "binaryData" };
    let entries = |key: &str| object[key].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    let plain = entries(plain).map(|(k, v)| (k, v.as_str().unwrap_or_default().as_bytes().to_vec()));
    let decode = |v: Value| BASE64_STANDARD.decode(v.as_str().unwrap_or_default()).unwrap_or_default();
    plain.chain(entries(encoded).map(|(k, v)| (k, decode(v)))).collect()
}
