//! How the injected steps reach registries and other stores.

use super::values::Values;
use crate::{mirror::MirrorAddress, tekton::reference::is_object_name, units::parse_duration, wrap::refusal::Refusal};

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
            mirror: mirror(values)?,
            insecure: values.text("insecure")?,
            retry_for: retry_for(values)?,
            endpoint: endpoint(values)?,
            region: values.text("region")?,
        })
    }
}

/// Param `mirror`. What only the pod knows (`$(NODE_IP)`) is checked there.
fn mirror(values: &Values<'_>) -> Result<Option<String>, Refusal> {
    let mirror = values.text("mirror")?;
    match mirror.as_deref() {
        Some(text) if !text.contains("$(") => match text.parse::<MirrorAddress>() {
            Ok(_) => Ok(mirror),
            Err(error) => Err(values.invalid("mirror", format!("{}: {error}", crate::redact::reference(text)))),
        },
        _ => Ok(mirror),
    }
}

/// Param `retry-for`.
fn retry_for(values: &Values<'_>) -> Result<Option<String>, Refusal> {
    let time = values.text("retry-for")?;
    match time.as_deref().map(parse_duration) {
        Some(Err(error)) => Err(values.invalid("retry-for", error.to_string())),
        _ => Ok(time),
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
