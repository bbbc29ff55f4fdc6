//! What many runs left in a repository, found from its tags.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Doomed, attached,
    image::{self, RunImage},
    named::NamedImages,
    replaced,
};
use crate::{
    step::is_cache_tag,
    store::{ManifestHead, Store},
    workspace::{Error, threads},
};

/// Which runs, or which images.
#[derive(Debug)]
pub enum RunSelection {
    /// Images that were to be kept until a time before this one, by what they say themselves; targets too.
    Expired(Timestamp),
    /// Those whose last image was made before this time.
    Before(Timestamp),
    /// The one with this UID.
    Run(String),
}

/// An image and its tag.
struct Tagged {
    tag: String,
    image: RunImage,
}

impl RunSelection {
    /// Runs whose last image is older than `age`.
    pub fn older_than(age: Duration) -> Self {
        Self::Before(Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN))
    }

    /// Whether an image of a run is selected whose last image was made at `created`; one that does not say never is by its age.
    fn selects(&self, image: &RunImage, created: Option<Timestamp>) -> bool {
        match self {
            Self::Expired(now) => image.has_expired(*now),
            Self::Before(time) => created.is_some_and(|created| created < *time),
            Self::Run(uid) => image.run.as_ref() == Some(uid),
        }
    }
}

/// What the selected runs left in the repository with these tags: images of tasks, and images that were replaced; targets only if
/// `all`.
pub fn left_in(
    store: &dyn Store,
    tags: &BTreeSet<String>,
    selection: &RunSelection,
    all: bool,
) -> Result<Vec<Doomed>, Error> {
    let (of_tasks, others, named) = read(store, tags)?;
    let last = last_images(&of_tasks);
    let is_selected = |image: &RunImage| {
        let last = image.run.as_deref().and_then(|uid| last.get(uid).copied().flatten());
        selection.selects(image, last)
    };
    let by_uid = matches!(selection, RunSelection::Run(_));
    let mut doomed = Vec::new();
    for Tagged { tag, image } in of_tasks.iter().filter(|tagged| is_selected(&tagged.image)) {
        if image.keeps_all && !all && !by_uid {
            continue;
        }
        if named.contains(&image.digest) {
            tracing::warn!("{tag} ({}) has another tag and stays", image.digest);
            continue;
        }
        doomed.push(Doomed::tagged(tag.clone(), image.digest));
    }
    let heads = of_tasks.iter().chain(&others).map(|tagged| &tagged.image);
    let heads = heads.filter(|image| !by_uid || is_selected(image)).flat_map(|image| image.replaces.iter().copied());
    // What was signed may be all that is left of those that replaced it.
    let heads = heads.chain(tags.iter().filter(|_| !by_uid).filter_map(|tag| attached::subject(tag)));
    let is_old = |image: &RunImage| by_uid || selection.selects(image, image.created);
    // First, as the tagged images say where they are.
    doomed.splice(..0, replaced::behind(store, heads, &named, is_old)?);
    if all || matches!(selection, RunSelection::Expired(_)) {
        doomed.extend(targets(store, &others, &named, selection)?);
    }
    Ok(doomed)
}

/// Images of tasks, and all others; and what tags of others name.
fn read(store: &dyn Store, tags: &BTreeSet<String>) -> Result<(Vec<Tagged>, Vec<Tagged>, NamedImages), Error> {
    let tags: Vec<String> = tags.iter().cloned().collect();
    // Of the manifests themselves none is held: they may be large, and many.
    let found = threads::for_each(&tags, |_, tag| {
        let manifest = store.manifest(tag)?;
        Ok::<_, Error>(manifest.map(|manifest| (RunImage::parse(&manifest), ManifestHead::from(manifest))))
    })?;
    let (mut of_tasks, mut others, mut heads) = (Vec::new(), Vec::new(), Vec::new());
    for (tag, found) in tags.into_iter().zip(found) {
        let Some((image, head)) = found else { continue };
        match image {
            Some(image) if image.is_of_task(&tag) => of_tasks.push(Tagged { tag, image }),
            image => {
                heads.push(head);
                others.extend(image.map(|image| Tagged { tag, image }));
            }
        }
    }
    Ok((of_tasks, others, NamedImages::by_heads(store, heads)?))
}

/// When the last image of each run was made; none if one of its images does not say.
fn last_images(of_tasks: &[Tagged]) -> HashMap<&str, Option<Timestamp>> {
    let mut last: HashMap<&str, Option<Timestamp>> = HashMap::new();
    for Tagged { image, .. } in of_tasks {
        let Some(uid) = &image.run else { continue };
        let known = last.entry(uid).or_insert(image.created);
        *known = known.zip(image.created).map(|(known, created)| known.max(created));
    }
    last
}

/// Targets that are selected themselves and have one tag only. Caches are no targets, but have times of their own too.
fn targets(
    store: &dyn Store,
    others: &[Tagged],
    named: &NamedImages,
    selection: &RunSelection,
) -> Result<Vec<Doomed>, Error> {
    let mut doomed = Vec::new();
    for Tagged { tag, image } in others {
        let is_cache = is_cache_tag(tag);
        let is_other = is_cache && !matches!(selection, RunSelection::Expired(_));
        if image.run.is_none() || is_other || !selection.selects(image, image.created) {
            continue;
        }
        if named.has_another(&image.digest) {
            tracing::warn!("{tag} ({}) has another tag and stays", image.digest);
            continue;
        }
        if is_cache || image::config(store, tag)?.is_some_and(|config| config.lineage.is_some()) {
            doomed.push(Doomed::tagged(tag.clone(), image.digest));
        }
    }
    Ok(doomed)
}
