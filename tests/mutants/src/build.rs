//! Builds the tree with all mutants in it, without those that the compiler refuses.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{mutant::Mutant, schema};

/// What can't be asked at run time.
#[derive(Default)]
pub struct LeftOut {
    /// In constants: the compiler computes them.
    pub constant: BTreeSet<usize>,
    /// Not Rust, by its types or lifetimes.
    pub unviable: BTreeSet<usize>,
}

/// Writes the mutants into `tree` and drops those that don't compile, until it compiles.
pub fn place(tree: &Path, mutants: &BTreeMap<usize, Mutant>) -> LeftOut {
    let mut left_out = LeftOut::default();
    let files: BTreeSet<_> = mutants.values().map(|mutant| mutant.file.as_str()).collect();
    let sources: BTreeMap<_, _> = files.into_iter().map(|file| (file, read(&tree.join(file)))).collect();
    let root = tree.join("src/lib.rs");
    fs::write(&root, format!("{}\n#[allow(missing_docs)]\npub mod mutants;\n", read(&root))).unwrap();
    fs::write(tree.join("src/mutants.rs"), include_str!("switch.rs")).unwrap();
    loop {
        for (file, source) in &sources {
            let of_file =
                |(number, mutant): &(&usize, &Mutant)| mutant.file == *file && !left_out.unviable.contains(number);
            let of_file: Vec<_> = mutants.iter().filter(of_file).map(|(number, mutant)| (*number, mutant)).collect();
            let (changed, placed) = schema::with_mutants(source, &of_file);
            fs::write(tree.join(file), changed).unwrap();
            left_out
                .constant
                .extend(of_file.iter().map(|(number, _)| number).filter(|number| !placed.contains(number)));
        }
        let refused = refused(tree);
        if refused.is_empty() {
            return left_out;
        }
        eprintln!("mutants: {} don't compile", refused.len());
        left_out.unviable.extend(refused);
    }
}

/// Those that an error of the compiler is about: the innermost around its place, or all that it touches.
fn refused(tree: &Path) -> HashSet<usize> {
    let output = cargo(tree).args(["check", "--lib", "--message-format=json"]).output().unwrap();
    let messages = String::from_utf8(output.stdout).unwrap();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors: Vec<_> = messages.filter(|m| m["message"]["level"] == "error").map(|m| m["message"].clone()).collect();
    let places = |error: &Value| error["spans"].as_array().cloned().unwrap_or_default();
    let mut refused = HashSet::new();
    for error in errors.iter().filter(|error| !places(error).is_empty()) {
        let (primary, others): (Vec<_>, Vec<_>) =
            places(error).into_iter().partition(|place| place["is_primary"] == true);
        let mut found: HashSet<_> = primary.iter().flat_map(|place| around(tree, place)).collect();
        if found.is_empty() {
            found = others.iter().flat_map(|place| around(tree, place)).collect();
        }
        assert!(!found.is_empty(), "this error is not a mutant's: {}", error["rendered"].as_str().unwrap_or_default());
        refused.extend(found);
    }
    assert!(output.status.success() || !refused.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    refused
}

fn around(tree: &Path, mut place: &Value) -> Vec<usize> {
    // In a macro: where that stands.
    while !place["expansion"].is_null() {
        place = &place["expansion"]["span"];
    }
    let text = read(&tree.join(place["file_name"].as_str().unwrap()));
    let byte = |name: &str| usize::try_from(place[name].as_u64().unwrap()).unwrap();
    let (start, end) = (byte("byte_start"), byte("byte_end"));
    let regions = text.match_indices("/*<").filter_map(|(at, _)| {
        let number = text[at + 3..].split_once("*/")?.0;
        Some((at, at + text[at..].find(&format!("/*{number}>*/"))?, number.parse().ok()?))
    });
    let regions: Vec<(usize, usize, usize)> = regions.collect();
    let innermost =
        regions.iter().filter(|region| region.0 < start && end <= region.1).min_by_key(|region| region.1 - region.0);
    let touched = regions.iter().filter(|region| region.0 < end && start < region.1);
    innermost.map_or_else(|| touched.map(|region| region.2).collect(), |region| vec![region.2])
}

/// The test programs of `targets`, which are options of `cargo test`.
pub fn test_programs(tree: &Path, targets: &[String]) -> Vec<PathBuf> {
    let output = cargo(tree).args(["test", "--no-run", "--message-format=json"]).args(targets).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter(|m| m["profile"]["test"] == true).filter_map(|m| Some(m["executable"].as_str()?.into())).collect()
}

fn cargo(tree: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    // Line tables are not needed.
    cargo.current_dir(tree).env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
