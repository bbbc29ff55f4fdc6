//! Files of an image with what they hold, read without the rest of its layers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
};

use super::source::{InspectedImage, merged};
use crate::{
    store,
    target::Target,
    workspace::{
        Error,
        entry::Entry,
        layer::parts,
        path::TreePath,
        snapshot::{load, merge::Outcome},
    },
};

/// Gets an entry; a regular file with its content, under the name of a hard link too.
pub type Visit<'a> = dyn FnMut(&Entry, &mut dyn Read) -> Result<(), Error> + 'a;

/// Gives all that `image` holds and for which `wanted` says so to `visit`: first, in tree order, what is no regular file, then
/// the files as they come in its layers. Gives their number.
pub fn read(image: &InspectedImage, wanted: &dyn Fn(&TreePath) -> bool, visit: &mut Visit<'_>) -> Result<u64, Error> {
    let mut of_layers: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    let mut of_base = BTreeSet::new();
    let mut count = 0_u64;
    image.view()?.for_each(&mut |group, outcome| {
        let Outcome::Keep { from, .. } = outcome else { return Ok(()) };
        let (Some(winner), Some(entry)) = (group.get(from), merged(group, &outcome)) else { return Ok(()) };
        if !wanted(&entry.path) {
            return Ok(());
        }
        count = count.saturating_add(1);
        match (entry.content(), winner.layer.checked_sub(1)) {
            (None, _) => visit(&entry, &mut io::empty()),
            (Some(_), Some(layer)) => {
                of_layers.entry(layer).or_default().insert(winner.index);
                Ok(())
            }
            (Some(_), None) => {
                of_base.insert(entry.path);
                Ok(())
            }
        }
    })?;
    let store = store::open(&image.image.parse::<Target>()?)?;
    for (layer, indexes) in &of_layers {
        let (Some((_, descriptor)), Some(toc)) = (image.lineage.layers().nth(*layer), image.toc(*layer)) else {
            continue;
        };
        parts::read_some(&*store, descriptor, toc, indexes, &mut |_, entry, content| visit(entry, content))?;
    }
    if let Some(base) = image.lineage.base.as_ref().filter(|_| !of_base.is_empty()) {
        let mut target = base.image.parse::<Target>()?;
        if let Target::Registry(reference) = &mut target {
            reference.digest = Some(base.manifest);
        }
        let below = InspectedImage::read(&*load::base_store(&image.lineage, base)?, &target)?;
        read(&below, &|path| of_base.contains(path), visit)?;
    }
    Ok(count)
}
