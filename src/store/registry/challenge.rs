//! The authentication challenge of a registry: the header `WWW-Authenticate` (RFC 9110, 11.6.1; distribution, "Token
//! Authentication Specification").

use http::{HeaderMap, header};

/// A supported challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// Address of the token server.
        realm: String,
        /// The registry's name at the token server.
        service: Option<String>,
        /// The scope that the request needs, according to the registry.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best one of a response: Bearer before Basic, so that a password is sent to fewer places.
    pub fn find(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut found: Vec<_> = texts.flat_map(parse).collect();
        let bearer = found.iter().position(|c| matches!(c, Self::Bearer { .. }));
        match (bearer, found.is_empty()) {
            (_, true) => None,
            (position, _) => Some(found.swap_remove(position.unwrap_or(0))),
        }
    }
}

/// One header may hold several challenges, separated by commas as their parameters are.
fn parse(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let word = word.to_ascii_lowercase();
        match after.trim_start().strip_prefix('=') {
            Some(after) => {
                let (value, after) = value(after.trim_start());
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word, value));
                }
                rest = after;
            }
            None => {
                challenges.push((word, Vec::new()));
                rest = after;
            }
        }
    }
    challenges.into_iter().filter_map(known).collect()
}

fn known((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let parameter = |name: &str| parameters.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.clone());
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        }),
        _ => None,
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t', ',', '=', '"']).unwrap_or(text.len());
    text.split_at(end)
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, quoted.get(at.saturating_add(1)..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Option<Challenge> {
        let some = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
        Some(Challenge::Bearer { realm: realm.to_owned(), service: some(service), scope: some(scope) })
    }

    #[test]
    fn finds_the_challenge() {
        for (values, expected) in [
            (
                &[r#"Bearer realm="https://a.io/t",service="r.io",scope="repository:a/b:pull,push""#][..],
                bearer("https://a.io/t", "r.io", "repository:a/b:pull,push"),
            ),
            (&["bearer   Realm = \"https://a.io/t\" , service=r.io"], bearer("https://a.io/t", "r.io", "")),
            (&[r#"Bearer realm="https://a.io/t",error="invalid_token""#], bearer("https://a.io/t", "", "")),
            (&[r#"Bearer realm="a\"b\\c""#], bearer(r#"a"b\c"#, "", "")),
            (&[r#"Basic realm="r", Bearer realm="x",service="y""#], bearer("x", "y", "")),
            (&["Basic realm=\"r\"", "Bearer realm=\"x\""], bearer("x", "", "")),
            (&["Negotiate, Basic realm=r"], Some(Challenge::Basic)),
            (&["BASIC"], Some(Challenge::Basic)),
            (&["Bearer service=x"], None),
            (&["Negotiate abc=="], None),
            (&["\"", "= , =", ""], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::WWW_AUTHENTICATE, value.parse().unwrap());
            }
            assert_eq!(Challenge::find(&headers), expected, "{values:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed(text in ".{0,80}") {
            parse(&text);
        }

        #[test]
        fn any_text_of_its_own_letters_is_parsed(text in "[a=\",\\\\ ]{0,40}") {
            parse(&text);
        }
    }
}
