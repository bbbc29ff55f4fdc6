//! See `tekton_wrap::fuzzing::archive`.
#![no_main]

use std::{path::PathBuf, sync::LazyLock};

/// In memory where there is such a folder.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = parent.join(format!("tekton-wrap-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tekton_wrap::fuzzing::archive(bytes, &FOLDER);
});
