//! What an apiserver sends, or someone who found the webhook's port.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Builder, time::Instant};

use crate::{
    admission::{
        capacity::Capacity,
        review::ReviewRequest,
        verdict::{Judge, Verdict},
    },
    render::FileObjects,
    resolve::Work,
    source::OptInBy,
    wrap::Settings,
};

/// What runs may name.
static OBJECTS: LazyLock<FileObjects> = LazyLock::new(|| {
    let mut objects = FileObjects::default();
    objects.add(include_str!("../../examples/build-and-test.yaml")).expect("the example is YAML");
    objects
});

/// Answers the review `bytes`: whatever it is, the webhook never has to say that it met an error of its own. Gives whether it
/// is a run that is wrapped.
pub fn review(bytes: &[u8]) -> bool {
    let Ok(mut request) = ReviewRequest::parse(&Bytes::copy_from_slice(bytes)) else { return false };
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let settings = Arc::new(Settings::new("tekton-wrap:fuzz"));
    let capacity = Capacity::new(Work::Here);
    // What was found is noted for a reader of `render`, and would fill the memory here.
    OBJECTS.take_lookups();
    let verdict = runtime.block_on(async {
        let deadline = Instant::now() + Duration::from_secs(60);
        let (source, settings, capacity) = (&*OBJECTS, &settings, &capacity);
        Judge { source, settings, capacity, opt_in_by: OptInBy::Run, deadline }.judge(&mut request).await
    });
    match verdict.map(|judged| judged.verdict) {
        Ok(Verdict::Refused { code, reason, message }) => {
            let by_us = (400..500).contains(&code) && !reason.is_empty() && !message.is_empty();
            assert!(by_us, "{code} {reason} {message}");
            false
        }
        Ok(Verdict::Untouched | Verdict::Passed { .. }) | Err(_) => false,
        Ok(Verdict::Wrapped(_)) => true,
    }
}
