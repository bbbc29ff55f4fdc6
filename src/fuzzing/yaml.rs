//! YAML that people write: runs, Pipelines and Tasks.

use tokio::runtime::Builder;

use crate::{
    render::FileObjects,
    resolve::wrap_run,
    wrap::Settings,
    yaml::{parse, to_string},
};

/// Reads `bytes` as documents: what is written of them reads the same, and a run among them that is wrapped has a patch
/// that gives the wrapped run, which is left alone from then on. Gives whether there
/// is one.
pub fn yaml(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(documents) = parse(text) else { return false };
    for document in &documents {
        let written = to_string(document);
        let again = parse(&written).unwrap_or_else(|e| panic!("{document} is written as {written:?}: {e}"));
        assert_eq!(again, std::slice::from_ref(document), "{written:?}");
    }
    let mut objects = FileObjects::default();
    objects.add(text).expect("it was read before");
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let settings = Settings::new("tekton-wrap:fuzz");
    let mut wrapped = false;
    for run in objects.runs() {
        let wrap = |run| runtime.block_on(wrap_run(&objects, run, "default", &settings));
        if let Ok(Some(rewrite)) = wrap(run) {
            let mut patched = run.clone();
            let patch: json_patch::Patch = serde_json::from_str(&rewrite.patch).expect("a patch");
            json_patch::patch(&mut patched, &patch).expect("the patch applies");
            assert_eq!(patched, rewrite.run);
            assert!(matches!(wrap(&patched), Ok(None)), "it is wrapped again");
            wrapped = true;
        }
    }
    wrapped
}
