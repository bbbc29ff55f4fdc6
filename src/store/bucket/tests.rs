//! What the tests of both clouds' refusals stand on.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{super::net::retry::Failure, *};

/// Error, and whether it may pass and after how many seconds.
pub fn outcome(failure: Failure) -> (String, Option<Option<u64>>) {
    match failure {
        Failure::Final(error) => (error.to_string(), None),
        Failure::Transient { error, after } => (error.to_string(), Some(after.map(|after| after.as_secs()))),
    }
}

pub fn headers(headers: &[(&str, &str)]) -> HeaderMap {
    let parsed =
        |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
    headers.iter().map(parsed).collect()
}

#[test]
fn ranges() {
    for (offset, len, range) in
        [(0, None, None), (7, None, Some("bytes=7-")), (0, Some(1), Some("bytes=0-0")), (7, Some(3), Some("bytes=7-9"))]
    {
        assert_eq!(byte_range(offset, len).as_deref(), range, "{offset} {len:?}");
    }
}
