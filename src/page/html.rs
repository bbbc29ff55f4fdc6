//! Untrusted strings in HTML: names, messages and paths with any bytes. Control characters and those that change the order of
//! others are shown as escapes, as everywhere in this program; what HTML would take for its own is escaped.

use std::fmt::{self, Write};

use crate::quote::{Line, Quoted};

/// A name or a sentence, as text or as the value of an attribute in quotes.
pub struct HtmlText<'a>(pub &'a str);

/// A path or a name of a file.
pub struct HtmlPath<'a>(pub &'a [u8]);

impl fmt::Display for HtmlText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", Line(self.0))
    }
}

impl fmt::Display for HtmlPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", Quoted(self.0))
    }
}

/// Escapes what is written (HTML, "Attribute values in double quotes", "Text").
struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '&' => self.0.write_str("&amp;"),
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '"' => self.0.write_str("&quot;"),
            '\'' => self.0.write_str("&#39;"),
            c => self.0.write_char(c),
        })
    }
}

/// `text`, cut to `most` characters with an ellipsis.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_foreign_is_markup() {
        for (text, shown) in [
            ("build", "build"),
            ("</script><b onclick='x'>&amp;\"", "&lt;/script&gt;&lt;b onclick=&#39;x&#39;&gt;&amp;amp;&quot;"),
            ("a\nb\u{202e}c", "a\\nb\\342\\200\\256c"),
        ] {
            assert_eq!(HtmlText(text).to_string(), shown);
        }
        assert_eq!(HtmlPath(b"<\xff>").to_string(), "&quot;&lt;\\377&gt;&quot;");
    }

    #[test]
    fn cuts() {
        for (text, shown) in [("abc", "abc"), ("abcd", "ab…"), ("äöüß", "äö…")] {
            assert_eq!(cut(text, 3), shown);
        }
    }
}
