//! The end-to-end cases of `tests/e2e/cases`: wrapped runs, from `render` to the image that they leave, played by the tests' own
//! runner ([`played`]) and, where one is given, by a real Tekton ([`cluster`]). Where the two disagree, the runner is wrong;
//! [`runner`] holds it against what Tekton documents.

use std::{
    collections::BTreeSet,
    env,
    io::{self, Write},
};

use case::Case;

mod case;
mod cluster;
mod image;
mod played;
mod runner;

/// One test for each case, and the list of them.
macro_rules! cases {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        mod play {
            $(#[test]
            fn $name() {
                super::played::play(&super::Case::load(stringify!($name)));
            })*
        }
    };
}

cases! {
    base beside between cache cache_failed cache_together conflict conflict_last conflict_rules delete_against_change deleted failed_retry failed_saved final_tasks
    finally isolated join
    long_names matrix matrix_results mounted_below optional own_types parallel_ends paths pod_template propagated read_only result_edge retry same_name
    same_values sequential sidecar skipped step_actions step_errors sub_paths transitive two_names two_workspaces
    working_dir
    undeclared working_dir_values
}

#[test]
fn every_case_is_listed() {
    assert_eq!(NAMES.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>(), Case::names());
}

/// Credentials reach the injected steps as Tekton's creds-init gives them.
#[test]
fn registry_with_credentials() {
    played::play_with_credentials(&Case::load("join"));
}

/// A folder is a store for all tasks that have it (docs/stores.md).
#[test]
fn a_store_on_a_claim() {
    played::play_with_store_on_claim();
}

/// The examples that need nothing but `sh` end well.
#[test]
fn examples() {
    for example in ["files", "build-and-test", "cache"] {
        played::play_example(example);
    }
}

/// Runs as an earlier version of the webhook stored them, created again (a rerun copies the stored spec): their steps work with
/// today's program.
#[test]
fn stored_runs() {
    for run in ["join", "matrix"] {
        played::play_stored(run);
    }
}

/// The same cases on a cluster with Tekton; see [`cluster::Settings::from_env`] for what names it.
#[test]
fn cluster() {
    match cluster::Settings::from_env() {
        Some(settings) => {
            let only = env::var("TEKTON_WRAP_E2E_CASES").ok();
            let is_wanted = |name: &&&str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == **name));
            cluster::play_all(&settings, NAMES.iter().filter(is_wanted).map(|name| Case::load(name)).collect());
        }
        // Past the test harness, which shows nothing of a test that passes.
        None => writeln!(io::stderr(), "skipped: the cases on a real Tekton, because KUBECONFIG is not set").unwrap(),
    }
}
