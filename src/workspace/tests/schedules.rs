//! The end of a run: every order in which parallel tasks can publish what they saved leaves an image that has it all.
//!
//! What a task does depends only on what the store answered to it so far. So its code runs alone, with these answers, up
//! to the next calls that another task could notice: reading and writing a tag. A search through all orders of these calls
//! then meets each state of all tasks and the store once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::{Arc, Mutex},
};

use super::{
    Compression, Descriptor, LayerWriter, PendingSnapshot, Run, Store, Task,
    entry::{Entry, Node},
    image,
    lineage::Input,
    load,
    path::TreePath,
    publish, task, write,
};
use crate::{
    digest::Digest,
    store::{Blob, Produce, StoreError, StoredManifest},
    target::Target,
};

/// A call that other tasks can notice. The number tells reads of one tag by one task apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Read(String, usize),
    /// With the digests of the layers that the image has.
    Write(String, BTreeSet<String>),
}

/// The calls of one task that were answered, reads with whether something was there.
type History = BTreeMap<Call, bool>;

/// The layers of the images under their tags.
type Tags = BTreeMap<String, BTreeSet<String>>;

/// All tasks and the store at one moment, as numbers of the model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    histories: Vec<usize>,
    tags: usize,
}

/// Values as numbers, so that states are small.
struct Numbered<T> {
    numbers: BTreeMap<T, usize>,
    values: Vec<T>,
}

/// Manifests under their tags. The same task always writes the same snapshot but for the time in it: the first one stays.
type Snapshots = Arc<Mutex<BTreeMap<String, StoredManifest>>>;

/// Answers the calls of a history. Then it notes what is called at the same time, and answers no more.
struct Replay {
    blobs: Box<dyn Store>,
    snapshots: Snapshots,
    history: History,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    reads: BTreeMap<String, usize>,
    pending: BTreeSet<Call>,
}

/// Parallel tasks that are about to publish, some of them after others have.
struct Model {
    run: Run,
    tasks: Vec<Task>,
    layers: Vec<Descriptor>,
    snapshots: Snapshots,
    /// What a task calls next, by what it knows.
    next: BTreeMap<(usize, usize), BTreeSet<Call>>,
    histories: Numbered<History>,
    tags: Numbered<Tags>,
}

impl<T: Ord + Clone> Numbered<T> {
    fn new() -> Self {
        Self { numbers: BTreeMap::new(), values: Vec::new() }
    }

    fn number(&mut self, value: T) -> usize {
        let new = self.values.len();
        let number = *self.numbers.entry(value.clone()).or_insert(new);
        if number == new {
            self.values.push(value);
        }
        number
    }
}

impl Model {
    fn new(tasks: Vec<Task>) -> Self {
        let run = Run::new();
        let layer = |task: &Task| {
            let path = TreePath::parse(format!("left-by-{}", task.order).as_bytes()).unwrap();
            let entry = Entry { node: Node::Symlink(b"x".to_vec()), ..Entry::whiteout(path) };
            let push = &mut |out: &mut LayerWriter<'_>| {
                out.push(&entry).unwrap();
                Ok(())
            };
            write::store(&*run.store(), Compression::None, &[], push).unwrap()
        };
        let layers = tasks.iter().map(layer).collect();
        let (snapshots, next) = (Snapshots::default(), BTreeMap::new());
        Self { run, tasks, layers, snapshots, next, histories: Numbered::new(), tags: Numbered::new() }
    }

    /// Goes through all orders that can make a difference. The number of states, and of those in which all tasks are through.
    fn explore(&mut self) -> (usize, usize) {
        let unborn = self.histories.number(History::new());
        let start = State { histories: vec![unborn; self.tasks.len()], tags: self.tags.number(Tags::new()) };
        let (mut seen, mut left, mut ends) = (BTreeSet::from([start.clone()]), vec![start], 0);
        while let Some(state) = left.pop() {
            let mut calls = Vec::new();
            for task in 0..self.tasks.len() {
                calls.extend(self.pending(task, &state).into_iter().map(|call| (task, call)));
            }
            // When a task finds what is there already makes no difference to anybody: tags never go away.
            let is_there = |tag: &String| self.tags.values[state.tags].contains_key(tag);
            let settled = |(_, call): &(usize, Call)| matches!(call, Call::Read(tag, _) if is_there(tag));
            if let Some(settled) = calls.iter().position(settled) {
                calls = vec![calls.swap_remove(settled)];
            }
            for (task, call) in &calls {
                let next = self.after(&state, *task, call.clone());
                if seen.insert(next.clone()) {
                    left.push(next);
                }
            }
            if calls.is_empty() {
                ends += 1;
                let all = self.layers.iter().map(|layer| layer.digest.to_string()).collect();
                let histories: Vec<&History> =
                    state.histories.iter().map(|&number| &self.histories.values[number]).collect();
                assert_eq!(self.tags.values[state.tags].get("done"), Some(&all), "{histories:#?}");
            }
        }
        (seen.len(), ends)
    }

    /// What the task can do next in this state.
    fn pending(&mut self, task: usize, state: &State) -> BTreeSet<Call> {
        let is_through = |order: u32| {
            let before = self.tasks.iter().position(|task| task.order == order).unwrap();
            self.next.get(&(before, state.histories[before])).is_some_and(BTreeSet::is_empty)
        };
        if !self.tasks[task].after.clone().into_iter().all(is_through) {
            return BTreeSet::new();
        }
        let key = (task, state.histories[task]);
        if let Some(known) = self.next.get(&key) {
            return known.clone();
        }
        let next = self.replay(task, &self.histories.values[key.1]);
        self.next.insert(key, next.clone());
        next
    }

    fn after(&mut self, state: &State, task: usize, call: Call) -> State {
        let mut tags = self.tags.values[state.tags].clone();
        let answer = match &call {
            Call::Read(tag, _) => tags.contains_key(tag),
            Call::Write(tag, layers) => {
                tags.insert(tag.clone(), layers.clone());
                true
            }
        };
        let mut history = self.histories.values[state.histories[task]].clone();
        history.insert(call, answer);
        let mut next = State { tags: self.tags.number(tags), ..state.clone() };
        next.histories[task] = self.histories.number(history);
        next
    }

    fn replay(&self, task: usize, history: &History) -> BTreeSet<Call> {
        let step = self.run.step(&self.tasks[task]);
        let workspace = &step.workspaces[0];
        let seen = Arc::<Mutex<Seen>>::default();
        let store = |history: &History, seen: &Arc<Mutex<Seen>>| Replay {
            blobs: self.run.store(),
            snapshots: self.snapshots.clone(),
            history: history.clone(),
            seen: seen.clone(),
        };
        // Of what it started from: the snapshots of those before it are there.
        let before = &workspace.after;
        let there = before.iter().map(|before| {
            (Call::Read(crate::step::StepConfig::tag(&step.run, before.order, &workspace.name), 0), true)
        });
        // The check that these tags have not moved is not what this is about.
        let input = if before.is_empty() {
            Input::default()
        } else {
            let input = load::input(&store(&there.collect(), &Arc::default()), &step, workspace).unwrap();
            Input { read: Vec::new(), ..input }
        };
        let (own, layers) = (Box::new(store(history, &seen)), vec![self.layers[task].clone()]);
        let published =
            publish::all(&[PendingSnapshot { store: own, step: &step, workspace, input, layers, caches: Vec::new() }]);
        let pending = std::mem::take(&mut seen.lock().unwrap().pending);
        assert!(!pending.is_empty() || published.is_ok(), "{published:?}");
        pending
    }
}

impl Store for Replay {
    fn manifest(&self, tag: &str) -> Result<Option<StoredManifest>, StoreError> {
        if tag.starts_with("sha256:") {
            return Ok(None);
        }
        let mut seen = self.seen.lock().unwrap();
        let number = seen.reads.entry(tag.to_owned()).or_default();
        let call = Call::Read(tag.to_owned(), *number);
        *number += 1;
        if let Some(&there) = self.history.get(&call) {
            return Ok(self.snapshots.lock().unwrap().get(tag).filter(|_| there).cloned());
        }
        // What a task reads at the same time are tags that it read equally often.
        let now = |pending: &Call| matches!((pending, &call), (Call::Read(_, a), Call::Read(_, b)) if a == b);
        if !seen.pending.iter().all(now) {
            return Err(over());
        }
        seen.pending.insert(call);
        Ok(None)
    }

    /// What is replaced is only for `prune`.
    fn digest(&self, _: &str) -> Result<Option<Digest>, StoreError> {
        Ok(None)
    }

    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        let manifest: image::Manifest = serde_json::from_slice(bytes).unwrap();
        let layers = manifest.layers.iter().map(|layer| layer.digest.to_string()).collect();
        let call = Call::Write(tag.to_owned(), layers);
        let new =
            StoredManifest { digest: Digest::of(bytes), media_type: media_type.to_owned(), bytes: bytes.to_vec() };
        let mut seen = self.seen.lock().unwrap();
        if self.history.contains_key(&call) {
            return Ok(self.snapshots.lock().unwrap()[tag].digest);
        }
        if seen.pending.is_empty() {
            seen.pending.insert(call);
            self.snapshots.lock().unwrap().entry(tag.to_owned()).or_insert(new);
        }
        Err(over())
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.blobs.delete_manifest(digest)
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.blobs.has_blob(digest)
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, StoreError> {
        self.blobs.blob(blob)
    }

    fn blob_range(&self, blob: &Blob, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.blobs.blob_range(blob, offset, len)
    }

    fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError> {
        self.blobs.put_blob(produce)
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        self.blobs.put_bytes(bytes)
    }

    fn mount_blob(&self, digest: &Digest, from: &Target) -> Result<bool, StoreError> {
        self.blobs.mount_blob(digest, from)
    }
}

fn over() -> StoreError {
    StoreError::Content { place: "the replay".to_owned(), problem: "it is over".to_owned() }
}

#[test]
fn whoever_writes_last_has_seen_all() {
    let parallel =
        |order, after: &[u32], others: &[(u32, u32)]| Task { parallel: others.to_vec(), ..task(order, after) };
    let all = vec![(1, 3)];
    for tasks in [
        // Three that know nothing of each other.
        vec![parallel(1, &[], &all), parallel(2, &[], &all), parallel(3, &[], &all)],
        // One beside two that follow each other.
        vec![parallel(1, &[], &[(2, 2)]), parallel(2, &[], &[(1, 1), (3, 3)]), parallel(3, &[1], &[(2, 2)])],
        // Two of which a later task restores both.
        vec![
            Task { joined: vec![(2, 2)], ..parallel(1, &[], &[(2, 2)]) },
            Task { joined: vec![(1, 1)], ..parallel(2, &[], &[(1, 1)]) },
            task(3, &[1, 2]),
        ],
    ] {
        let (states, ends) = Model::new(tasks).explore();
        assert!(states > 20 && ends > 0, "{states} states, {ends} ends");
    }
}
