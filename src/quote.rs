//! Untrusted strings on a terminal, in a log and in JSON: names of files, tasks and images, and messages of other programs,
//! with any bytes. Everything printed that is not this program's own text goes through this module.

use std::fmt::{self, Write};

use base64::Engine;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// A name as `git` shows it: unchanged, or in quotes with escapes if it holds control characters, quotes, backslashes or
/// invalid UTF-8. So no name controls the terminal.
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(self.0) {
            Ok(text) if text.chars().all(|c| is_printable(c) && !"\"\\".contains(c)) => return f.write_str(text),
            _ => {}
        }
        f.write_str("\"")?;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    c => escape(f, c)?,
                }
            }
            octal(f, chunk.invalid())?;
        }
        f.write_str("\"")
    }
}

/// A sentence with untrusted strings, on one line: control characters become escapes.
pub struct Line<'a>(pub &'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.chars().all(is_printable) {
            return f.write_str(self.0);
        }
        self.0.chars().try_for_each(|c| escape(f, c))
    }
}

fn escape(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '\n' => f.write_str("\\n"),
        '\t' => f.write_str("\\t"),
        c if is_printable(c) => f.write_char(c),
        c => octal(f, c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Whether the character has no effect but to be shown.
fn is_printable(c: char) -> bool {
    !c.is_control() && !is_invisible(c)
}

/// Characters that change the order or position of others (Unicode, bidirectional formatting).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn octal(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\{byte:03o}"))
}

/// Bytes as fields of a JSON object: `<name>` as a string, and `<name>Base64` too if they are not UTF-8.
pub struct Bytes<'a>(pub &'static [&'static str; 2], pub &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.0[0], &String::from_utf8_lossy(self.1))?;
        if std::str::from_utf8(self.1).is_err() {
            map.serialize_entry(self.0[1], &base64::engine::general_purpose::STANDARD.encode(self.1))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_moves_the_cursor() {
        for (name, shown) in [
            (&b"a b"[..], "a b"),
            ("ä→".as_bytes(), "ä→"),
            (b"a\nb\t\"\\", r#""a\nb\t\"\\""#),
            (b"\x1b[2Jx\x7f", r#""\033[2Jx\177""#),
            (b"\xffx\xc3", r#""\377x\303""#),
            ("\u{202e}x".as_bytes(), r#""\342\200\256x""#),
        ] {
            assert_eq!(Quoted(name).to_string(), shown);
        }
    }

    #[test]
    fn no_sentence_becomes_two_lines() {
        for (sentence, shown) in [
            (r#"the image "a" \ b"#, r#"the image "a" \ b"#),
            ("a\ntekton-wrap: saved", r"a\ntekton-wrap: saved"),
            ("\u{1b}[2J\r\u{9b}K", r"\033[2J\015\302\233K"),
        ] {
            assert_eq!(Line(sentence).to_string(), shown);
        }
    }

    #[test]
    fn what_json_can_not_hold() {
        let names = &["path", "pathBase64"];
        assert_eq!(serde_json::to_string(&Bytes(names, b"a\n")).unwrap(), r#"{"path":"a\n"}"#);
        assert_eq!(serde_json::to_string(&Bytes(names, b"a\xff")).unwrap(), r#"{"path":"a�","pathBase64":"Yf8="}"#);
    }
}
