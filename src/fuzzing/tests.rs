//! All seeds, and a few mutants of them, the same ones each time. `MUTANTS=100000 SEED=7 cargo test --lib fuzzing` tries more
//! and others.

use std::{fs, path::Path};

use super::*;

/// Mutants of each kind of input, where the environment does not say it.
const MUTANTS: u64 = 400;

/// xorshift64*: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
    }

    /// `bytes` with a few changes, some of them with pieces of `other`.
    fn mutate(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut mutant = bytes.to_vec();
        for _ in 0..1 + self.next(3) {
            let most = 1 << self.next(10);
            let (at, len) = (self.next(mutant.len()), 1 + self.next(most));
            let end = (at + len).min(mutant.len());
            match self.next(7) {
                0 if at < mutant.len() => mutant[at] ^= 1 << self.next(8),
                1 if at < mutant.len() => mutant[at] = [0, 0xff, b'/', b'.', b'0', b'"', b'\n', 0x80][self.next(8)],
                2 => drop(mutant.drain(at..end)),
                3 => {
                    let part = mutant[at..end].to_vec();
                    let to = self.next(mutant.len());
                    mutant.splice(to..to, part);
                }
                4 => {
                    let from = self.next(other.len());
                    let part = other[from..(from + len).min(other.len())].to_vec();
                    mutant.splice(at..end, part);
                }
                // Archives are made of blocks.
                5 => drop(mutant.drain(at / 512 * 512..end.next_multiple_of(512).min(mutant.len()))),
                _ if self.next(4) == 0 => mutant.truncate(end.max(16)),
                _ => {}
            }
        }
        mutant
    }
}

/// Calls `check` with all seeds in `folders` and with mutants, which `mend` makes more plausible.
fn with_mutants(folders: &[&str], mend: fn(&mut [u8]), check: impl Fn(&[u8]) -> bool) {
    let files = |folder: &&str| fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let mut paths: Vec<_> = folders.iter().flat_map(files).map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let seeds_accepted = seeds.iter().filter(|seed| check(seed)).count();
    let (mutants, mut numbers) = (number("MUTANTS", MUTANTS) as usize, Numbers(number("SEED", 0x9e37_79b9_7f4a_7c15)));
    let mut accepted = 0;
    for turn in 0..mutants {
        let other = numbers.next(seeds.len());
        let mut mutant = numbers.mutate(&seeds[turn % seeds.len()], &seeds[other]);
        mend(&mut mutant);
        accepted += usize::from(check(&mutant));
    }
    // Else hardly anything was tried.
    assert!(seeds_accepted > 0 && (mutants / 40..mutants).contains(&accepted), "{seeds_accepted}, {accepted}");
    println!("{folders:?}: {seeds_accepted} of {} seeds, {accepted} of {mutants} mutants are accepted", seeds.len());
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

/// Gives what looks like a header of an archive its checksum.
fn checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

#[test]
fn archives() {
    let folder = tempfile::tempdir().unwrap();
    with_mutants(&["fuzz/seeds/archive"], checksums, |bytes| archive(bytes, folder.path()));
}

#[test]
fn tables() {
    with_mutants(&["fuzz/seeds/table"], |_| {}, table);
}

#[test]
fn snapshots() {
    with_mutants(&["fuzz/seeds/snapshot"], |_| {}, snapshot);
}

#[test]
fn steps() {
    with_mutants(&["fuzz/seeds/step"], |_| {}, step);
}

#[test]
fn answers_of_registries() {
    with_mutants(&["fuzz/seeds/registry"], |_| {}, registry);
}

#[test]
fn yaml_documents() {
    with_mutants(&["fuzz/seeds/yaml", "tests/golden", "examples"], |_| {}, yaml);
}

#[test]
fn reviews() {
    with_mutants(&["fuzz/seeds/review"], |_| {}, review);
}
