//! The ordinary image that any tool can read: base, layers of all tasks, and what corrects their stack.

use std::{collections::BTreeSet, io};

use super::{
    flatten::{self, Fixes},
    image::{self, Config, History, Manifest, RootFs, RunConfig, Snapshot},
    lineage::Lineage,
    load,
    view::View,
};
use crate::{
    digest::Digest,
    step::{Compression, Keep, StepConfig, WorkspaceStep},
    store::{self, Store},
    target::Target,
    units,
    workspace::{
        entry::{Entry, Node},
        error::Error,
        layer::{
            archive::END,
            descriptor::{self, Annotations, Descriptor, LayerInfo},
            read::{self, read_toc},
            write,
        },
    },
};

/// What an image says about itself.
#[derive(Clone, Debug, Default)]
pub struct ImageLabels {
    /// Annotations of the manifest.
    pub annotations: Annotations,
    /// How long to keep it.
    pub expires: Option<String>,
    /// Images that this one replaces under its tag.
    pub replaces: Vec<Digest>,
}

/// What the config of an image says about where it comes from.
enum About {
    /// One task.
    Task(Snapshot),
    /// All tasks up to now, also those whose layers are left out.
    Run(Lineage),
    /// A key: the annotations say which.
    Cache,
}

impl ImageLabels {
    /// For the snapshot of a step.
    pub fn of_snapshot(step: &StepConfig, workspace: &WorkspaceStep) -> Self {
        let mut labels = Self { expires: step.expires.clone(), ..Self::of_step(step, workspace) };
        if step.keep == Keep::All {
            labels.annotations.insert(image::KEEP.to_owned(), "all".to_owned());
        }
        labels
    }

    /// For the target of a step. It does not go when the snapshots do.
    pub fn of_target(step: &StepConfig, workspace: &WorkspaceStep) -> Self {
        Self { expires: step.target_expires.clone(), ..Self::of_step(step, workspace) }
    }

    /// Which run and task it is of.
    pub fn of_step(step: &StepConfig, workspace: &WorkspaceStep) -> Self {
        let origin = [(image::RUN, &step.run), (image::TASK, &step.task), (image::WORKSPACE, &workspace.name)];
        let annotations = origin.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        Self { annotations, ..Self::default() }
    }
}

/// Stores the snapshot of a task under `tag`: an image of the layers that the task made, which names all its ancestors.
pub fn put_snapshot(
    store: &dyn Store,
    tag: &str,
    layers: &[Descriptor],
    snapshot: Snapshot,
    labels: &ImageLabels,
) -> Result<Digest, Error> {
    let layers = layers.iter().cloned().map(with_diff_id).collect::<Result<_, Error>>()?;
    put_image(store, tag, layers, About::Task(snapshot), labels)
}

/// Stores a cache under `tag`, as a stack of `layers`.
pub fn put_cache(store: &dyn Store, tag: &str, layers: &[Descriptor], labels: &ImageLabels) -> Result<Digest, Error> {
    let layers = layers.iter().cloned().map(with_diff_id).collect::<Result<_, Error>>()?;
    put_image(store, tag, layers, About::Cache, labels)
}

/// Stores the image `snapshot` again under `tag`, with the list `replaced`.
pub fn put_replaced(store: &dyn Store, tag: &str, snapshot: &Digest, replaced: &[Digest]) -> Result<(), Error> {
    let Some(found) = store.manifest(&snapshot.to_string())? else { return Ok(()) };
    let mut manifest: Manifest =
        serde_json::from_slice(&found.bytes).map_err(|e| Error::damaged(tag, e.to_string()))?;
    manifest.annotations.extend(replaces(replaced));
    store.put_manifest(tag, image::MANIFEST, &to_json(&manifest)?)?;
    Ok(())
}

/// The annotation that names replaced images; none without any.
fn replaces(digests: &[Digest]) -> Option<(String, String)> {
    let list: Vec<String> = digests.iter().map(ToString::to_string).collect();
    (!list.is_empty()).then(|| (image::REPLACES.to_owned(), list.join(",")))
}

/// Stores the workspace that `lineage` makes under `tag` as an ordinary image, whatever conflicts it has: the later task
/// wins. Where it would have too many layers, the smallest ones are merged into the correction on top.
pub fn put_whole(
    store: &dyn Store,
    tag: &str,
    lineage: &Lineage,
    compression: Compression,
    labels: &ImageLabels,
) -> Result<Digest, Error> {
    if let Some(origin) = &lineage.origin {
        let (layers, from) = (lineage.layers().map(|(_, layer)| layer), origin.parse::<Target>()?);
        bring(store, layers, Some(&from), &|| Ok(store::open(&from)?))?;
    }
    let mut layers = Vec::new();
    if let Some(base) = &lineage.base {
        let target = base.image.parse::<Target>()?;
        // A mount would read it with the credentials for this repository.
        let from = load::is_trusted(lineage, &target)?.then_some(&target);
        bring(store, base.layers.iter(), from, &|| load::base_store(lineage, base))?;
        layers.extend(base.layers.iter().map(as_oci).zip(base.diff_ids.iter().copied()));
    }
    let sizes: Vec<u64> = lineage.layers().map(|(_, layer)| layer.size).collect();
    let left_out = flatten::left_out(layers.len(), &sizes);
    let fixes = fixes(store, lineage, &left_out)?;
    if lineage.base.is_some() && !fixes.base_whiteouts.is_empty() {
        let layer = write::store(store, compression, &fixes.base_whiteouts, &mut |_| Ok(()))?;
        layers.push(with_diff_id(layer)?);
    }
    for ((_, layer), _) in lineage.layers().zip(&left_out).filter(|(_, left_out)| !**left_out) {
        layers.push(with_diff_id(layer.clone())?);
    }
    if !(fixes.whiteouts.is_empty() && fixes.entries.is_empty() && fixes.files.is_empty()) {
        layers.push(put_fixes(store, lineage, &fixes, compression)?);
    }
    let about = Lineage { origin: None, ..lineage.clone() };
    put_image(store, tag, layers, About::Run(about), labels)
}

/// What makes the stack of the layers of `lineage` that are not `left_out` show the merged view.
fn fixes(store: &dyn Store, lineage: &Lineage, left_out: &[bool]) -> Result<Fixes, Error> {
    let counts =
        |count: fn(&LayerInfo) -> u64| move |layer: &Descriptor| layer.info().is_ok_and(|info| count(&info) > 0);
    let linked = lineage.layers().any(|(_, layer)| counts(|info| info.hardlinks)(layer));
    // What one task made the next may have deleted, and a third one made again.
    let last = lineage.writers.len().saturating_sub(1);
    let deleted =
        lineage.layers().any(|(writer, layer)| (1..last).contains(&writer) && counts(|info| info.deletions)(layer));
    if lineage.is_chain() && !linked && !deleted && !left_out.contains(&true) {
        return Ok(Fixes::default());
    }
    let tocs = load::tocs(store, lineage)?;
    flatten::fixes(&View::new(lineage, None, &tocs)?, left_out)
}

/// Stores the layer that lies on top: whiteouts, then what has no content in tree order, then files as they come in the
/// layers that their content is from. With files it has no table of contents: names are not in order.
fn put_fixes(
    store: &dyn Store,
    lineage: &Lineage,
    fixes: &Fixes,
    compression: Compression,
) -> Result<(Descriptor, Digest), Error> {
    let unwritable = || Error::file("a new layer", "can't be stored");
    let mut stored = write::store(store, compression, &fixes.whiteouts, &mut |out| {
        fixes.entries.iter().try_for_each(|entry| out.push(entry)).map_err(unwritable())?;
        for (index, (_, from)) in lineage.layers().enumerate() {
            let Some(files) = fixes.files.get(&index) else { continue };
            read::read(store, from, &read_toc(store, from)?, &mut |_, entry, content| {
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
            })?;
        }
        Ok(())
    })?;
    let diff_id = stored.info()?.diff_id;
    if !fixes.files.is_empty() {
        stored.annotations = Annotations::from([(descriptor::ESCAPED.to_owned(), "true".to_owned())]);
    }
    Ok((stored, diff_id))
}

fn with_diff_id(layer: Descriptor) -> Result<(Descriptor, Digest), Error> {
    let diff_id = layer.info()?.diff_id;
    Ok((layer, diff_id))
}

fn put_image(
    store: &dyn Store,
    tag: &str,
    mut layers: Vec<(Descriptor, Digest)>,
    about: About,
    labels: &ImageLabels,
) -> Result<Digest, Error> {
    if layers.is_empty() {
        // Many registries want at least one layer.
        let empty = store.put_bytes(&END)?;
        layers.push((Descriptor::new(descriptor::LAYER, empty), empty.digest));
    }
    let created = units::now();
    let created_by = |layer: &Descriptor| match layer.annotations.get(image::TASK) {
        Some(task) => format!("tekton-wrap save {task}"),
        None => "tekton-wrap save".to_owned(),
    };
    let history = layers.iter().map(|(layer, _)| History { created: created.clone(), created_by: created_by(layer) });
    let (snapshot, lineage) = match about {
        About::Task(snapshot) => (Some(snapshot), None),
        About::Run(lineage) => (None, Some(lineage)),
        About::Cache => (None, None),
    };
    let config = Config {
        created: created.clone(),
        architecture: image::architecture().to_owned(),
        os: "linux".to_owned(),
        config: RunConfig {
            labels: labels.expires.clone().map(|value| Annotations::from([(image::EXPIRES.to_owned(), value)])),
        },
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: layers.iter().map(|(_, diff_id)| *diff_id).collect() },
        history: history.collect(),
        snapshot,
        lineage,
    };
    let config = store.put_bytes(&to_json(&config)?)?;
    let mut annotations = labels.annotations.clone();
    annotations.entry(image::CREATED.to_owned()).or_insert(created);
    annotations.extend(labels.expires.clone().map(|value| (image::EXPIRES.to_owned(), value)));
    annotations.extend(replaces(&labels.replaces));
    let manifest = Manifest {
        schema_version: 2,
        media_type: image::MANIFEST.to_owned(),
        config: Descriptor::new(image::CONFIG, config),
        layers: layers.into_iter().map(|(layer, _)| layer).collect(),
        annotations,
    };
    Ok(store.put_manifest(tag, image::MANIFEST, &to_json(&manifest)?)?)
}

/// Makes blobs of another image available in this repository: mounts them from `from`, or else copies them from the store
/// that `open` gives.
pub fn bring<'a>(
    store: &dyn Store,
    layers: impl Iterator<Item = &'a Descriptor>,
    from: Option<&Target>,
    open: &dyn Fn() -> Result<Box<dyn Store>, Error>,
) -> Result<(), Error> {
    let layers: Vec<&Descriptor> = layers.collect();
    // At once, for where each look costs a connection.
    let there = store.has_blobs(&layers.iter().map(|layer| layer.digest).collect::<Vec<_>>())?;
    let mut brought = BTreeSet::new();
    let mut source: Option<Box<dyn Store>> = None;
    for (layer, is_there) in layers.into_iter().zip(there) {
        let mounted = |from| store.mount_blob(&layer.digest, from);
        if is_there || !brought.insert(layer.digest) || from.map_or(Ok(false), mounted)? {
            continue;
        }
        let source = match &mut source {
            Some(source) => source,
            None => source.insert(open()?),
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
        Ok(compression) => descriptor::media_type(compression).to_owned(),
        Err(_) => layer.media_type.clone(),
    };
    Descriptor { media_type, ..layer.clone() }
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|e| Error::damaged("the image to be stored", e.to_string()))
}
