//! The tags of what a task leaves beside the target, and how they are known again.

use super::StepConfig;
use crate::digest::Digest;

/// What the tags of caches begin with, and how many digits of a digest are in them.
const CACHE: &str = "cache.";
const CACHE_DIGITS: usize = 12;

/// So much of a key is readable in the tag.
const KEY_ROOM: usize = 80;

impl StepConfig {
    /// Tag of the snapshot that the task at `order` leaves of `workspace` in run `run`, in the repository of the target:
    /// `<run uid>.<order>.<workspace>`. Characters that a tag can't hold become `-`; a name that had to be changed or cut
    /// carries a part of its digest, so that two workspaces never share a tag
    /// (OCI distribution-spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`).
    pub fn tag(run: &str, order: u32, workspace: &str) -> String {
        task_tag(run, &order.to_string(), workspace)
    }

    /// Tag of the image by which a task with parallel ones says which images it wrote under the tag of the target, where
    /// another task may have replaced them without having seen them: `<run uid>.r<order>.<workspace>`.
    pub fn replaced_tag(run: &str, order: u32, workspace: &str) -> String {
        task_tag(run, &format!("r{order}"), workspace)
    }

    /// Whether `tag` is one of these two, of some task of `run` and of `workspace`.
    pub fn is_tag_of(run: &str, workspace: &str, tag: &str) -> bool {
        let place = tag.strip_prefix(run).and_then(|rest| rest.strip_prefix('.')?.split_once('.'));
        let order = place.and_then(|(order, _)| order.strip_prefix('r').unwrap_or(order).parse().ok());
        order.is_some_and(|order| {
            tag == Self::tag(run, order, workspace) || tag == Self::replaced_tag(run, order, workspace)
        })
    }

    /// Whether `tag` has the form of one of these two, of whatever run: a UID and an order.
    pub fn is_task_tag(tag: &str) -> bool {
        let Some((uid, rest)) = tag.split_once('.') else { return false };
        let is_uid = uid.len() == 36 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let order = rest.split_once('.').map(|(order, _)| order.strip_prefix('r').unwrap_or(order));
        is_uid && order.is_some_and(|order| !order.is_empty() && order.bytes().all(|b| b.is_ascii_digit()))
    }
}

/// Tag of the cache of `path` (a workspace, or a folder in it) with this key in `scope`: `cache.<whose>.<key>.<digest>`. The first
/// digits are of the path and the scope, the last ones of the key, of which a readable beginning stands between them.
pub fn cache_tag(path: &str, scope: &str, key: &str) -> String {
    format!("{}.{}", cache_prefix(path, scope, key), digits(&[key]))
}

/// What the tags of all caches begin with whose key begins with `beginning`. Others may begin so too: the image itself has the key.
pub fn cache_prefix(path: &str, scope: &str, beginning: &str) -> String {
    let readable = plain(beginning);
    format!("{CACHE}{}.{}", digits(&[path, scope]), &readable[..readable.len().min(KEY_ROOM)])
}

/// Whether `tag` has the form of a cache's.
pub fn is_cache_tag(tag: &str) -> bool {
    let is_digits = |text: &str| text.len() == CACHE_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    let rest = tag.strip_prefix(CACHE).and_then(|rest| rest.split_once('.'));
    rest.is_some_and(|(whose, rest)| {
        is_digits(whose) && rest.rsplit_once('.').is_some_and(|(_, digest)| is_digits(digest))
    })
}

/// Digits of the digest of several strings.
fn digits(parts: &[&str]) -> String {
    let mut hex = Digest::of(parts.join("\0").as_bytes()).hex();
    hex.truncate(CACHE_DIGITS);
    hex
}

/// `text` with what a tag can't hold as `-`.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

fn task_tag(run: &str, place: &str, workspace: &str) -> String {
    const ROOM: usize = 64;
    let plain = plain(workspace);
    if plain == workspace && plain.len() <= ROOM {
        return format!("{run}.{place}.{plain}");
    }
    let digest = Digest::of(workspace.as_bytes()).hex();
    format!("{run}.{place}.{}-{}", &plain[..plain.len().min(ROOM - 9)], &digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let uid = "0f0e8a3c-5b7d-4a55-9a8f-1c2d3e4f5a6b";
        assert_eq!(StepConfig::tag(uid, 3, "sources"), format!("{uid}.3.sources"));
        assert_eq!(StepConfig::replaced_tag(uid, 3, "sources"), format!("{uid}.r3.sources"));
        let (one, other) = (StepConfig::tag(uid, 3, "a b"), StepConfig::tag(uid, 3, "a/b"));
        assert!(one.starts_with(&format!("{uid}.3.a-b-")) && one != other);
        let long = StepConfig::tag(uid, 3000, &"w".repeat(300));
        assert!(long.len() <= 128 && format!("quay.io/a/b:{long}").parse::<crate::target::Target>().is_ok());
    }

    #[test]
    fn tags_are_known_again() {
        let uid = "0f0e8a3c-5b7d-4a55-9a8f-1c2d3e4f5a6b";
        for (tag, of_w, of_a_task) in [
            (StepConfig::tag(uid, 3, "w"), true, true),
            (StepConfig::replaced_tag(uid, 12, "w"), true, true),
            (StepConfig::tag(uid, 3, "v"), false, true),
            (StepConfig::tag(&uid.replace('0', "1"), 3, "w"), false, true),
            (StepConfig::tag(&uid.replace('0', "g"), 3, "w"), false, false),
            (StepConfig::tag(&uid[1..], 3, "w"), false, false),
            (format!("{uid}.rr3.w"), false, false),
            (format!("{uid}.+3.w"), false, false),
            (format!("{uid}.r.w"), false, false),
            (format!("{uid}..w"), false, false),
            (format!("{uid}.x.w"), false, false),
            (format!("{uid}.3"), false, false),
            (format!("{uid}-3.w"), false, false),
            (uid.to_owned(), false, false),
            ("v1.3.w".to_owned(), false, false),
        ] {
            assert_eq!(
                (StepConfig::is_tag_of(uid, "w", &tag), StepConfig::is_task_tag(&tag)),
                (of_w, of_a_task),
                "{tag}"
            );
        }
        for workspace in ["a b", "a/b", &"w".repeat(64), &"w".repeat(65)] {
            assert!(StepConfig::is_tag_of(uid, workspace, &StepConfig::tag(uid, 0, workspace)), "{workspace}");
        }
    }

    /// Stored runs name their snapshots so: a newer version has to find them.
    #[test]
    fn names_that_a_tag_cannot_hold() {
        let (fits, long) = ("w".repeat(64), "w".repeat(65));
        for (workspace, tag) in [
            (fits.as_str(), format!("u.3.{fits}")),
            (&long, format!("u.3.{}-1e3258f8", &long[..55])),
            ("a/b", "u.3.a-b-c14cddc0".to_owned()),
        ] {
            assert_eq!(StepConfig::tag("u", 3, workspace), tag);
        }
    }

    #[test]
    fn tags_of_caches() {
        let tag = cache_tag("source/node_modules", "main", "npm-0123");
        assert!(tag.starts_with("cache.") && tag.contains(".npm-0123.") && is_cache_tag(&tag), "{tag}");
        assert!(tag.starts_with(&cache_prefix("source/node_modules", "main", "npm-")));
        let different = [
            cache_tag("source/node_modules", "other", "npm-0123"),
            cache_tag("source", "node_modules\0main", "npm-0123"),
            cache_tag("source/node_modules", "main", "npm/0123"),
            cache_tag("source/node_modules", "main", "npm 0123"),
        ];
        let all: std::collections::BTreeSet<&String> = different.iter().chain([&tag]).collect();
        assert_eq!(all.len(), 5);
        // The beginning of a key that is not legal in a tag, and of one that is too long for it.
        let (long, key) = ("é/".repeat(200), format!("{}z", "é/".repeat(200)));
        assert!(cache_tag("w", "", &key).starts_with(&cache_prefix("w", "", &long)));
        for key in [&key, "", "."] {
            let tag = cache_tag("w", "", key);
            assert!(
                is_cache_tag(&tag) && format!("quay.io/a/b:{tag}").parse::<crate::target::Target>().is_ok(),
                "{tag}"
            );
        }
        let uid = "0f0e8a3c-5b7d-4a55-9a8f-1c2d3e4f5a6b";
        let others = ["latest", "cache.latest", "cache.0123456789ab.x", "cache.0123456789ab.x.0123456789az"];
        for other in others.into_iter().chain(["cache.0123456789ab.x.0123", &StepConfig::tag(uid, 3, "cache")]) {
            assert!(!is_cache_tag(other), "{other}");
        }
        assert!(!StepConfig::is_task_tag(&tag));
    }
}
