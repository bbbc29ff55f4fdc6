//! What one run left, found from its target.

use std::collections::BTreeSet;

use super::{Doomed, image::RunImage, named::NamedImages, replaced};
use crate::{
    digest::Digest,
    quote::Line,
    step::StepConfig,
    store::{ManifestHead, Store},
    target::Target,
    workspace::{
        Error,
        snapshot::{
            image::{RUN, WORKSPACE},
            lineage::Writer,
            load::{self, Image},
        },
        threads,
    },
};

/// A run, as its target says.
struct TargetRun {
    uid: String,
    workspace: String,
    writers: Vec<Writer>,
    target: RunImage,
}

/// Snapshots of the run that are still the ones that the target was made from, and images that were replaced. What the
/// target says is not trusted: each image must say itself what it is. `tags` are all of the repository, if it lists them.
pub fn left_by(
    store: &dyn Store,
    target: &Target,
    tags: Option<&BTreeSet<String>>,
    all: bool,
) -> Result<Vec<Doomed>, Error> {
    let run = read(store, target)?;
    let mut named = named(store, target, &run, tags)?;
    // Whoever names it by its digest means it with its tag.
    let is_by_digest = target.reference().parse::<Digest>().is_ok();
    let digest = &run.target.digest;
    let is_shared =
        named.as_ref().is_some_and(|named| named.has_another(digest) || (!is_by_digest && named.contains(digest)));
    if let Some(named) = &mut named {
        named.insert(run.target.digest);
    }
    let mut heads = run.target.replaces.clone();
    let mut doomed = Vec::new();
    for Writer { manifest, order, .. } in &run.writers {
        let Some(digest) = *manifest else { continue };
        let tag = StepConfig::tag(&run.uid, *order, &run.workspace);
        if let Some(snapshot) = snapshot(store, target, &run, *order, &tag)? {
            if snapshot.digest != digest {
                let place = target.with_tag(&tag).to_string();
                tracing::warn!("{} is {} by now and stays", Line(&place), snapshot.digest);
                continue;
            }
            heads.extend(&snapshot.replaces);
            doomed.push(Doomed::tagged(tag, digest));
        }
        let list = StepConfig::replaced_tag(&run.uid, *order, &run.workspace);
        if tags.is_some_and(|tags| tags.contains(&list))
            && let Some(manifest) = store.manifest(&list)?
            && let Some(image) = RunImage::parse(&manifest).filter(|image| image.is_of_task(&list))
        {
            heads.extend(&image.replaces);
            doomed.push(Doomed::tagged(list, image.digest));
        }
    }
    doomed.retain(|image| {
        let stays = named.as_ref().is_some_and(|named| named.contains(&image.digest));
        if stays {
            tracing::warn!("{} has another tag and stays", image.digest);
        }
        !stays
    });
    if let Some(named) = &named {
        // First, as the tagged images say where they are.
        doomed.splice(..0, replaced::behind(store, heads, named, |_| true)?);
    }
    if all && is_shared {
        tracing::warn!("{} ({}) has another tag and stays", Line(&target.to_string()), run.target.digest);
    } else if all {
        doomed.push(Doomed::tagged(target.reference(), run.target.digest));
    }
    Ok(doomed)
}

fn read(store: &dyn Store, target: &Target) -> Result<TargetRun, Error> {
    let place = target.to_string();
    let absent = || Error::NoImage(place.clone());
    let stored = store.manifest(&target.reference())?.ok_or_else(absent)?;
    let found = load::image(store, &target.reference(), &place)?.ok_or_else(absent)?;
    if found.config.snapshot.is_some() {
        return Err(Error::damaged(place, "it is the snapshot of one task; name the target of the run"));
    }
    let annotation = |name: &str| found.manifest.annotations.get(name).cloned();
    let (Some(lineage), Some(uid), Some(workspace)) = (&found.config.lineage, annotation(RUN), annotation(WORKSPACE))
    else {
        return Err(Error::damaged(place, "it is not the target of a run, so that there is nothing to prune"));
    };
    lineage.check().map_err(|e| Error::damaged(&place, format!("its lineage is invalid: {e}")))?;
    // Every tag of the run has to be one of this repository.
    target.with_tag(&StepConfig::tag(&uid, 0, &workspace)).to_string().parse::<Target>()?;
    let target = RunImage::parse(&stored).ok_or_else(|| Error::damaged(&place, "it is not an image"))?;
    Ok(TargetRun { uid, workspace, writers: lineage.writers.clone(), target })
}

/// The snapshot of the task at `order`, if it says itself that it is.
fn snapshot(
    store: &dyn Store,
    target: &Target,
    run: &TargetRun,
    order: u32,
    tag: &str,
) -> Result<Option<RunImage>, Error> {
    let place = target.with_tag(tag).to_string();
    let Some(Image { config, .. }) = load::image(store, tag, &place)? else { return Ok(None) };
    let says_so = config.snapshot.is_some_and(|snapshot| {
        (&snapshot.run, snapshot.order, &snapshot.workspace) == (&run.uid, order, &run.workspace)
    });
    if !says_so {
        tracing::warn!("{} is not the snapshot that the target takes it for, and stays", Line(&place));
        return Ok(None);
    }
    Ok(store.manifest(tag)?.as_ref().and_then(RunImage::parse))
}

/// What tags name other than those of tasks and that of the target; none if the tags are not known. The UID is what the target
/// says, so a tag that begins with it is one of a task only if its image says so too.
fn named(
    store: &dyn Store,
    target: &Target,
    run: &TargetRun,
    tags: Option<&BTreeSet<String>>,
) -> Result<Option<NamedImages>, Error> {
    let Some(tags) = tags else { return Ok(None) };
    let (prefix, own) = (format!("{}.", run.uid), target.reference());
    let others: Vec<&String> = tags.iter().filter(|tag| !StepConfig::is_task_tag(tag) && **tag != own).collect();
    let heads = threads::for_each(&others, |_, tag| {
        if !tag.starts_with(&prefix) {
            return Ok(store.head(tag)?);
        }
        let manifest = store.manifest(tag)?;
        let image = manifest.as_ref().and_then(RunImage::parse);
        let is_of_task = image.is_some_and(|image| image.is_of_task(tag));
        Ok::<_, Error>(manifest.filter(|_| !is_of_task).map(ManifestHead::from))
    })?;
    NamedImages::by_heads(store, heads.into_iter().flatten()).map(Some)
}
