//! Credentials that a cloud gives to a workload for its own registries. They are tried if no file has any: Tekton's
//! creds-init drops credential helpers, and a pod with an identity needs no Secret.
//!
//! | module | registries | identity |
//! |---|---|---|
//! | [`aws`] | Amazon ECR | access keys as AWS' own tools find them, such as IAM roles for service accounts |
//! | [`azure`] | Azure Container Registry | a workload identity's federated token |
//! | [`google`] | Artifact Registry, gcr.io | access tokens as Google's own tools find them, such as that of the metadata server |

mod aws;
mod azure;
mod google;

use std::{sync::Arc, time::SystemTime};

use crate::store::{
    HttpOptions, StoreError, StoreOptions,
    cloud::{Environment, Fetch, Obtained, Problem},
    credentials::{Credential, FoundCredentials},
};

/// Access to the identity of this workload. What was fetched is kept in the environment, for all stores of the process.
#[derive(Clone, Debug)]
pub struct Ambient {
    environment: Environment,
    fetch: Fetch,
}

/// A registry of a cloud.
enum CloudRegistry {
    Amazon(aws::Registry),
    Azure,
    Google,
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

    /// Adds the identity's credential for `registry` (`host[:port]`) to `found` if that is empty. An identity that can't be
    /// used is no error: the registry may be public. The reason is added to what is said if it is not.
    pub fn complete(&self, registry: &str, found: FoundCredentials) -> FoundCredentials {
        if !found.candidates.is_empty() || self.environment.is_anonymous() {
            return found;
        }
        let host = registry.to_ascii_lowercase();
        let Some(cloud) = CloudRegistry::of(&host) else { return found };
        match self.find(&cloud, &host) {
            Ok(obtained) => match &obtained.keys {
                Some(credential) => {
                    FoundCredentials { candidates: vec![credential.clone()], searched: obtained.searched.clone() }
                }
                None => found,
            },
            Err(problem) => FoundCredentials { searched: format!("{}; {}", found.searched, problem.clause), ..found },
        }
    }

    /// `registry` refused all of these, or a request without any: if the identity's credential is one of them, or there was none,
    /// it is fetched anew the next time.
    pub fn refused(&self, registry: &str, candidates: &[Credential]) {
        let host = registry.to_ascii_lowercase();
        match CloudRegistry::of(&host) {
            Some(cloud @ (CloudRegistry::Amazon(_) | CloudRegistry::Azure)) => {
                if matches!(cloud, CloudRegistry::Amazon(_)) {
                    // Access keys that were given are none of the registry's matter.
                    self.environment.aws_cache().refused(|_| false);
                }
                self.environment.registry_cache(&host).refused(|credential| candidates.contains(credential));
            }
            Some(CloudRegistry::Google) => {
                let is_refused = |token: &_| candidates.contains(&google::credential(token));
                self.environment.google_cache().refused(is_refused);
            }
            None => {}
        }
    }

    /// The identity's credential, or the one that was fetched before.
    fn find(&self, cloud: &CloudRegistry, host: &str) -> Result<Arc<Obtained<Credential>>, Problem> {
        let Self { environment, fetch } = self;
        let cache = environment.registry_cache(host);
        match cloud {
            CloudRegistry::Amazon(registry) => cache.get(|| aws::obtain(registry, environment, fetch)),
            CloudRegistry::Azure => cache.get(|| azure::obtain(&format!("https://{host}"), host, environment, fetch)),
            // Buckets have the same token: it is kept with theirs.
            CloudRegistry::Google => google::obtain(environment, fetch).map(Arc::new),
        }
    }
}

impl CloudRegistry {
    fn of(host: &str) -> Option<Self> {
        let amazon = aws::Registry::parse(host).map(Self::Amazon);
        let azure = || azure::is_registry(host).then_some(Self::Azure);
        let google = || google::is_registry(host).then_some(Self::Google);
        amazon.or_else(azure).or_else(google)
    }
}

/// What a cloud gave: `origin` names the identity in sentences.
fn obtained(credential: Credential, expires: Option<SystemTime>, origin: &str) -> Obtained<Credential> {
    let searched = format!("check the rights of the identity of this workload ({origin})");
    Obtained { keys: Some(credential), expires, searched, secrets: Vec::new() }
}

/// There is no identity.
fn nobody() -> Obtained<Credential> {
    Obtained { keys: None, expires: None, searched: String::new(), secrets: Vec::new() }
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
