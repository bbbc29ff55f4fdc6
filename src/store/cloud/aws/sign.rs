//! Signature version 4 (AWS Identity and Access Management User Guide, "Create a signed AWS API request").

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use ring::hmac;

use super::Keys;
use crate::digest::Digest;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// What a request is signed for.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    /// With these keys.
    pub keys: &'a Keys,
    /// For example `eu-central-1`.
    pub region: &'a str,
    /// For example `s3`, `sts` or `ecr`.
    pub service: &'a str,
    /// At this time.
    pub time: SystemTime,
}

impl Signature<'_> {
    /// Adds the signature to `headers`: all that are in it, the host and the body with the digest `payload` are signed. The
    /// path and the query of `url` have to be encoded as [`encode`] does it.
    pub fn sign(&self, method: &Method, url: &Uri, headers: &mut HeaderMap, payload: &str) {
        let time = self.timestamp();
        let date = time.get(..8).unwrap_or_default();
        headers.insert(DATE, value(&time));
        if let Some(token) = &self.keys.token {
            let mut token = value(token.expose());
            token.set_sensitive(true);
            headers.insert(TOKEN, token);
        }
        let (names, request) = canonical_request(method, url, headers, payload);
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", Digest::of(request.as_bytes()).hex());
        let mut key = mac(format!("AWS4{}", self.keys.secret.expose()).as_bytes(), date);
        for part in [self.region, self.service, "aws4_request", &to_sign] {
            key = mac(key.as_ref(), part);
        }
        let signature = hex(key.as_ref());
        let shown = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.keys.id
        );
        let mut shown = value(&shown);
        shown.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, shown);
    }

    fn timestamp(&self) -> String {
        jiff::Timestamp::try_from(self.time).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string()
    }
}

/// The names of the headers that are signed, and the request in the form that is signed.
fn canonical_request(method: &Method, url: &Uri, headers: &HeaderMap, payload: &str) -> (String, String) {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    let mut signed: Vec<(&str, String)> = headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
    signed.push(("host", url.authority().map_or("", |authority| authority.as_str()).to_owned()));
    signed.sort();
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let mut query: Vec<String> = url.query().into_iter().flat_map(|query| query.split('&')).map(with_value).collect();
    query.sort();
    let request = format!("{method}\n{}\n{}\n{lines}\n{names}\n{payload}", url.path(), query.join("&"));
    (names, request)
}

fn with_value(pair: &str) -> String {
    if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") }
}

/// Everything but letters, digits and `-._~` as `%XX`; a slash too unless it separates parts of a path.
pub fn encode(text: &str, is_path: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (is_path && byte == b'/');
    let encoded =
        text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    encoded.collect()
}

/// SHA-256 of a body, as requests state it.
pub fn hex_digest(body: &[u8]) -> String {
    Digest::of(body).hex()
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What can't stand in a header becomes an empty one, which the other side refuses.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Examples of the Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header".
    #[test]
    fn the_examples_of_the_reference() {
        let keys = Keys {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned().into(),
            token: None,
            expires: None,
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let signature = Signature { keys: &keys, region: "us-east-1", service: "s3", time };
        let empty = hex_digest(b"");
        for (path, extra, signed, expected) in [
            (
                "/test.txt",
                Some(("range", "bytes=0-9")),
                "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "/?lifecycle",
                None,
                "host;x-amz-content-sha256;x-amz-date",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "/?max-keys=2&prefix=J",
                None,
                "host;x-amz-content-sha256;x-amz-date",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let url = format!("https://examplebucket.s3.amazonaws.com{path}").parse().unwrap();
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-content-sha256", empty.parse().unwrap());
            if let Some((name, value)) = extra {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            signature.sign(&Method::GET, &url, &mut headers, &empty);
            let shown = headers[header::AUTHORIZATION].to_str().unwrap();
            assert_eq!(
                shown,
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders={signed}, Signature={expected}"
                ),
                "{path}"
            );
        }
    }

    #[test]
    fn a_token_is_signed_too() {
        let keys = Keys {
            id: "ASIA".to_owned(),
            secret: "s".to_owned().into(),
            token: Some("t".to_owned().into()),
            expires: None,
        };
        let signature = Signature { keys: &keys, region: "r", service: "ecr", time: SystemTime::UNIX_EPOCH };
        let mut headers = HeaderMap::new();
        signature.sign(&Method::POST, &"https://a/".parse().unwrap(), &mut headers, &hex_digest(b""));
        assert_eq!(headers["x-amz-security-token"], "t");
        assert!(
            headers[header::AUTHORIZATION]
                .to_str()
                .unwrap()
                .contains("SignedHeaders=host;x-amz-date;x-amz-security-token,")
        );
    }

    #[test]
    fn encodes() {
        assert_eq!(encode("a/b c~+%é", true), "a/b%20c~%2B%25%C3%A9");
        assert_eq!(encode("a/b", false), "a%2Fb");
    }
}
