//! The ordinary image that any tool can read: base, layers of all tasks, and what corrects their stack.

use std::io;

use super::{
    archive::END,
    entry::{Entry, Node},
    error::Error,
    image::{self, Annotations, Config, Descriptor, History, Manifest, RootFs, Run, Snapshot},
    layer,
    lineage::{Lineage, Writer},
    load,
    stack::{self, Fixes},
    toc::Toc,
    view::View,
};
use crate::{
    digest::Digest,
    step::{Compression, StepConfig, WorkspaceStep},
    store::{self, Store},
    target::Target,
};

/// What an image says about itself.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// Annotations of the manifest.
    pub annotations: Annotations,
    /// How long to keep it.
    pub expires: Option<String>,
}

/// What the config of an image says about where it comes from.
enum About {
    /// One task.
    Task(Snapshot),
    /// All tasks up to now.
    Run(Lineage),
}

impl Labels {
    /// For the images of a step.
    pub fn of_step(step: &StepConfig, workspace: &WorkspaceStep) -> Self {
        let mut labels = Self { expires: step.expires.clone(), ..Self::default() };
        for (name, value) in [(image::RUN, &step.run), (image::TASK, &step.task), (image::WORKSPACE, &workspace.name)] {
            labels.annotations.insert(name.to_owned(), value.clone());
        }
        labels
    }
}

/// Stores the snapshot of a task under `tag`: an image of the layers that the task made, which names all its ancestors.
pub fn put_snapshot(
    store: &dyn Store,
    tag: &str,
    layers: &[Descriptor],
    snapshot: Snapshot,
    labels: &Labels,
) -> Result<Digest, Error> {
    let layers = layers.iter().map(|layer| Ok((layer.clone(), layer.info()?.diff_id))).collect::<Result<_, Error>>()?;
    put_image(store, tag, layers, About::Task(snapshot), labels)
}

/// Stores the workspace that `lineage` makes under `tag` as an ordinary image, whatever conflicts it has: the later task
/// wins.
pub fn put_whole(
    store: &dyn Store,
    tag: &str,
    lineage: &Lineage,
    compression: Compression,
    labels: &Labels,
) -> Result<Digest, Error> {
    if let Some(origin) = &lineage.origin {
        let layers = lineage.layers().map(|(_, layer)| layer);
        bring(store, layers, &load::target(origin)?)?;
    }
    let mut layers = Vec::new();
    if let Some(base) = &lineage.base {
        bring(store, base.layers.iter(), &load::target(&base.image)?)?;
        layers.extend(base.layers.iter().map(as_oci).zip(base.diff_ids.iter().copied()));
    }
    for (_, layer) in lineage.layers() {
        layers.push((layer.clone(), layer.info()?.diff_id));
    }
    layers.extend(fix(store, lineage, compression)?);
    let about = About::Run(Lineage { origin: None, ..lineage.clone() });
    put_image(store, tag, layers, about, labels)
}

/// Stores the layers that make the stack of all layers of `lineage` show the merged view.
fn fix(store: &dyn Store, lineage: &Lineage, compression: Compression) -> Result<Vec<(Descriptor, Digest)>, Error> {
    let has_links = |(_, layer): (usize, &Descriptor)| layer.info().is_ok_and(|info| info.hardlinks > 0);
    if lineage.is_chain() && !lineage.layers().any(has_links) {
        return Ok(Vec::new());
    }
    let tocs = load::tocs(store, lineage)?;
    let fixes = stack::fixes(&View::new(lineage, &[], &tocs)?)?;
    let mut layers = Vec::new();
    for (&index, files) in &fixes.files {
        if let Some(((_, from), toc)) = lineage.layers().zip(&tocs).nth(index) {
            layers.push(copy_files(store, compression, from, toc, files)?);
        }
    }
    if !fixes.whiteouts.is_empty() || !fixes.entries.is_empty() {
        let Fixes { whiteouts, entries, .. } = &fixes;
        let layer = layer::store(store, compression, whiteouts, &mut |out| {
            entries.iter().try_for_each(|entry| out.push(entry)).map_err(Error::file("a new layer", "can't be stored"))
        })?;
        let diff_id = layer.info()?.diff_id;
        layers.push((layer, diff_id));
    }
    Ok(layers)
}

/// Stores a layer of files whose content is in the layer `from`, each with its names. They come in the order of `from`,
/// not in that of their names, so that this layer has no table of contents.
fn copy_files(
    store: &dyn Store,
    compression: Compression,
    from: &Descriptor,
    toc: &Toc,
    files: &std::collections::BTreeMap<super::path::TreePath, Vec<Entry>>,
) -> Result<(Descriptor, Digest), Error> {
    let unwritable = || Error::file("a new layer", "can't be stored");
    let mut layer = layer::store(store, compression, &[], &mut |out| {
        layer::read(store, from, toc, &mut |_, entry, content| {
            let Some((first, more)) = files.get(&entry.path).and_then(|names| names.split_first()) else {
                return Ok(());
            };
            let node = entry.node.clone();
            out.push_file(Entry { node, ..first.clone() }, content).map_err(unwritable())?;
            for name in more {
                let content = entry.content().copied().unwrap_or_default();
                let node = Node::Link { to: first.path.clone(), content };
                out.push(&Entry { node, ..name.clone() }).map_err(unwritable())?;
            }
            Ok(())
        })
    })?;
    let diff_id = layer.info()?.diff_id;
    layer.annotations.clear();
    layer.annotations.insert(image::ESCAPED.to_owned(), "true".to_owned());
    Ok((layer, diff_id))
}

fn put_image(
    store: &dyn Store,
    tag: &str,
    mut layers: Vec<(Descriptor, Digest)>,
    about: About,
    labels: &Labels,
) -> Result<Digest, Error> {
    if layers.is_empty() {
        // Many registries want at least one layer.
        let empty = store.put_bytes(&END)?;
        layers.push((Descriptor::new(image::LAYER, empty), empty.digest));
    }
    let created = image::now();
    let created_by = |layer: &Descriptor| match layer.annotations.get(image::TASK) {
        Some(task) => format!("tekton-wrap save {task}"),
        None => "tekton-wrap save".to_owned(),
    };
    let history = layers.iter().map(|(layer, _)| History { created: created.clone(), created_by: created_by(layer) });
    let (snapshot, lineage) = match about {
        About::Task(snapshot) => (Some(snapshot), None),
        About::Run(lineage) => (None, Some(lineage)),
    };
    let config = Config {
        created: created.clone(),
        architecture: image::architecture().to_owned(),
        os: "linux".to_owned(),
        config: Run {
            labels: labels.expires.clone().map(|value| Annotations::from([(image::EXPIRES.to_owned(), value)])),
        },
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: layers.iter().map(|(_, diff_id)| *diff_id).collect() },
        history: history.collect(),
        snapshot,
        lineage,
    };
    let config = store.put_bytes(&to_json(&config)?)?;
    let mut annotations = labels.annotations.clone();
    annotations.insert(image::CREATED.to_owned(), created);
    annotations.extend(labels.expires.clone().map(|value| (image::EXPIRES.to_owned(), value)));
    let manifest = Manifest {
        schema_version: 2,
        media_type: image::MANIFEST.to_owned(),
        config: Descriptor::new(image::CONFIG, config),
        layers: layers.into_iter().map(|(layer, _)| layer).collect(),
        annotations,
    };
    Ok(store.put_manifest(tag, image::MANIFEST, &to_json(&manifest)?)?)
}

/// Makes blobs of another image available in this repository.
fn bring<'a>(store: &dyn Store, layers: impl Iterator<Item = &'a Descriptor>, from: &Target) -> Result<(), Error> {
    let mut source: Option<Box<dyn Store>> = None;
    for layer in layers {
        if store.has_blob(&layer.digest)? || store.mount_blob(&layer.digest, from)? {
            continue;
        }
        let source = match &mut source {
            Some(source) => source,
            None => source.insert(store::open(from)?),
        };
        let mut failed = None;
        let copied = store.put_blob(&mut |out| {
            failed = None;
            match source.blob(&layer.blob()) {
                Ok(mut blob) => io::copy(&mut blob, out).map(drop),
                Err(e) => {
                    failed = Some(e);
                    Err(io::Error::other("the layer can't be read"))
                }
            }
        });
        match failed {
            Some(e) => return Err(e.into()),
            None => drop(copied?),
        }
    }
    Ok(())
}

/// The same layer under the name that OCI has for it.
fn as_oci(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.compression() {
        Ok(compression) => image::layer_media_type(compression).to_owned(),
        Err(_) => layer.media_type.clone(),
    };
    Descriptor { media_type, ..layer.clone() }
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|e| Error::damaged("the image to be stored", e.to_string()))
}

/// A task that has just saved, as a writer on top of what it started from.
pub fn writer(task: &str, order: u32, input: &Lineage, layers: Vec<Descriptor>) -> Writer {
    Writer { task: task.to_owned(), order, manifest: None, ancestors: input.orders(), layers }
}
