//! HTTP and what goes with it, for every kind of store that is reached over the network.
//!
//! | module | contents |
//! |---|---|
//! | `http`, `early`, `proxy`, `trust` | connections, and whom they trust |
//! | `origin` | addresses |
//! | `fault` | what a failed connection is about |
//! | `retry`, `pressure` | what to try again, and how much at once |
//! | `pace` | what an answer may take |
//! | `blocks`, `pump`, `resume` | a blob on its way from where it is made to where it is sent, and back |

pub mod blocks;
mod early;
pub mod fault;
pub mod http;
pub mod origin;
mod pace;
pub mod pressure;
mod proxy;
pub mod pump;
pub mod resume;
pub mod retry;
mod trust;

use std::io::{self, Read};

use ureq::Body;

use self::pace::Paced;

/// Reads what is left of a short answer, so that the connection can be used again.
pub fn drain(answer: ::http::Response<Body>) {
    let _ = io::copy(&mut content(answer.into_body()).take(1 << 16), &mut io::sink());
}

/// The content of an answer. A connection that trickles ends in an error of the kind `TimedOut`.
pub fn content(body: Body) -> impl Read + Send + 'static {
    Paced::new(body.into_reader())
}

/// A body that is held in memory, at most its first `most` bytes.
pub fn read_up_to(body: Body, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    content(body).take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The beginning of what an answer says that is not what was hoped for. What can't be read is left out: the status says enough.
pub fn read_reason(answer: ::http::Response<Body>, most: u64) -> (::http::response::Parts, Vec<u8>) {
    let (parts, body) = answer.into_parts();
    let mut bytes = Vec::new();
    let _ = content(body).take(most).read_to_end(&mut bytes);
    (parts, bytes)
}

/// The header `name` of an answer.
pub fn text<'a>(answer: &'a ::http::Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// The length that an answer states.
pub fn length(answer: &::http::Response<Body>) -> Option<u64> {
    text(answer, "content-length")?.parse().ok()
}

/// Whether a part of something begins at `offset` (`Content-Range: bytes <first>-…`).
pub fn starts_at(answer: &::http::Response<Body>, offset: u64) -> bool {
    let range = text(answer, "content-range");
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok());
    first == Some(offset)
}
