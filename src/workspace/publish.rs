//! Makes what a task saved visible: its snapshot to later tasks, the whole as `target` to everybody.

use super::{
    cache::put::PendingCache,
    conflict::{ConflictPolicy, Conflicts, report_settled},
    error::Error,
    layer::descriptor::Descriptor,
    snapshot::{
        assemble::{self, ImageLabels},
        image::{self, Snapshot},
        lineage::{Input, Lineage, Writer},
        load,
        view::View,
    },
    threads,
};
use crate::{
    digest::Digest,
    quote::Line,
    step::{Keep, OnConflict, StepConfig, WorkspaceStep},
    store::Store,
    target::Target,
};

/// What a task changed in one workspace: uploaded layers that no manifest refers to.
pub struct PendingSnapshot<'a> {
    /// Where the layers are.
    pub store: Box<dyn Store>,
    /// The task.
    pub step: &'a StepConfig,
    /// The workspace.
    pub workspace: &'a WorkspaceStep,
    /// What the task started from.
    pub input: Input,
    /// What it changed.
    pub layers: Vec<Descriptor>,
    /// The caches that are to be stored.
    pub caches: Vec<PendingCache<'a>>,
}

/// All that can be seen of a workspace: what the task itself left, and what parallel tasks did.
struct Visible {
    whole: Lineage,
    /// Parallel tasks that have not been seen.
    absent: Vec<u32>,
}

/// Publishes all workspaces of a task or none: a task that fails leaves no snapshot of any.
pub fn all(workspaces: &[PendingSnapshot<'_>]) -> Result<(), Error> {
    workspaces.iter().try_for_each(PendingSnapshot::check)?;
    let published = publish(workspaces);
    if published.is_err() {
        // A snapshot without changes says the same as none. What is reported is why it had to come to that.
        workspaces.iter().for_each(|own| drop(own.retract()));
    }
    published
}

fn publish(workspaces: &[PendingSnapshot<'_>]) -> Result<(), Error> {
    let put = |own: &PendingSnapshot<'_>| own.put_snapshot(&own.layers, Vec::new());
    let digests = workspaces.iter().map(put).collect::<Result<Vec<_>, _>>()?;
    let has_target = |own: &PendingSnapshot<'_>| own.step.keep != Keep::None;
    let mut written = workspaces.iter().zip(digests).filter(|(own, _)| has_target(own));
    written.try_for_each(|(own, digest)| own.write_target(digest))
}

impl PendingSnapshot<'_> {
    /// Stores the caches.
    pub fn put_caches(&self) {
        self.caches.iter().for_each(|cache| cache.put(&*self.store, self.step, self.workspace));
    }

    /// Refuses what must not be published: changes on top of snapshots that are not there any more, and a conflict that no later task
    /// will report.
    fn check(&self) -> Result<(), Error> {
        self.check_tags()?;
        let WorkspaceStep { parallel, joined, .. } = self.workspace;
        if self.step.keep == Keep::None {
            // Only a later task could meet a conflict, and reports it.
            return Ok(());
        }
        let all_settled = self.step.conflict == OnConflict::Last && self.step.conflict_rules.is_empty();
        if all_settled || parallel == joined {
            return Ok(());
        }
        let mut visible = self.visible(None)?;
        visible.look(self)?;
        visible.agree(self).map(drop)
    }

    /// Checks that the tags that the restore step read still name what it restored.
    fn check_tags(&self) -> Result<(), Error> {
        let Self { store, step, workspace, input, .. } = self;
        threads::ask_for_each(&input.read, |_, &order| {
            let Some(writer) = input.lineage.writers.iter().find(|writer| writer.order == order) else { return Ok(()) };
            let tag = StepConfig::tag(step.run_of(order), order, &workspace.name);
            match (writer.manifest, store.manifest(&tag)?) {
                (Some(restored), Some(now)) if now.digest != restored => Err(Error::Moved {
                    task: writer.task.clone(),
                    place: workspace.target.parse::<Target>()?.with_tag(&tag).to_string(),
                    restored,
                    now: now.digest,
                }),
                _ => Ok(()),
            }
        })?;
        Ok(())
    }

    /// Replaces the snapshot by one without changes.
    fn retract(&self) -> Result<(), Error> {
        let tag = StepConfig::tag(&self.step.run, self.step.order, &self.workspace.name);
        let replaces = self.store.digest(&tag)?.into_iter().collect();
        self.put_snapshot(&[], replaces).map(drop)
    }

    fn put_snapshot(&self, layers: &[Descriptor], replaces: Vec<Digest>) -> Result<Digest, Error> {
        let Self { store, step, workspace, input, .. } = self;
        let snapshot = Snapshot {
            format: image::FORMAT,
            run: step.run.clone(),
            workspace: workspace.name.clone(),
            task: step.task.clone(),
            order: step.order,
            base: input.lineage.base.clone(),
            ancestors: input.lineage.writers.clone(),
        };
        let tag = StepConfig::tag(&step.run, step.order, &workspace.name);
        let labels = ImageLabels { replaces, ..ImageLabels::of_snapshot(step, workspace) };
        assemble::put_snapshot(&**store, &tag, layers, snapshot, &labels)
    }

    /// Writes `target` from all that can be seen. Each task stores its own snapshot before it comes here and looks again
    /// after it wrote, so that the last writer has seen every other one.
    fn write_target(&self, own: Digest) -> Result<(), Error> {
        let target = self.workspace.target.parse::<Target>()?;
        let reference = target.reference();
        let mut labels = ImageLabels::of_target(self.step, self.workspace);
        let mut visible = self.visible(Some(own))?;
        let has_parallel = !visible.absent.is_empty();
        let mut written: Vec<Digest> = Vec::new();
        let mut is_first = true;
        while visible.look(self)? || is_first {
            is_first = false;
            if visible.agree(self)? {
                labels.replaces = self.store.digest(&reference)?.into_iter().collect();
                let compression = self.step.compression;
                let put = assemble::put_whole(&*self.store, &reference, &visible.whole, compression, &labels)?;
                written.push(put);
            } else {
                let target = target.to_string();
                tracing::warn!("workspace {:?}: {} is left as it was", self.workspace.name, Line(&target));
            }
        }
        if let Some(last) = written.last() {
            tracing::info!("workspace {:?}: {} is {last}", self.workspace.name, Line(&target.to_string()));
        }
        if has_parallel && !written.is_empty() {
            self.list_written(own, &written);
        }
        Ok(())
    }

    /// Lists the targets that this task wrote. A parallel task that read the tag before may write it after: then no image
    /// says that these were replaced. It is for `prune` only, and no reason to fail.
    fn list_written(&self, own: Digest, written: &[Digest]) {
        let tag = StepConfig::replaced_tag(&self.step.run, self.step.order, &self.workspace.name);
        if let Err(error) = assemble::put_replaced(&*self.store, &tag, &own, written) {
            tracing::warn!("workspace {:?}: prune may not find replaced images: {error}", self.workspace.name);
        }
    }

    /// What the task itself left, before anything else is looked for.
    fn visible(&self, manifest: Option<Digest>) -> Result<Visible, Error> {
        let mut own = Writer::unsaved(&self.step.task, self.step.order, &self.input.lineage, self.layers.clone());
        own.manifest = manifest;
        let mut whole = self.input.lineage.clone();
        whole.join(Lineage { writers: vec![own], ..Lineage::default() })?;
        let parallel = self.workspace.parallel.iter().flat_map(|&(first, last)| first..=last);
        Ok(Visible { whole, absent: parallel.filter(|&order| order != self.step.order).collect() })
    }
}

impl Visible {
    /// Looks for parallel tasks that were not there before. Whether there are any.
    fn look(&mut self, own: &PendingSnapshot<'_>) -> Result<bool, Error> {
        let PendingSnapshot { store, step, workspace, .. } = own;
        let found = threads::ask_for_each(&self.absent, |_, &order| load::snapshot(&**store, step, workspace, order))?;
        let mut is_absent = found.iter().map(Option::is_none);
        self.absent.retain(|_| is_absent.next().unwrap_or(true));
        let before = self.whole.writers.len();
        found.into_iter().flatten().try_for_each(|parallel| self.whole.join(parallel))?;
        Ok(self.whole.writers.len() > before)
    }

    /// Whether `target` can be written. A conflict of this task with a parallel one is an error, unless a later task
    /// restores both: that one will fail, with the whole list. One among others is theirs to report.
    fn agree(&self, own: &PendingSnapshot<'_>) -> Result<bool, Error> {
        let PendingSnapshot { store, step, workspace, .. } = own;
        if self.whole.is_chain() {
            return Ok(true);
        }
        let tocs = load::tocs(&**store, &self.whole)?;
        let policy = ConflictPolicy::new(&step.conflict_rules, step.conflict)?;
        let View { conflicts, settled, .. } = View::judged(&self.whole, None, &tocs, Some(&policy))?;
        report_settled(&workspace.name, &settled);
        if conflicts.count == 0 {
            return Ok(true);
        }
        if self.partners(&conflicts, step.order).any(|order| !StepConfig::in_ranges(&workspace.joined, order)) {
            return Err(Error::Conflict { workspace: workspace.name.clone(), conflicts });
        }
        tracing::warn!("workspace {:?}: {conflicts}", workspace.name);
        Ok(false)
    }

    /// The order of the tasks that differ from the one at `order`.
    fn partners(&self, conflicts: &Conflicts, order: u32) -> impl Iterator<Item = u32> {
        // Source 0 is the base.
        let order_of = |source: usize| self.whole.writers.get(source.wrapping_sub(1)).map(|writer| writer.order);
        let pairs = conflicts.pairs.iter().filter_map(move |&(a, b)| Some((order_of(a)?, order_of(b)?)));
        pairs.filter_map(move |(a, b)| if a == order { Some(b) } else { (b == order).then_some(a) })
    }
}
