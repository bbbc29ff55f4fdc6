//! What tasks did with the workspaces, from the images in the store: manifests, configs and tables of contents alone.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{PluginError, stored::StoredRun};
use crate::{
    inspect::{
        changes::{Amount, ChangeKind, Summary},
        history,
        holding::Holding,
        listing::What,
        source::{ImageKind, InspectedImage},
    },
    page::{
        model::{Disagreement, ShownChanges, ShownLayer, ShownRun, ShownSave, ShownWorkspace},
        tree::ChangeTreeBuilder,
    },
    quote::Quoted,
    step::{WorkspaceStep, stored::Injected},
    target::Target,
    units::size,
    workspace::{
        self,
        entry::{Entry, Node},
        selection::Selection,
    },
};

/// Rows of all trees of a page together, about.
const ROWS: usize = 20_000;

/// Rows of one tree: at least and at most.
const ROWS_OF_ONE: (usize, usize) = (100, 4_000);

/// Adds to `run` what is known of its workspaces and of what its tasks did with them. What can't be read, as nothing has been
/// saved yet or it is gone again, is no failure: the page says so.
pub fn add(run: &mut ShownRun, stored: &StoredRun<'_>) -> Result<(), PluginError> {
    let mut opened = Vec::new();
    for name in stored.workspaces() {
        let image = stored.target(name).and_then(|target| Ok(InspectedImage::open(&target.to_string())?));
        opened.push((name.to_owned(), stored.named_target(name)?, image));
    }
    let trees: usize =
        opened.iter().filter_map(|(.., image)| image.as_ref().ok()).map(|image| image.lineage.writers.len()).sum();
    let rows = ROWS.checked_div(trees).unwrap_or_default().clamp(ROWS_OF_ONE.0, ROWS_OF_ONE.1);
    for (name, target, image) in opened {
        let of_image = image.and_then(|image| -> Result<_, PluginError> {
            let found = workspace(&name, &target, &image)?;
            changes(run, stored, &name, &image, rows)?;
            Ok(found)
        });
        run.workspaces.push(of_image.unwrap_or_else(|problem| ShownWorkspace {
            name,
            image: target.to_string(),
            note: Some(problem.to_string()),
            ..ShownWorkspace::default()
        }));
    }
    Ok(())
}

fn workspace(name: &str, target: &Target, image: &InspectedImage) -> Result<ShownWorkspace, workspace::Error> {
    let view = image.view()?;
    let conflicts = view.conflicts.listed.iter().map(|conflict| {
        let [earlier, later] = conflict.names.clone();
        let [did, also] = conflict.did;
        Disagreement { path: conflict.path.as_bytes().to_vec(), tasks: [(earlier, did), (later, also)] }
    });
    Ok(ShownWorkspace {
        name: name.to_owned(),
        image: target.to_string(),
        digest: Some(image.digest),
        holding: Holding::of(&view, &mut |_| true)?,
        layers: layers(image),
        conflicts: conflicts.collect(),
        more_conflicts: view.conflicts.unlisted(),
        note: image.unlisted.clone(),
    })
}

fn layers(image: &InspectedImage) -> Vec<ShownLayer> {
    let base =
        image.lineage.base.iter().flat_map(|base| base.layers.iter().map(|layer| ("the base".to_owned(), layer)));
    let tasks = image
        .lineage
        .layers()
        .filter_map(|(writer, layer)| Some((format!("task {}", image.lineage.writers.get(writer)?.task), layer)));
    let other = match image.kind {
        ImageKind::Image => "other programs",
        _ => "none: so that other tools see the same",
    };
    let other = image.other.iter().map(|layer| (other.to_owned(), layer));
    base.chain(tasks)
        .chain(other)
        .map(|(of, layer)| ShownLayer { digest: layer.digest, of, stored: layer.size })
        .collect()
}

/// Adds what each task did with the workspace `name`.
fn changes(
    run: &mut ShownRun,
    stored: &StoredRun<'_>,
    name: &str,
    image: &InspectedImage,
    rows: usize,
) -> Result<(), workspace::Error> {
    let mut saved = saved(image, rows)?;
    let mut restores = Restores { image, known: BTreeMap::new() };
    for task in &mut run.tasks {
        let steps = || stored.steps().iter().filter(|(of, _)| *of == task.name);
        let of_workspace = |saves: bool| {
            steps().filter(|(_, step)| step.saves == saves).find_map(|(_, Injected { config, .. })| {
                Some((config.order, config.workspaces.iter().find(|workspace| workspace.name == name)?))
            })
        };
        let (restore, save) = (of_workspace(false), of_workspace(true));
        let Some((order, _)) = save.or(restore) else { continue };
        let mut found = Vec::new();
        for (number, own) in (0_u32..).zip(&task.runs) {
            let order = order.saturating_add(number);
            let restored = match restore {
                Some((_, step)) if own.times.is_some() => restores.amount(step, order)?,
                _ => None,
            };
            let saved = saved.remove(&order);
            if restored.is_some() || saved.is_some() {
                found.push(ShownChanges { task: own.name.clone(), workspace: name.to_owned(), restored, saved });
            }
        }
        task.changes.append(&mut found);
    }
    // A rerun goes on from them.
    let earlier =
        image.lineage.writers.iter().filter(|writer| writer.run.is_some() && saved.contains_key(&writer.order));
    let earlier: Vec<&str> = earlier.map(|writer| &*writer.task).collect();
    if !earlier.is_empty() {
        run.notes
            .push(format!("workspace {name:?} has also what tasks of an earlier run left: {}", earlier.join(", ")));
    }
    Ok(())
}

/// What each task left, by its place in pipeline order. Trees have at most `rows` rows.
fn saved(image: &InspectedImage, rows: usize) -> Result<BTreeMap<u32, ShownSave>, workspace::Error> {
    let writers = &image.lineage.writers;
    let mut found: Vec<(Summary, ChangeTreeBuilder)> =
        writers.iter().map(|_| (Summary::default(), ChangeTreeBuilder::new(rows))).collect();
    history::each(&image.view()?, &mut |writer, before, after| {
        let (Some((summary, tree)), Some(entry)) = (found.get_mut(writer), after.or(before)) else { return Ok(()) };
        let Some(change) = summary.add(before, after).filter(|_| !entry.path.is_root()) else { return Ok(()) };
        let bytes = after.map_or(0, Entry::own_size);
        tree.push(entry.path.as_bytes(), entry.is_dir(), change, bytes, || detail(change, before, after));
        Ok(())
    })?;
    let saved = writers.iter().zip(found).map(|(writer, (summary, tree))| {
        let stored = writer.layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
        (writer.order, ShownSave { layers: writer.layers.len(), stored, summary, tree: tree.finish() })
    });
    Ok(saved.collect())
}

/// What is to be known of a change beside the path.
fn detail(change: ChangeKind, before: Option<&Entry>, after: Option<&Entry>) -> String {
    let bytes = |entry: Option<&Entry>| entry.and_then(Entry::content).map(|content| size(content.size));
    match (change, after.map(|entry| &entry.node)) {
        (ChangeKind::Added | ChangeKind::Content, Some(Node::Symlink(target))) => format!("link to {}", Quoted(target)),
        (ChangeKind::Added, _) => bytes(after).unwrap_or_default(),
        (ChangeKind::Deleted, _) => bytes(before).unwrap_or_default(),
        _ => What(change, before, after).to_string().trim().replace(" -> ", " → "),
    }
}

/// How much tasks restored. Many tasks start from the same ones before them.
struct Restores<'a> {
    image: &'a InspectedImage,
    known: BTreeMap<(Vec<u32>, Vec<String>), Amount>,
}

impl Restores<'_> {
    /// What the restore step `step` of the task at `order` found. None if that is not known: an image has no task twice, so that
    /// what came before a task that saved nothing is known only by those that it starts from.
    fn amount(&mut self, step: &WorkspaceStep, order: u32) -> Result<Option<Amount>, workspace::Error> {
        let writers = &self.image.lineage.writers;
        let ancestors = match writers.iter().find(|writer| writer.order == order) {
            Some(writer) => writer.ancestors.clone(),
            None => {
                let is_nearest = |order: u32| {
                    step.after
                        .iter()
                        .any(|before| (before.order..=before.last.unwrap_or(before.order)).contains(&order))
                };
                let nearest = writers.iter().filter(|writer| is_nearest(writer.order));
                let all: BTreeSet<u32> =
                    nearest.flat_map(|writer| writer.ancestors.iter().copied().chain([writer.order])).collect();
                all.into_iter().collect()
            }
        };
        let key = (ancestors, step.paths.clone());
        if let Some(known) = self.known.get(&key) {
            return Ok(Some(*known));
        }
        // What the webhook took is a pattern.
        let Ok(selection) = Selection::new(&key.1) else { return Ok(None) };
        let amount = Holding::left_by(self.image, &key.0, &selection)?.amount;
        self.known.insert(key, amount);
        Ok(Some(amount))
    }
}
