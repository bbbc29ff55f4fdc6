//! What integration tests stand on: real programs, started for the tests and ended with them.
//!
//! - [`cluster`]: a kube-apiserver with etcd, Tekton's CRDs ([`crds`]) and a fresh [`cluster::Namespace`] for each test
//! - [`webhook`]: the product's webhook, with the account and the configuration of `webhook-config/`
//! - [`creations`]: runs that are created at a rate, and what became of them
//! - [`resolver`]: a resolver of the cluster; [`collector`]: a collector of traces
//! - [`mod@kubectl`]: an operator's commands; [`service`]: the webhook's Service, and its certificate by `certs/make`
//! - [`registry`]: a registry, and crane; [`tokens`]: a token server for it
//! - [`servers`]: registries of other makers
//! - [`buckets`] and [`rsync`]: other stores
//! - [`faults`]: a server between a client and a registry that makes things go wrong
//! - [`mod@render`]: the product's `render`
//! - [`browser`]: a headless Chromium; [`kubelet`]: logs of pods, for the API server
//! - [`runner`]: plays a PipelineRun as Tekton would
//!
//! The programs come from `tests/assets/build`.

use std::{
    env,
    path::{Path, PathBuf},
};

pub mod assets;
pub mod browser;
pub mod buckets;
pub mod certificate;
pub mod chain;
pub mod cluster;
pub mod collector;
pub mod crds;
pub mod creations;
pub mod faults;
pub mod http;
pub mod kubectl;
pub mod kubelet;
pub mod manifests;
pub mod moto;
pub mod process;
pub mod registry;
pub mod render;
pub mod resolver;
pub mod rsync;
pub mod runner;
pub mod servers;
pub mod service;
pub mod tokens;
pub mod webhook;

/// A path in this repository.
pub fn repository(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate is two folders down");
    root.join(path)
}

/// The product's program. Cargo builds it for the tests and benchmarks of its package and tells them where it is.
///
/// # Panics
/// Where it is not Cargo that runs the test.
pub fn program() -> PathBuf {
    env::var_os("CARGO_BIN_EXE_tekton-wrap").expect("started by cargo test or cargo bench").into()
}
