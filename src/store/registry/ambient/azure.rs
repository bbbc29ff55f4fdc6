//! Azure: the federated token of a workload identity, exchanged for a token of Microsoft Entra ID, and that for a refresh
//! token of the registry (Azure Workload Identity, "Mutating Admission Webhook"; azure/acr, "AAD-OAuth.md").

use std::{
    fs,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Request, header};

use super::{json_field, nobody, obtained};
use crate::store::{
    cloud::{Environment, Fetch, Obtained, Problem, aws::encode},
    credentials::Credential,
};

const AUTHORITY: &str = "https://login.microsoftonline.com";

const SCOPE: &str = "https://containerregistry.azure.net/.default";

/// Whether `host` is a registry of Azure, in any of its clouds.
pub fn is_registry(host: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.us"].iter().any(|suffix| host.ends_with(suffix))
}

/// The credential for the registry `name`, which is reached at `address`; none without a workload identity.
pub fn obtain(
    address: &str,
    name: &str,
    environment: &Environment,
    fetch: &Fetch,
) -> Result<Obtained<Credential>, Problem> {
    let variables = ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"];
    let [Some(client), Some(tenant), Some(file)] = variables.map(|name| environment.get(name)) else {
        return Ok(nobody());
    };
    let assertion = fs::read_to_string(&file).map_err(|error| {
        Problem::lasting(format!("{file}, named by AZURE_FEDERATED_TOKEN_FILE, can't be read: {error}"))
    })?;
    let authority = environment.get("AZURE_AUTHORITY_HOST").unwrap_or_else(|| AUTHORITY.to_owned());
    let entra = format!("Microsoft Entra ID, asked for a token of the client {client},");
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &client),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.trim()),
        ("scope", SCOPE),
    ];
    let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
    let token = json_field(&entra, &fetch.far(&entra, post(&url, &form)?)?.text, "access_token")?;
    let exchange = format!("{name}, asked to exchange the token of the client {client},");
    let form = [("grant_type", "access_token"), ("service", name), ("tenant", &tenant), ("access_token", &token)];
    let fetched = fetch.far(&exchange, post(&format!("{address}/oauth2/exchange"), &form)?)?;
    let refresh_token = json_field(&exchange, &fetched.text, "refresh_token")?;
    let expires = expiry(&refresh_token);
    Ok(obtained(Credential::IdentityToken(refresh_token.into()), expires, "its Azure workload identity"))
}

/// When a token ends that is a JWT, as those of registries are (RFC 7519, 4.1.4); only to fetch the next one in time.
fn expiry(token: &str) -> Option<SystemTime> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let seconds = serde_json::from_slice::<serde_json::Value>(&claims).ok()?.get("exp")?.as_u64()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn post(url: &str, form: &[(&str, &str)]) -> Result<Request<String>, Problem> {
    let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encode(value, false))).collect();
    Request::post(url).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.join("&")).map_err(
        |_| Problem::lasting(format!("{url:?} is not a valid address: check AZURE_AUTHORITY_HOST and AZURE_TENANT_ID")),
    )
}
