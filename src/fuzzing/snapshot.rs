//! Manifest and config of a snapshot, which whoever may push to the repository can write.

use std::collections::BTreeSet;

use crate::{
    digest::Digest,
    workspace::snapshot::{
        image::{Config, Manifest},
        lineage::Lineage,
        load,
        view::View,
    },
};

/// What is in one input: both as JSON.
#[derive(serde::Deserialize)]
struct StoredImage {
    manifest: Manifest,
    config: Config,
}

/// Takes `bytes` for a snapshot or an image at the end of a run: a lineage that is accepted is one that tasks can have made, it
/// can be merged, and it is the same after it was stored. Gives whether one is accepted.
pub fn snapshot(bytes: &[u8]) -> bool {
    let Ok(StoredImage { manifest, mut config }) = serde_json::from_slice::<StoredImage>(bytes) else { return false };
    let digest = Digest::of(bytes);
    let ordinary = config.lineage.take().filter(|lineage| lineage.check().is_ok());
    let snapshot = config.snapshot.take();
    let snapshot = snapshot.and_then(|snapshot| load::of_snapshot("snapshot", digest, manifest.clone(), snapshot).ok());
    let accepted = ordinary.is_some() || snapshot.is_some();
    ordinary.into_iter().chain(snapshot).for_each(check);
    check(load::of_image("dir:///image:tag", digest, manifest, &config));
    accepted
}

fn check(lineage: Lineage) {
    let mut known = BTreeSet::new();
    let mut last = None;
    for writer in &lineage.writers {
        assert!(last.is_none_or(|last| last < writer.order), "tasks are out of order");
        last = Some(writer.order);
        assert!(writer.ancestors.iter().all(|ancestor| known.contains(ancestor)), "an ancestor does not come before");
        known.insert(writer.order);
    }
    for writer in &lineage.writers {
        let of = |order: &u32| lineage.writers.iter().find(|writer| writer.order == *order);
        let mut further = writer.ancestors.iter().filter_map(of).flat_map(|ancestor| &ancestor.ancestors);
        assert!(further.all(|order| writer.ancestors.binary_search(order).is_ok()), "an ancestor has more ancestors");
    }
    let stored = serde_json::to_vec(&lineage).expect("it can be stored");
    assert_eq!(serde_json::from_slice::<Lineage>(&stored).expect("it can be read"), lineage);
    let mut joined = lineage.clone();
    joined.join(lineage.clone()).expect("it agrees with itself");
    assert_eq!(joined, lineage);
    if lineage.layers().all(|(_, layer)| layer.info().is_ok()) {
        View::new(&lineage, None, &[]).expect("it can be merged").for_each(&mut |_, _| Ok(())).expect("it is empty");
    }
}
