//! How long a blob stays that no image needs: a writer that found it may be about to name it.
//!
//! Only what is older than [`KEEP`] is deleted, and a writer that finds one that is about to be so old ([`may_go_soon`]) makes it
//! young again before it relies on it.

use std::time::{Duration, SystemTime};

/// How old a blob without an image has to be.
pub const KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// Until what age a blob is in no danger: half of [`KEEP`].
const YOUNG: Duration = Duration::from_secs(12 * 60 * 60);

/// Whether what was stored then may be deleted if no image needs it.
pub fn is_over(modified: Option<SystemTime>) -> bool {
    is_older(modified, KEEP)
}

/// Whether what was stored then is about to be old.
pub fn may_go_soon(modified: Option<SystemTime>) -> bool {
    is_older(modified, YOUNG)
}

fn is_older(modified: Option<SystemTime>, than: Duration) -> bool {
    // What is stored in the future is young.
    modified.is_some_and(|modified| modified.elapsed().is_ok_and(|age| age > than))
}
