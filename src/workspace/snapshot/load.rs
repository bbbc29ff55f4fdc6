//! Reads manifests and configs from a store: of base images, and of the snapshots that a task starts from.

use serde::Deserialize;

use super::{
    image::{self, Config, Manifest, Snapshot},
    lineage::{Base, Input, Lineage, Writer},
};
use crate::{
    digest::Digest,
    quote::Line,
    step::{Predecessor, StepConfig, WorkspaceStep},
    store::{self, Store},
    target::Target,
    workspace::{
        error::Error,
        layer::{archive::END, descriptor::Descriptor, read::read_toc, toc::Toc},
        threads,
    },
};

/// Images with more layers are refused: each one is merged with all below it.
const MAX_LAYERS: usize = 4096;

/// Larger configs are refused: they are held in memory.
const MAX_CONFIG: u64 = 64 << 20;

/// An image as it is stored.
#[derive(Debug)]
pub struct Image {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its config.
    pub config: Config,
}

/// An image index (OCI image-spec, image-index.md) or Docker's manifest list.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    digest: Digest,
    platform: Option<PlatformName>,
}

#[derive(Deserialize)]
struct PlatformName {
    architecture: String,
    os: String,
}

/// The image under `reference`, a tag or a digest; `place` names it in errors. Of an image for several platforms that for
/// this machine, or else the one for linux/amd64.
pub fn image(store: &dyn Store, reference: &str, place: &str) -> Result<Option<Image>, Error> {
    let Some(found) = store.manifest(reference)? else { return Ok(None) };
    let found = match found.media_type.as_str() {
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            let digest = choose(&json(&found.bytes, place)?, place)?;
            let missing = || Error::damaged(place, format!("its manifest {digest} is missing"));
            store.manifest(&digest.to_string())?.ok_or_else(missing)?
        }
        image::MANIFEST | "application/vnd.docker.distribution.manifest.v2+json" => found,
        other => return Err(Error::damaged(place, format!("it is {other:?}, not an image"))),
    };
    let manifest: Manifest = json(&found.bytes, place)?;
    if manifest.config.size > MAX_CONFIG {
        return Err(Error::damaged(place, "its config is too large"));
    }
    let mut bytes = Vec::new();
    let mut config = store.blob(&manifest.config.blob())?;
    std::io::copy(&mut config, &mut bytes).map_err(Error::file(place, "its config can't be read"))?;
    Ok(Some(Image { digest: found.digest, config: json(&bytes, place)?, manifest }))
}

/// The base image that the user named.
pub fn base(image: &str) -> Result<Base, Error> {
    let target = image.parse::<Target>()?;
    let store = store::open(&target)?;
    let found = self::image(&*store, &target.reference(), image)?.ok_or_else(|| Error::NoImage(image.to_owned()))?;
    found.check_layers(image)?;
    let (layers, diff_ids) = (found.manifest.layers, found.config.rootfs.diff_ids);
    Ok(Base { image: image.to_owned(), manifest: found.digest, layers, diff_ids })
}

/// The store that has the layers of the base of `lineage`. Where an image names its own base (`lineage` has an origin), a base
/// in another registry is read without credentials, and one in a folder only if the image itself is in a folder, of that
/// machine: whoever made the image must not choose what is read with the rights of whoever restores it.
pub fn base_store(lineage: &Lineage, base: &Base) -> Result<Box<dyn Store>, Error> {
    let target = base.image.parse::<Target>()?;
    if is_trusted(lineage, &target)? {
        return Ok(store::open(&target)?);
    }
    let origin = lineage.origin.clone().unwrap_or_default();
    let where_it_is = match target {
        Target::Dir { .. } => Some("of this machine"),
        // A daemon can make rsync tell what is in files here.
        Target::Rsync(_) => Some("of a machine that you did not name"),
        _ => None,
    };
    if let Some(place) = where_it_is {
        return Err(Error::damaged(origin, format!("its base {target} is a folder {place}, which is not read")));
    }
    let (origin, base) = (Line(&origin), target.to_string());
    tracing::warn!("{origin}: its base {} is in another registry; it is read without credentials", Line(&base));
    Ok(store::open_anonymous(&target)?)
}

/// Whether `base` may be read with credentials: the user named it, or an image of the same registry did.
pub fn is_trusted(lineage: &Lineage, base: &Target) -> Result<bool, Error> {
    let Some(origin) = &lineage.origin else { return Ok(true) };
    Ok(match (origin.parse::<Target>()?, base) {
        (Target::Registry(origin), Target::Registry(base)) => origin.registry == base.registry,
        (Target::Dir { .. }, Target::Dir { .. }) => true,
        (Target::S3(origin), Target::S3(base)) | (Target::Gcs(origin), Target::Gcs(base)) => {
            origin.bucket == base.bucket
        }
        (Target::Rsync(origin), Target::Rsync(base)) => origin.shares_login(base),
        (Target::Registry(_) | Target::Dir { .. } | Target::S3(_) | Target::Gcs(_) | Target::Rsync(_), _) => false,
    })
}

/// What the workspace of a task is to be made of: its base and the snapshots of its ancestors.
pub fn input(store: &dyn Store, step: &StepConfig, workspace: &WorkspaceStep) -> Result<Input, Error> {
    let mut lineage = Lineage::default();
    let mut read = Vec::new();
    let wanted: Vec<(&Predecessor, u32)> = workspace
        .after
        .iter()
        .flat_map(|task| (task.order..=task.last.unwrap_or(task.order)).map(move |order| (task, order)))
        .collect();
    let found = threads::ask_for_each(&wanted, |_, &(_, order)| snapshot(store, step, workspace, order))?;
    for ((task, order), found) in wanted.into_iter().zip(found) {
        match found {
            Some(found) => {
                lineage.join(found)?;
                read.push(order);
            }
            None if task.optional => {}
            None => {
                let target = workspace.target.parse::<Target>()?;
                return Err(Error::NoSnapshot {
                    task: task.name_of(order),
                    workspace: workspace.name.clone(),
                    place: target.with_tag(&StepConfig::tag(step.run_of(order), order, &workspace.name)).to_string(),
                });
            }
        }
    }
    match (&lineage.base, &workspace.base) {
        (None, Some(image)) => lineage.base = Some(base(image)?),
        (Some(base), _) => check_base(base)?,
        (None, None) => {}
    }
    read.sort_unstable();
    Ok(Input { lineage, read, caches: Vec::new() })
}

/// Checks that `base`, as a snapshot describes it, is the image with this digest in the repository that the user named.
fn check_base(base: &Base) -> Result<(), Error> {
    let target = base.image.parse::<Target>()?;
    let place = format!("{} ({})", base.image, base.manifest);
    let found = image(&*store::open(&target)?, &base.manifest.to_string(), &place)?;
    let found = found.ok_or_else(|| Error::NoImage(place.clone()))?;
    if (&found.manifest.layers, &found.config.rootfs.diff_ids) != (&base.layers, &base.diff_ids) {
        return Err(Error::damaged(place, "a snapshot of this run says that this base has other layers than it has"));
    }
    Ok(())
}

/// What the task at `order` left of the workspace, if it did: its own changes and those of its ancestors.
pub fn snapshot(
    store: &dyn Store,
    step: &StepConfig,
    workspace: &WorkspaceStep,
    order: u32,
) -> Result<Option<Lineage>, Error> {
    let run = step.run_of(order);
    let tag = StepConfig::tag(run, order, &workspace.name);
    let place = format!("{} (tag {tag})", workspace.target);
    let Some(Image { digest, manifest, mut config }) = image(store, &tag, &place)? else { return Ok(None) };
    let Some(snapshot) = config.snapshot.take() else {
        return Err(Error::damaged(place, "it is not a snapshot of a workspace"));
    };
    if (&*snapshot.run, &*snapshot.workspace, snapshot.order) != (run, &*workspace.name, order) {
        return Err(Error::damaged(
            place,
            format!(
                "it is of workspace {:?}, task {:?} of the run {}, not of this run {run}",
                snapshot.workspace, snapshot.task, snapshot.run
            ),
        ));
    }
    let image = snapshot.base.as_ref().map(|base| &base.image);
    if image != workspace.base.as_ref() {
        let shown = |image: Option<&String>| image.map_or("none".to_owned(), |image| format!("{image:?}"));
        return Err(Error::damaged(
            place,
            format!("its base is {}, that of this run is {}", shown(image), shown(workspace.base.as_ref())),
        ));
    }
    let mut lineage = of_snapshot(&place, digest, manifest, snapshot)?;
    if run != step.run {
        for writer in &mut lineage.writers {
            writer.run.get_or_insert_with(|| run.to_owned());
        }
    }
    Ok(Some(lineage))
}

/// What any image is made of, a snapshot of a task or an ordinary one. Its origin is the image.
pub fn lineage(store: &dyn Store, target: &Target) -> Result<Lineage, Error> {
    let place = target.to_string();
    let mut found = image(store, &target.reference(), &place)?.ok_or_else(|| Error::NoImage(place.clone()))?;
    if let Some(snapshot) = found.config.snapshot.take() {
        let lineage = of_snapshot(&place, found.digest, found.manifest, snapshot)?;
        return Ok(Lineage { origin: Some(place), ..lineage });
    }
    found.check_layers(&place)?;
    Ok(of_image(&place, found.digest, found.manifest, &found.config))
}

impl Image {
    /// Checks that the config has a diff ID for each layer, and that they are not too many.
    pub fn check_layers(&self, place: &str) -> Result<(), Error> {
        let (layers, ids) = (self.manifest.layers.len(), self.config.rootfs.diff_ids.len());
        if layers > MAX_LAYERS {
            return Err(Error::damaged(place, format!("it has {layers} layers, more than {MAX_LAYERS}")));
        }
        if layers != ids {
            return Err(Error::damaged(place, format!("it has {layers} layers, but its config names {ids}")));
        }
        Ok(())
    }
}

/// Tables of contents of all layers of `lineage`, the lowest first.
pub fn tocs(store: &dyn Store, lineage: &Lineage) -> Result<Vec<Toc>, Error> {
    let layers: Vec<&Descriptor> = lineage.layers().map(|(_, layer)| layer).collect();
    threads::ask_for_each(&layers, |_, layer| read_toc(store, layer))
}

/// Whether it is the empty archive that an image without changes has as its only layer, as many registries want at least one.
pub fn is_placeholder(layer: &Descriptor) -> bool {
    !layer.has_toc() && layer.digest == Digest::of(&END)
}

/// Base and writers of a snapshot, the task itself the last writer. Refuses what can't be true; `place` names the image in
/// errors.
pub fn of_snapshot(place: &str, digest: Digest, manifest: Manifest, snapshot: Snapshot) -> Result<Lineage, Error> {
    if snapshot.format != image::FORMAT {
        let (found, known) = (snapshot.format, image::FORMAT);
        let problem = format!("it has the format {found}; this version of tekton-wrap reads {known}");
        return Err(Error::damaged(place, problem));
    }
    let own = Writer {
        task: snapshot.task,
        order: snapshot.order,
        run: None,
        manifest: Some(digest),
        ancestors: snapshot.ancestors.iter().map(|writer| writer.order).collect(),
        layers: manifest.layers.into_iter().filter(|layer| !is_placeholder(layer)).collect(),
    };
    let mut lineage = Lineage { base: snapshot.base, writers: snapshot.ancestors, origin: None };
    lineage.writers.push(own);
    lineage.check().map_err(|e| Error::damaged(place, format!("its lineage is invalid: {e}")))?;
    Ok(lineage)
}

/// What the ordinary image `image` is made of: the layers that have a table of contents on top of those that don't,
/// each written after the ones below it.
pub fn of_image(image: &str, digest: Digest, manifest: Manifest, config: &Config) -> Lineage {
    let (mut layers, mut diff_ids) = (manifest.layers, config.rootfs.diff_ids.clone());
    let foreign = layers.iter().rposition(|layer| !layer.has_toc()).map_or(0, |last| last.saturating_add(1));
    let own = layers.split_off(foreign);
    diff_ids.truncate(foreign);
    let writer = |(order, layer): (u32, Descriptor)| Writer {
        task: layer
            .annotations
            .get(image::TASK)
            .cloned()
            .unwrap_or_else(|| format!("layer {}", order.saturating_add(1))),
        order,
        run: None,
        manifest: None,
        ancestors: (0..order).collect(),
        layers: vec![layer],
    };
    let base = Base { image: image.to_owned(), manifest: digest, layers, diff_ids };
    Lineage {
        base: (foreign > 0).then_some(base),
        writers: (0..).zip(own).map(writer).collect(),
        origin: Some(image.to_owned()),
    }
}

fn choose(index: &Index, place: &str) -> Result<Digest, Error> {
    let image_for = |architecture: &str| {
        index.manifests.iter().find(|manifest| {
            manifest.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture)
        })
    };
    let any = || index.manifests.first().filter(|only| only.platform.is_none());
    let chosen = image_for(image::architecture()).or_else(|| image_for("amd64")).or_else(any);
    let missing = || Error::damaged(place, format!("it has no image for linux/{}", image::architecture()));
    chosen.map(|manifest| manifest.digest).ok_or_else(missing)
}

fn json<T: serde::de::DeserializeOwned>(bytes: &[u8], place: &str) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::damaged(place, format!("it is not the JSON that it should be: {e}")))
}
