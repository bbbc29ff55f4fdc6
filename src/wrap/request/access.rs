//! How the injected steps reach registries and other stores.

use super::values::Values;
use crate::{tekton::reference::is_object_name, wrap::refusal::Refusal};

/// How the injected steps reach registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryAccess {
    /// Param `credentials`: a Secret of the run's namespace that only injected steps mount.
    pub credentials: Option<String>,
    /// Param `ca`: a ConfigMap of the run's namespace with certificates of authorities.
    pub ca: Option<String>,
    /// Param `mirror`.
    pub mirror: Option<String>,
    /// Param `insecure`.
    pub insecure: Option<String>,
    /// Param `retry-for`.
    pub retry_for: Option<String>,
    /// Param `endpoint`: where S3 is, if it is not Amazon's.
    pub endpoint: Option<String>,
    /// Param `region`: the one of the bucket.
    pub region: Option<String>,
}

impl RegistryAccess {
    /// The params about it.
    pub fn read(values: &Values<'_>) -> Result<Self, Refusal> {
        let object = |name: &str, kind: &str| match values.text(name)? {
            Some(text) if !is_object_name(&text) => {
                Err(values.invalid(name, format!("{text:?} is not the name of a {kind}")))
            }
            text => Ok(text),
        };
        Ok(Self {
            credentials: object("credentials", "Secret")?,
            ca: object("ca", "ConfigMap")?,
            mirror: values.text("mirror")?,
            insecure: values.text("insecure")?,
            retry_for: values.text("retry-for")?,
            endpoint: endpoint(values)?,
            region: values.text("region")?,
        })
    }
}

/// Param `endpoint`.
fn endpoint(values: &Values<'_>) -> Result<Option<String>, Refusal> {
    let endpoint = values.text("endpoint")?;
    let is_address = |text: &str| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':']) && !rest.contains(['@', '?', ' ']))
    };
    match endpoint.as_deref() {
        Some(text) if !is_address(text) => {
            let shown = crate::redact::reference(text);
            Err(values.invalid("endpoint", format!("{shown} is not an address such as https://minio.tools.svc:9000")))
        }
        _ => Ok(endpoint),
    }
}
