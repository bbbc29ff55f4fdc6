//! `tekton-wrap-mutants LIST TREE EXPLAINED ROOM... -- TARGET...`: changes the code of TREE in each way that LIST names
//! (`cargo mutants --list --json`) and shows which changes no test notices.
//!
//! All mutants are compiled into one library, each behind a question at run time (mutant schemata, Untch et al. 1993), so that
//! there is one build and not one for each. What each test reaches is recorded first, so that a mutant costs only tests that can
//! notice it. TREE is changed: it has to be a copy. The tests of each ROOM, a module below the crate's root, are left out; TARGET
//! are options of `cargo test`.

mod build;
mod judge;
mod mutant;
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::ExitCode,
    time::Instant,
};

use judge::Verdict;
use mutant::Mutant;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let Some((fixed, options)) = arguments.split_first_chunk::<3>() else {
        panic!("usage: tekton-wrap-mutants LIST TREE EXPLAINED [ROOM...] [-- TARGET...]");
    };
    let [list, tree, explained] = fixed;
    let (rooms, targets) = options.split_at(options.iter().position(|option| option == "--").unwrap_or(options.len()));
    let (tree, targets) = (Path::new(tree), targets.get(1..).unwrap_or_default());

    let mutants: Vec<Mutant> = serde_json::from_str(&fs::read_to_string(list).unwrap()).expect("a list of mutants");
    let mutants: BTreeMap<usize, Mutant> = (1..).zip(mutants).collect();
    let keys: BTreeMap<_, _> = mutants.iter().map(|(number, mutant)| (*number, key(mutant, tree))).collect();
    let start = Instant::now();
    let left_out = build::place(tree, &mutants);
    eprintln!("mutants: placed after {} s", start.elapsed().as_secs());
    let programs = build::test_programs(tree, targets);
    eprintln!("mutants: built after {} s", start.elapsed().as_secs());
    let tests = judge::tests(&programs, tree, rooms);
    eprintln!("mutants: {} tests, {} mutants after {} s", tests.len(), mutants.len(), start.elapsed().as_secs());

    let mut explained = Explained::read(Path::new(explained));
    let mut unexplained = 0;
    let files: BTreeSet<_> = mutants.values().map(|mutant| &mutant.file).collect();
    for file in files {
        let of_file: Vec<_> =
            mutants.iter().filter(|(_, mutant)| mutant.file == *file).map(|(number, _)| *number).collect();
        let (constant, rest): (Vec<_>, Vec<_>) =
            of_file.into_iter().partition(|number| left_out.constant.contains(number));
        let (unviable, rest): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|number| left_out.unviable.contains(number));
        let verdicts: Vec<_> = rest.iter().map(|number| (*number, judge::verdict(*number, &tests, tree))).collect();
        let missed: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Missed).collect();
        let new: Vec<_> = missed.iter().filter(|(number, _)| !explained.explains(&keys[number])).collect();
        let count = |verdict| verdicts.iter().filter(|(_, v)| *v == verdict).count();
        println!(
            "{} s, {file}: {} caught, {} timed out, {} explained, {} missed, {} unviable, {} constant",
            start.elapsed().as_secs(),
            count(Verdict::Caught),
            count(Verdict::TimedOut),
            missed.len() - new.len(),
            new.len(),
            unviable.len(),
            constant.len()
        );
        for (number, _) in &new {
            println!("MISSED {}\n{}", mutants[number].name, keys[number]);
        }
        unexplained += new.len();
        for line in explained.left(file) {
            println!("EXPLAINED, but noticed by a test or gone: {line}");
            unexplained += 1;
        }
    }
    if unexplained == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn key(mutant: &Mutant, tree: &Path) -> String {
    mutant.key(&fs::read_to_string(tree.join(&mutant.file)).unwrap())
}

/// The list of mutants that no test can notice, or need not: a line that names one, and lines with a blank in front that say why.
/// One that is named twice may be missed twice.
struct Explained(Vec<String>);

impl Explained {
    fn read(path: &Path) -> Self {
        let list = fs::read_to_string(path).unwrap();
        Self(list.lines().filter(|line| line.starts_with("src/")).map(str::to_owned).collect())
    }

    fn explains(&mut self, key: &str) -> bool {
        let found = self.0.iter().position(|line| line == key);
        found.inspect(|index| drop(self.0.remove(*index))).is_some()
    }

    /// Those of a file that explain nothing.
    fn left(&self, file: &str) -> Vec<&String> {
        self.0.iter().filter(|line| line.starts_with(&format!("{file}:"))).collect()
    }
}
