//! The rewrite itself: no I/O, no clock, no cluster.

/// What the operator decides about every wrapped run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of the injected steps.
    pub image: String,
}

/// A run as it becomes.
#[derive(Debug)]
pub struct Rewrite {
    /// Explicit operations that turn the run as it came into [`Rewrite::run`].
    pub patch: json_patch::Patch,
    /// Sentences for the user that refuse nothing.
    pub warnings: Vec<String>,
    /// The run after the patch.
    pub run: serde_json::Value,
}

/// Why a run can't be wrapped.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl Refusal {
    /// A CamelCase code for metrics and logs.
    pub fn reason(&self) -> &'static str {
        "Refused"
    }
}
