//! The same with oci-client, as its documentation shows it. What it leaves to its caller (credentials, a copy where a blob
//! can't be mounted) is here.

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};
use tekton_wrap::store::Blob;

use super::image::{AT_ONCE, Blobs, Layout, MANIFEST, PASSWORD, USERNAME};

type Result<T> = std::result::Result<T, OciDistributionError>;

/// It sends each item of a stream in a request of its own, but no more than this.
const CHUNK: usize = 4 << 20;

/// How a blob is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// In chunks, the digest computed meanwhile: what an image takes whose layers are made while they are sent.
    Chunks,
    /// In one request, for which the digest has to be known before.
    OnePut,
}

pub async fn push(layout: &Layout, image: &str, upload: Upload) -> Result<()> {
    let (client, image, _) = open(image, upload).await?;
    let (client, image) = (&client, &image);
    let layers = stream::iter(&layout.blobs.layers).map(|blob| async move {
        let file = File::open(layout.path(&blob.digest))?;
        match upload {
            Upload::Chunks => client.push_blob_stream_chunked(image, parts(file, CHUNK)).await.map(drop),
            Upload::OnePut => {
                let (digest, size) = (blob.digest.to_string(), Some(blob.size));
                client.push_blob_stream(image, parts(file, 1 << 18), &digest, size).await.map(drop)
            }
        }
    });
    layers.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let config = &layout.blobs.config;
    client.push_blob(image, layout.read(&config.digest), &config.digest.to_string()).await?;
    client.push_manifest_raw(image, layout.blobs.manifest.clone(), MANIFEST.parse().expect("a value")).await.map(drop)
}

pub async fn pull(image: &str, to: &Path) -> Result<()> {
    let (client, image, auth) = open(image, Upload::Chunks).await?;
    let (manifest, _) = client.pull_manifest_raw(&image, &auth, &[MANIFEST]).await?;
    let (client, image) = (&client, &image);
    let blobs = Blobs::of(manifest.to_vec()).all();
    let blobs = stream::iter(&blobs).map(|blob| async move {
        let mut content = client.pull_blob_stream(image, &descriptor(blob)).await?.stream;
        let mut file = File::create(to.join(blob.digest.hex()))?;
        while let Some(part) = content.try_next().await? {
            file.write_all(&part)?;
        }
        Ok(())
    });
    blobs.buffer_unordered(AT_ONCE).try_collect().await
}

pub async fn copy(from: &str, image: &str) -> Result<()> {
    let (source, from, auth) = open(from, Upload::OnePut).await?;
    let (client, image, _) = open(image, Upload::OnePut).await?;
    let (manifest, _) = source.pull_manifest_raw(&from, &auth, &[MANIFEST]).await?;
    let blobs = Blobs::of(manifest.to_vec());
    for blob in blobs.all() {
        let digest = blob.digest.to_string();
        match client.mount_blob(&image, &from, &digest).await {
            Err(OciDistributionError::SpecViolationError(_)) => {}
            mounted => {
                mounted?;
                continue;
            }
        }
        let content = source.pull_blob_stream(&from, &descriptor(&blob)).await?.stream.map_err(Into::into);
        client.push_blob_stream(&image, content, &digest, Some(blob.size)).await?;
    }
    client.push_manifest_raw(&image, blobs.manifest, MANIFEST.parse().expect("a value")).await.map(drop)
}

async fn open(image: &str, upload: Upload) -> Result<(Client, Reference, RegistryAuth)> {
    let config = ClientConfig {
        protocol: ClientProtocol::Http,
        use_monolithic_push: upload == Upload::OnePut,
        ..ClientConfig::default()
    };
    let client = Client::try_from(config)?;
    let image: Reference = image.parse().expect("a reference");
    let auth = match (env::var(USERNAME), env::var(PASSWORD)) {
        (Ok(username), Ok(password)) => RegistryAuth::Basic(username, password),
        _ => RegistryAuth::Anonymous,
    };
    // Where it knows that there are no credentials, it asks `/v2/` before each request. Reading a manifest tells it so.
    if auth != RegistryAuth::Anonymous {
        client.store_auth_if_needed(image.resolve_registry(), &auth).await;
    }
    Ok((client, image, auth))
}

fn descriptor(blob: &Blob) -> OciDescriptor {
    OciDescriptor { digest: blob.digest.to_string(), size: blob.size as i64, ..OciDescriptor::default() }
}

/// The content of a file in parts of `size`, the last one aside.
fn parts(file: File, size: usize) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::iter(std::iter::from_fn(move || {
        let mut part = Vec::with_capacity(size);
        match io::copy(&mut (&file).take(size as u64), &mut part) {
            Ok(0) => None,
            Ok(_) => Some(Ok(part.into())),
            Err(error) => Some(Err(error.into())),
        }
    }))
}
