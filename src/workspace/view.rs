//! A workspace as the tasks of a lineage leave it together.

use std::collections::BTreeSet;

use super::{
    entry::Entry,
    error::Error,
    lineage::Lineage,
    merge::{Conflicts, Groups, Outcome, Resolver, Source, Write},
    toc::Toc,
};

/// The merged entries of a lineage. Going through it costs reading the tables again, but no memory.
pub struct View<'a> {
    sources: Vec<Source>,
    listings: Vec<(usize, Listing<'a>)>,
    has_links: Vec<bool>,
    revived: BTreeSet<super::path::TreePath>,
    /// Where parallel tasks differ; the view has what the later one left.
    pub conflicts: Conflicts,
}

/// The entries of one layer, or of the whole base.
#[derive(Clone, Copy)]
pub enum Listing<'a> {
    /// In memory.
    Entries(&'a [Entry]),
    /// As stored.
    Toc(&'a Toc),
}

/// The entries of a [`Listing`] in tree order.
pub type Stream<'a> = Box<dyn Iterator<Item = Result<Entry, Error>> + 'a>;

/// Takes all entries of a path and what becomes of it.
pub type Visit<'a> = dyn FnMut(&[Write], Outcome) -> Result<(), Error> + 'a;

impl<'a> View<'a> {
    /// The view of `lineage` on top of the entries of its base (none where the base does not matter). `tocs` are those
    /// of [`Lineage::layers`]. In a group the base is layer 0, the layers of tasks count from 1.
    pub fn new(lineage: &Lineage, base: &'a [Entry], tocs: &'a [Toc]) -> Result<Self, Error> {
        let orders = lineage.orders();
        let ancestors = |own: &[u32]| {
            let among = orders.iter().map(|order| own.binary_search(order).is_ok());
            std::iter::once(true).chain(among).collect()
        };
        let mut sources = vec![Source { name: "base".to_owned(), ancestors: Vec::new() }];
        for writer in &lineage.writers {
            sources.push(Source { name: writer.task.clone(), ancestors: ancestors(&writer.ancestors) });
        }
        let layers = lineage.layers().zip(tocs).map(|((writer, _), toc)| (writer + 1, Listing::Toc(toc)));
        let listings = std::iter::once((0, Listing::Entries(base))).chain(layers).collect();
        let has_links = lineage.layers().map(|(_, layer)| Ok(layer.info()?.hardlinks > 0));
        let has_links = std::iter::once(Ok(false)).chain(has_links).collect::<Result<_, Error>>()?;
        let (revived, conflicts) = (BTreeSet::new(), Conflicts::default());
        let mut view = Self { sources, listings, has_links, revived, conflicts };
        if lineage.is_chain() {
            return Ok(view);
        }
        let resolver = view.walk(&mut |_, _| Ok(()))?;
        let (revived, conflicts) = (resolver.to_revive, resolver.conflicts);
        view.revived = revived;
        view.conflicts = conflicts;
        Ok(view)
    }

    /// Whether the layer at this index of [`Write::layer`] has further names of a file.
    pub fn has_links(&self, layer: usize) -> bool {
        self.has_links.get(layer).copied().unwrap_or(false)
    }

    /// Gives all entries of each path, with what becomes of it, to `visit`, in tree order.
    pub fn for_each(&self, visit: &mut Visit<'_>) -> Result<(), Error> {
        self.walk(visit).map(drop)
    }

    /// The base, and the tasks after it.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// All entries, by path.
    pub fn groups(&self) -> Result<Groups<Stream<'_>>, Error> {
        Groups::new(self.listings.iter().map(|(source, listing)| (*source, listing.iter())))
    }

    fn walk(&self, visit: &mut Visit<'_>) -> Result<Resolver<'_>, Error> {
        let mut groups = self.groups()?;
        let mut resolver = Resolver::new(&self.sources, &self.revived);
        let mut group = Vec::new();
        while groups.next(&mut group)? {
            let outcome = resolver.resolve(&group);
            visit(&group, outcome)?;
        }
        Ok(resolver)
    }
}

impl<'a> Listing<'a> {
    fn iter(self) -> Stream<'a> {
        match self {
            Self::Entries(entries) => Box::new(entries.iter().cloned().map(Ok)),
            Self::Toc(toc) => Box::new(toc.iter()),
        }
    }
}
