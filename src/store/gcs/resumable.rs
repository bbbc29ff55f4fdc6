//! What is too large for one request (Google Cloud Storage, "Resumable uploads").

use http::{Method, StatusCode, Uri, header};

use super::{GcsObjects, refusal::GcsRefusal, session::GcsCall};
use crate::store::{
    bucket::BucketSession,
    layout::ObjectAction,
    net::{self, blocks::BlockReader, drain, retry::Failure},
};

/// The size of a part, a multiple of 256 KiB.
const PART: usize = 8 << 20;

/// What Google answers to a cancelled upload.
const CANCELLED: u16 = 499;

/// An upload that was begun. It is taken back unless it is completed.
struct ResumableUpload<'a> {
    objects: &'a GcsObjects,
    key: &'a str,
    url: Uri,
    completed: bool,
}

impl GcsObjects {
    /// Stores `first` and then what `body` brings.
    pub(super) fn upload_in_parts(&self, key: &str, first: Vec<u8>, body: &mut BlockReader) -> Result<(), Failure> {
        let mut upload = ResumableUpload::begin(self, key)?;
        let (mut part, mut offset) = (first, 0_u64);
        loop {
            // Only the last part may have a size of its own, and only with it the size of the whole is known.
            let mut next = Vec::new();
            body.read_up_to(PART, &mut next).map_err(|error| self.session.broken(key, error))?;
            let end = offset.saturating_add(part.len() as u64);
            upload.put(&part, offset, next.is_empty().then_some(end))?;
            if next.is_empty() {
                return Ok(());
            }
            (part, offset) = (next, end);
        }
    }
}

impl<'a> ResumableUpload<'a> {
    fn begin(objects: &'a GcsObjects, key: &'a str) -> Result<Self, Failure> {
        let started = objects.session.backoff().run(|| {
            let url = objects.upload_url(key, "resumable")?;
            let answer =
                objects.session.call(&GcsCall { body: Some(b""), ..GcsCall::of(&Method::POST, key, url.clone()) })?;
            let answer = answer.map_err(|refusal| objects.session.failure(ObjectAction::Store, key, &refusal))?;
            let location =
                net::text(&answer, header::LOCATION.as_str()).and_then(|location| location.parse::<Uri>().ok());
            drain(answer);
            let own = location.filter(|url| objects.session.is_own(url));
            own.ok_or_else(|| objects.session.unexpected(key, "it did not say where to upload to"))
        });
        Ok(Self { objects, key, url: started.map_err(Failure::Final)?, completed: false })
    }

    /// Sends the bytes at `offset`; with `whole`, the size of everything, they are the last ones. The server may take only some
    /// of them, and says how many it has.
    fn put(&mut self, bytes: &[u8], offset: u64, whole: Option<u64>) -> Result<(), Failure> {
        let Self { objects, key, .. } = *self;
        let end = offset.saturating_add(bytes.len() as u64);
        let total = whole.map_or_else(|| "*".to_owned(), |whole| whole.to_string());
        let mut backoff = objects.session.backoff();
        let mut from = offset;
        let mut ask = false;
        loop {
            let rest = usize::try_from(from.saturating_sub(offset))
                .ok()
                .and_then(|skip| bytes.get(skip..))
                .unwrap_or_default();
            let range = if ask || rest.is_empty() {
                // How far did it come?
                format!("bytes */{total}")
            } else {
                format!("bytes {from}-{}/{total}", end.saturating_sub(1))
            };
            let body: &[u8] = if ask { &[] } else { rest };
            let headers = [(header::CONTENT_RANGE, range.as_str())];
            let call =
                GcsCall { headers: &headers, body: Some(body), ..GcsCall::of(&Method::PUT, key, self.url.clone()) };
            let failure = match objects.session.call(&call) {
                Ok(Ok(answer)) if answer.status() == StatusCode::PERMANENT_REDIRECT => {
                    let has = net::text(&answer, header::RANGE.as_str())
                        .and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
                    drain(answer);
                    let has = has.map_or(0, |last| last.saturating_add(1));
                    if has == end && whole.is_none() {
                        return Ok(());
                    }
                    if has < offset || has > end {
                        return Err(self.forgotten());
                    }
                    if has > from || ask {
                        if has > from {
                            backoff.reset();
                        }
                        (from, ask) = (has, false);
                        continue;
                    }
                    objects.session.unexpected(key, "it took nothing of a part")
                }
                Ok(Ok(answer)) => {
                    drain(answer);
                    self.completed = true;
                    return Ok(());
                }
                Ok(Err(refusal)) if matches!(refusal.status.as_u16(), 404 | 410) => return Err(self.lost(&refusal)),
                Ok(Err(refusal)) => objects.session.failure(ObjectAction::Store, key, &refusal),
                Err(failure) => failure,
            };
            backoff.wait(failure).map_err(Failure::Final)?;
            ask = true;
        }
    }

    fn forgotten(&self) -> Failure {
        self.objects.session.unexpected(self.key, "it lost a part of an upload")
    }

    /// The whole is sent again.
    fn lost(&self, refusal: &GcsRefusal) -> Failure {
        self.objects.session.failure(ObjectAction::Store, self.key, refusal).of_part()
    }
}

impl Drop for ResumableUpload<'_> {
    fn drop(&mut self) {
        if self.completed {
            return;
        }
        let answer = self.objects.session.call(&GcsCall::of(&Method::DELETE, self.key, self.url.clone()));
        match answer {
            Ok(Ok(answer)) => drain(answer),
            Ok(Err(refusal)) if refusal.status.as_u16() == CANCELLED => {}
            // It ends by itself after a week.
            Ok(Err(refusal)) => self.objects.session.not_cancelled(self.key, &refusal.said(&[])),
            Err(_) => {}
        }
    }
}
