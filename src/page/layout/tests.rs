//! Where nodes are.

use proptest::prelude::*;

use super::*;

const SPACING: Spacing = Spacing { along: 100.0, across: 40.0, gap_along: 50.0, gap_across: 10.0 };

fn nodes(after: &[&[usize]]) -> Vec<GraphNode> {
    after.iter().map(|after| GraphNode { after: after.to_vec(), last: false }).collect()
}

#[test]
fn a_diamond() {
    let mut diamond = nodes(&[&[], &[0], &[0], &[1, 2, 0]]);
    diamond.push(GraphNode { after: Vec::new(), last: true });
    let layout = layout(&diamond, SPACING);
    assert_eq!(layout.nodes, [(0.0, 25.0), (150.0, 0.0), (150.0, 50.0), (300.0, 25.0), (450.0, 25.0)]);
    // That the last one comes after the first needs no edge of its own.
    assert_eq!(layout.edges.len(), 4);
    assert_eq!(layout.edges[0], [(100.0, 45.0), (150.0, 20.0)]);
    assert_eq!((layout.size, layout.last), ((550.0, 90.0), Some(425.0)));
    assert_eq!(depth(&diamond), 4);
}

#[test]
fn an_edge_passes_the_ranks_between() {
    let layout = layout(&nodes(&[&[], &[0], &[1], &[], &[2, 3]]), SPACING);
    let long = layout.edges.iter().max_by_key(|edge| edge.len()).unwrap();
    assert_eq!(long.iter().map(|point| point.0).collect::<Vec<_>>(), [100.0, 150.0, 250.0, 300.0, 400.0, 450.0]);
}

#[test]
fn nothing() {
    assert_eq!(layout(&[], SPACING), GraphLayout::default());
}

proptest! {
    #[test]
    fn nodes_never_overlap(seeds in prop::collection::vec((any::<u32>(), any::<bool>()), 1..40)) {
        let after = |(index, (seed, last)): (usize, &(u32, bool))| {
            let after = (0..index).filter(|before| !last && !seeds[*before].1 && seed >> (before % 32) & 5 == 5);
            GraphNode { after: after.collect(), last: *last }
        };
        let nodes: Vec<GraphNode> = seeds.iter().enumerate().map(after).collect();
        let layout = layout(&nodes, SPACING);
        let (length, width) = layout.size;
        for (a, (along, across)) in layout.nodes.iter().enumerate() {
            prop_assert!(*along >= 0.0 && *across >= -1.0 && along + 100.0 <= length && across + 40.0 <= width + 1.0);
            for (other_along, other_across) in &layout.nodes[a + 1..] {
                prop_assert!(along != other_along || (across - other_across).abs() >= 49.0);
            }
            for before in &nodes[a].after {
                prop_assert!(layout.nodes[*before].0 < *along);
            }
        }
    }
}
