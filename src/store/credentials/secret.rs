//! Credentials, and secrets that are never shown.

use std::fmt;

use serde::Deserialize;

/// A credential for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User name and password.
    Basic {
        /// Sent as it is.
        username: String,
        /// Sent to the registry or to its token server.
        password: Secret,
    },
    /// A token that the registry's token server exchanges for tokens of one repository (OAuth2 refresh token).
    IdentityToken(Secret),
    /// A token that the registry itself accepts.
    RegistryToken(Secret),
}

/// A string that `Debug` does not show.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The string itself, only to be sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is the empty string.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_secrets() {
        let secret = || Secret::from("hunter2".to_owned());
        let basic = Credential::Basic { username: "user".to_owned(), password: secret() };
        let shown = format!("{:?}", (basic, Credential::IdentityToken(secret())));
        assert!(shown.contains("user") && !shown.contains("hunter2"), "{shown}");
    }
}
