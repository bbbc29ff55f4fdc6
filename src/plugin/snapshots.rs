//! Whether the snapshots of a run are still there.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use crate::{digest::Digest, rerun::Need, step::StepConfig, store, target::Target, workspace::snapshot::load};

/// Checks that all of `needs` exist, with every layer that they are made of.
pub fn check(needs: &[Need]) -> Result<(), Error> {
    // One image is the base of all, and each layer is in many snapshots.
    let mut seen: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
    for Need { task, order, step } in needs {
        for workspace in &step.workspaces {
            let target = workspace.target.parse::<Target>()?;
            let store = store::open(&target)?;
            let place = target.with_tag(&StepConfig::tag(step.run_of(*order), *order, &workspace.name)).to_string();
            let (task, name) = (task.clone(), workspace.name.clone());
            let Some(lineage) = load::snapshot(&*store, step, workspace, *order)? else {
                return Err(Error::SnapshotGone { task, workspace: name, place });
            };
            let seen = seen.entry(target.with_tag("x").to_string()).or_default();
            for (_, layer) in lineage.layers() {
                if seen.insert(layer.digest) && !store.has_blob(&layer.digest)? {
                    return Err(Error::LayerGone { task, workspace: name, place, layer: layer.place() });
                }
            }
        }
    }
    Ok(())
}
