//! Whatever tasks do: what is said without a merge is what a merge says.

use super::*;
use crate::workspace::entry::{Content, Node};

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

fn contributor(ancestors: Vec<bool>) -> Contributor {
    Contributor { name: String::new(), ancestors }
}

/// A base and tasks, each after some of the earlier ones: with `width` 1 a chain.
fn graph(numbers: &mut Numbers, tasks: usize, width: usize) -> Vec<Contributor> {
    let mut all = vec![contributor(Vec::new())];
    for task in 1..=tasks {
        let mut ancestors = vec![false; tasks + 1];
        ancestors[0] = true;
        for _ in 0..1 + numbers.below(2) {
            let parent = task.saturating_sub(1 + numbers.below(width));
            ancestors[parent] = true;
            let above = all[parent].ancestors.clone();
            above.iter().enumerate().filter(|(_, is_one)| **is_one).for_each(|(i, _)| ancestors[i] = true);
        }
        all.push(contributor(ancestors));
    }
    all
}

const PATHS: [&str; 7] = ["", "d", "d/e", "d/e/f", "d/g", "h", "i"];

/// What one task may have left at some paths, with the directories above them.
fn layer(numbers: &mut Numbers, is_base: bool) -> Vec<Entry> {
    let mut nodes: Vec<Option<Node>> = vec![None; PATHS.len()];
    for (i, path) in PATHS.iter().enumerate() {
        let node = match numbers.below(9) {
            0..=3 => continue,
            _ if path.is_empty() => Node::Dir { touched: !is_base },
            4 | 5 => Node::Dir { touched: !is_base && numbers.below(3) > 0 },
            6 if !is_base => Node::Whiteout,
            _ => Node::File(Content { size: numbers.below(3) as u64, ..Content::default() }),
        };
        let parents =
            PATHS.iter().enumerate().filter(|(_, above)| path.starts_with(&format!("{above}/")) || above.is_empty());
        let parents: Vec<usize> = parents.map(|(place, _)| place).filter(|place| *place != i).collect();
        // Nothing is below what is no directory.
        if parents.iter().any(|&place| matches!(&nodes[place], Some(node) if !matches!(node, Node::Dir { .. }))) {
            continue;
        }
        for place in parents {
            nodes[place].get_or_insert(Node::Dir { touched: !is_base });
        }
        nodes[i] = Some(node);
    }
    let entry = |(path, node): (&&str, Option<Node>)| {
        let path = if path.is_empty() { TreePath::root() } else { TreePath::parse(path.as_bytes()).unwrap() };
        let (mtime, mode) = (Time { sec: numbers.below(4) as i64, nsec: 0 }, 0o700 + numbers.below(2) as u32);
        Some(Entry { path, node: node?, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() })
    };
    PATHS.iter().zip(nodes).filter_map(entry).collect()
}

fn visited(contributors: &[Contributor], layers: &[Vec<Entry>], lines: &[usize]) -> Vec<String> {
    let streams = layers.iter().enumerate().map(|(source, layer)| (source, layer.iter().cloned().map(Ok)));
    let mut visited = Vec::new();
    each_of(Groups::new(streams).unwrap(), contributors, lines, &mut |task, old, new| {
        visited.push(format!("{task}: {old:?} {new:?}"));
        Ok(())
    })
    .unwrap();
    visited
}

#[test]
fn without_a_merge_it_is_the_same() {
    let numbers = &mut Numbers(0x9e37_79b9_7f4a_7c15);
    let mut without = 0;
    for width in [1, 1, 2, 3, 5] {
        for _ in 0..2000 {
            let contributors = graph(numbers, 7, width);
            let layers: Vec<_> = (0..contributors.len()).map(|source| layer(numbers, source == 0)).collect();
            let lines = lines(&contributors);
            let merging: Vec<usize> = (0..contributors.len()).collect();
            without += usize::from(lines != merging);
            let expected = visited(&contributors, &layers, &merging);
            assert_eq!(visited(&contributors, &layers, &lines), expected, "{contributors:?} {layers:#?}");
        }
    }
    assert!(without > 5000, "{without}");
}

#[test]
fn tasks_of_one_line_need_no_merge() {
    let (no, yes) = (false, true);
    for (case, ancestors, expected) in [
        ("a chain", vec![vec![], vec![yes], vec![yes, yes], vec![yes, yes, yes]], vec![0, 0, 0, 0]),
        (
            "two parallel tasks and one after both",
            vec![vec![], vec![yes], vec![yes], vec![yes, yes, yes]],
            vec![0, 0, 0, 3],
        ),
        (
            "two parallel chains",
            vec![vec![], vec![yes], vec![yes], vec![yes, yes], vec![yes, no, yes]],
            vec![0, 0, 0, 0, 0],
        ),
    ] {
        let contributors: Vec<Contributor> = ancestors.into_iter().map(contributor).collect();
        assert_eq!(lines(&contributors), expected, "{case}");
    }
}
