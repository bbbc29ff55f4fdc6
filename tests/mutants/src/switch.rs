// Becomes a module of the changed library: says which of all mutants is the one of this run.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::Write,
    sync::{LazyLock, Mutex},
};

static CHOSEN: LazyLock<Option<u32>> = LazyLock::new(|| {
    let chosen = std::env::var("MUTANT").ok()?.parse().ok()?;
    // The first panic ends the program: no other test runs, and no property test looks for a smaller input.
    std::panic::set_hook(Box::new(|_| std::process::exit(101)));
    Some(chosen)
});
static RECORD: LazyLock<Option<Mutex<(File, HashSet<u32>)>>> = LazyLock::new(|| {
    let path = std::env::var_os("MUTANTS_REACHED")?;
    Some(Mutex::new((OpenOptions::new().create(true).append(true).open(path).unwrap(), HashSet::new())))
});

/// Whether the code is to behave as this mutant; 0 is none. With MUTANTS_REACHED, what was asked for is written to that file.
pub fn is(mutant: u32) -> bool {
    if let Some(record) = &*RECORD {
        let mut record = record.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if record.1.insert(mutant) {
            let _ = record.0.write_all(format!("{mutant}\n").as_bytes());
        }
    }
    *CHOSEN == Some(mutant)
}
