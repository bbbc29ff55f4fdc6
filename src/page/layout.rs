//! Where the tasks of a graph are drawn: in ranks by depth, each task as near as possible to those that it is linked with
//! (the method of Sugiyama: ranks, order within ranks, coordinates). Lengths are in CSS pixels.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "numbers of items and ranks that are given out here, each with its place; as many as a page has tasks"
)]

#[cfg(test)]
mod tests;

/// A node of the graph.
#[derive(Clone, Debug, Default)]
pub struct GraphNode {
    /// The nodes in front of it, by their indexes, which are lower than its own.
    pub after: Vec<usize>,
    /// Whether it comes after all that are not.
    pub last: bool,
}

/// Sizes of what is drawn; *along* is the direction from rank to rank, *across* the other one.
#[derive(Clone, Copy, Debug)]
pub struct Spacing {
    /// Of a node.
    pub along: f64,
    /// Of a node.
    pub across: f64,
    /// Between ranks.
    pub gap_along: f64,
    /// Between nodes of a rank.
    pub gap_across: f64,
}

/// Where everything is, along and across.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphLayout {
    /// The upper left corners of the nodes.
    pub nodes: Vec<(f64, f64)>,
    /// Points on the way from the end of one node to the beginning of another one.
    pub edges: Vec<Vec<(f64, f64)>>,
    /// The whole.
    pub size: (f64, f64),
    /// Where those begin that are last, if there are any and others too.
    pub last: Option<f64>,
}

/// How often the order within ranks, and the places, are improved.
const ROUNDS: usize = 6;

/// Something in a rank: a node, or a place that an edge passes.
struct Slot {
    node: Option<usize>,
    rank: usize,
    above: Vec<usize>,
    below: Vec<usize>,
    /// Its middle, across.
    at: f64,
}

/// The number of ranks that `nodes` take.
pub fn depth(nodes: &[GraphNode]) -> usize {
    ranks(nodes).into_iter().max().map_or(0, |rank| rank + 1)
}

/// Places `nodes`.
pub fn layout(nodes: &[GraphNode], spacing: Spacing) -> GraphLayout {
    let rank_of = ranks(nodes);
    let mut drawing = Ranking::new(nodes, &rank_of);
    drawing.sort();
    drawing.place(spacing);
    drawing.finish(nodes, &rank_of, spacing)
}

/// The rank of each node: one more than the highest of those in front of it.
fn ranks(nodes: &[GraphNode]) -> Vec<usize> {
    let mut ranks: Vec<usize> = Vec::with_capacity(nodes.len());
    for node in nodes {
        ranks.push(node.after.iter().filter_map(|&before| ranks.get(before)).max().map_or(0, |rank| rank + 1));
    }
    let highest = nodes.iter().zip(&ranks).filter(|(node, _)| !node.last).map(|(_, rank)| *rank).max();
    if let Some(highest) = highest {
        let last = nodes.iter().zip(&mut ranks).filter(|(node, _)| node.last);
        last.for_each(|(_, rank)| *rank += highest + 1);
    }
    ranks
}

/// Edges that say more than that a node comes after another one: those that no way over a third node says too.
fn reduced(nodes: &[GraphNode]) -> Vec<(usize, usize)> {
    let mut ancestors: Vec<fixedbitset::FixedBitSet> = Vec::with_capacity(nodes.len());
    let mut edges = Vec::new();
    for (to, node) in nodes.iter().enumerate() {
        let before: Vec<usize> = node.after.iter().copied().filter(|&from| from < to).collect();
        let mut all = fixedbitset::FixedBitSet::with_capacity(nodes.len());
        before.iter().for_each(|&from| all.union_with(&ancestors[from]));
        edges.extend(before.iter().filter(|&&from| !all.contains(from)).map(|&from| (from, to)));
        before.iter().for_each(|&from| all.insert(from));
        ancestors.push(all);
    }
    edges
}

struct Ranking {
    items: Vec<Slot>,
    ranks: Vec<Vec<usize>>,
    /// The items of each edge, its ends included.
    edges: Vec<Vec<usize>>,
}

impl Ranking {
    fn new(nodes: &[GraphNode], rank_of: &[usize]) -> Self {
        let item = |node, rank| Slot { node, rank, above: Vec::new(), below: Vec::new(), at: 0.0 };
        let mut items: Vec<Slot> = rank_of.iter().enumerate().map(|(node, &rank)| item(Some(node), rank)).collect();
        let mut edges = Vec::new();
        for (from, to) in reduced(nodes) {
            let mut way = vec![from];
            for rank in rank_of[from] + 1..rank_of[to] {
                way.push(items.len());
                items.push(item(None, rank));
            }
            way.push(to);
            for pair in way.windows(2) {
                items[pair[0]].below.push(pair[1]);
                items[pair[1]].above.push(pair[0]);
            }
            edges.push(way);
        }
        let mut ranks = vec![Vec::new(); rank_of.iter().max().map_or(0, |rank| rank + 1)];
        items.iter().enumerate().for_each(|(index, item)| ranks[item.rank].push(index));
        Self { items, ranks, edges }
    }

    /// Brings the items of each rank into an order in which few edges cross: by the mean place of their neighbours.
    fn sort(&mut self) {
        for round in 0..ROUNDS {
            let down = round % 2 == 0;
            for step in 0..self.ranks.len() {
                let rank = if down { step } else { self.ranks.len() - 1 - step };
                self.ranks.iter().for_each(|rank| {
                    rank.iter().enumerate().for_each(|(place, &item)| self.items[item].at = place as f64);
                });
                let wanted = |item: &usize| self.wanted(*item, down);
                let mut keyed: Vec<(f64, usize)> = self.ranks[rank].iter().map(|item| (wanted(item), *item)).collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.ranks[rank] = keyed.into_iter().map(|(_, item)| item).collect();
            }
        }
    }

    /// Where an item would be in the middle of its neighbours above, or below.
    fn wanted(&self, item: usize, above: bool) -> f64 {
        let item = &self.items[item];
        let neighbours = if above { &item.above } else { &item.below };
        if neighbours.is_empty() {
            return item.at;
        }
        neighbours.iter().map(|&other| self.items[other].at).sum::<f64>() / neighbours.len() as f64
    }

    fn place(&mut self, spacing: Spacing) {
        let size = |item: &Slot| if item.node.is_some() { spacing.across } else { 0.0 };
        for rank in &self.ranks {
            // In the middle, to begin with.
            let gaps: Vec<f64> = gaps(rank, &self.items, &size, spacing.gap_across);
            let middle = gaps.iter().sum::<f64>() / 2.0;
            let mut at = -middle;
            for (&item, gap) in rank.iter().zip(&gaps) {
                at += gap;
                self.items[item].at = at;
            }
        }
        for round in 0..ROUNDS {
            let down = round % 2 == 0;
            for step in 0..self.ranks.len() {
                let rank = if down { step } else { self.ranks.len() - 1 - step };
                let rank = &self.ranks[rank];
                let wanted: Vec<f64> = rank.iter().map(|&item| self.wanted(item, down)).collect();
                let gaps = gaps(rank, &self.items, &size, spacing.gap_across);
                let rank = rank.clone();
                for (item, at) in rank.into_iter().zip(apart(&wanted, &gaps)) {
                    self.items[item].at = at;
                }
            }
        }
    }

    fn finish(&self, nodes: &[GraphNode], rank_of: &[usize], spacing: Spacing) -> GraphLayout {
        let half = spacing.across / 2.0;
        let lowest = self.items.iter().map(|item| item.at).fold(f64::INFINITY, f64::min) - half;
        let highest = self.items.iter().map(|item| item.at).fold(f64::NEG_INFINITY, f64::max) + half;
        let across = |item: usize| (self.items[item].at - lowest).round();
        let along = |rank: usize| rank as f64 * (spacing.along + spacing.gap_along);
        let places = rank_of.iter().enumerate().map(|(node, &rank)| (along(rank), across(node) - half));
        let way = |way: &Vec<usize>| {
            let last = way.len() - 1;
            let mut points = Vec::new();
            for (place, &item) in way.iter().enumerate() {
                let start = along(self.items[item].rank);
                // An edge passes a rank in a straight line.
                points.extend((place > 0).then_some((start, across(item))));
                points.extend((place < last).then_some((start + spacing.along, across(item))));
            }
            points
        };
        let ranks = self.ranks.len();
        let length = if ranks == 0 { 0.0 } else { along(ranks - 1) + spacing.along };
        let first = nodes.iter().zip(rank_of).filter(|(node, _)| node.last).map(|(_, rank)| *rank).min();
        GraphLayout {
            nodes: places.collect(),
            edges: self.edges.iter().map(way).collect(),
            size: (length, if ranks == 0 { 0.0 } else { (highest - lowest).round() }),
            last: first.filter(|rank| *rank > 0).map(|rank| along(rank) - spacing.gap_along / 2.0),
        }
    }
}

/// How far each item of `rank` must be from the one before it; of the first one nothing.
fn gaps(rank: &[usize], items: &[Slot], size: &impl Fn(&Slot) -> f64, gap: f64) -> Vec<f64> {
    let between = |pair: &[usize]| (size(&items[pair[0]]) + size(&items[pair[1]])) / 2.0 + gap;
    std::iter::once(0.0).chain(rank.windows(2).map(between)).collect()
}

/// The places nearest to the `wanted` ones (least squares) at which each is at least its gap behind the one before it: those
/// that would be too near are moved together (pool adjacent violators).
fn apart(wanted: &[f64], gaps: &[f64]) -> Vec<f64> {
    let offsets: Vec<f64> = gaps
        .iter()
        .scan(0.0, |sum, gap| {
            Some({
                *sum += gap;
                *sum
            })
        })
        .collect();
    // Mean and number of the items of each block.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (at, offset) in wanted.iter().zip(&offsets) {
        let mut block = (at - offset, 1);
        while let Some((mean, count)) = blocks.pop_if(|(mean, _)| *mean > block.0) {
            let sum = mean * count as f64 + block.0 * block.1 as f64;
            block = (sum / (count + block.1) as f64, count + block.1);
        }
        blocks.push(block);
    }
    let means = blocks.iter().flat_map(|&(mean, count)| std::iter::repeat_n(mean, count));
    means.zip(&offsets).map(|(mean, offset)| mean + offset).collect()
}
