//! `--verify`: checks every digest behind an image again, from the manifest to the content of each file.
//!
//! | what | against |
//! |---|---|
//! | manifest and config of the image, and of the snapshot of each task | the digest that names them |
//! | what the snapshot of a task says (run, workspace, task, order, base, ancestors, layers) | what the image says of the task |
//! | each layer: its bytes, without compression, and its table of contents | digest, diff ID, digest of the table |
//! | the content of each file | the hash in the table |
//!
//! The first difference is an error that names it. A snapshot that is gone (`prune`) can't be checked: that is reported.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{source::InspectedImage, unwritable};
use crate::{
    digest::{Digest, Hasher},
    quote::{Line, Quoted},
    store::Store,
    units::{count, size},
    workspace::{
        Error,
        layer::{
            codec,
            descriptor::Descriptor,
            read::{read, read_toc},
        },
        snapshot::{
            image::Config,
            lineage::{Lineage, Writer},
            load::{self, Image},
        },
    },
};

/// What was checked.
#[derive(Default)]
struct Verified {
    snapshots: u64,
    /// Order and name of tasks whose snapshots are gone.
    gone: BTreeMap<u32, String>,
    layers: u64,
    bytes: u64,
}

/// Checks the image that `source` was read from and says what was checked.
pub fn verify(source: &InspectedImage, store: &dyn Store, out: &mut dyn Write) -> Result<(), Error> {
    let image = load::image(store, &source.digest.to_string(), &source.image)?;
    let image = image.ok_or_else(|| Error::NoImage(source.image.clone()))?;
    let mut verified = Verified::default();
    let lineage = lineage_of(&image, &source.image)?;
    if let Some(lineage) = &lineage {
        let (run, workspace) = (source.run.as_deref(), source.workspace.as_deref());
        for writer in &lineage.writers {
            verified.snapshot(store, lineage, writer, (run, workspace), &source.image)?;
        }
    }
    verified.layers(store, &image, lineage.as_ref())?;
    let Verified { snapshots, gone, layers, bytes } = verified;
    let checked = [count(snapshots, "snapshot"), count(layers, "layer"), size(bytes)].join(", ");
    writeln!(out, "{}: every digest is right: {checked}", Line(&source.image)).map_err(unwritable())?;
    for task in gone.values() {
        writeln!(out, "not checked: the snapshot of task {} is gone", Quoted(task.as_bytes())).map_err(unwritable())?;
    }
    Ok(())
}

/// What `image` says about the tasks behind it.
fn lineage_of(image: &Image, place: &str) -> Result<Option<Lineage>, Error> {
    let Config { snapshot, lineage, .. } = &image.config;
    if let Some(snapshot) = snapshot.clone() {
        return load::of_snapshot(place, image.digest, image.manifest.clone(), snapshot).map(Some);
    }
    if let Some(lineage) = lineage {
        lineage.check().map_err(|e| Error::damaged(place, format!("its lineage is invalid: {e}")))?;
        let is_there = |layer: &Descriptor| image.manifest.layers.iter().any(|other| other.digest == layer.digest);
        let mut base_layers = lineage.base.iter().flat_map(|base| &base.layers);
        if let Some(absent) = base_layers.find(|layer| !is_there(layer)) {
            return Err(Error::damaged(place, format!("it does not have the {} of its base", absent.place())));
        }
    }
    Ok(lineage.clone())
}

impl Verified {
    /// Checks that the snapshot of a task says what `lineage` says of it.
    fn snapshot(
        &mut self,
        store: &dyn Store,
        lineage: &Lineage,
        writer: &Writer,
        (run, workspace): (Option<&str>, Option<&str>),
        place: &str,
    ) -> Result<(), Error> {
        let Some(digest) = writer.manifest else { return Ok(()) };
        let name = format!("the snapshot {digest} of task {:?} in {place}", writer.task);
        let Some(mut found) = load::image(store, &digest.to_string(), &name)? else {
            self.gone.insert(writer.order, writer.task.clone());
            return Ok(());
        };
        let differs = |what: &str| Error::damaged(&name, format!("{what} differs from what the image says"));
        let Some(snapshot) = found.config.snapshot.take() else {
            return Err(Error::damaged(&name, "it is not a snapshot of a workspace"));
        };
        if writer.run.as_deref().or(run).is_some_and(|run| run != snapshot.run) {
            return Err(differs("its run"));
        }
        if workspace.is_some_and(|workspace| workspace != snapshot.workspace) {
            return Err(differs("its workspace"));
        }
        let own = load::of_snapshot(&name, found.digest, found.manifest.clone(), snapshot)?;
        if own.base != lineage.base {
            return Err(differs("its base"));
        }
        for theirs in &own.writers {
            let Some(ours) = lineage.writer(theirs.order) else {
                return Err(differs(&format!("the list of its ancestors, with task {:?},", theirs.task)));
            };
            let of =
                if ours.order == writer.order { String::new() } else { format!(" of its ancestor {:?}", ours.task) };
            for (what, is_same) in [
                ("the name", ours.task == theirs.task),
                ("the manifest", ours.manifest == theirs.manifest),
                ("the list of ancestors", ours.ancestors == theirs.ancestors),
                ("the list of layers", ours.layers == theirs.layers),
            ] {
                if !is_same {
                    return Err(differs(&format!("{what}{of}")));
                }
            }
        }
        let order = own.writers.last().map(|own| own.order);
        if order != Some(writer.order) {
            return Err(differs("its order"));
        }
        self.snapshots = self.snapshots.saturating_add(1);
        self.diff_ids(&found, &name)
    }

    /// Reads every layer of the image, and those of tasks that were left out of it.
    fn layers(&mut self, store: &dyn Store, image: &Image, lineage: Option<&Lineage>) -> Result<(), Error> {
        let mut all: BTreeMap<Digest, (&Descriptor, Option<Digest>)> = BTreeMap::new();
        // A layer that was left out of the image is gone with the snapshot that it is of.
        let writers = lineage.map_or(&[][..], |lineage| &lineage.writers);
        for layer in writers.iter().filter(|w| !self.gone.contains_key(&w.order)).flat_map(|writer| &writer.layers) {
            all.insert(layer.digest, (layer, Some(layer.info()?.diff_id)));
        }
        let with_id = image.manifest.layers.iter().zip(image.config.rootfs.diff_ids.iter().copied());
        for (layer, diff_id) in with_id {
            let named = all.insert(layer.digest, (layer, Some(diff_id))).and_then(|(_, diff_id)| diff_id);
            if named.is_some_and(|named| named != diff_id) {
                return Err(Error::damaged(layer.place(), "its diff ID differs from what the config says"));
            }
        }
        all.into_values().try_for_each(|(layer, diff_id)| self.layer(store, layer, diff_id))
    }

    /// The diff IDs in the config of a snapshot are those of its layers.
    fn diff_ids(&self, image: &Image, name: &str) -> Result<(), Error> {
        let named = image.manifest.layers.iter().filter(|layer| layer.has_toc());
        let ids = named.map(|layer| Ok(layer.info()?.diff_id)).collect::<Result<Vec<_>, Error>>()?;
        if !ids.is_empty() && ids != image.config.rootfs.diff_ids {
            return Err(Error::damaged(name, "the diff IDs in its config are not those of its layers"));
        }
        Ok(())
    }

    fn layer(&mut self, store: &dyn Store, layer: &Descriptor, diff_id: Option<Digest>) -> Result<(), Error> {
        let unreadable = |e: io::Error| Error::damaged(layer.place(), format!("it can't be read: {e}"));
        let mut plain =
            codec::decoder(layer.compression()?, layer.has_toc(), store.blob(&layer.blob())?).map_err(unreadable)?;
        let mut hasher = Hasher::default();
        io::copy(&mut plain, &mut hasher).map_err(unreadable)?;
        if diff_id.is_some_and(|diff_id| diff_id != hasher.finish()) {
            return Err(Error::damaged(layer.place(), "its content does not have the diff ID that the config says"));
        }
        if layer.has_toc() {
            let toc = read_toc(store, layer)?;
            read(store, layer, &toc, &mut |_, entry, content| {
                let mut hasher = blake3::Hasher::new();
                io::copy(content, &mut hasher).map_err(unreadable)?;
                match entry.content() {
                    Some(expected) if !entry.is_link() && hasher.finalize() != expected.hash => Err(Error::damaged(
                        layer.place(),
                        format!("the content of {} does not have the hash that its table of contents says", entry.path),
                    )),
                    _ => Ok(()),
                }
            })?;
        }
        self.layers = self.layers.saturating_add(1);
        self.bytes = self.bytes.saturating_add(layer.size);
        Ok(())
    }
}
