//! The rewrite: takes a PipelineRun with `resolver: wrap` and the objects that it names, and makes a PipelineRun with the
//! wrapped pipeline inlined. Pure: no I/O, no clock, no cluster.

mod absence;
mod aliases;
mod bindings;
mod bounds;
mod caches;
mod embed;
pub mod explain;
mod failure;
mod growth;
mod inline;
mod intact;
mod known;
mod mounts;
mod patch;
mod paths;
mod pipeline_name;
mod place;
mod plan;
mod pod_template;
mod policy;
mod refusal;
mod request;
mod resources;
mod rewrite;
mod same_on_volume;
mod script;
mod security;
mod settings;
mod steps;
mod task_spec;
mod template;
mod values;
mod volumes;
mod working_dir;

pub use self::{
    embed::IsLate,
    policy::Unverified,
    refusal::Refusal,
    request::{OptIn, PARAMS, Request, is_default},
    rewrite::{Rewrite, rewrite, tasks_to_inline},
    settings::Settings,
};
