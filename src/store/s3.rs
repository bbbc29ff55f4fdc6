//! A bucket of Amazon S3, or of anything that speaks its protocol (Amazon S3 API Reference).
//!
//! | module | contents |
//! |---|---|
//! | `address` | which server, and how it is told the bucket |
//! | `session` | one request: signed, and tried again where the region or the keys were wrong |
//! | `refusal` | what to say when it fails |
//! | `multipart` | what is too large for one request |

mod address;
mod multipart;
mod refusal;
mod session;

use std::{io, time::SystemTime};

use http::{HeaderName, Method, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use ureq::Body;

use self::{
    refusal::S3Refusal,
    session::{S3Call, S3Session},
};
use super::{
    StoreError, StoreOptions,
    bucket::{BucketSession, all_pages, byte_range, time},
    cloud::aws::encode,
    layout::{FoundObject, ListedObject, ObjectAction, Objects, Opened},
    net::{
        self,
        blocks::BlockReader,
        drain, length,
        pressure::Permit,
        retry::{Backoff, Failure},
    },
    xml::Element,
};
use crate::target::{Bucket, Target};

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const METADATA_DIRECTIVE: HeaderName = HeaderName::from_static("x-amz-metadata-directive");

/// See the module.
pub struct S3Objects {
    session: S3Session,
    sizes: CopySizes,
}

/// What is too large for one request.
#[derive(Clone, Copy, Debug)]
struct CopySizes {
    /// Copies are made in one request up to this size. Amazon allows 5 GiB, which would take longer than a silent connection
    /// may last.
    single_copy: u64,
    /// The size of the parts of a larger one.
    copy_part: u64,
}

const SIZES: CopySizes = CopySizes { single_copy: 1 << 30, copy_part: 512 << 20 };

/// An answer is read up to this size: a list of 1000 names, each up to 1024 bytes, three for one where they are encoded.
const ANSWER_SIZE: u64 = 8 << 20;

impl S3Objects {
    /// What is in `bucket`. Nothing is sent yet.
    pub fn new(bucket: &Bucket, options: &StoreOptions) -> Result<Self, StoreError> {
        Ok(Self { session: S3Session::new(bucket, options)?, sizes: SIZES })
    }

    fn find_once(&self, key: &str) -> Result<Option<FoundObject>, Failure> {
        let answer = self.session.call(&S3Call::of(&Method::HEAD, key))?;
        match answer {
            Ok(answer) => {
                let (size, modified) = (length(&answer).unwrap_or_default(), modified(&answer));
                drain(answer);
                Ok(Some(FoundObject { size, modified }))
            }
            Err(refusal) if refusal.is_absent() => Ok(None),
            Err(refusal) if refusal.status.is_client_error() || refusal.status.is_redirection() => {
                self.find_by_reading(key)
            }
            Err(refusal) => Err(self.session.failure(ObjectAction::Find, key, &refusal)),
        }
    }

    /// The same by a request whose answer has room for a reason, which one to HEAD has not.
    fn find_by_reading(&self, key: &str) -> Result<Option<FoundObject>, Failure> {
        let first_byte = [(header::RANGE, "bytes=0-0")];
        match self.session.call(&S3Call { headers: &first_byte, ..S3Call::of(&Method::GET, key) })? {
            Ok(answer) => {
                let range = net::text(&answer, "content-range");
                let size = range.and_then(|range| range.rsplit_once('/')?.1.parse().ok());
                let found =
                    FoundObject { size: size.or(length(&answer)).unwrap_or_default(), modified: modified(&answer) };
                drain(answer);
                Ok(Some(found))
            }
            Err(refusal) if refusal.status == StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(Some(FoundObject { size: 0, modified: None }))
            }
            Err(refusal) if refusal.is_absent() => Ok(None),
            Err(refusal) => Err(self.session.failure(ObjectAction::Find, key, &refusal)),
        }
    }

    fn list_page(&self, prefix: &str, token: Option<&str>) -> Result<(Vec<ListedObject>, Option<String>), Failure> {
        let (folder, whole) = (self.session.key(""), self.session.key(prefix));
        let mut query = vec![("list-type", "2"), ("encoding-type", "url"), ("prefix", &whole)];
        query.extend(token.map(|token| ("continuation-token", token)));
        let call = S3Call { query: &query, in_bucket: true, ..S3Call::of(&Method::GET, prefix) };
        let answer = self.session.call(&call)?;
        let answer = answer.map_err(|refusal| self.session.failure(ObjectAction::List, prefix, &refusal))?;
        let list = self.parse(prefix, answer)?;
        let entry = |contents: &Element| {
            let key = percent_decode_str(contents.text("Key")?).decode_utf8().ok()?;
            Some(ListedObject {
                key: key.strip_prefix(&folder)?.to_owned(),
                modified: contents.text("LastModified").and_then(time),
                version: contents.text("ETag")?.to_owned(),
            })
        };
        let entries = list.all("Contents").filter_map(entry).collect();
        let more = list.text("IsTruncated") == Some("true");
        Ok((entries, list.text("NextContinuationToken").filter(|_| more).map(str::to_owned)))
    }

    /// One request that copies; `source` is a bucket and a key in it.
    fn copy_once(&self, source: &str, to: &str, replaces: bool) -> Result<Result<(), S3Refusal>, Failure> {
        let source = encode(source, true);
        let mut headers = vec![(COPY_SOURCE, source.as_str())];
        if replaces {
            // A copy onto itself is refused unless it changes something.
            headers.push((METADATA_DIRECTIVE, "REPLACE"));
        }
        let call = S3Call { headers: &headers, body: Some(&[]), ..S3Call::of(&Method::PUT, to) };
        let answer = match self.session.call(&call)? {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (status, text) = (answer.status(), self.text(to, answer)?);
        // The status is sent before the copy is made.
        Ok(match S3Refusal::in_body(status, &text) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        })
    }

    fn copy_any(&self, from: &str, to: &str, size: u64, replaces: bool) -> Result<bool, StoreError> {
        if size > self.sizes.single_copy {
            return self.copy_in_parts(from, to, size);
        }
        let source = self.session.source(from);
        self.session.backoff().run(|| match self.copy_once(&source, to, replaces)? {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.is_absent() => Ok(false),
            Err(refusal) => Err(self.session.failure(ObjectAction::Copy, to, &refusal)),
        })
    }

    fn delete_once(&self, key: &str, only: Option<&str>) -> Result<bool, Failure> {
        let condition = only.map(|version| (header::IF_MATCH, version));
        let call = S3Call { headers: condition.as_slice(), ..S3Call::of(&Method::DELETE, key) };
        match self.session.call(&call)? {
            Ok(answer) => {
                drain(answer);
                Ok(true)
            }
            Err(refusal) if refusal.is_absent() || refusal.is_stale() => Ok(false),
            // Not every server knows conditions here.
            Err(refusal) if only.is_some() && refusal.is_unknown() => self.delete_once(key, None),
            Err(refusal) => Err(self.session.failure(ObjectAction::Delete, key, &refusal)),
        }
    }

    /// The text of a good answer.
    fn text(&self, key: &str, answer: Response<Body>) -> Result<String, Failure> {
        let bytes = self.session.body(key, answer, ANSWER_SIZE)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn parse(&self, key: &str, answer: Response<Body>) -> Result<Element, Failure> {
        let text = self.text(key, answer)?;
        Element::parse(&text).ok_or_else(|| self.session.unexpected(key, "no XML in it; is it S3?"))
    }
}

impl Objects for S3Objects {
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
        let call = S3Call { headers: range.as_slice(), ..S3Call::of(&Method::GET, key) };
        let answer = match self.session.call(&call)? {
            Ok(answer) => answer,
            Err(refusal) if refusal.is_absent() => return Ok(None),
            Err(refusal) if refusal.status == StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Some(Opened::nothing())),
            Err(refusal) => return Err(self.session.failure(ObjectAction::Read, key, &refusal)),
        };
        let version = etag(&answer);
        self.session.opened(key, answer, offset, range.is_some(), version).map(Some)
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.session.backoff().run(|| {
            let call = S3Call { body: Some(bytes), ..S3Call::of(&Method::PUT, key) };
            let answer = self.session.call(&call)?;
            answer.map(drain).map_err(|refusal| self.session.failure(ObjectAction::Store, key, &refusal))
        })
    }

    fn put_stream(&self, key: &str, first: Vec<u8>, body: &mut BlockReader) -> Result<(), Failure> {
        self.upload_in_parts(key, first, body)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>, StoreError> {
        all_pages(&self.session, prefix, |token| self.list_page(prefix, token))
    }

    fn copy(&self, from: &str, to: &str, size: u64) -> Result<bool, StoreError> {
        self.copy_any(from, to, size, false)
    }

    fn copy_from(&self, from: &Target, key: &str) -> Result<bool, StoreError> {
        let Target::S3(from) = from else { return Ok(false) };
        let source = format!("{}/{}", from.bucket, from.key(key));
        self.session.backoff().run(|| match self.copy_once(&source, key, false)? {
            Ok(()) => Ok(true),
            // What we may not read there, or is too large for one request, comes by way of this machine.
            Err(refusal) if refusal.status.is_client_error() && refusal.status != StatusCode::TOO_MANY_REQUESTS => {
                Ok(false)
            }
            Err(refusal) => Err(self.session.failure(ObjectAction::Copy, key, &refusal)),
        })
    }

    fn touch(&self, key: &str, size: u64) -> Result<bool, StoreError> {
        self.copy_any(key, key, size, true)
    }

    fn delete(&self, key: &str, only: Option<&str>) -> Result<bool, StoreError> {
        // Deleting what is not there succeeds as well.
        if only.is_none() && self.find(key)?.is_none() {
            return Ok(false);
        }
        self.session.backoff().run(|| self.delete_once(key, only))
    }
}

fn modified(answer: &Response<Body>) -> Option<SystemTime> {
    httpdate::parse_http_date(net::text(answer, "last-modified")?).ok()
}

fn etag(answer: &Response<Body>) -> String {
    net::text(answer, "etag").unwrap_or_default().to_owned()
}
