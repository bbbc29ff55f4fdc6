//! The object that is a tag.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::super::{StoredManifest, own_media_type};
use crate::{digest::Digest, target::is_tag};

/// Where tags are.
pub const FOLDER: &str = "manifests/";

/// An OCI descriptor (OCI image-spec, descriptor.md).
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TagDescriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    data: String,
}

/// What is wrong with a stored tag or manifest: a clause.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTag {
    #[error("it is no descriptor: {0}")]
    NoDescriptor(serde_json::Error),
    #[error("its data can't be read: {0}")]
    Data(base64::DecodeError),
    #[error("it has a manifest of {found} bytes instead of {expected}")]
    Size { found: usize, expected: u64 },
    #[error("its content has the digest {0}")]
    Digest(Digest),
    #[error("it is not a manifest")]
    NoManifest,
}

/// Where the tag is.
pub fn key(tag: &str) -> String {
    format!("{FOLDER}{tag}")
}

/// The tag that is there, if it is one.
pub fn of_key(key: &str) -> Option<String> {
    key.strip_prefix(FOLDER).filter(|tag| is_tag(tag)).map(str::to_owned)
}

/// The content of the object.
pub fn render(media_type: &str, digest: &Digest, manifest: &[u8]) -> Vec<u8> {
    let descriptor = TagDescriptor {
        media_type: media_type.to_owned(),
        digest: *digest,
        size: manifest.len() as u64,
        data: BASE64_STANDARD.encode(manifest),
    };
    // Such a structure can always be written.
    serde_json::to_vec(&descriptor).unwrap_or_default()
}

/// The manifest in it, checked.
pub fn parse(bytes: &[u8]) -> Result<StoredManifest, InvalidTag> {
    let descriptor: TagDescriptor = serde_json::from_slice(bytes).map_err(InvalidTag::NoDescriptor)?;
    let manifest = BASE64_STANDARD.decode(&descriptor.data).map_err(InvalidTag::Data)?;
    if manifest.len() as u64 != descriptor.size {
        return Err(InvalidTag::Size { found: manifest.len(), expected: descriptor.size });
    }
    of_bytes(descriptor.digest, Some(descriptor.media_type), manifest)
}

/// A manifest that has to have `digest`.
pub fn of_bytes(digest: Digest, media_type: Option<String>, bytes: Vec<u8>) -> Result<StoredManifest, InvalidTag> {
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(InvalidTag::Digest(found));
    }
    let media_type = media_type.or_else(|| own_media_type(&bytes)).ok_or(InvalidTag::NoManifest)?;
    Ok(StoredManifest { digest, media_type, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back() {
        let bytes = br#"{"config":{}}"#;
        let manifest = parse(&render("application/x", &Digest::of(bytes), bytes)).unwrap();
        assert_eq!(
            (manifest.digest, manifest.media_type.as_str(), &manifest.bytes[..]),
            (Digest::of(bytes), "application/x", &bytes[..])
        );
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let digest = Digest::of(b"{}");
        let text =
            |size: u64, data: &str| format!(r#"{{"mediaType":"a","digest":"{digest}","size":{size},"data":"{data}"}}"#);
        for (text, says) in [
            (String::new(), "it is no descriptor"),
            ("{}".to_owned(), "it is no descriptor"),
            (text(2, "?"), "its data can't be read"),
            (text(3, "e30="), "it has a manifest of 2 bytes instead of 3"),
            (text(2, "ZTMw"), "it has a manifest of 3 bytes instead of 2"),
            (text(2, "W10="), "its content has the digest"),
        ] {
            assert!(parse(text.as_bytes()).unwrap_err().to_string().starts_with(says), "{text}");
        }
    }

    #[test]
    fn keys() {
        assert_eq!(of_key(&key("v1")).as_deref(), Some("v1"));
        for other in ["manifests/", "manifests/..", "manifests/a/b", "manifests/a b", "manifests/-a", "blobs/sha256/a"]
        {
            assert_eq!(of_key(other), None, "{other}");
        }
    }
}
