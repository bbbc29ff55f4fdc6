//! What integration tests stand on: real programs, started for the tests and ended with them.
//!
//! - [`cluster`]: a kube-apiserver with etcd, Tekton's CRDs ([`crds`]) and a fresh [`cluster::Namespace`] for each test
//! - [`webhook`]: the product's webhook, with the account and the configuration of `webhook-config/`
//! - [`resolver`]: a resolver of the cluster
//! - [`registry`]: a registry, and crane; [`tokens`]: a token server for it
//! - [`servers`]: registries of other makers
//! - [`faults`]: a server between a client and a registry that makes things go wrong
//! - [`mod@render`]: the product's `render`
//! - [`runner`]: plays a PipelineRun as Tekton would
//!
//! The programs come from `tests/assets/build`. This is a `mod.rs` because Cargo takes each `tests/*.rs` for a test program.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it; the demo has no test harness and no unit tests"
)]

pub mod assets;
pub mod certificate;
pub mod cluster;
pub mod crds;
pub mod faults;
pub mod http;
pub mod manifests;
pub mod process;
pub mod registry;
pub mod render;
pub mod resolver;
pub mod runner;
pub mod servers;
pub mod tokens;
pub mod webhook;
