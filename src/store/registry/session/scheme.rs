//! Whether a registry is accessed over HTTPS or plain HTTP.

use std::sync::{Mutex, OnceLock, PoisonError};

use http::StatusCode;

use super::Session;
use crate::store::net::{
    drain,
    fault::{Fault, FaultKind},
    origin::RegistryOrigin,
    retry::Failure,
};

/// The result of the probe, which runs once however many threads need it.
#[derive(Debug, Default)]
pub(super) struct Scheme {
    origin: OnceLock<RegistryOrigin>,
    probing: Mutex<()>,
}

impl Session {
    /// The registry's origin. Where plain HTTP is allowed, HTTPS is tried first; a registry that speaks HTTPS but can't be
    /// trusted is not asked again over plain HTTP.
    pub(super) fn origin(&self) -> Result<&RegistryOrigin, Failure> {
        if let Some(origin) = self.scheme.origin.get() {
            return Ok(origin);
        }
        let _probing = self.scheme.probing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = self.scheme.origin.get() {
            return Ok(origin);
        }
        let found = self.probe().map_err(|fault| self.failed(&self.image.to_string(), &fault))?;
        Ok(self.scheme.origin.get_or_init(|| found))
    }

    /// Whether the host is a registry, as it says at the endpoint that every registry has (OCI distribution-spec,
    /// "Determining Support").
    pub fn is_registry(&self) -> bool {
        let status = self.origin().ok().and_then(|origin| self.ping(origin).ok());
        status.is_some_and(|status| matches!(status, StatusCode::OK | StatusCode::UNAUTHORIZED))
    }

    fn probe(&self) -> Result<RegistryOrigin, Fault> {
        let https = RegistryOrigin { scheme: "https", host: self.image.registry.clone() };
        if !self.options.plain.allow(&https.host) {
            return Ok(https);
        }
        let over_tls = match self.ping(&https) {
            Ok(_) => return Ok(https),
            Err(fault) if fault.kind == FaultKind::Untrusted => return Err(fault),
            Err(fault) => fault,
        };
        let http = RegistryOrigin { scheme: "http", ..https };
        match self.ping(&http)? {
            // The response of a TLS server to a request in plain text.
            StatusCode::BAD_REQUEST => Err(over_tls),
            _ => Ok(http),
        }
    }

    /// `GET /v2/`. Its challenge spares the first request a 401.
    fn ping(&self, origin: &RegistryOrigin) -> Result<StatusCode, Fault> {
        let url = origin.url("/v2/").map_err(|error| Fault::of(&ureq::Error::Http(error)))?;
        let response = self.options.client.probe(&url)?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            self.options.auth.challenged(response.headers(), "", None);
        }
        drain(response);
        Ok(status)
    }
}
