//! An image as far as it can be known without reading a layer: manifest, config and tables of contents.

use std::{collections::HashSet, sync::mpsc, thread};

use crate::{
    digest::Digest,
    store::{self, Store},
    target::Target,
    workspace::{
        Error,
        entry::Entry,
        layer::{
            descriptor::Descriptor,
            toc::{Toc, TocWriter},
        },
        snapshot::{
            image,
            lineage::{Base, Lineage, Writer},
            load,
            merge::{Change, Outcome},
            view::View,
        },
    },
};

/// How many entries may wait for the other side of a comparison.
const AHEAD: usize = 1024;

/// What an image is made of.
pub struct InspectedImage {
    /// Its name.
    pub image: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// What it is.
    pub kind: ImageKind,
    /// UID of the run, if the image has it.
    pub run: Option<String>,
    /// Name of the workspace, if the image has it.
    pub workspace: Option<String>,
    /// Tasks and their layers. The base is there only if it is another image.
    pub lineage: Lineage,
    /// Layers of the image that belong to no task: in an image of a run they correct what a plain stack shows, in any other
    /// one nothing is known of what they hold.
    pub other: Vec<Descriptor>,
    /// What the base holds, if that is known.
    base: Option<Toc>,
    tocs: Vec<Toc>,
    /// Why the files of the base, or of layers of the image itself, are not known.
    pub unlisted: Option<String>,
}

/// Kinds of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// What one task left, on top of its ancestors.
    Snapshot,
    /// What a run left so far.
    Run,
    /// Any other one.
    Image,
}

impl InspectedImage {
    /// Reads what there is to know of `image`.
    pub fn open(image: &str) -> Result<Self, Error> {
        let target = image.parse::<Target>()?;
        Self::read(&*store::open(&target)?, &target)
    }

    /// The same with the store that has it.
    pub fn read(store: &dyn Store, target: &Target) -> Result<Self, Error> {
        let image = target.to_string();
        let mut found =
            load::image(store, &target.reference(), &image)?.ok_or_else(|| Error::NoImage(image.clone()))?;
        let annotation = |name: &str| found.manifest.annotations.get(name).cloned();
        let (run, workspace, digest) = (annotation(image::RUN), annotation(image::WORKSPACE), found.digest);
        let there: HashSet<Digest> = found.manifest.layers.iter().map(|layer| layer.digest).collect();
        let is_whole = |lineage: &Lineage| lineage.layers().all(|(_, layer)| there.contains(&layer.digest));
        let whole = found.config.lineage.take().filter(is_whole);
        if let Some(lineage) = &whole {
            lineage.check().map_err(|e| Error::damaged(&image, format!("its lineage is invalid: {e}")))?;
        }
        let (kind, lineage, other) = match (found.config.snapshot.take(), whole) {
            (Some(snapshot), _) => {
                (ImageKind::Snapshot, load::of_snapshot(&image, digest, found.manifest, snapshot)?, Vec::new())
            }
            (None, Some(lineage)) => {
                let base = lineage.base.iter().flat_map(|base| &base.layers);
                let known: HashSet<_> =
                    base.chain(lineage.layers().map(|(_, layer)| layer)).map(|l| l.digest).collect();
                let other = found.manifest.layers.into_iter().filter(|layer| !known.contains(&layer.digest));
                let other = other.filter(|layer| layer.has_toc() || layer.escapes_names()).collect();
                (ImageKind::Run, lineage, other)
            }
            (None, None) => {
                found.check_layers(&image)?;
                let mut lineage = load::of_image(&image, digest, found.manifest, &found.config);
                let below = lineage.base.take().map(|base| base.layers).unwrap_or_default();
                (ImageKind::Image, by_task(lineage), below)
            }
        };
        // What an image says about itself is not what the user asked for.
        let lineage = Lineage { origin: Some(image.clone()), ..lineage };
        let mut source = Self {
            tocs: load::tocs(store, &lineage)?,
            base: None,
            unlisted: None,
            image,
            digest,
            kind,
            run,
            workspace,
            lineage,
            other,
        };
        source.list_base();
        Ok(source)
    }

    /// The table of contents of a layer of its lineage.
    pub fn toc(&self, layer: usize) -> Option<&Toc> {
        self.tocs.get(layer)
    }

    /// What its base holds, if that is known.
    pub fn base(&self) -> Option<&Toc> {
        self.base.as_ref()
    }

    /// All files and directories of the image, merged, with what goes wrong.
    pub fn view(&self) -> Result<View<'_>, Error> {
        View::new(&self.lineage, self.base.as_ref(), &self.tocs)
    }

    /// Gives what the image holds to `visit`, in tree order.
    pub fn for_each(&self, visit: &mut dyn FnMut(Entry) -> Result<(), Error>) -> Result<(), Error> {
        self.view()?.for_each(&mut |group, outcome| merged(group, &outcome).map_or(Ok(()), &mut *visit))
    }

    /// Goes through what two images hold, path by path: gives the entries of the first and the second, one of them none
    /// if only the other has the path.
    pub fn compare(
        &self,
        other: &Self,
        visit: &mut dyn FnMut(Option<Entry>, Option<Entry>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(AHEAD);
            scope.spawn(move || {
                // The receiver goes away only after an error on its side.
                let gone = |_| Error::Stopped;
                if let Err(e) = self.for_each(&mut |entry| sender.send(Ok(entry)).map_err(gone)) {
                    let _ = sender.send(Err(e));
                }
            });
            let mut first = receiver.into_iter().peekable();
            let mut until = |second: Option<&Entry>, visit: &mut dyn FnMut(Option<Entry>, Option<Entry>) -> _| {
                let before = |entry: &Result<Entry, _>| match (entry, second) {
                    (Ok(entry), Some(second)) => entry.path < second.path,
                    _ => true,
                };
                while let Some(entry) = first.next_if(before) {
                    visit(Some(entry?), None)?;
                }
                let same = |entry: &Result<Entry, _>| matches!((entry, second), (Ok(entry), Some(second)) if entry.path == second.path);
                first.next_if(same).transpose()
            };
            other.for_each(&mut |entry| {
                let same = until(Some(&entry), visit)?;
                visit(same, Some(entry))
            })?;
            until(None, visit).map(drop)
        })
    }

    /// A base whose layers were all made by this program can be listed as well.
    fn list_base(&mut self) {
        let Some(base) = &self.lineage.base else {
            if self.kind == ImageKind::Image && !self.other.is_empty() {
                self.unlisted = Some("other programs made its layers, which have no table of contents".to_owned());
            }
            return;
        };
        if !base.layers.iter().all(Descriptor::has_toc) {
            let why = "which other programs made, so that it has no table of contents";
            self.unlisted = Some(format!("the files of the base {}, {why}, are not counted here", base.image));
            return;
        }
        match listed(&self.lineage, base) {
            Ok(listed) => self.base = Some(listed),
            Err(e) => self.unlisted = Some(format!("the files of the base are not counted here: {e}")),
        }
    }
}

/// The entry that `outcome` leaves of the path of `group`, if any.
pub fn merged(group: &[Change], outcome: &Outcome) -> Option<Entry> {
    match *outcome {
        Outcome::Keep { from, mtime, .. } => Some(Entry { mtime, ..group.get(from)?.entry.clone() }),
        Outcome::Gone { .. } => None,
    }
}

/// What a base holds, all layers of which have a table of contents.
fn listed(lineage: &Lineage, base: &Base) -> Result<Toc, Error> {
    let store = load::base_store(lineage, base)?;
    let writer = |(order, layer): (u32, &Descriptor)| Writer {
        task: "base".to_owned(),
        order,
        run: None,
        manifest: None,
        ancestors: (0..order).collect(),
        layers: vec![layer.clone()],
    };
    let lineage = Lineage { writers: (0..).zip(&base.layers).map(writer).collect(), ..Lineage::default() };
    let tocs = load::tocs(&*store, &lineage)?;
    let unlisted = || Error::file(&base.image, "its files can't be listed");
    let mut table = TocWriter::new().map_err(unlisted())?;
    View::new(&lineage, None, &tocs)?.for_each(&mut |group, outcome| match merged(group, &outcome) {
        Some(entry) => table.push(&entry).map_err(unlisted()),
        None => Ok(()),
    })?;
    let (payload, entries) = table.finish().map_err(unlisted())?;
    Ok(Toc::new(&base.image, payload, entries))
}

/// The layers of one task as one writer: in an ordinary image each layer is one.
fn by_task(lineage: Lineage) -> Lineage {
    let mut writers: Vec<Writer> = Vec::new();
    for writer in lineage.writers {
        match writers.last_mut() {
            Some(last) if last.task == writer.task => last.layers.extend(writer.layers),
            _ => {
                // No more than the lineage had.
                let order = u32::try_from(writers.len()).unwrap_or(writer.order);
                writers.push(Writer { order, ancestors: (0..order).collect(), ..writer });
            }
        }
    }
    Lineage { writers, ..lineage }
}
