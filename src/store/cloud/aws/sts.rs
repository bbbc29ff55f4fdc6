//! Keys for a role, from the Security Token Service (AWS STS API Reference).

use std::{fs, time::SystemTime};

use http::{HeaderMap, Method, Request, Uri, header};

use super::{
    super::{Environment, Fetch, Problem},
    Keys, Signature, encode, hex_digest,
    profile::{Login, Profiles},
};
use crate::store::xml::Element;

/// How many profiles may lead to each other.
const MOST_PROFILES: u32 = 8;

/// How a role's log names us, unless the user has another name for it.
const SESSION: &str = "tekton-wrap";

/// See the module.
pub struct Sts<'a> {
    pub environment: &'a Environment,
    pub fetch: &'a Fetch,
}

impl Sts<'_> {
    /// Keys for the role that a service account of Kubernetes has (IAM roles for service accounts).
    pub fn web_identity(&self) -> Result<Option<Keys>, Problem> {
        let names = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"];
        match names.map(|name| self.environment.get(name)) {
            [Some(file), Some(role)] => {
                self.with_token(&role, &file, self.environment.get("AWS_ROLE_SESSION_NAME")).map(Some)
            }
            [Some(_), None] => {
                Err(Problem::lasting("AWS_WEB_IDENTITY_TOKEN_FILE is set, but not AWS_ROLE_ARN".to_owned()))
            }
            [None, _] => Ok(None),
        }
    }

    /// Keys of a profile; `depth` counts those that led here.
    pub fn of_login(&self, profiles: &Profiles, login: &Login, depth: u32) -> Result<Keys, Problem> {
        match login {
            Login::Keys(keys) => Ok(keys.clone()),
            Login::WebIdentity { role, token_file, session } => self.with_token(role, token_file, session.clone()),
            Login::Role { role, source, external_id, session } => {
                let found = profiles.named(source).and_then(|profile| profile.login);
                let login = found.filter(|_| depth < MOST_PROFILES).ok_or_else(|| {
                    Problem::lasting(format!("the source_profile {source:?} of role {role} has no credentials"))
                })?;
                let keys = self.of_login(profiles, &login, depth.saturating_add(1))?;
                self.assume(&keys, role, external_id.as_deref(), session.as_deref())
            }
            Login::Unsupported { name, setting } => Err(Problem::lasting(format!(
                "profile {name:?} logs in by {setting}, which takes Amazon's own tools: set the variables that `aws configure export-credentials --profile {name} --format env` prints"
            ))),
        }
    }

    fn with_token(&self, role: &str, file: &str, session: Option<String>) -> Result<Keys, Problem> {
        let token = fs::read_to_string(file).map_err(|error| {
            Problem::lasting(format!("{file}, named by AWS_WEB_IDENTITY_TOKEN_FILE, can't be read: {error}"))
        })?;
        let session = session.unwrap_or_else(|| SESSION.to_owned());
        let form = [("RoleArn", role), ("RoleSessionName", &session), ("WebIdentityToken", token.trim())];
        let request = self.request("AssumeRoleWithWebIdentity", &form, None)?;
        self.keys(&format!("AWS STS, asked for role {role} with the token in {file},"), request)
    }

    fn assume(
        &self,
        keys: &Keys,
        role: &str,
        external_id: Option<&str>,
        session: Option<&str>,
    ) -> Result<Keys, Problem> {
        let mut form = vec![("RoleArn", role), ("RoleSessionName", session.unwrap_or(SESSION))];
        form.extend(external_id.map(|id| ("ExternalId", id)));
        let request = self.request("AssumeRole", &form, Some(keys))?;
        self.keys(&format!("AWS STS, asked for role {role},"), request)
    }

    fn request(&self, action: &str, form: &[(&str, &str)], keys: Option<&Keys>) -> Result<Request<String>, Problem> {
        let region = super::region(self.environment)?;
        let address = match (self.environment.get("AWS_ENDPOINT_URL_STS"), &region) {
            (Some(endpoint), _) => format!("{}/", endpoint.trim_end_matches('/')),
            (None, Some(region)) if region.starts_with("cn-") => format!("https://sts.{region}.amazonaws.com.cn/"),
            (None, Some(region)) => format!("https://sts.{region}.amazonaws.com/"),
            (None, None) => "https://sts.amazonaws.com/".to_owned(),
        };
        let url: Uri =
            address.parse().map_err(|_| Problem::lasting(format!("{address:?} is no address of AWS STS")))?;
        let mut body = format!("Action={action}&Version=2011-06-15");
        form.iter().for_each(|(name, value)| body.push_str(&format!("&{name}={}", encode(value, false))));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some(keys) = keys {
            let region = region.as_deref().unwrap_or("us-east-1");
            let signature = Signature { keys, region, service: "sts", time: SystemTime::now() };
            signature.sign(&Method::POST, &url, &mut headers, &hex_digest(body.as_bytes()));
        }
        let mut request = Request::post(url).body(body).map_err(|error| Problem::lasting(error.to_string()))?;
        request.headers_mut().extend(headers);
        Ok(request)
    }

    fn keys(&self, what: &str, request: Request<String>) -> Result<Keys, Problem> {
        let fetched = self.fetch.far(what, request)?;
        let keys = Element::parse(&fetched.text).and_then(|answer| {
            let keys = answer.find("Credentials")?;
            Some(Keys {
                id: keys.text("AccessKeyId")?.to_owned(),
                secret: keys.text("SecretAccessKey")?.to_owned().into(),
                token: keys.text("SessionToken").map(|token| token.to_owned().into()),
                expires: keys.text("Expiration").and_then(super::metadata::time),
            })
        });
        keys.ok_or_else(|| Problem::lasting(format!("{what} gave an unexpected response: no credentials in it")))
    }
}
