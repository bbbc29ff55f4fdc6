//! Params `keep`, `expires` and `target-expires`: what a run leaves in the registry, and how long.

use super::values::Values;
use crate::{step::Keep, wrap::refusal::Refusal};

/// What is kept, and how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Param `keep`.
    pub keep: Keep,
    /// Param `expires`, for snapshots; none where they are kept.
    pub expires: Option<String>,
    /// Param `target-expires`; none where the target is kept.
    pub target_expires: Option<String>,
}

impl Retention {
    /// Of a run. A time that does not go with the run's own `keep` is one of the defaults, or else a mistake.
    pub fn read(values: &Values<'_>) -> Result<Self, Refusal> {
        let keep = values.choice("keep", &[("target", Keep::Target), ("all", Keep::All), ("none", Keep::None)])?;
        let expires = duration_of(values, "expires")?;
        let target_expires = duration_of(values, "target-expires")?;
        Ok(Self {
            keep,
            expires: expires.filter(|_| keep != Keep::All),
            target_expires: target_expires.filter(|_| keep != Keep::None),
        })
    }
}

/// The duration in a param.
fn duration_of(values: &Values<'_>, param: &str) -> Result<Option<String>, Refusal> {
    values.text(param)?.map(|text| duration(values, param, &text)).transpose()
}

/// A duration as quay.io has it ("Setting tag expirations"): a number and one unit.
pub fn duration(values: &Values<'_>, param: &str, text: &str) -> Result<String, Refusal> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if text.strip_suffix(['s', 'm', 'h', 'd', 'w']).is_some_and(digits) {
        return Ok(text.to_owned());
    }
    Err(values.invalid(param, format!("{text:?} is not a duration such as 12h, 7d or 2w")))
}
