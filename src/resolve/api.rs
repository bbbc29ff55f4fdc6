//! What the Kubernetes API says when it does not do what it was asked for.

use http::StatusCode;
use kube::core::Status;

/// How much of its own words is passed on, in characters.
const MAX_SHOWN: usize = 600;

/// The error that an answer of this status and body is.
pub fn refused(code: StatusCode, body: &[u8]) -> kube::Error {
    let status = serde_json::from_slice(body)
        .unwrap_or_else(|_| Status::failure(&String::from_utf8_lossy(body), "not a Status").with_code(code.as_u16()));
    kube::Error::Api(status.boxed())
}

/// Whether the same request may succeed a moment later: the API can't be reached, does not answer, or is overloaded.
pub fn is_outage(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || status.code == 429,
        // An answer that is not JSON, or that is cut off.
        kube::Error::SerdeError(error) => error.is_eof(),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// A clause for sentences.
pub fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let said: String = one_line(&status.message).chars().take(MAX_SHOWN).collect();
            format!("the Kubernetes API answered {} {said}", status.code)
        }
        error => format!("the Kubernetes API can't be used: {}", root(error)),
    }
}

/// `text` without line breaks and repeated spaces.
pub fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What lies at the bottom of a client's error: "Connection refused" rather than "client error".
fn root(error: &kube::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
