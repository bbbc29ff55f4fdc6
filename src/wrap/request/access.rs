//! How the injected steps reach registries and other stores.

use super::values::Values;
use crate::{
    mirror::MirrorAddress, redact::reference, target::region_problem, tekton::reference::is_object_name,
    units::parse_duration, wrap::refusal::Refusal,
};

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
        let checked = |name: &str, problem: &dyn Fn(&str) -> Option<String>| {
            let text = values.text(name)?;
            match text.as_deref().and_then(problem) {
                Some(problem) => Err(values.invalid(name, problem)),
                None => Ok(text),
            }
        };
        let object = |name: &str, kind: &str| {
            checked(name, &|text| (!is_object_name(text)).then(|| format!("{text:?} is not the name of a {kind}")))
        };
        Ok(Self {
            credentials: object("credentials", "Secret")?,
            ca: object("ca", "ConfigMap")?,
            mirror: checked("mirror", &mirror_problem)?,
            insecure: values.joined("insecure")?,
            retry_for: checked("retry-for", &|text| Some(parse_duration(text).err()?.to_string()))?,
            endpoint: checked("endpoint", &endpoint_problem)?,
            region: checked("region", &region_problem)?,
        })
    }
}

/// What is wrong with a mirror. What only the pod knows (`$(NODE_IP)`) is checked there.
fn mirror_problem(text: &str) -> Option<String> {
    let error = text.parse::<MirrorAddress>().err().filter(|_| !text.contains("$("))?;
    Some(format!("{}: {error}", reference(text)))
}

/// What is wrong with the address of a service.
fn endpoint_problem(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_address =
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':']) && !rest.contains(['@', '?', ' ']));
    (!is_address).then(|| format!("{} is not an address such as https://minio.tools.svc:9000", reference(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_services() {
        for text in ["https://minio.tools.svc:9000", "http://minio", "https://s3.example/path"] {
            assert_eq!(endpoint_problem(text), None, "{text}");
        }
        for text in
            ["minio:9000", "https://", "https:///path", "https://:9000", "https://u@host", "https://h?x", "http://a b"]
        {
            let problem = endpoint_problem(text).unwrap();
            assert!(problem.ends_with("is not an address such as https://minio.tools.svc:9000"), "{problem}");
        }
    }
}
