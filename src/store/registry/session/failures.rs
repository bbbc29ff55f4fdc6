//! Failed requests as errors.

use std::io;

use http::Response;
use ureq::Body;

use super::{ERROR_SIZE, RegistryRequest, Session};
use crate::store::{
    StoreError,
    net::{
        fault::{Fault, FaultKind},
        read_reason,
        retry::Failure,
    },
    registry::{error_response::RequestContext, operation::Operation},
};

impl Session {
    /// The failure for an error response to `request`.
    pub fn refused(&self, request: &RegistryRequest<'_>, response: Response<Body>) -> Failure {
        self.refused_to(request.operation, request.place, response)
    }

    /// The same without the request.
    pub fn refused_to(&self, operation: Operation, place: &str, response: Response<Body>) -> Failure {
        let (parts, text) = read_reason(response, ERROR_SIZE);
        let candidates = &self.options.auth.candidates;
        let context = RequestContext {
            place: place.to_owned(),
            registry: &self.image.registry,
            repository: &self.image.repository,
            operation,
            searched: candidates.searched(),
            anonymous: candidates.count() == 0,
            secrets: candidates.secrets(),
        };
        context.failure(parts.status, &parts.headers, &text)
    }

    /// The failure for a connection that broke while a response was read.
    pub fn broken_reading(&self, place: &str, error: io::Error) -> Failure {
        self.failed(place, &Fault::of(&ureq::Error::from(error)))
    }

    /// The failure for a response that violates the protocol, as `what` says.
    pub fn unexpected(&self, place: &str, what: &str) -> Failure {
        let problem = format!("unexpected response from {}: {what}", self.image.registry);
        Failure::Final(StoreError::Content { place: place.to_owned(), problem })
    }

    /// The failure for a request without a response.
    pub(super) fn failed(&self, place: &str, fault: &Fault) -> Failure {
        let registry = &self.image.registry;
        let advice = match fault.kind {
            FaultKind::NoTls => format!(
                "; where it is meant to be asked over plain HTTP, list it in TEKTON_WRAP_INSECURE or --insecure: {registry}"
            ),
            _ => String::new(),
        };
        failure(registry, place, &Fault { clause: format!("{}{advice}", fault.clause), ..fault.clone() })
    }
}

/// The failure for a request to `host` without a response.
pub(super) fn failure(host: &str, place: &str, fault: &Fault) -> Failure {
    let error = StoreError::Registry { place: place.to_owned(), problem: format!("{host} {}", fault.clause) };
    if fault.transient { Failure::transient(error) } else { Failure::Final(error) }
}

/// The same failure as one that is worth another attempt.
pub(super) fn transient(failure: Failure) -> Failure {
    match failure {
        Failure::Final(error) => Failure::transient(error),
        transient => transient,
    }
}
