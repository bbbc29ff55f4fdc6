//! Keys from a server beside this process: that of the container (ECS, EKS Pod Identity; AWS SDKs and Tools Reference
//! Guide, "Container credential provider") or of the machine (EC2 User Guide, "Use IMDS", version 2).

use std::{fs, net::IpAddr, time::SystemTime};

use http::{Request, Uri};
use serde::Deserialize;

use super::{
    super::{Environment, Fetch, Problem},
    Keys,
};
use crate::store::credentials::Secret;

const CONTAINER: &str = "http://169.254.170.2";

/// Where an agent of the cloud answers to containers (ECS, EKS over IPv4 and IPv6).
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetadataAnswer {
    access_key_id: String,
    secret_access_key: Secret,
    token: Option<Secret>,
    expiration: Option<String>,
}

/// What the container's agent gives; none where no variable names it.
pub fn of_container(environment: &Environment, fetch: &Fetch) -> Result<Option<Keys>, Problem> {
    let relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{CONTAINER}{path}"));
    let Some(address) = relative.or_else(|| environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")) else {
        return Ok(None);
    };
    let wrong = || {
        Problem::lasting(format!(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI names {address:?}, which is neither HTTPS nor on this machine"
        ))
    };
    let url: Uri = address.parse().map_err(|_| wrong())?;
    if !is_safe(&url) {
        return Err(wrong());
    }
    let token = match environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => {
            let text = fs::read_to_string(&file);
            let unreadable = |error| {
                Problem::lasting(format!(
                    "{file}, named by AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, can't be read: {error}"
                ))
            };
            Some(text.map_err(unreadable)?.trim().to_owned())
        }
        None => environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let mut request = Request::get(url);
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let what = format!("the container's credentials at {address}");
    let request = request.body(String::new()).map_err(|error| Problem::lasting(format!("{what}: {error}")))?;
    let silent = || Problem { clause: format!("{what}: nothing answers there"), transient: true };
    let fetched = fetch.near(&what, request)?.ok_or_else(silent)?;
    parse(&what, &fetched.text).map(Some)
}

/// What the machine's metadata service gives; none where there is no such service, or no role.
pub fn of_machine(environment: &Environment, fetch: &Fetch) -> Result<Option<Keys>, Problem> {
    const WHAT: &str = "the metadata service of this machine";
    if environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let endpoint = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let endpoint = endpoint.unwrap_or_else(|| "http://169.254.169.254".to_owned());
    let url = |path: &str| format!("{}/latest/{path}", endpoint.trim_end_matches('/'));
    let built = |request: http::request::Builder| {
        request.body(String::new()).map_err(|error| Problem::lasting(format!("{WHAT}: {error}")))
    };
    let token = Request::put(url("api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "300");
    // What answers there on other clouds, and in a pod without the right to it, is no reason to fail.
    let Ok(Some(token)) = fetch.near(WHAT, built(token)?) else { return Ok(None) };
    let get = |path: &str| built(Request::get(url(path)).header("x-aws-ec2-metadata-token", token.text.trim()));
    let roles = "meta-data/iam/security-credentials/";
    let Ok(Some(role)) = fetch.near(WHAT, get(roles)?) else { return Ok(None) };
    let Some(role) = role.text.lines().next().map(str::trim).filter(|role| !role.is_empty()) else { return Ok(None) };
    let Some(fetched) = fetch.near(WHAT, get(&format!("{roles}{role}"))?)? else { return Ok(None) };
    parse(WHAT, &fetched.text).map(Some)
}

/// An RFC 3339 time.
pub fn time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

fn parse(what: &str, text: &str) -> Result<Keys, Problem> {
    let answer: MetadataAnswer = serde_json::from_str(text)
        .map_err(|_| Problem::lasting(format!("{what} gave an unexpected response: no credentials in it")))?;
    let expires = answer.expiration.as_deref().and_then(time);
    Ok(Keys { id: answer.access_key_id, secret: answer.secret_access_key, token: answer.token, expires })
}

/// The token goes there: over HTTPS, to this machine, or to an agent of the cloud.
fn is_safe(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let own = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme_str() == Some("https") || own || AGENTS.contains(&host)
}
