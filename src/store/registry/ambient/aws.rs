//! Amazon ECR: an authorization token for the workload's access keys (Amazon ECR API Reference, "GetAuthorizationToken").

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use serde_json::Value;

use super::{nobody, obtained};
use crate::store::{
    cloud::{
        Environment, Fetch, Obtained, Problem,
        aws::{self, Keys, Signature, hex_digest},
    },
    credentials::Credential,
};

const ACTION: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";

/// A private registry.
#[derive(Debug, PartialEq, Eq)]
pub struct Registry {
    region: String,
    /// `amazonaws.com` or that of China.
    domain: String,
}

impl Registry {
    /// `<account>.dkr.ecr[-fips].<region>.amazonaws.com`
    pub fn parse(host: &str) -> Option<Self> {
        let (account, rest) = host.split_once(".dkr.")?;
        let (service, rest) = rest.split_once('.')?;
        let (region, domain) = rest.split_once('.')?;
        let valid = account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && ["ecr", "ecr-fips"].contains(&service)
            && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && ["amazonaws.com", "amazonaws.com.cn"].contains(&domain);
        valid.then(|| Self { region: region.to_owned(), domain: domain.to_owned() })
    }
}

/// A password that is valid for twelve hours; none without access keys.
pub fn obtain(registry: &Registry, environment: &Environment, fetch: &Fetch) -> Result<Obtained<Credential>, Problem> {
    let found = aws::keys(environment, fetch)?;
    let Some(keys) = &found.keys else { return Ok(nobody()) };
    let answer = ask(registry, keys, environment, fetch).inspect_err(|_| {
        // They may have been withdrawn: whoever asks next looks for them again.
        environment.aws_cache().expired(&found);
    })?;
    Ok(obtained(answer.credential, answer.expires, "its AWS role"))
}

/// An authorization token.
struct Authorization {
    credential: Credential,
    expires: Option<SystemTime>,
}

fn ask(registry: &Registry, keys: &Keys, environment: &Environment, fetch: &Fetch) -> Result<Authorization, Problem> {
    let Registry { region, domain } = registry;
    let what = format!("Amazon ECR in {region}");
    let address = match environment.get("AWS_ENDPOINT_URL_ECR") {
        Some(endpoint) => format!("{}/", endpoint.trim_end_matches('/')),
        None => format!("https://api.ecr.{region}.{domain}/"),
    };
    let url: Uri = address.parse().map_err(|_| Problem::lasting(format!("{address:?} is no address of Amazon ECR")))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    headers.insert("x-amz-target", HeaderValue::from_static(ACTION));
    let signature = Signature { keys, region, service: "ecr", time: SystemTime::now() };
    signature.sign(&Method::POST, &url, &mut headers, &hex_digest(b"{}"));
    let mut request = Request::post(url).body("{}".to_owned()).map_err(|error| Problem::lasting(error.to_string()))?;
    request.headers_mut().extend(headers);
    let fetched = fetch.far(&what, request)?;
    parse(&fetched.text)
        .ok_or_else(|| Problem::lasting(format!("{what} gave an unexpected response: there is no token in it")))
}

/// `{"authorizationData": [{"authorizationToken": base64(user:password), "expiresAt": seconds since 1970, …}]}`
fn parse(text: &str) -> Option<Authorization> {
    let response: Value = serde_json::from_str(text).ok()?;
    let data = response.get("authorizationData")?.get(0)?;
    let token = data.get("authorizationToken")?.as_str()?;
    let pair = String::from_utf8(BASE64_STANDARD.decode(token).ok()?).ok()?;
    let (username, password) = pair.split_once(':')?;
    let credential = Credential::Basic { username: username.to_owned(), password: password.to_owned().into() };
    let expires = data.get("expiresAt").and_then(Value::as_f64).and_then(since_1970);
    Some(Authorization { credential, expires })
}

fn since_1970(seconds: f64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}
