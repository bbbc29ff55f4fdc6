//! Param `size`: how much room a workspace has.

use serde_json::{Value, json};

use super::values::Values;
use crate::{
    tekton::{
        fields::{field, text},
        quantity::Quantity,
    },
    wrap::refusal::Refusal,
};

/// The room of each workspace, where something says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    all: Option<String>,
    single: Vec<(String, String)>,
}

impl Sizes {
    /// `5Gi` for every workspace, or `sources=5Gi,cache=1Gi` for some of `workspaces`.
    pub fn read(values: &Values<'_>, workspaces: &[String]) -> Result<Self, Refusal> {
        let mut sizes = Self::default();
        for part in values.list("size")? {
            let (name, size) =
                part.split_once('=').map_or((None, &*part), |(name, size)| (Some(name.trim()), size.trim()));
            if Quantity::of(&json!(size)) <= Quantity::default() {
                return Err(values.invalid("size", format!("{size:?} is not a size such as 500Mi or 5Gi")));
            }
            match name {
                None => sizes.all = Some(size.to_owned()),
                Some(name) if workspaces.iter().any(|workspace| workspace == name) => {
                    sizes.single.push((name.to_owned(), size.to_owned()));
                }
                Some(name) => {
                    return Err(values.invalid("size", format!("{name:?} is not a workspace that is wrapped")));
                }
            }
        }
        Ok(sizes)
    }

    /// Whether something says how much room `workspace` has: this, or the run's `binding`.
    pub fn is_sized(&self, workspace: &str, binding: Option<&Value>) -> bool {
        let has_limit = |binding| field(binding, "emptyDir").is_some_and(|dir| field(dir, "sizeLimit").is_some());
        self.of(workspace, binding).is_some() || binding.is_some_and(has_limit)
    }

    /// That of `workspace`; `binding` is the run's, in which a claim template may say how much it wants.
    pub fn of(&self, workspace: &str, binding: Option<&Value>) -> Option<String> {
        let single = self.single.iter().find(|(name, _)| name == workspace).map(|(_, size)| size.clone());
        single.or_else(|| self.all.clone()).or_else(|| {
            let template = field(field(binding?, "volumeClaimTemplate")?, "spec")?;
            let requests = field(field(template, "resources")?, "requests")?;
            let storage = field(requests, "storage")?;
            let text = storage.as_str().map_or_else(|| text(requests, "storage").to_owned(), str::to_owned);
            (!text.is_empty()).then_some(text)
        })
    }
}
