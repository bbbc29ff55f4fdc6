//! What is in a file, exchanged for a token.

use std::{fs, time::SystemTime};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::{Request, Uri, header};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::{Value, json};

use super::{
    super::{Fetch, Problem, aws::encode},
    AccessToken, SCOPE,
    file::{CredentialsFile, TokenSource},
    parse,
};
use crate::store::credentials::Secret;

const TOKEN_SERVER: &str = "https://oauth2.googleapis.com/token";

/// How long a token is asked for, in seconds.
const LIFETIME: u64 = 3600;

/// See the module.
pub struct Exchange<'a> {
    pub fetch: &'a Fetch,
    /// The file, for errors.
    pub place: &'a str,
}

impl Exchange<'_> {
    /// A token for what is in the file.
    pub fn token(&self, file: &CredentialsFile) -> Result<AccessToken, Problem> {
        match file {
            CredentialsFile::ServiceAccount { client_email, private_key, private_key_id, token_uri } => {
                let server = token_uri.as_deref().unwrap_or(TOKEN_SERVER);
                let assertion = self.assertion(client_email, private_key, private_key_id.as_deref(), server)?;
                let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)];
                self.ask(server, &form)
            }
            CredentialsFile::AuthorizedUser { client_id, client_secret, refresh_token } => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret.expose()),
                    ("refresh_token", refresh_token.expose()),
                ];
                self.ask(TOKEN_SERVER, &form)
            }
            CredentialsFile::ExternalAccount {
                audience,
                subject_token_type,
                token_url,
                service_account_impersonation_url,
                credential_source,
            } => {
                let subject = self.subject_token(credential_source)?;
                let form = [
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("audience", audience),
                    ("scope", SCOPE),
                    ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                    ("subject_token_type", subject_token_type),
                    ("subject_token", subject.expose()),
                ];
                let token = self.ask(token_url, &form)?;
                match service_account_impersonation_url {
                    Some(url) => self.impersonate(url, &token),
                    None => Ok(token),
                }
            }
            CredentialsFile::ImpersonatedServiceAccount { service_account_impersonation_url, source_credentials } => {
                let nested = matches!(**source_credentials, CredentialsFile::ImpersonatedServiceAccount { .. });
                if nested {
                    return Err(self.problem("its source_credentials impersonate again"));
                }
                self.impersonate(service_account_impersonation_url, &self.token(source_credentials)?)
            }
        }
    }

    /// A JWT that the service account signs (RFC 7523; Google, "Using OAuth 2.0 for Server to Server Applications").
    fn assertion(&self, email: &str, key: &Secret, id: Option<&str>, audience: &str) -> Result<String, Problem> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut head = json!({"alg": "RS256", "typ": "JWT"});
        if let (Some(id), Some(head)) = (id, head.as_object_mut()) {
            head.insert("kid".to_owned(), json!(id));
        }
        let claims =
            json!({"iss": email, "scope": SCOPE, "aud": audience, "iat": now, "exp": now.saturating_add(LIFETIME)});
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let pair = private_key(key.expose())
            .ok_or_else(|| self.problem("its private_key is not an RSA key in PEM form (PKCS #8)"))?;
        let mut signature = vec![0; pair.public().modulus_len()];
        let done = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
        done.map_err(|_| self.problem("its private_key can't sign"))?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    fn subject_token(&self, source: &TokenSource) -> Result<Secret, Problem> {
        let text = match (&source.file, &source.url) {
            (Some(file), _) => fs::read_to_string(file).map_err(|error| {
                Problem::lasting(format!("{file}, which {} takes the token from, can't be read: {error}", self.place))
            })?,
            (None, Some(url)) => {
                let mut request = Request::get(url.as_str());
                for (name, value) in &source.headers {
                    request = request.header(name, value);
                }
                let what = format!("{url}, which {} takes the token from,", self.place);
                let request = request
                    .body(String::new())
                    .map_err(|error| Problem::lasting(format!("{what} is no address: {error}")))?;
                self.fetch.far(&what, request)?.text
            }
            (None, None) => {
                return Err(
                    self.problem("its credential_source is neither a file nor a url, the only ones that are supported")
                );
            }
        };
        let field = source
            .format
            .as_ref()
            .filter(|format| format.kind == "json")
            .map(|format| format.subject_token_field_name.clone().unwrap_or_default());
        match field {
            None => Ok(text.trim().to_owned().into()),
            Some(field) => {
                let json: Value = serde_json::from_str(&text).unwrap_or_default();
                let token = json.get(&field).and_then(Value::as_str);
                token
                    .map(|token| token.to_owned().into())
                    .ok_or_else(|| self.problem("what its credential_source gives has no token in it"))
            }
        }
    }

    fn ask(&self, server: &str, form: &[(&str, &str)]) -> Result<AccessToken, Problem> {
        let url = self.safe(server)?;
        let pairs = form.iter().map(|(name, value)| format!("{name}={}", encode(value, false)));
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(pairs.collect::<Vec<_>>().join("&"));
        let what = format!("{server}, asked for a token for {},", self.place);
        let request = request.map_err(|error| self.problem(&error.to_string()))?;
        parse(&what, &self.fetch.far(&what, request)?.text)
    }

    /// Another service account's token (IAM Credentials API, generateAccessToken).
    fn impersonate(&self, url: &str, token: &AccessToken) -> Result<AccessToken, Problem> {
        let body = json!({"scope": [SCOPE], "lifetime": format!("{LIFETIME}s")}).to_string();
        let request = Request::post(self.safe(url)?)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.secret.expose()))
            .body(body);
        let what = format!("{url}, asked for a token for {},", self.place);
        let request = request.map_err(|error| self.problem(&error.to_string()))?;
        let answer: Value = serde_json::from_str(&self.fetch.far(&what, request)?.text).unwrap_or_default();
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        let secret = text("accessToken")
            .ok_or_else(|| Problem::lasting(format!("{what} gave an unexpected response: no token in it")))?;
        let expires = text("expireTime").and_then(|time| time.parse::<jiff::Timestamp>().ok());
        Ok(AccessToken { secret: secret.to_owned().into(), expires: expires.map(SystemTime::from) })
    }

    /// Secrets go there: over HTTPS, or to this machine.
    fn safe(&self, address: &str) -> Result<Uri, Problem> {
        let url: Uri = address.parse().map_err(|_| self.problem(&format!("{address:?} is no address")))?;
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let own = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if url.scheme_str() != Some("https") && !own {
            return Err(self.problem(&format!("{address:?} is without HTTPS; credentials are not sent there")));
        }
        Ok(url)
    }

    fn problem(&self, why: &str) -> Problem {
        Problem::lasting(format!("{}: {why}", self.place))
    }
}

/// The key in a text of the form `-----BEGIN PRIVATE KEY-----`.
fn private_key(pem: &str) -> Option<RsaKeyPair> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let text: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    RsaKeyPair::from_pkcs8(&BASE64_STANDARD.decode(text).ok()?).ok()
}
