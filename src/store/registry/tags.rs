//! The tags of a repository (OCI distribution-spec, "Listing Tags").

use std::collections::BTreeSet;

use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde::Deserialize;

use super::{
    operation::Operation,
    session::{Payload, RegistryRequest, Session},
};
use crate::store::{
    StoreError,
    net::{drain, read_up_to, retry::Failure},
};

/// The page size that is requested; registries may return fewer tags.
const PAGE: usize = 1000;

/// Bounds for registries that return endless pages. What was read until then is not all, and must not be taken for it.
const TAGS: usize = 1_000_000;
const PAGES: usize = 10_000;

/// So many pages may have no new tag in them, one after the other, if each has another one behind it.
const EMPTY_PAGES: usize = 20;

/// The most bytes of a page.
const PAGE_SIZE: u64 = 16 << 20;

#[derive(Deserialize)]
struct TagList {
    tags: Option<Vec<String>>,
}

impl Session {
    /// All tags, in order; none if the repository does not exist.
    pub fn tags(&self) -> Result<Vec<String>, StoreError> {
        let mut all = BTreeSet::new();
        let mut query = format!("n={PAGE}");
        let mut empty = 0_usize;
        for _ in 0..PAGES {
            let (tags, next) = self.backoff().run(|| self.tag_page(&query))?;
            let (count, last) = (tags.len(), tags.iter().max().cloned());
            let before = all.len();
            all.extend(tags);
            let grows = all.len() > before;
            empty = if grows { 0 } else { empty.saturating_add(1) };
            if all.len() > TAGS || empty > EMPTY_PAGES {
                break;
            }
            query = match (next, last) {
                (Some(next), _) if next != query => next,
                // Some registries omit the header `Link` of a full page.
                (None, Some(last)) if grows && count >= PAGE && is_plain(&last) => format!("n={PAGE}&last={last}"),
                _ => return Ok(all.into_iter().collect()),
            };
        }
        let place = format!("{}/{}", self.image.registry, self.image.repository);
        Err(self.unexpected(&place, "its list of tags does not end").into_error())
    }

    fn tag_page(&self, query: &str) -> Result<(Vec<String>, Option<String>), Failure> {
        let place = format!("{}/{}", self.image.registry, self.image.repository);
        let url = self.url(&format!("tags/list?{query}"))?;
        let response = self.call(RegistryRequest {
            operation: Operation::ListTags,
            place: &place,
            method: Method::GET,
            url: url.clone(),
            headers: &[],
            body: Payload::None,
            scope: &self.pull_scope(),
        })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                drain(response);
                return Ok((Vec::new(), None));
            }
            _ => return Err(self.refused_to(Operation::ListTags, &place, response)),
        }
        let next = self.next_query(&url, response.headers());
        let bytes = read_up_to(response.into_body(), PAGE_SIZE);
        let bytes = bytes.map_err(|error| self.broken_reading(&place, error))?;
        let page: TagList =
            serde_json::from_slice(&bytes).map_err(|_| self.unexpected(&place, "its list of tags is not JSON"))?;
        // An invalid tag can't be one of ours, and must not become part of a URL.
        let tags = page.tags.unwrap_or_default().into_iter().filter(|tag| is_plain(tag)).collect();
        Ok((tags, next))
    }

    /// The query of the next page, which is all that is used of the header `Link`: registries behind a proxy may name a host
    /// that can't be reached, and the path is known.
    fn next_query(&self, url: &Uri, headers: &HeaderMap) -> Option<String> {
        let query = self.resolve(url, next_page(headers)?)?.query()?.to_owned();
        let is_query = query.contains("last=") || query.contains("next") || query.contains("page");
        is_query.then_some(query)
    }
}

/// What the header `Link` names as the next page.
pub(super) fn next_page(headers: &HeaderMap) -> Option<&str> {
    let links = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|link| link.split(',')).find_map(next_target)
}

/// `<…>; rel="next"` (RFC 8288).
pub(super) fn next_target(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|p| matches!(p.trim(), "rel=next" | "rel=\"next\""));
    is_next.then_some(target)
}

fn is_plain(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= 128
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_page() {
        for (link, target) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("/v2/a/tags/list?last=b&n=2")),
            ("<x>;rel=next", Some("x")),
            (r#"<x>; title="a"; rel="next""#, Some("x")),
            (r#"<x>; rel="prev""#, None),
            ("x; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_target(link), target, "{link}");
        }
    }
}
