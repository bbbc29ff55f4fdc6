//! Redaction of strings from users, registries and libraries before they are shown or logged: no control characters, no
//! secrets.

/// Replaces a secret.
const HIDDEN: &str = "***";

/// Shorter ones would match parts of ordinary words.
const SHORTEST_SECRET: usize = 4;

/// `text` in one line of at most `length` characters, without `secrets`, without user information and queries of URLs (a
/// query may hold a signature that grants access), and without credentials of the schemes Basic and Bearer.
pub fn redact(text: &str, secrets: &[String], length: usize) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST_SECRET) {
        text = text.replace(secret.as_str(), HIDDEN);
    }
    let mut after_scheme = false;
    let words = text.split(' ').map(|word| {
        let hidden = if after_scheme { HIDDEN.to_owned() } else { redact_address(word) };
        let name = word.trim_matches(|c: char| !c.is_ascii_alphabetic()).to_ascii_lowercase();
        after_scheme = matches!(name.as_str(), "basic" | "bearer");
        hidden
    });
    let text = words.collect::<Vec<_>>().join(" ");
    text.trim().chars().take(length).collect()
}

/// An image reference or a URL as a user wrote it, in quotes and without a password before the host.
pub fn reference(text: &str) -> String {
    let text = redact(text, &[], 300);
    let shown = match text.rsplit_once('@') {
        // `name:tag@sha256:…` is none of that.
        Some((user, host)) if !text.contains("://") && !host.starts_with("sha") && user.contains(':') => {
            format!("{HIDDEN}@{host}")
        }
        _ => text,
    };
    format!("{shown:?}")
}

/// A word that may hold a URL.
fn redact_address(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => authority.to_owned(),
    };
    let path = match path.split_once('?') {
        Some((path, query)) => format!("{path}?{HIDDEN}{}", trailing_punctuation(query)),
        None => path.to_owned(),
    };
    format!("{scheme}://{host}{path}")
}

/// The punctuation at the end of a word, which belongs to the sentence.
fn trailing_punctuation(word: &str) -> &str {
    let end = word.trim_end_matches(['"', '\'', ')', ']', '>', ',', ';', '.', ':']).len();
    word.get(end..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_what_lets_others_in() {
        let secrets = ["hunter2".to_owned(), "aHVudGVyMg==".to_owned(), "a".to_owned()];
        for (text, expected) in [
            ("wrong password hunter2.", "wrong password ***."),
            ("you sent Authorization: Basic aHVudGVyMg== to a", "you sent Authorization: Basic *** to a"),
            ("header \"Bearer eyJhbGciOi\" is bad", "header \"Bearer *** is bad"),
            ("see https://me:pw@r.io/v2/?token=x, then", "see https://***@r.io/v2/?***, then"),
            ("GET \"https://s3.io/b?X-Amz-Signature=1&b=c\": 403", "GET \"https://s3.io/b?***\": 403"),
            ("https://r.io#x", "https://r.io#x"),
            ("a\u{1b}[31m\nb", "a [31m b"),
            ("", ""),
        ] {
            assert_eq!(redact(text, &secrets, 100), expected);
        }
        assert_eq!(redact("äbcdef", &[], 3), "äbc");
    }

    #[test]
    fn references() {
        for (text, expected) in [
            ("quay.io/me/a:b", "\"quay.io/me/a:b\""),
            ("quay.io/me/a:b@sha256:12", "\"quay.io/me/a:b@sha256:12\""),
            ("https://me:hunter2@quay.io/me?token=x", "\"https://***@quay.io/me?***\""),
            ("me:hunter2@quay.io/me", "\"***@quay.io/me\""),
            ("me:hunter2@quay.io:5000/me", "\"***@quay.io:5000/me\""),
            ("a\u{1b}[31m", "\"a [31m\""),
        ] {
            assert_eq!(reference(text), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_one_short_line(text in "(\\PC|[ ?@:/\\n\"]){0,60}") {
            let shown = redact(&text, &["secret".to_owned()], 40);
            assert!(shown.chars().count() <= 40 && !shown.contains(char::is_control));
        }
    }
}
