//! Random runs, from the rewrite to the image that they leave, against a plain model of what each task must see.
//!
//! | module | |
//! |---|---|
//! | [`pipeline`] | random pipelines, and which of their tasks run |
//! | [`edits`], [`seen`] | random edits of real files; a tree as it is seen (shared with the data plane's own tests) |
//! | [`model`] | what the tasks of a run left together, from whole trees in memory |
//! | [`image`] | an image as any tool sees it |
//! | [`play`] | the run itself |
//! | [`place`], [`stores`] | where its images are: in a folder, and some in every other store |
//!
//! `PROPTEST_CASES` says how many runs. A failure is shrunk, printed, and its seed kept in `tests/model/regressions.txt`,
//! which is tried first from then on.

use proptest::test_runner::{Config, FileFailurePersistence};

#[path = "../../src/workspace/tests/edits.rs"]
mod edits;
mod image;
mod model;
mod pipeline;
mod place;
mod play;
#[expect(dead_code, reason = "the data plane's own tests use all of it")]
#[path = "../../src/workspace/tests/seen.rs"]
mod seen;
mod stores;

fn config() -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(120);
    Config {
        cases,
        max_shrink_time: 60_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model/regressions.txt"))),
        ..Config::default()
    }
}

/// The properties, wherever the images are.
mod runs {
    use proptest::prelude::*;

    use crate::{pipeline, play};

    proptest! {
        #![proptest_config(super::config())]

        #[test]
        fn conflicts_fail_where_the_model_says(pipeline in pipeline::pipelines(false)) {
            play::play(&pipeline).map_err(TestCaseError::fail)?;
        }

        /// A rerun sees what the whole run would have seen, and so does a rerun of it.
        #[test]
        fn reruns_go_on_where_a_run_failed(
            pipeline in prop_oneof![pipeline::pipelines(false), pipeline::pipelines(true)],
            fails in any::<usize>(),
            starts in prop::collection::vec(prop::option::weighted(0.5, 0..64_usize), 1..4),
        ) {
            play::play_again(&pipeline.failing(fails), &starts).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn the_last_one_wins_where_conflicts_are_no_errors(pipeline in pipeline::pipelines(true)) {
            play::play(&pipeline).map_err(TestCaseError::fail)?;
        }
    }
}
