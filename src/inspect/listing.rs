//! `--tree` and `--diff`: one line for each path, as text or as JSON.

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    Output,
    changes::{ChangeKind, Summary},
    source::InspectedImage,
    unwritable,
};
use crate::{
    digest::Digest,
    quote::{Bytes, Quoted},
    units::{count, size},
    workspace::{
        Error,
        entry::{Entry, Node, Time},
    },
};

/// Lists what `source` holds.
pub fn tree(source: &InspectedImage, output: Output, out: &mut dyn Write) -> Result<(), Error> {
    if output == Output::Json {
        let mut entries = Array::begin(out, &ImageHead::of(source), "entries")?;
        source.for_each(&mut |entry| entries.push(&Described::new(&entry)))?;
        return entries.end("note", &source.unlisted);
    }
    source.for_each(&mut |entry| writeln!(out, "{}", EntryLine(&entry)).map_err(unwritable()))
}

/// Lists what differs between `a` and `b`.
pub fn diff(a: &InspectedImage, b: &InspectedImage, output: Output, out: &mut dyn Write) -> Result<(), Error> {
    let mut summary = Summary::default();
    if output == Output::Json {
        let mut changes = Array::begin(out, &ImageHeads { from: ImageHead::of(a), to: ImageHead::of(b) }, "changes")?;
        a.compare(b, &mut |before, after| match summary.add(before.as_ref(), after.as_ref()) {
            None => Ok(()),
            Some(change) => changes.push(&Changed {
                change: change.letter(),
                before: before.as_ref().map(Described::new),
                after: after.as_ref().map(Described::new),
            }),
        })?;
        return changes.end("summary", &summary);
    }
    a.compare(b, &mut |before, after| {
        let Some(change) = summary.add(before.as_ref(), after.as_ref()) else { return Ok(()) };
        let Some(shown) = after.as_ref().or(before.as_ref()) else { return Ok(()) };
        let what = What(change, before.as_ref(), after.as_ref());
        writeln!(out, "{} {}{what}", change.letter(), Name(shown)).map_err(unwritable())
    })?;
    let Summary { added, changed, deleted, attributes, .. } = summary;
    let [added, changed, deleted] =
        [added, changed, deleted].map(|amount| format!("{} ({})", count(amount.files, "file"), size(amount.bytes)));
    writeln!(out, "{added} added, {changed} changed, {deleted} deleted, {attributes} with other attributes only")
        .map_err(unwritable())
}

/// A path as people know it: directories end with `/`.
struct Name<'a>(&'a Entry);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(entry) = self;
        match (entry.path.is_root(), entry.is_dir()) {
            (true, _) => f.write_str("./"),
            (_, true) => write!(f, "{}/", Quoted(entry.path.as_bytes())),
            (_, false) => Quoted(entry.path.as_bytes()).fmt(f),
        }
    }
}

/// An entry as `tar -tv` shows it.
pub struct EntryLine<'a>(pub &'a Entry);

impl fmt::Display for EntryLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { mode, uid, gid, node, .. } = self.0;
        let letter = match node {
            Node::Dir { .. } => 'd',
            Node::File(_) | Node::Link { .. } => '-',
            Node::Symlink(_) => 'l',
            Node::Fifo => 'p',
            Node::Char(_) => 'c',
            Node::Block(_) => 'b',
            Node::Whiteout => '?',
        };
        let size = self.0.content().map_or(0, |content| content.size);
        write!(f, "{letter}{} {uid}/{gid} {size:>10} {}", Permissions(*mode), Name(self.0))?;
        match node {
            Node::Symlink(target) => write!(f, " -> {}", Quoted(target)),
            Node::Link { to, .. } => write!(f, " link to {}", Quoted(to.as_bytes())),
            _ => Ok(()),
        }
    }
}

/// What is to be known of a change beside the path, after two blanks: of what was there before and what is there now.
pub struct What<'a>(pub ChangeKind, pub Option<&'a Entry>, pub Option<&'a Entry>);

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |entry: Option<&Entry>| entry.and_then(Entry::content).map(|content| size(content.size));
        let Self(change, before, after) = *self;
        match (change, bytes(before), bytes(after)) {
            (ChangeKind::Added, _, Some(after)) => write!(f, "  +{after}"),
            (ChangeKind::Deleted, Some(before), _) => write!(f, "  -{before}"),
            (ChangeKind::Content, Some(before), Some(after)) => write!(f, "  {before} -> {after}"),
            (ChangeKind::Kind, ..) => {
                write!(f, "  {} -> {}", before.map_or("", kind), after.map_or("", kind))
            }
            (ChangeKind::Attributes, ..) => {
                let (Some(before), Some(after)) = (before, after) else { return Ok(()) };
                let mut what = Vec::new();
                if before.mode != after.mode {
                    what.push(format!("mode {:04o} -> {:04o}", before.mode, after.mode));
                }
                if (before.uid, before.gid) != (after.uid, after.gid) {
                    what.push(format!("owner {}/{} -> {}/{}", before.uid, before.gid, after.uid, after.gid));
                }
                if before.xattrs != after.xattrs {
                    what.push("extended attributes".to_owned());
                }
                if before.mtime != after.mtime && !after.is_dir() {
                    what.push("time".to_owned());
                }
                write!(f, "  {}", what.join(", "))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct ImageHead<'a> {
    image: &'a str,
    digest: Digest,
}

impl<'a> ImageHead<'a> {
    fn of(source: &'a InspectedImage) -> Self {
        Self { image: &source.image, digest: source.digest }
    }
}

#[derive(Serialize)]
struct ImageHeads<'a> {
    from: ImageHead<'a>,
    to: ImageHead<'a>,
}

#[derive(Serialize)]
struct Changed<'a> {
    change: char,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Described<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Described<'a>>,
}

/// An entry as JSON.
#[derive(Serialize)]
struct Described<'a> {
    #[serde(flatten)]
    path: Bytes<'a>,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(flatten)]
    target: Option<Bytes<'a>>,
    #[serde(flatten)]
    link_to: Option<Bytes<'a>>,
}

impl<'a> Described<'a> {
    fn new(entry: &'a Entry) -> Self {
        let (target, link_to) = match &entry.node {
            Node::Symlink(target) => (Some(Bytes(&["target", "targetBase64"], target)), None),
            Node::Link { to, .. } => (None, Some(Bytes(&["linkTo", "linkToBase64"], to.as_bytes()))),
            _ => (None, None),
        };
        Self {
            path: Bytes(&["path", "pathBase64"], entry.path.as_bytes()),
            kind: kind(entry),
            mode: format!("{:04o}", entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            mtime: time(entry.mtime),
            size: entry.content().map(|content| content.size),
            target,
            link_to,
        }
    }
}

/// An entry as `--tree -o json` has it.
pub fn as_json(entry: &Entry) -> serde_json::Value {
    // A struct of strings and numbers is always JSON.
    serde_json::to_value(Described::new(entry)).unwrap_or_default()
}

fn kind(entry: &Entry) -> &'static str {
    match entry.node {
        Node::Dir { .. } => "directory",
        Node::File(_) | Node::Link { .. } => "file",
        Node::Symlink(_) => "symlink",
        Node::Fifo => "fifo",
        Node::Char(_) | Node::Block(_) => "device",
        Node::Whiteout => "whiteout",
    }
}

/// RFC 3339 with nanoseconds; before 1970 seconds alone.
pub fn time(Time { sec, nsec }: Time) -> String {
    let nanoseconds = i32::try_from(nsec).ok();
    let time = nanoseconds.filter(|_| sec >= 0).and_then(|nsec| jiff::Timestamp::new(sec, nsec).ok());
    time.map_or_else(|| sec.to_string(), |time| format!("{time:.9}"))
}

/// Permission bits as `ls -l` shows them.
struct Permissions(u32);

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, special, letters) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
            let bits = self.0 >> shift;
            f.write_str(if bits & 4 != 0 { "r" } else { "-" })?;
            f.write_str(if bits & 2 != 0 { "w" } else { "-" })?;
            f.write_str(match (self.0 & special != 0, bits & 1 != 0) {
                (true, true) => &letters[..1],
                (true, false) => &letters[1..],
                (false, true) => "x",
                (false, false) => "-",
            })?;
        }
        Ok(())
    }
}

/// A JSON object with an array as its last field, one element a line: it is never held whole.
struct Array<'a> {
    out: &'a mut dyn Write,
    separator: &'static str,
}

impl<'a> Array<'a> {
    /// Writes the fields of `head` and begins the array `name`.
    fn begin(out: &'a mut dyn Write, head: &impl Serialize, name: &str) -> Result<Self, Error> {
        let head = serde_json::to_string(head).map_err(io::Error::from).map_err(unwritable())?;
        write!(out, "{},\"{name}\":[", head.strip_suffix('}').unwrap_or(&head)).map_err(unwritable())?;
        Ok(Self { out, separator: "\n" })
    }

    fn push(&mut self, element: &impl Serialize) -> Result<(), Error> {
        let element = serde_json::to_string(element).map_err(io::Error::from).map_err(unwritable())?;
        let separator = std::mem::replace(&mut self.separator, ",\n");
        write!(self.out, "{separator}{element}").map_err(unwritable())
    }

    /// Ends the array and adds the field `name` with `value`.
    fn end(self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        let value = serde_json::to_string(value).map_err(io::Error::from).map_err(unwritable())?;
        writeln!(self.out, "\n],\"{name}\":{value}}}").map_err(unwritable())
    }
}
