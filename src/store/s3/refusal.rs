//! An answer of S3 that is not what was hoped for, turned into one sentence (Amazon S3 API Reference, "Error responses").

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use crate::{
    redact::redact,
    store::{
        bucket::{Asked, Said},
        layout::ObjectAction,
        net::retry::{Failure, retry_after},
        xml::Element,
    },
    target::{Bucket, is_region},
};

/// An answer, as far as it says something.
#[derive(Debug)]
pub struct S3Refusal {
    pub status: StatusCode,
    /// For example `NoSuchKey`; empty where there is none, as in answers to HEAD.
    pub code: String,
    message: String,
    /// The region that the bucket is in, where the answer tells.
    pub region: Option<String>,
    /// How long the server asks to wait.
    after: Option<Duration>,
    /// Whether the answer is no XML: a page for people.
    page: bool,
}

/// What a policy has to allow. Without the right to list, what is not there is denied as well.
fn rights(action: ObjectAction) -> &'static str {
    match action {
        ObjectAction::Find | ObjectAction::Read => "s3:GetObject and s3:ListBucket",
        ObjectAction::Store => "s3:PutObject and s3:AbortMultipartUpload",
        ObjectAction::List => "s3:ListBucket",
        ObjectAction::Copy => "s3:GetObject and s3:PutObject",
        ObjectAction::Delete => "s3:DeleteObject",
    }
}

impl S3Refusal {
    /// What an answer with this beginning of its body says.
    pub fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let text = String::from_utf8_lossy(body);
        let error = Element::parse(&text).filter(|error| error.name() == "Error");
        let said = |name: &str| error.as_ref().and_then(|error| error.text(name)).unwrap_or_default().to_owned();
        let region = header("x-amz-bucket-region").map(str::to_owned).or_else(|| Some(said("Region")));
        Self {
            status,
            code: said("Code"),
            message: said("Message"),
            region: region.filter(|region| is_region(region)),
            after: header(header::RETRY_AFTER.as_str()).and_then(|value| retry_after(value, SystemTime::now())),
            page: error.is_none() && !text.trim().is_empty(),
        }
    }

    /// What the body of a good answer says after all: some are sent before the work is done.
    pub fn in_body(status: StatusCode, text: &str) -> Option<Self> {
        let error = Element::parse(text).is_some_and(|answer| answer.name() == "Error");
        error.then(|| Self::new(status, &HeaderMap::new(), text.as_bytes()))
    }

    /// Whether there is no such object.
    pub fn is_absent(&self) -> bool {
        let says_so = ["", "NoSuchKey", "NotFound", "NoSuchVersion"].contains(&self.code.as_str()) && !self.page;
        self.status == StatusCode::NOT_FOUND && says_so
    }

    /// Whether the object is not the one of the condition any more.
    pub fn is_stale(&self) -> bool {
        self.status == StatusCode::PRECONDITION_FAILED || self.code == "ConditionalRequestConflict"
    }

    /// Whether the server does not know what it is asked for.
    pub fn is_unknown(&self) -> bool {
        self.status == StatusCode::NOT_IMPLEMENTED || self.code == "NotImplemented"
    }

    /// Whether the bucket has to be asked in another region.
    pub fn is_other_region(&self) -> bool {
        let codes = [
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "TemporaryRedirect",
            "IllegalLocationConstraintException",
        ];
        codes.contains(&self.code.as_str()) || (self.code.is_empty() && matches!(self.status.as_u16(), 301 | 307 | 400))
    }

    /// Whether the keys were good once. An answer to HEAD has no room to say so.
    pub fn is_expired(&self) -> bool {
        let codes = ["ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException"];
        codes.contains(&self.code.as_str()) || (self.code.is_empty() && matches!(self.status.as_u16(), 400 | 403))
    }

    /// Status, code and message in one line, and no more of it than one reads.
    pub fn said(&self, secrets: &[String]) -> String {
        const LENGTH: usize = 200;
        let clean = |text: &str| redact(text, secrets, LENGTH).trim_end_matches('.').to_owned();
        let number = self.status.as_u16();
        match (clean(&self.code), clean(&self.message)) {
            (code, _) if code.is_empty() => {
                format!("{number} {}", self.status.canonical_reason().unwrap_or("unknown status"))
            }
            (code, message) if message.is_empty() => format!("{number} {code}"),
            (code, message) => format!("{number} {code}: {message}"),
        }
    }

    /// The failure for what was asked in `region`.
    pub fn failure(&self, asked: &Asked<'_>, region: &str) -> Failure {
        let said = self.for_sentence(&asked.secrets);
        let waits = |verb, advice: &str| asked.waits(verb, &said, advice);
        let ends = |advice: &str| asked.ends(&said, advice);
        match (self.code.as_str(), self.status.as_u16()) {
            ("SlowDown" | "SlowDownRead" | "SlowDownWrite" | "RequestLimitExceeded" | "TooManyRequests", _)
            | (_, 429) => {
                waits("rate limited", "it asks for fewer requests: try again later, or spread runs over more prefixes")
            }
            ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired", _) => {
                denied(asked, &said, "the credentials have expired: renew them; ")
            }
            ("InvalidAccessKeyId", _) => denied(asked, &said, "there is no such access key: "),
            ("InvalidToken", _) => denied(asked, &said, "the session token is not one of the access key: "),
            ("SignatureDoesNotMatch", _) => {
                denied(asked, &said, "the secret access key is not that of the access key: ")
            }
            ("RequestTimeTooSkewed", _) => ends("the clock of this machine is wrong: set it"),
            ("NoSuchBucket", _) => {
                ends(&format!("there is no bucket {:?}: create it, or name another one", asked.bucket.bucket))
            }
            ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) => {
                ends(&format!("the bucket is not in the region {:?}: set AWS_REGION to the one that it is in", region))
            }
            ("XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded" | "InsufficientCapacity", _)
            | (_, 507) => {
                ends("there is no room left: delete images (tekton-wrap prune does it for runs), or raise the quota")
            }
            ("InvalidObjectState", _) => {
                ends("the object was moved to an archive: let no lifecycle rule of the bucket do that with this prefix")
            }
            ("BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody", _) => {
                waits("refused", "the data were damaged on the way")
            }
            ("NoSuchUpload", _) => {
                waits("refused", "the upload was forgotten; does a lifecycle rule of the bucket end uploads too soon?")
            }
            ("EntityTooLarge", _) | (_, 413) => {
                ends("it is too large for the server or for a proxy before it: raise their limit")
            }
            ("RequestTimeout", _) | (_, 408) => waits("refused", "it took too long"),
            ("OperationAborted" | "ConditionalRequestConflict", _) => {
                waits("refused", "another request changes the same object")
            }
            (_, 401 | 403) => denied(asked, &said, ""),
            (_, 500..) if self.code == "NotImplemented" => ends("the server does not know this kind of request"),
            (_, 500..) => waits("failed", "this is a fault of the server: look at its log"),
            // An error in the body of a good answer.
            (_, 200..=299) => waits("failed", "this is a fault of the server: look at its log"),
            (_, 405) => ends("the server does not allow that: is the bucket read-only?"),
            _ if self.page || self.code.is_empty() => asked.unexpected(&said, "S3"),
            _ => ends("the server does not understand the request"),
        }
    }

    fn for_sentence(&self, secrets: &[String]) -> Said {
        Said { text: self.said(secrets), after: self.after }
    }
}

fn denied(asked: &Asked<'_>, said: &Said, why: &str) -> Failure {
    let Bucket { bucket, .. } = asked.bucket;
    let rights = if !asked.anonymous && why.is_empty() {
        let prefix = asked.bucket.key("");
        format!(": a policy has to allow {} for s3://{bucket}/{prefix}*", rights(asked.action))
    } else {
        String::new()
    };
    asked.denied(said, &format!("{why}{}{rights}", asked.searched))
}

#[cfg(test)]
mod tests;
