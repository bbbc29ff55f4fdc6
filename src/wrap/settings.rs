//! Settings of the rewrite, made by the operator of the webhook.

/// Settings of the rewrite.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of the injected steps.
    pub image: String,
    /// Whether that image has the program rsync.
    pub has_rsync: bool,
}

impl Settings {
    /// For an image that has no other program than ours.
    pub fn new(image: impl Into<String>) -> Self {
        Self { image: image.into(), has_rsync: false }
    }
}
