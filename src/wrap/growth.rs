//! How much a rewrite adds to a pipeline. What a pipeline says once may have to be said many times: a stepTemplate in each step, a
//! long path at each variable, the names of steps in the scripts of all later ones. It is counted before it is made, so that a
//! small run does not become hundreds of megabytes before its size is looked at.

use std::cell::Cell;

use serde_json::Value;

use super::bounds::InlinedSize;
use crate::limits::MAX_RUN_BYTES;

/// Counts what is added. Whoever makes something asks first whether it [`fits`](Self::fits), and leaves it out if not; the rewrite
/// then ends at the next [`check`](Self::check).
#[derive(Debug, Default)]
pub struct Growth {
    bytes: Cell<usize>,
}

impl Growth {
    /// Counts `bytes`; whether all that was counted so far can be a part of a run that can be stored. Once it can't, nothing fits.
    pub fn fits(&self, bytes: usize) -> bool {
        let all = self.bytes.get().saturating_add(bytes);
        self.bytes.set(all);
        all <= MAX_RUN_BYTES
    }

    /// The same of `value`, `times` times.
    pub fn fits_times(&self, value: &Value, times: usize) -> bool {
        self.fits(InlinedSize::of(value).bytes.saturating_mul(times))
    }

    /// `new`, in place of the variable `reference`, if it fits.
    pub fn in_place_of(&self, reference: &str, new: String) -> Option<String> {
        let old = reference.len().saturating_add("$()".len());
        self.fits(new.len().saturating_sub(old)).then_some(new)
    }

    /// The bytes that were counted, if they are too many.
    pub fn check(&self) -> Result<(), usize> {
        let bytes = self.bytes.get();
        if bytes <= MAX_RUN_BYTES { Ok(()) } else { Err(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_fits_any_more() {
        let growth = Growth::default();
        assert!(growth.fits(MAX_RUN_BYTES - 10) && growth.check().is_ok());
        assert_eq!(growth.in_place_of("params.long-name", "short".to_owned()).as_deref(), Some("short"));
        assert_eq!(growth.in_place_of("a", "x".repeat(14)).map(|new| new.len()), Some(14));
        assert_eq!(growth.in_place_of("a", "12345".to_owned()), None);
        assert_eq!(growth.in_place_of("a", String::new()), None);
        assert_eq!(growth.check(), Err(MAX_RUN_BYTES + 1));
        assert!(!Growth::default().fits_times(&json!(["x"]), MAX_RUN_BYTES));
    }
}
