//! What the operator of the webhook decides about the rewrite.

/// What the operator of the webhook decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of the injected steps.
    pub image: String,
}
