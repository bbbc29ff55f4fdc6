//! Settings of the rewrite, made by the operator of the webhook.

/// Settings of the rewrite.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of the injected steps.
    pub image: String,
}
