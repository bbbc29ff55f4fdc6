//! What an apiserver sends, or someone who found the webhook's port.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use tokio::{runtime::Builder, time::Instant};

use crate::{
    admission::{
        load::Load,
        review::Request,
        verdict::{Verdict, judge},
    },
    render::Objects,
    resolve::Work,
    wrap::Settings,
};

/// What runs may name.
static OBJECTS: LazyLock<Objects> = LazyLock::new(|| {
    let mut objects = Objects::default();
    objects.add(include_str!("../../examples/build-and-test.yaml")).expect("the example is YAML");
    objects
});

/// Answers the review `bytes`: whatever it is, the webhook never has to say that it met an error of its own. Gives whether it
/// is a run that is wrapped.
pub fn review(bytes: &[u8]) -> bool {
    let Ok(request) = Request::parse(bytes) else { return false };
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let settings = Arc::new(Settings { image: "tekton-wrap:fuzz".to_owned() });
    let load = Load::new(Work::Here);
    let verdict = runtime.block_on(async {
        judge(&*OBJECTS, &settings, &load, &request, Instant::now() + Duration::from_secs(60)).await
    });
    match verdict {
        Ok(Verdict::Refused { code, reason, message }) => {
            let by_us = (400..500).contains(&code) && !reason.is_empty() && !message.is_empty();
            assert!(by_us, "{code} {reason} {message}");
            false
        }
        Ok(Verdict::Untouched | Verdict::Passed(_)) | Err(_) => false,
        Ok(Verdict::Wrapped(_)) => true,
    }
}
