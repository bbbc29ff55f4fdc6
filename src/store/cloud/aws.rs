//! Access keys of AWS, as its own tools find them (AWS SDKs and Tools Reference Guide, "Standardized credential
//! providers"), and the region.

mod metadata;
mod profile;
mod sign;
mod sts;

use std::{sync::Arc, time::SystemTime};

use self::profile::Profiles;
pub use self::sign::{Signature, encode, hex_digest};
use super::{Environment, Fetch, Obtained, Problem};
use crate::{store::credentials::Secret, target::region_problem};

/// What requests are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// `AKIA…` or `ASIA…`; no secret.
    pub id: String,
    /// What proves that one has the key.
    pub secret: Secret,
    /// What comes with keys for a while.
    pub token: Option<Secret>,
    /// When they end.
    pub expires: Option<SystemTime>,
}

/// The keys of `environment`, or those that were fetched before.
pub fn keys(environment: &Environment, fetch: &Fetch) -> Result<Arc<Obtained<Keys>>, Problem> {
    environment.aws_cache().get(|| find(environment, fetch))
}

/// The region of `environment`, if it names one.
pub fn region(environment: &Environment) -> Result<Option<String>, Problem> {
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| {
        let value = environment.get(name)?;
        Some((environment.name_of(name), value))
    });
    let of_profile = || {
        let profiles = Profiles::read(environment).ok()?;
        Some((profiles.place(environment), profiles.of(environment).region?))
    };
    let Some((place, region)) = named.or_else(of_profile) else { return Ok(None) };
    match region_problem(&region) {
        Some(problem) => Err(Problem::lasting(format!("{place}: {problem}"))),
        None => Ok(Some(region)),
    }
}

/// Searches one place after the other; the first one that has something decides.
fn find(environment: &Environment, fetch: &Fetch) -> Result<Obtained<Keys>, Problem> {
    let found = |keys: Keys, place: String| {
        let secrets = [Some(&keys.secret), keys.token.as_ref()].into_iter().flatten().map(|s| s.expose().to_owned());
        let (secrets, expires) = (secrets.collect(), keys.expires);
        Ok(Obtained { keys: Some(keys), expires, searched: format!("check the credentials of {place}"), secrets })
    };
    let none = |searched: String| Ok(Obtained { keys: None, expires: None, searched, secrets: Vec::new() });
    let mut passed = Vec::new();
    if environment.is_anonymous() {
        return none("it is asked without credentials".to_owned());
    }
    environment.check_secret()?;
    if let Some(keys) = static_keys(environment)? {
        return found(keys, environment.name_of("AWS_ACCESS_KEY_ID"));
    }
    passed.push("AWS_ACCESS_KEY_ID".to_owned());
    let sts = sts::Sts { environment, fetch };
    match sts.web_identity()? {
        Some(keys) => return found(keys, environment.name_of("AWS_WEB_IDENTITY_TOKEN_FILE")),
        None => passed.push("AWS_WEB_IDENTITY_TOKEN_FILE".to_owned()),
    }
    let profiles = Profiles::read(environment)?;
    match profiles.of(environment).login {
        Some(login) => return found(sts.of_login(&profiles, &login, 0)?, profiles.place(environment)),
        None => passed.push(profiles.searched(environment)?),
    }
    match metadata::of_container(environment, fetch)? {
        Some(keys) => return found(keys, "the container (AWS_CONTAINER_CREDENTIALS_FULL_URI)".to_owned()),
        None => passed.push("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned()),
    }
    match metadata::of_machine(environment, fetch)? {
        Some(keys) => return found(keys, "the role of this machine (its metadata service)".to_owned()),
        None => passed.push("the metadata service of this machine".to_owned()),
    }
    none(format!("add credentials: there are none in {}", passed.join(", ")))
}

fn static_keys(environment: &Environment) -> Result<Option<Keys>, Problem> {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    match names.map(|name| environment.get(name)) {
        [None, None] => Ok(None),
        [Some(id), Some(secret)] => {
            let token = environment.get("AWS_SESSION_TOKEN").map(Secret::from);
            Ok(Some(Keys { id, secret: secret.into(), token, expires: None }))
        }
        [Some(_), None] => Err(Problem::lasting("AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY".to_owned())),
        [None, Some(_)] => Err(Problem::lasting("AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID".to_owned())),
    }
}

#[cfg(test)]
mod tests;
