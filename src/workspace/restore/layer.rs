//! Makes what one layer has, while it is downloaded.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use super::prepare::Winners;
use crate::{
    store::{Store, StoreError},
    workspace::{
        base::Made,
        entry::{Entry, Node},
        error::Error,
        files::extract::Extractor,
        layer::{descriptor::Descriptor, read, toc::Toc},
        path::TreePath,
        progress::{LayerProgress, Progress},
    },
};

/// Makes those entries of `layer` that win. One that arrives damaged is fetched once more: a proxy or a disk on the way may
/// have done it. What was made of it by then is made anew.
pub fn extract(
    store: &dyn Store,
    layer: &Descriptor,
    toc: &Toc,
    winners: &Winners,
    extractor: &impl Fn() -> Result<Extractor, Error>,
    progress: &Progress,
) -> Result<Made, Error> {
    let names = first_names(layer, toc, winners)?;
    let progress = progress.of_layer();
    let attempt = || {
        progress.begin();
        let mut making =
            Making { winners, names: &names, extractor: extractor()?, progress: &progress, made: Made::default() };
        read::read(store, layer, toc, &mut |index, entry, content| making.entry(index, entry, content))?;
        Ok(Made { stripped: making.extractor.stripped(), ..making.made })
    };
    match attempt() {
        Err(error) if is_damage(&error) => {
            tracing::warn!("{error}; fetching it once more");
            attempt()
        }
        other => other,
    }
}

/// Whether the content of a layer was wrong, as opposed to a failure of its store or of the system.
fn is_damage(error: &Error) -> bool {
    let Error::File { source, .. } = error else { return matches!(error, Error::Damaged { .. }) };
    match source.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>()) {
        Some(error) => matches!(error, StoreError::Content { .. }),
        // What a decoder says is no error of the system.
        None => source.raw_os_error().is_none(),
    }
}

/// A layer while it is made.
struct Making<'a> {
    winners: &'a Winners,
    names: &'a HashMap<TreePath, TreePath>,
    extractor: Extractor,
    progress: &'a LayerProgress<'a>,
    made: Made,
}

impl Making<'_> {
    fn entry(&mut self, index: u64, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        let won = self.winners.contains(index) && !entry.is_dir();
        if won {
            self.progress.file();
            self.made.files = self.made.files.saturating_add(1);
        }
        match &entry.node {
            Node::Link { to, .. } if won => match self.names.get(to) {
                Some(first) if *first == entry.path => Ok(()),
                first => self.extractor.make_link(&entry.path, first.unwrap_or(to)),
            },
            Node::File(_) => {
                let promoted = self.names.get(&entry.path).map(|path| Entry { path: path.clone(), ..entry.clone() });
                if !won && promoted.is_none() {
                    return Ok(());
                }
                self.made.bytes = self.made.bytes.saturating_add(entry.own_size());
                let mut content = self.progress.counting(content);
                self.extractor.make_entry(promoted.as_ref().unwrap_or(entry), &mut content, &mut |_| {})
            }
            _ if won => self.extractor.make_entry(entry, &mut io::empty(), &mut |_| {}),
            _ => Ok(()),
        }
    }
}

/// For files that lost at the path where the layer has their content, but of which a hard link won: the first such link.
fn first_names(layer: &Descriptor, toc: &Toc, winners: &Winners) -> Result<HashMap<TreePath, TreePath>, Error> {
    let (mut files, mut promoted) = (HashMap::new(), HashMap::new());
    if layer.info()?.hardlinks == 0 {
        return Ok(promoted);
    }
    for (index, entry) in (0..).zip(toc.iter()) {
        let Entry { path, node, .. } = entry?;
        let won = winners.contains(index);
        match node {
            Node::File(_) => drop(files.insert(path, won)),
            Node::Link { to, .. } if won => match files.get(&to) {
                Some(true) => {}
                Some(false) => drop(promoted.entry(to).or_insert(path)),
                None => {
                    return Err(Error::damaged(layer.place(), format!("{path} is a link to {to}, which it has not")));
                }
            },
            _ => {}
        }
    }
    Ok(promoted)
}
