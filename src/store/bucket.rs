//! What clients of buckets have in common, whichever cloud these are in: what they talk with, and the sentences about what
//! went wrong.

use std::{
    collections::HashSet,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Response;
use ureq::Body;

use super::{
    StoreError, StoreOptions,
    cloud::{Environment, Fetch, Obtained, Problem},
    layout::{ListedObject, ObjectAction, Opened},
    net::{
        self,
        fault::Fault,
        http::HttpClient,
        pressure::Pressure,
        retry::{Backoff, Failure, RetryPolicy},
    },
};
use crate::target::Bucket;

/// So many bytes of a list are held: more than a million objects.
const LISTED: usize = 512 << 20;

/// So many pages of a list may have nothing in them, one after the other (Google Cloud Storage, "Objects: list").
const EMPTY_PAGES: u32 = 100;

/// How much of an answer is read to learn what it says.
pub const REFUSAL_SIZE: u64 = 1 << 16;

/// A part of a bucket, and what requests to it are sent with.
pub struct Access {
    pub bucket: Bucket,
    pub environment: Environment,
    pub client: HttpClient,
    pub fetch: Fetch,
    /// How many requests and uploads this process has under way there.
    pub pressure: Arc<Pressure>,
    kind: Cloud,
    retry: RetryPolicy,
}

/// Whose buckets they are.
#[derive(Clone, Copy, Debug)]
pub struct Cloud {
    /// The scheme of targets.
    pub scheme: &'static str,
    /// The name of the service in sentences.
    pub service: &'static str,
}

/// What was asked for, and of whom, for the sentence about a refusal.
pub struct Asked<'a> {
    /// The object.
    pub place: String,
    pub server: String,
    pub bucket: &'a Bucket,
    pub action: ObjectAction,
    /// Where credentials were looked for: a clause that says what to do.
    pub searched: String,
    /// Whether there were none.
    pub anonymous: bool,
    /// What must not be repeated.
    pub secrets: Vec<String>,
}

/// What was said in place of a good answer, for the sentence.
pub struct Said {
    /// Status, code and message in one line.
    pub text: String,
    /// How long the server asks to wait.
    pub after: Option<Duration>,
}

impl Access {
    /// To `bucket` at `address`, where up to `uploads` of its uploads run at a time.
    pub fn new(
        kind: Cloud,
        bucket: &Bucket,
        environment: Environment,
        address: &str,
        uploads: usize,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        let http = options.http.clone().unwrap_or_default();
        let pressure = Pressure::of(address);
        pressure.limit_uploads(uploads);
        Ok(Self {
            bucket: bucket.clone(),
            environment,
            client: HttpClient::new(&http)?,
            fetch: Fetch::new(&http)?,
            pressure,
            kind,
            retry: options.retry.clone(),
        })
    }
}

/// Requests to a bucket, as far as all clouds make them alike.
pub trait BucketSession {
    /// What they are sent with.
    fn access(&self) -> &Access;

    /// How errors name the server.
    fn server(&self) -> String;

    /// How errors name an object.
    fn place(&self, key: &str) -> String {
        let Access { bucket, kind, .. } = self.access();
        format!("{}://{}/{}", kind.scheme, bucket.bucket, bucket.key(key))
    }

    /// The whole key of an object.
    fn key(&self, key: &str) -> String {
        self.access().bucket.key(key)
    }

    /// The waits of a new operation.
    fn backoff(&self) -> Backoff {
        Backoff::new(&self.access().retry)
    }

    /// What was asked for, with the credentials that were `found` for it.
    fn asked<K>(&self, action: ObjectAction, key: &str, found: Option<&Obtained<K>>) -> Asked<'_> {
        Asked {
            place: self.place(key),
            server: self.server(),
            bucket: &self.access().bucket,
            action,
            searched: found.map(|found| found.searched.clone()).unwrap_or_default(),
            anonymous: found.is_none_or(|found| found.keys.is_none()),
            secrets: found.map(|found| found.secrets.clone()).unwrap_or_default(),
        }
    }

    /// The failure for a request without an answer.
    fn failed(&self, key: &str, fault: Fault) -> Failure {
        let problem = format!("{} {}", self.server(), fault.clause);
        Failure::of(StoreError::Registry { place: self.place(key), problem }, fault.transient)
    }

    /// The failure for a connection that broke while an answer was read.
    fn broken(&self, key: &str, error: io::Error) -> Failure {
        self.failed(key, Fault::of(&ureq::Error::from(error)))
    }

    /// An answer that makes no sense, as `what` says.
    fn unexpected(&self, key: &str, what: &str) -> Failure {
        let problem = format!("unexpected response from {}: {what}", self.server());
        Failure::transient(StoreError::Content { place: self.place(key), problem })
    }

    /// The failure for credentials that can't be had.
    fn without_credentials(&self, key: &str, problem: Problem) -> Failure {
        let sentence = format!("the credentials for {} can't be had: {}", self.access().kind.service, problem.clause);
        Failure::of(StoreError::Denied { place: self.place(key), problem: sentence }, problem.transient)
    }

    /// The body of a good answer, at most its first `most` bytes.
    fn body(&self, key: &str, answer: Response<Body>, most: u64) -> Result<Vec<u8>, Failure> {
        net::read_up_to(answer.into_body(), most).map_err(|error| self.broken(key, error))
    }

    /// The content that a good answer brings, from `offset` on; `is_part`: a part was asked for.
    fn opened(
        &self,
        key: &str,
        answer: Response<Body>,
        offset: u64,
        is_part: bool,
        version: String,
    ) -> Result<Opened, Failure> {
        if is_part && !net::starts_at(&answer, offset) {
            return Err(self.unexpected(key, "another part than was asked for"));
        }
        let size = net::length(&answer).ok_or_else(|| self.unexpected(key, "its length is missing"))?;
        Ok(Opened { size, version, incoming: Box::new(net::content(answer.into_body())) })
    }

    /// Warns of an upload that stays behind.
    fn not_cancelled(&self, key: &str, said: &str) {
        tracing::warn!("an upload to {} could not be cancelled: {said}", self.place(key));
    }
}

impl Asked<'_> {
    /// The server may do it later.
    pub fn waits(&self, verb: &str, said: &Said, advice: &str) -> Failure {
        Failure::Transient { error: self.error(verb, said, advice), after: said.after }
    }

    /// It is no use to ask again.
    pub fn ends(&self, said: &Said, advice: &str) -> Failure {
        Failure::Final(self.error("refused", said, advice))
    }

    /// The credentials don't allow it, or there are none.
    pub fn denied(&self, said: &Said, advice: &str) -> Failure {
        let problem = self.problem("denied", said, advice);
        Failure::Final(StoreError::Denied { place: self.place.clone(), problem })
    }

    /// What answers is perhaps no `service`.
    pub fn unexpected(&self, said: &Said, service: &str) -> Failure {
        let problem = format!("unexpected response from {} ({}): is it {service}?", self.server, said.text);
        Failure::Final(StoreError::Registry { place: self.place.clone(), problem })
    }

    fn error(&self, verb: &str, said: &Said, advice: &str) -> StoreError {
        StoreError::Registry { place: self.place.clone(), problem: self.problem(verb, said, advice) }
    }

    fn problem(&self, verb: &str, said: &Said, advice: &str) -> String {
        format!("{} {verb} {} ({}); {advice}", self.server, self.action.gerund(), said.text)
    }
}

/// All pages of the list of what begins with `prefix`; `page` reads the one of a token. What lies elsewhere is none of it. A server
/// could list without an end.
pub fn all_pages(
    session: &impl BucketSession,
    prefix: &str,
    page: impl Fn(Option<&str>) -> Result<(Vec<ListedObject>, Option<String>), Failure>,
) -> Result<Vec<ListedObject>, StoreError> {
    let wrong = |what: &str| Err(session.unexpected(prefix, what).into_error());
    let (mut all, mut token, mut beginnings, mut empty, mut room) = (Vec::new(), None, HashSet::new(), 0_u32, LISTED);
    loop {
        let (entries, next) = session.backoff().run(|| page(token.as_deref()))?;
        match entries.first() {
            None => empty = empty.saturating_add(1),
            Some(first) if !beginnings.insert(first.key.clone()) => return wrong("a list that begins again and again"),
            Some(_) => empty = 0,
        }
        if empty > EMPTY_PAGES {
            return wrong("a list of nothing, without an end");
        }
        let size = |entry: &ListedObject| {
            size_of::<ListedObject>().saturating_add(entry.key.len()).saturating_add(entry.version.len())
        };
        room = entries.iter().map(size).fold(room, usize::saturating_sub);
        if room == 0 {
            return wrong("a list that is too long: delete what is not needed, or take another prefix for it");
        }
        all.extend(entries.into_iter().filter(|entry| entry.key.starts_with(prefix)));
        if next.is_none() {
            return Ok(all);
        }
        token = next;
    }
}

/// The value of `Range` for at most `len` bytes from `offset` on; none for everything.
pub fn byte_range(offset: u64, len: Option<u64>) -> Option<String> {
    let last = len.map(|len| offset.saturating_add(len).saturating_sub(1).to_string()).unwrap_or_default();
    (offset > 0 || len.is_some()).then(|| format!("bytes={offset}-{last}"))
}

/// A time as both clouds write it (RFC 3339).
pub fn time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

#[cfg(test)]
pub mod tests;
