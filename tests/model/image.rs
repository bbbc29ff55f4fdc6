//! An image as any tool sees it: its layers, applied one after the other in memory
//! (OCI image-spec, image-layout.md and layer.md "Applying Changesets").

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::seen::{Item, Seen};

/// A file's names share what it is by its number.
type Applied = BTreeMap<PathBuf, (u64, Item)>;

/// What the image with this manifest holds; `blob` gives what a descriptor describes.
pub fn read(manifest: &Value, blob: &dyn Fn(&Value) -> Vec<u8>) -> Seen {
    let mut tree = Applied::new();
    for layer in manifest["layers"].as_array().expect("layers") {
        let bytes = blob(layer);
        let mut archive = Vec::new();
        match layer["mediaType"].as_str().expect("a media type").rsplit_once("tar").expect("an archive").1 {
            "" => archive = bytes,
            "+gzip" => drop(flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut archive).expect("gzip")),
            "+zstd" => zstd::stream::copy_decode(&*bytes, &mut archive).expect("zstd"),
            other => panic!("layer with {other}"),
        }
        apply(&mut tree, &archive);
    }
    seen(tree)
}

/// Whiteouts first: they are about the layers below only.
fn apply(tree: &mut Applied, archive: &[u8]) {
    let mut entries = Vec::new();
    let mut records = Records::new();
    for entry in tar::Archive::new(archive).entries().expect("an archive").raw(true) {
        let mut entry = entry.expect("an entry");
        if entry.header().entry_type().is_pax_local_extensions() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("PAX records");
            records = pax(&bytes);
            continue;
        }
        let mut taken = std::mem::take(&mut records);
        let path = taken.remove(&b"path"[..]).unwrap_or_else(|| entry.path_bytes().into_owned());
        let path: PathBuf = Path::new(OsStr::from_bytes(&path)).components().filter(|c| c.as_os_str() != ".").collect();
        let name = path.file_name().unwrap_or_default().as_bytes();
        match name.strip_prefix(b".wh.") {
            Some(gone) => {
                let gone = path.with_file_name(OsStr::from_bytes(gone));
                tree.retain(|path, _| !path.starts_with(&gone));
            }
            None => {
                let (item, to) = item(&mut entry, taken);
                entries.push((path, item, to));
            }
        }
    }
    let next = tree.values().map(|(number, _)| number + 1).max().unwrap_or_default();
    for (number, (path, item, to)) in (next..).zip(entries) {
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        assert!(above.is_none_or(|above| tree[above].1.kind == "dir"), "{} is in no directory", path.display());
        if item.kind != "dir" {
            tree.retain(|other, _| !other.starts_with(&path));
        }
        let made = to.map_or((number, item), |to| tree[&to].clone());
        tree.insert(path, made);
    }
}

/// The PAX records of one entry: length, blank, key, `=`, value, line break (POSIX pax, "pax Extended Header").
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn pax(mut bytes: &[u8]) -> Records {
    let split = |bytes: &[u8], at: u8| bytes.iter().position(|byte| *byte == at).expect("a separator");
    let mut records = Records::new();
    while !bytes.is_empty() {
        let blank = split(bytes, b' ');
        let length: usize = std::str::from_utf8(&bytes[..blank]).expect("text").parse().expect("a length");
        let record = &bytes[blank + 1..length - 1];
        let equals = split(record, b'=');
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        bytes = &bytes[length..];
    }
    records
}

/// What an entry is, and for a hard link to what.
fn item(entry: &mut tar::Entry<'_, &[u8]>, mut records: Records) -> (Item, Option<PathBuf>) {
    let header = entry.header().clone();
    let mut text = |key: &str| records.remove(key.as_bytes()).map(|value| String::from_utf8(value).expect("text"));
    let number = |text: Option<String>| text.map(|text| text.parse::<u32>().expect("a number"));
    let uid = number(text("uid")).unwrap_or_else(|| header.uid().expect("a uid") as u32);
    let gid = number(text("gid")).unwrap_or_else(|| header.gid().expect("a gid") as u32);
    let mtime = text("mtime").map_or_else(|| (header.mtime().expect("a time") as i64, 0), |text| time(&text));
    let linked = records.remove(&b"linkpath"[..]);
    let linked = linked.or_else(|| entry.link_name_bytes().map(|name| name.into_owned())).unwrap_or_default();
    let xattr = |(key, value): (Vec<u8>, Vec<u8>)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value));
    let (kind, is_link) = match header.entry_type() {
        tar::EntryType::Directory => ("dir", false),
        tar::EntryType::Regular => ("file", false),
        tar::EntryType::Link => ("file", true),
        tar::EntryType::Symlink => ("symlink", false),
        tar::EntryType::Fifo => ("fifo", false),
        other => panic!("an entry of type {other:?}"),
    };
    let mut content = Vec::new();
    match kind {
        "symlink" => content.clone_from(&linked),
        _ => drop(entry.read_to_end(&mut content).expect("content")),
    }
    let item = Item {
        kind,
        mode: if kind == "symlink" { 0 } else { header.mode().expect("a mode") & 0o7777 },
        owner: rustix::process::geteuid().is_root().then_some((uid, gid)),
        mtime,
        content,
        names: BTreeSet::new(),
        xattrs: records.into_iter().filter_map(xattr).collect(),
    };
    (item, is_link.then(|| OsString::from_vec(linked).into()))
}

/// `-1.25` is 1.25 s before 1970; a point in time has nanoseconds after its second.
fn time(text: &str) -> (i64, i64) {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().expect("seconds");
    let nanoseconds: i64 = format!("{fraction:0<9}")[..9].parse().expect("nanoseconds");
    match text.starts_with('-') && nanoseconds > 0 {
        true => (seconds - 1, 1_000_000_000 - nanoseconds),
        false => (seconds, nanoseconds),
    }
}

/// Names that an image can't hold are stored with a prefix (docs/format.md). The root is not compared.
fn seen(tree: Applied) -> Seen {
    let plain = |path: &PathBuf| -> PathBuf {
        let name = |name: &OsStr| match name.as_bytes().strip_prefix(b".tekton-wrap.") {
            Some(rest) => OsString::from_vec(rest.to_vec()),
            None => name.to_owned(),
        };
        path.iter().map(name).collect()
    };
    let mut names: BTreeMap<u64, BTreeSet<PathBuf>> = BTreeMap::new();
    for (path, (number, _)) in tree.iter().filter(|(_, (_, item))| item.kind == "file") {
        names.entry(*number).or_default().insert(plain(path));
    }
    let own = |number: u64| names.get(&number).cloned().unwrap_or_default();
    let entries = tree.iter().filter(|(path, _)| !path.as_os_str().is_empty());
    entries.map(|(path, (number, item))| (plain(path), Item { names: own(*number), ..item.clone() })).collect()
}
