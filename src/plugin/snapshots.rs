//! Whether the snapshots of a run are still there.

use std::collections::{BTreeMap, BTreeSet};

use super::{PluginError, place};
use crate::{digest::Digest, rerun::Need, step::StepConfig, store, target::Target, workspace::snapshot::load};

/// Checks that all of `needs`, which a rerun of `run` has, exist, with every layer that they are made of.
pub fn check(run: &str, needs: &[Need]) -> Result<(), PluginError> {
    // One image is the base of all, and each layer is in many snapshots.
    let mut seen: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
    for Need { task, order, step } in needs {
        for workspace in &step.workspaces {
            let target = workspace.target.parse::<Target>()?;
            place::check(run, &target)?;
            let store = store::open(&target)?;
            let place = target.with_tag(&StepConfig::tag(step.run_of(*order), *order, &workspace.name)).to_string();
            let (task, name) = (task.clone(), workspace.name.clone());
            let Some(lineage) = load::snapshot(&*store, step, workspace, *order)? else {
                return Err(PluginError::SnapshotGone { task, workspace: name, place });
            };
            let seen = seen.entry(target.with_tag("x").to_string()).or_default();
            let layers: Vec<_> =
                lineage.layers().map(|(_, layer)| layer).filter(|layer| seen.insert(layer.digest)).collect();
            let there = store.has_blobs(&layers.iter().map(|layer| layer.digest).collect::<Vec<_>>())?;
            for (layer, is_there) in layers.iter().zip(there) {
                if !is_there {
                    return Err(PluginError::LayerGone { task, workspace: name, place, layer: layer.place() });
                }
            }
        }
    }
    Ok(())
}
