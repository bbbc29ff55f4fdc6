//! A bucket of Google Cloud Storage (its JSON API).
//!
//! | module | contents |
//! |---|---|
//! | `session` | one request, with an access token |
//! | `refusal` | what to say when it fails |
//! | `resumable` | what is too large for one request |

mod refusal;
mod resumable;
mod session;

use std::io;

use http::{Method, Response, StatusCode, Uri, header};
use serde::Deserialize;
use ureq::Body;

use self::{
    refusal::GcsRefusal,
    session::{GcsCall, GcsSession},
};
use super::{
    StoreError, StoreOptions,
    bucket::{BucketSession, all_pages, byte_range, time},
    cloud::aws::encode,
    layout::{FoundObject, ListedObject, ObjectAction, Objects, Opened},
    net::{
        self,
        blocks::BlockReader,
        drain,
        pressure::Permit,
        retry::{Backoff, Failure},
    },
};
use crate::target::{Bucket, Target};

/// See the module.
pub struct GcsObjects {
    session: GcsSession,
}

/// An object's metadata, as far as it concerns us (JSON API, "Objects").
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMetadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    size: String,
    #[serde(default)]
    generation: String,
    time_created: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectsPage {
    #[serde(default)]
    items: Vec<ObjectMetadata>,
    next_page_token: Option<String>,
}

/// The answer to a part of a copy.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rewritten {
    #[serde(default)]
    done: bool,
    rewrite_token: Option<String>,
}

/// So many requests make a copy: each of them may copy for half a minute.
const REWRITES: usize = 200;

/// An answer is read up to this size: a list of 1000 objects.
const ANSWER_SIZE: u64 = 8 << 20;

impl GcsObjects {
    /// What is in `bucket`. Nothing is sent yet.
    pub fn new(bucket: &Bucket, options: &StoreOptions) -> Result<Self, StoreError> {
        Ok(Self { session: GcsSession::new(bucket, options)? })
    }

    fn find_once(&self, key: &str) -> Result<Option<FoundObject>, Failure> {
        let url = self.session.object_url(key, "fields=size,generation,timeCreated")?;
        match self.session.call(&GcsCall::of(&Method::GET, key, url))? {
            Ok(answer) => {
                let found: ObjectMetadata = self.parse(key, answer)?;
                let size = found.size.parse().map_err(|_| self.session.unexpected(key, "its size is missing"))?;
                Ok(Some(FoundObject { size, modified: found.time_created.as_deref().and_then(time) }))
            }
            Err(refusal) if refusal.is_absent() => Ok(None),
            Err(refusal) => Err(self.session.failure(ObjectAction::Find, key, &refusal)),
        }
    }

    fn list_page(&self, prefix: &str, token: Option<&str>) -> Result<ObjectsPage, Failure> {
        let token = token.map(|token| format!("&pageToken={}", encode(token, false))).unwrap_or_default();
        let query = format!(
            "prefix={}&fields=items(name,generation,timeCreated),nextPageToken{token}",
            encode(&self.session.key(prefix), false)
        );
        let url = self.session.url(&format!("/storage/v1/b/{}/o?{query}", self.session.bucket()))?;
        let answer = self.session.call(&GcsCall::of(&Method::GET, prefix, url))?;
        let answer = answer.map_err(|refusal| self.session.failure(ObjectAction::List, prefix, &refusal))?;
        self.parse(prefix, answer)
    }

    /// Copies; `source` is a bucket and a key in it. Large objects take several requests.
    fn rewrite(&self, bucket: &str, source: &str, to: &str) -> Result<Result<(), GcsRefusal>, Failure> {
        let path = format!(
            "/storage/v1/b/{bucket}/o/{}/rewriteTo/b/{}/o/{}",
            encode(source, false),
            self.session.bucket(),
            encode(&self.session.key(to), false)
        );
        let mut token = String::new();
        for _ in 0..REWRITES {
            let url = self.session.url(&format!("{path}{token}"))?;
            let answer = match self.session.call(&GcsCall { body: Some(b""), ..GcsCall::of(&Method::POST, to, url) })? {
                Ok(answer) => answer,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let Rewritten { done, rewrite_token } = self.parse(to, answer)?;
            match rewrite_token {
                _ if done => return Ok(Ok(())),
                Some(next) => token = format!("?rewriteToken={}", encode(&next, false)),
                None => return Err(self.session.unexpected(to, "it neither copied nor said how to go on")),
            }
        }
        Err(Failure::Final(self.session.unexpected(to, "a copy without an end").into_error()))
    }

    fn copy_own(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        self.session.backoff().run(|| match self.rewrite(self.session.bucket(), &self.session.key(from), to)? {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.is_absent() => Ok(false),
            Err(refusal) => Err(self.session.failure(ObjectAction::Copy, to, &refusal)),
        })
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, key: &str, answer: Response<Body>) -> Result<T, Failure> {
        let bytes = self.session.body(key, answer, ANSWER_SIZE)?;
        serde_json::from_slice(&bytes)
            .map_err(|_| self.session.unexpected(key, "no JSON in it; is it Google Cloud Storage?"))
    }

    fn upload_url(&self, key: &str, kind: &str) -> Result<Uri, Failure> {
        let name = encode(&self.session.key(key), false);
        self.session.url(&format!("/upload/storage/v1/b/{}/o?uploadType={kind}&name={name}", self.session.bucket()))
    }
}

impl Objects for GcsObjects {
    fn place(&self, key: &str) -> String {
        self.session.place(key)
    }

    fn backoff(&self) -> Backoff {
        self.session.backoff()
    }

    fn upload_permit(&self) -> Permit<'_> {
        self.session.access().pressure.upload()
    }

    fn broken(&self, key: &str, error: io::Error) -> Failure {
        self.session.broken(key, error)
    }

    fn find(&self, key: &str) -> Result<Option<FoundObject>, StoreError> {
        self.session.backoff().run(|| self.find_once(key))
    }

    fn open(&self, key: &str, offset: u64, len: Option<u64>) -> Result<Option<Opened>, Failure> {
        let range = byte_range(offset, len);
        let range = range.as_deref().map(|range| (header::RANGE, range));
        let url = self.session.object_url(key, "alt=media")?;
        let answer = match self
            .session
            .call(&GcsCall { headers: range.as_slice(), ..GcsCall::of(&Method::GET, key, url) })?
        {
            Ok(answer) => answer,
            Err(refusal) if refusal.is_absent() => return Ok(None),
            Err(refusal) if refusal.status == StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Some(Opened::nothing())),
            Err(refusal) => return Err(self.session.failure(ObjectAction::Read, key, &refusal)),
        };
        let version = net::text(&answer, "x-goog-generation").unwrap_or_default().to_owned();
        self.session.opened(key, answer, offset, range.is_some(), version).map(Some)
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.session.backoff().run(|| {
            let url = self.upload_url(key, "media")?;
            let answer = self.session.call(&GcsCall { body: Some(bytes), ..GcsCall::of(&Method::POST, key, url) })?;
            answer.map(drain).map_err(|refusal| self.session.failure(ObjectAction::Store, key, &refusal))
        })
    }

    fn put_stream(&self, key: &str, first: Vec<u8>, body: &mut BlockReader) -> Result<(), Failure> {
        self.upload_in_parts(key, first, body)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>, StoreError> {
        let folder = self.session.key("");
        let entry = |item: ObjectMetadata| {
            let key = item.name.strip_prefix(&folder)?.to_owned();
            Some(ListedObject { key, modified: item.time_created.as_deref().and_then(time), version: item.generation })
        };
        all_pages(&self.session, prefix, |token| {
            let ObjectsPage { items, next_page_token } = self.list_page(prefix, token)?;
            Ok((items.into_iter().filter_map(entry).collect(), next_page_token.filter(|token| !token.is_empty())))
        })
    }

    fn copy(&self, from: &str, to: &str, _size: u64) -> Result<bool, StoreError> {
        self.copy_own(from, to)
    }

    fn copy_from(&self, from: &Target, key: &str) -> Result<bool, StoreError> {
        let Target::Gcs(from) = from else { return Ok(false) };
        self.session.backoff().run(|| match self.rewrite(&from.bucket, &from.key(key), key)? {
            Ok(()) => Ok(true),
            // What we may not read there comes by way of this machine.
            Err(refusal) if refusal.status.is_client_error() && refusal.status != StatusCode::TOO_MANY_REQUESTS => {
                Ok(false)
            }
            Err(refusal) => Err(self.session.failure(ObjectAction::Copy, key, &refusal)),
        })
    }

    fn touch(&self, key: &str, _size: u64) -> Result<bool, StoreError> {
        self.copy_own(key, key)
    }

    fn delete(&self, key: &str, only: Option<&str>) -> Result<bool, StoreError> {
        let condition = only.map(|version| format!("ifGenerationMatch={version}")).unwrap_or_default();
        self.session.backoff().run(|| {
            let url = self.session.object_url(key, &condition)?;
            match self.session.call(&GcsCall::of(&Method::DELETE, key, url))? {
                Ok(answer) => {
                    drain(answer);
                    Ok(true)
                }
                Err(refusal) if refusal.is_absent() || refusal.is_stale() => Ok(false),
                Err(refusal) => Err(self.session.failure(ObjectAction::Delete, key, &refusal)),
            }
        })
    }
}
