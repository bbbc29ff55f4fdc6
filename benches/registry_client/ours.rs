//! The program's own client.

use std::{fs::File, io, path::Path, sync::Mutex, thread};

use tekton_wrap::{
    store::{self, Blob, Store},
    target::Target,
};

use super::image::{AT_ONCE, Blobs, Layout, MANIFEST};

pub fn push(layout: &Layout, image: &str) -> Result<(), String> {
    let (store, target) = open(image)?;
    at_once(&layout.blobs.layers, |blob| {
        let mut file = File::open(layout.path(&blob.digest)).map_err(text)?;
        let sent = store.put_blob(&mut |to| {
            io::Seek::rewind(&mut file)?;
            io::copy(&mut file, to).map(drop)
        });
        sent.map(drop).map_err(text)
    })?;
    store.put_bytes(&layout.read(&layout.blobs.config.digest)).map_err(text)?;
    store.put_manifest(&target.reference(), MANIFEST, &layout.blobs.manifest).map(drop).map_err(text)
}

pub fn pull(image: &str, to: &Path) -> Result<(), String> {
    let (store, target) = open(image)?;
    let manifest = store.manifest(&target.reference()).map_err(text)?.ok_or("there is no such image")?;
    let blobs = Blobs::of(manifest.bytes);
    at_once(&blobs.all(), |blob| {
        let mut file = File::create(to.join(blob.digest.hex())).map_err(text)?;
        io::copy(&mut store.blob(blob).map_err(text)?, &mut file).map(drop).map_err(text)
    })
}

pub fn copy(from: &str, image: &str) -> Result<(), String> {
    let ((source, from), (store, target)) = (open(from)?, open(image)?);
    let manifest = source.manifest(&from.reference()).map_err(text)?.ok_or("there is no such image")?;
    let blobs = Blobs::of(manifest.bytes);
    at_once(&blobs.all(), |blob| {
        if store.mount_blob(&blob.digest, &from).map_err(text)? {
            return Ok(());
        }
        let copied = store.put_blob(&mut |to| {
            let mut content = source.blob(blob).map_err(io::Error::other)?;
            io::copy(&mut content, to).map(drop)
        });
        copied.map(drop).map_err(text)
    })?;
    store.put_manifest(&target.reference(), MANIFEST, &blobs.manifest).map(drop).map_err(text)
}

pub fn delete(image: &str) -> Result<(), String> {
    let (store, target) = open(image)?;
    let manifest = store.manifest(&target.reference()).map_err(text)?.ok_or("there is no such image")?;
    store.delete_manifest(&manifest.digest).map(drop).map_err(text)
}

fn open(image: &str) -> Result<(Box<dyn Store>, Target), String> {
    let target: Target = image.parse().map_err(text)?;
    Ok((store::open(&target).map_err(text)?, target))
}

/// Runs `work` for all blobs, [`AT_ONCE`] at a time, up to the first error.
fn at_once(blobs: &[Blob], work: impl Fn(&Blob) -> Result<(), String> + Sync) -> Result<(), String> {
    let (next, failed) = (Mutex::new(blobs.iter()), Mutex::new(None));
    let take = || next.lock().expect("no panic").next();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(blobs.len()) {
            scope.spawn(|| {
                while let Some(blob) = take() {
                    if let Err(error) = work(blob) {
                        failed.lock().expect("no panic").get_or_insert(error);
                        return;
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no panic").map_or(Ok(()), Err)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
