//! What is too large for one request (Amazon S3 User Guide, "Uploading and copying objects using multipart upload").

use std::fmt::Write as _;

use http::{HeaderName, Method};

use super::{COPY_SOURCE, S3Objects, S3Refusal, session::S3Call};
use crate::store::{
    StoreError,
    bucket::BucketSession,
    cloud::aws::encode,
    layout::{ObjectAction, Objects},
    net::{blocks::BlockReader, drain, retry::Failure},
    xml::Element,
};

/// The size of a part, all of which have to be of one size on some servers. With [`MOST_PARTS`] of them a blob may have 78 GiB.
const PART: usize = 8 << 20;

/// No server takes more.
const MOST_PARTS: usize = 10_000;

const COPY_RANGE: HeaderName = HeaderName::from_static("x-amz-copy-source-range");

/// An upload that was begun. It is taken back unless it is completed.
struct MultipartUpload<'a> {
    objects: &'a S3Objects,
    key: &'a str,
    id: String,
    /// What the server calls the parts that it has.
    parts: Vec<String>,
    completed: bool,
}

impl S3Objects {
    /// Stores `first` and then what `body` brings.
    pub(super) fn upload_in_parts(&self, key: &str, first: Vec<u8>, body: &mut BlockReader) -> Result<(), Failure> {
        let mut upload = MultipartUpload::begin(self, key).map_err(Failure::Final)?;
        let mut part = first;
        while !part.is_empty() {
            upload.put(&part)?;
            part.clear();
            body.read_up_to(PART, &mut part).map_err(|error| self.broken(key, error))?;
        }
        upload.complete()
    }

    /// Copies an object of `size` bytes; false if it is not there.
    pub(super) fn copy_in_parts(&self, from: &str, to: &str, size: u64) -> Result<bool, StoreError> {
        if size.div_ceil(self.sizes.copy_part) > MOST_PARTS as u64 {
            let problem = format!("it has {size} bytes, which is too large for S3: is it damaged?");
            return Err(StoreError::Content { place: self.place(from), problem });
        }
        let mut upload = MultipartUpload::begin(self, to)?;
        let mut offset = 0_u64;
        while offset < size {
            let end = offset.saturating_add(self.sizes.copy_part).min(size);
            let range = format!("bytes={offset}-{}", end.saturating_sub(1));
            if !upload.copy(from, &range)? {
                return Ok(false);
            }
            offset = end;
        }
        upload.complete().map_err(Failure::into_error)?;
        Ok(true)
    }
}

impl<'a> MultipartUpload<'a> {
    fn begin(objects: &'a S3Objects, key: &'a str) -> Result<Self, StoreError> {
        let id = objects.session.backoff().run(|| {
            let call = S3Call { query: &[("uploads", "")], body: Some(&[]), ..S3Call::of(&Method::POST, key) };
            let answer = objects.session.call(&call)?;
            let answer = answer.map_err(|refusal| objects.session.failure(ObjectAction::Store, key, &refusal))?;
            let answer = objects.parse(key, answer)?;
            let id = answer.text("UploadId").filter(|id| !id.is_empty());
            id.map(str::to_owned).ok_or_else(|| objects.session.unexpected(key, "no id of the upload in it; is it S3?"))
        })?;
        Ok(Self { objects, key, id, parts: Vec::new(), completed: false })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Self { objects, key, .. } = *self;
        if self.parts.len() >= MOST_PARTS {
            let problem = format!(
                "a layer is too large for S3: it has more than {} parts of {} MiB; save less, or name a registry",
                MOST_PARTS,
                PART >> 20
            );
            return Err(Failure::Final(StoreError::Content { place: objects.place(key), problem }));
        }
        let number = self.number();
        let query = [("partNumber", number.as_str()), ("uploadId", &self.id)];
        let call = S3Call { query: &query, body: Some(bytes), ..S3Call::of(&Method::PUT, key) };
        let mut backoff = objects.session.backoff();
        loop {
            let failure = match objects.session.call(&call) {
                Ok(Ok(answer)) => {
                    self.parts.push(super::etag(&answer));
                    drain(answer);
                    return Ok(());
                }
                Ok(Err(refusal)) if refusal.code == "NoSuchUpload" => return Err(self.forgotten(&refusal)),
                Ok(Err(refusal)) => objects.session.failure(ObjectAction::Store, key, &refusal),
                Err(failure) => failure,
            };
            backoff.wait(failure).map_err(Failure::Final)?;
        }
    }

    fn copy(&mut self, from: &str, range: &str) -> Result<bool, StoreError> {
        let Self { objects, key, .. } = *self;
        let (number, source) = (self.number(), encode(&objects.session.source(from), true));
        let (query, headers) = (
            [("partNumber", number.as_str()), ("uploadId", &self.id)],
            [(COPY_SOURCE, source.as_str()), (COPY_RANGE, range)],
        );
        let call = S3Call { query: &query, headers: &headers, body: Some(&[]), ..S3Call::of(&Method::PUT, key) };
        let part = objects.session.backoff().run(|| {
            let answer = match objects.session.call(&call)? {
                Ok(answer) => answer,
                Err(refusal) if refusal.is_absent() && refusal.code != "NoSuchUpload" => return Ok(None),
                Err(refusal) => return Err(objects.session.failure(ObjectAction::Copy, key, &refusal)),
            };
            let (status, text) = (answer.status(), objects.text(key, answer)?);
            if let Some(refusal) = S3Refusal::in_body(status, &text) {
                return Err(objects.session.failure(ObjectAction::Copy, key, &refusal));
            }
            let etag = Element::parse(&text).and_then(|answer| Some(answer.text("ETag")?.to_owned()));
            etag.map(Some).ok_or_else(|| objects.session.unexpected(key, "no ETag in it; is it S3?"))
        })?;
        let is_there = part.is_some();
        self.parts.extend(part);
        Ok(is_there)
    }

    fn complete(mut self) -> Result<(), Failure> {
        let Self { objects, key, .. } = self;
        let mut body = String::from("<CompleteMultipartUpload>");
        for (number, etag) in (1..).zip(&self.parts) {
            let etag = etag.replace('&', "&amp;").replace('<', "&lt;");
            // Writing to a string does not fail.
            let _ = write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let call =
            S3Call { query: &[("uploadId", &self.id)], body: Some(body.as_bytes()), ..S3Call::of(&Method::POST, key) };
        let mut backoff = objects.session.backoff();
        let mut asked_before = false;
        loop {
            let refusal = match objects.session.call(&call) {
                Ok(Ok(answer)) => {
                    let status = answer.status();
                    // The status is sent before the parts are put together.
                    objects.text(key, answer).map(|text| S3Refusal::in_body(status, &text))
                }
                Ok(Err(refusal)) => Ok(Some(refusal)),
                Err(failure) => Err(failure),
            };
            let failure = match refusal {
                Ok(None) => break,
                // The answer that was lost may have been a good one.
                Ok(Some(refusal)) if refusal.code == "NoSuchUpload" => {
                    if asked_before && objects.find(key).map_err(Failure::Final)?.is_some() {
                        break;
                    }
                    return Err(self.forgotten(&refusal));
                }
                Ok(Some(refusal)) => objects.session.failure(ObjectAction::Store, key, &refusal),
                Err(failure) => failure,
            };
            asked_before = true;
            backoff.wait(failure).map_err(Failure::Final)?;
        }
        self.completed = true;
        Ok(())
    }

    fn number(&self) -> String {
        self.parts.len().saturating_add(1).to_string()
    }

    /// The whole is sent again.
    fn forgotten(&self, refusal: &S3Refusal) -> Failure {
        self.objects.session.failure(ObjectAction::Store, self.key, refusal).of_part()
    }
}

impl Drop for MultipartUpload<'_> {
    fn drop(&mut self) {
        if self.completed {
            return;
        }
        let call = S3Call { query: &[("uploadId", &self.id)], ..S3Call::of(&Method::DELETE, self.key) };
        match self.objects.session.call(&call) {
            Ok(Ok(answer)) => drain(answer),
            // A rule of the bucket has to take it back.
            Ok(Err(refusal)) => self.objects.session.not_cancelled(self.key, &refusal.said(&[])),
            Err(_) => {}
        }
    }
}
