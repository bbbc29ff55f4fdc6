//! Files with credentials (Google Cloud, "Application Default Credentials"; AIP-4112, AIP-4113, AIP-4117).

use serde::Deserialize;

use crate::store::credentials::Secret;

/// What a file may hold.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CredentialsFile {
    /// A key of a service account.
    ServiceAccount {
        client_email: String,
        private_key: Secret,
        private_key_id: Option<String>,
        token_uri: Option<String>,
    },
    /// What `gcloud auth application-default login` leaves.
    AuthorizedUser { client_id: String, client_secret: Secret, refresh_token: Secret },
    /// Workload identity federation: a token of another issuer.
    ExternalAccount {
        audience: String,
        subject_token_type: String,
        token_url: String,
        service_account_impersonation_url: Option<String>,
        credential_source: TokenSource,
    },
    /// A service account that the one of another file may act as.
    ImpersonatedServiceAccount { service_account_impersonation_url: String, source_credentials: Box<CredentialsFile> },
}

/// Where the token of the other issuer is.
#[derive(Debug, Deserialize)]
pub struct TokenSource {
    pub file: Option<String>,
    pub url: Option<String>,
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
    pub format: Option<TokenFormat>,
}

/// The form that it has there.
#[derive(Debug, Deserialize)]
pub struct TokenFormat {
    #[serde(rename = "type")]
    pub kind: String,
    pub subject_token_field_name: Option<String>,
}

/// What is wrong with a file: a clause, without any of its content but names.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFile {
    #[error("it is not a file with Google credentials: it has no type")]
    NoType,
    #[error("credentials of type {0:?} are not supported")]
    Unsupported(String),
    #[error("the credentials of type {kind:?} have no {field:?}")]
    Missing { kind: String, field: String },
    #[error("the credentials of type {0:?} have a value of the wrong type")]
    WrongType(String),
}

impl CredentialsFile {
    /// What is in the file.
    pub fn parse(text: &str) -> Result<Self, InvalidFile> {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            kind: String,
        }
        let Typed { kind } = serde_json::from_str(text).map_err(|_| InvalidFile::NoType)?;
        let error = match serde_json::from_str(text) {
            Ok(file) => return Ok(file),
            Err(error) => error.to_string(),
        };
        let kinds = ["service_account", "authorized_user", "external_account", "impersonated_service_account"];
        if !kinds.contains(&kind.as_str()) {
            return Err(InvalidFile::Unsupported(kind));
        }
        // Any other message may have a part of the content in it.
        Err(match error.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
            Some((field, _)) => InvalidFile::Missing { kind, field: field.to_owned() },
            None => InvalidFile::WrongType(kind),
        })
    }
}
