//! The commands for people at a terminal, as they are typed: with a real kube-apiserver, a real registry, and the runner in
//! the place of Tekton's controller.

mod files;
mod forms;
mod frame;
mod hostile;
mod report;
mod rerun;
mod stand;
mod start;
mod streams;
mod version;
