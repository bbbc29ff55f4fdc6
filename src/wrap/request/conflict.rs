//! Param `conflict`: one word for all paths, or rules.

use super::values::Values;
use crate::{
    globs::Glob,
    step::{ConflictRule, OnConflict},
    wrap::refusal::Refusal,
};

/// The rules in their order, and what holds for all other paths: `last`, or `**/*.log=last, docs/**=fail, last`, or the same as
/// an array.
pub fn read(values: &Values<'_>) -> Result<(Vec<ConflictRule>, OnConflict), Refusal> {
    let name = "conflict";
    let (mut rules, mut rest) = (Vec::new(), None);
    for part in values.list(name)? {
        if rest.is_some() {
            return Err(
                values.invalid(name, format!("{part:?} stands behind the word for all other paths: put it in front"))
            );
        }
        match part.rsplit_once('=') {
            None => rest = Some(word(values, &part)?),
            Some((paths, then)) => {
                let paths = paths.trim().to_owned();
                Glob::new(&paths).map_err(|error| values.invalid(name, error.to_string()))?;
                rules.push(ConflictRule { paths, then: word(values, then.trim())? });
            }
        }
    }
    Ok((rules, rest.unwrap_or_default()))
}

fn word(values: &Values<'_>, word: &str) -> Result<OnConflict, Refusal> {
    match word {
        "fail" => Ok(OnConflict::Fail),
        "last" => Ok(OnConflict::Last),
        other => Err(values.invalid(
            "conflict",
            format!("{other:?} is not one of \"fail\", \"last\", nor a rule such as **/*.log=last"),
        )),
    }
}
