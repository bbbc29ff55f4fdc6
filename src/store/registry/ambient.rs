//! Credentials that a cloud gives to a workload for its own registries. They are tried if no file has any: Tekton's
//! creds-init drops credential helpers, and a pod with an identity needs no Secret.
//!
//! | module | registries | identity |
//! |---|---|---|
//! | [`aws`] | Amazon ECR | access keys as AWS' own tools find them, such as IAM roles for service accounts |
//! | [`azure`] | Azure Container Registry | a workload identity's federated token |
//! | [`google`] | Artifact Registry, gcr.io | the service account of the metadata server |

mod aws;
mod azure;
mod google;

use crate::store::{
    HttpOptions, StoreError, StoreOptions,
    cloud::{Environment, Fetch, Problem},
    credentials::{Credential, FoundCredentials},
};

/// Access to the identity of this workload.
#[derive(Clone, Debug)]
pub struct Ambient {
    environment: Environment,
    fetch: Fetch,
}

/// An identity's credential.
#[derive(Debug, PartialEq, Eq)]
struct CloudIdentity {
    credential: Credential,
    /// A clause that names where it is from.
    origin: &'static str,
}

impl Ambient {
    /// Of this process, with the connections that the store has.
    pub fn new(options: &StoreOptions) -> Result<Self, StoreError> {
        Self::with(options.cloud.clone(), &options.http.clone().unwrap_or_default())
    }

    /// With these variables.
    pub fn with(environment: Environment, http: &HttpOptions) -> Result<Self, StoreError> {
        Ok(Self { environment, fetch: Fetch::new(http)? })
    }

    /// Adds the identity's credential for `registry` to `found` if that is empty. An identity that can't be used is no
    /// error: the registry may be public. The reason is added to what is said if it is not.
    pub fn complete(&self, registry: &str, found: FoundCredentials) -> FoundCredentials {
        if !found.candidates.is_empty() || self.environment.is_anonymous() {
            return found;
        }
        match self.find(registry) {
            Ok(Some(CloudIdentity { credential, origin })) => FoundCredentials {
                candidates: vec![credential],
                searched: format!("check the rights of the identity of this workload ({origin})"),
            },
            Ok(None) => found,
            Err(problem) => FoundCredentials { searched: format!("{}; {}", found.searched, problem.clause), ..found },
        }
    }

    /// The identity for `registry` (`host[:port]`); none if it is not a registry of a cloud, or if there is no identity.
    fn find(&self, registry: &str) -> Result<Option<CloudIdentity>, Problem> {
        let Self { environment, fetch } = self;
        let host = registry.to_ascii_lowercase();
        if let Some(registry) = aws::Registry::parse(&host) {
            return aws::credential(&registry, environment, fetch);
        }
        if azure::is_registry(&host) {
            return azure::credential(&format!("https://{host}"), &host, environment, fetch);
        }
        if google::is_registry(&host) {
            return google::credential(environment, fetch);
        }
        Ok(None)
    }
}

/// The string `name` in a JSON response of `what`.
fn json_field(what: &str, text: &str, name: &str) -> Result<String, Problem> {
    let field = serde_json::from_str::<serde_json::Value>(text)
        .ok()
        .and_then(|json| Some(json.get(name)?.as_str()?.to_owned()));
    field
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Problem::lasting(format!("{what} gave an unexpected response: there is no {name} in it")))
}

#[cfg(test)]
mod tests;
