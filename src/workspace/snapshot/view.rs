//! A workspace as the tasks of a lineage leave it together.

use std::{collections::BTreeSet, iter, option};

use super::{
    lineage::Lineage,
    merge::{Change, Contributor, Groups, Outcome, Resolver},
};
use crate::workspace::{
    conflict::{ConflictPolicy, Conflicts},
    error::Error,
    layer::toc::{Entries, Toc},
    path::TreePath,
};

/// The merged entries of a lineage. Going through it costs reading the tables again, but no memory.
pub struct View<'a> {
    contributors: Vec<Contributor>,
    listings: Vec<(usize, Option<&'a Toc>)>,
    has_links: Vec<bool>,
    revived: BTreeSet<TreePath>,
    /// Where parallel tasks differ; the view has what the later one left.
    pub conflicts: Conflicts,
    /// Those of them that a policy settles.
    pub settled: Conflicts,
}

/// The entries of a layer or a base in tree order.
pub type Stream<'a> = iter::Flatten<option::IntoIter<Entries<'a>>>;

/// Takes all entries of a path and what becomes of it.
pub type VisitPath<'a> = dyn FnMut(&[Change], Outcome) -> Result<(), Error> + 'a;

impl<'a> View<'a> {
    /// The view of `lineage` on top of the entries of its base (none if the base does not matter). `tocs` are those
    /// of [`Lineage::layers`]. In a group the base is layer 0, the layers of tasks count from 1.
    pub fn new(lineage: &Lineage, base: Option<&'a Toc>, tocs: &'a [Toc]) -> Result<Self, Error> {
        Self::judged(lineage, base, tocs, None)
    }

    /// The same with conflicts told apart by `policy`.
    pub fn judged(
        lineage: &Lineage,
        base: Option<&'a Toc>,
        tocs: &'a [Toc],
        policy: Option<&ConflictPolicy>,
    ) -> Result<Self, Error> {
        let orders = lineage.orders();
        let ancestors = |own: &[u32]| {
            // Both lists are sorted.
            let mut own = own.iter().peekable();
            let among = orders.iter().map(|order| {
                while own.next_if(|own| *own < order).is_some() {}
                own.peek() == Some(&order)
            });
            iter::once(true).chain(among).collect()
        };
        let mut contributors = vec![Contributor { name: "base".to_owned(), ancestors: Vec::new() }];
        for writer in &lineage.writers {
            contributors.push(Contributor { name: writer.task.clone(), ancestors: ancestors(&writer.ancestors) });
        }
        let layers = lineage.layers().zip(tocs).map(|((writer, _), toc)| (writer.saturating_add(1), Some(toc)));
        let listings = iter::once((0, base)).chain(layers).collect();
        let has_links = lineage.layers().map(|(_, layer)| Ok(layer.info()?.hardlinks > 0));
        let has_links = iter::once(Ok(false)).chain(has_links).collect::<Result<_, Error>>()?;
        let (revived, conflicts, settled) = (BTreeSet::new(), Conflicts::default(), Conflicts::default());
        let mut view = Self { contributors, listings, has_links, revived, conflicts, settled };
        if lineage.is_chain() {
            return Ok(view);
        }
        let resolver = view.walk(policy, &mut |_, _| Ok(()))?;
        let (revived, conflicts, settled) = (resolver.to_revive, resolver.conflicts, resolver.settled);
        (view.revived, view.conflicts, view.settled) = (revived, conflicts, settled);
        Ok(view)
    }

    /// Whether the layer at this index of [`Change::layer`] has hard links.
    pub fn has_links(&self, layer: usize) -> bool {
        self.has_links.get(layer).copied().unwrap_or(false)
    }

    /// Gives all entries of each path, with what becomes of it, to `visit`, in tree order.
    pub fn for_each(&self, visit: &mut VisitPath<'_>) -> Result<(), Error> {
        self.walk(None, visit).map(drop)
    }

    /// The base, and the tasks after it.
    pub fn contributors(&self) -> &[Contributor] {
        &self.contributors
    }

    /// All entries, by path.
    pub fn groups(&self) -> Result<Groups<Stream<'_>>, Error> {
        Groups::new(
            self.listings.iter().map(|(source, listing)| (*source, listing.map(Toc::iter).into_iter().flatten())),
        )
    }

    fn walk<'v>(
        &'v self,
        policy: Option<&'v ConflictPolicy>,
        visit: &mut VisitPath<'_>,
    ) -> Result<Resolver<'v>, Error> {
        let mut groups = self.groups()?;
        let mut resolver = Resolver::new(&self.contributors, &self.revived);
        if let Some(policy) = policy {
            resolver = resolver.judged_by(policy);
        }
        let mut group = Vec::new();
        while groups.next(&mut group)? {
            let outcome = resolver.resolve(&group);
            visit(&group, outcome)?;
        }
        Ok(resolver)
    }
}
