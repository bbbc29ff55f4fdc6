//! The little XML that S3 and STS speak.

use quick_xml::{Reader, XmlVersion, events::Event};

/// One element: its name and the text right in it, or the elements below it.
#[derive(Debug, Default)]
pub struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

/// How deep elements may lie in each other; S3 needs four.
const DEPTH: usize = 16;

impl Element {
    /// The outermost element of a document; none if it is no XML.
    pub fn parse(document: &str) -> Option<Self> {
        let mut reader = Reader::from_str(document);
        let mut open = vec![Self::default()];
        loop {
            match reader.read_event().ok()? {
                Event::Start(tag) if open.len() <= DEPTH => open.push(Self::named(tag.local_name().as_ref())),
                Event::Start(_) => return None,
                Event::Empty(tag) => open.last_mut()?.children.push(Self::named(tag.local_name().as_ref())),
                Event::Text(text) => open.last_mut()?.text.push_str(&text.xml_content(XmlVersion::Implicit1_0)),
                Event::CData(text) => open.last_mut()?.text.push_str(&text.xml_content(XmlVersion::Implicit1_0)),
                Event::GeneralRef(reference) => {
                    let character = match reference.resolve_char_ref().ok()? {
                        Some(character) => character.to_string(),
                        None => quick_xml::escape::resolve_predefined_entity(&reference)?.to_owned(),
                    };
                    open.last_mut()?.text.push_str(&character);
                }
                Event::End(_) => {
                    let closed = open.pop()?;
                    open.last_mut()?.children.push(closed);
                }
                Event::Eof if open.len() == 1 => return open.pop()?.children.pop(),
                Event::Eof => return None,
                _ => {}
            }
        }
    }

    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Its name, without a namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of the first element `name` right below it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.children.iter().find(|child| child.name == name).map(|child| child.text.trim())
    }

    /// All elements `name` right below it.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The first element `name` anywhere in it.
    pub fn find(&self, name: &str) -> Option<&Self> {
        self.children.iter().find_map(|child| if child.name == name { Some(child) } else { child.find(name) })
    }
}

/// The text of the first element `name` of a document.
pub fn text(document: &str, name: &str) -> Option<String> {
    Some(Element::parse(document)?.find(name)?.text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_s3_sends() {
        let document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3\"><IsTruncated>false</IsTruncated>\
                        <Contents><Key>a&amp;b&#65;</Key><Size>1</Size></Contents><Contents><Key>c</Key><Owner/></Contents></ListBucketResult>";
        let list = Element::parse(document).unwrap();
        assert_eq!(list.name(), "ListBucketResult");
        assert_eq!(list.text("IsTruncated"), Some("false"));
        assert_eq!(list.all("Contents").map(|entry| entry.text("Key").unwrap()).collect::<Vec<_>>(), ["a&bA", "c"]);
        assert_eq!(text(document, "Size").as_deref(), Some("1"));
        assert_eq!(text(document, "Absent"), None);
    }

    #[test]
    fn what_is_no_xml_is_none() {
        for document in ["", "text", "{}", "<a>", "<a></b>", "<a>&unknown;</a>", &"<a>".repeat(100_000)] {
            assert!(Element::parse(document).is_none(), "{document:.20}");
        }
    }
}
