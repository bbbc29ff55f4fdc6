//! The tags of a repository (OCI distribution-spec, "Listing Tags").

use std::collections::BTreeSet;

use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde::Deserialize;

use super::{
    action::Action,
    retry::Failure,
    session::{Call, Payload, Session, drain},
};
use crate::store::StoreError;

/// Tags to ask for at once; registries may give fewer.
const PAGE: usize = 1000;

/// A registry that always has one more page is not followed for ever.
const PAGES: usize = 10_000;

/// A page is not larger than that.
const PAGE_SIZE: u64 = 16 << 20;

#[derive(Deserialize)]
struct Answer {
    tags: Option<Vec<String>>,
}

impl Session {
    /// All tags, in order; none where there is no such repository.
    pub fn tags(&self) -> Result<Vec<String>, StoreError> {
        let mut all = BTreeSet::new();
        let mut query = format!("n={PAGE}");
        for _ in 0..PAGES {
            let (tags, next) = self.backoff().run(|| self.tag_page(&query))?;
            let (count, last) = (tags.len(), tags.iter().max().cloned());
            let before = all.len();
            all.extend(tags);
            // A page without anything new would be the same again.
            let grows = all.len() > before;
            query = match (next, last) {
                (Some(next), _) if grows && next != query => next,
                // A full page and no word of a next one: some registries forget it.
                (None, Some(last)) if grows && count >= PAGE && is_plain(&last) => format!("n={PAGE}&last={last}"),
                _ => break,
            };
        }
        Ok(all.into_iter().collect())
    }

    fn tag_page(&self, query: &str) -> Result<(Vec<String>, Option<String>), Failure> {
        let place = format!("{}/{}", self.image.registry, self.image.repository);
        let url = self.url(&format!("tags/list?{query}"))?;
        let answer = self.call(Call {
            action: Action::ListTags,
            place: &place,
            method: Method::GET,
            url: url.clone(),
            headers: &[],
            body: Payload::None,
            scope: &self.pull_scope(),
        })?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                drain(answer);
                return Ok((Vec::new(), None));
            }
            _ => return Err(self.refused_to(Action::ListTags, &place, answer)),
        }
        let next = self.next_query(&url, answer.headers());
        let bytes = self.read(answer.into_body(), PAGE_SIZE);
        let bytes = bytes.map_err(|error| self.broken_reading(&place, error))?;
        let page: Answer =
            serde_json::from_slice(&bytes).map_err(|_| self.unexpected(&place, "its list of tags is not JSON"))?;
        // What is no tag can't be one of ours, and must not become a part of an address.
        let tags = page.tags.unwrap_or_default().into_iter().filter(|tag| is_plain(tag)).collect();
        Ok((tags, next))
    }

    /// The query of the next page. Only that is taken from the header `Link`: it may name no other host and no other path,
    /// some registries behind a proxy name one that can't be reached.
    fn next_query(&self, url: &Uri, headers: &HeaderMap) -> Option<String> {
        let links = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
        let target = links.flat_map(|link| link.split(',')).find_map(next_target)?;
        let query = self.resolve(url, target)?.query()?.to_owned();
        let is_query = query.contains("last=") || query.contains("next") || query.contains("page");
        is_query.then_some(query)
    }
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
