//! What integration tests stand on: real programs, started for the tests and ended with them.
//!
//! - [`cluster`]: a kube-apiserver with etcd, Tekton's CRDs ([`crds`]) and a fresh [`cluster::Namespace`] for each test
//! - [`webhook`]: the product's webhook, with the account and the configuration of `webhook-config/`
//! - [`registry`]: a registry, and crane
//! - [`runner`]: plays a PipelineRun as Tekton would
//!
//! The programs come from `tests/assets/build`. This is a `mod.rs` because Cargo takes each `tests/*.rs` for a test program.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod assets;
pub mod certificate;
pub mod cluster;
pub mod crds;
pub mod manifests;
pub mod process;
pub mod registry;
pub mod runner;
pub mod webhook;
