//! Archives and tables of contents that lie: nothing outside of the workspace is touched, and the error is clear.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use super::*;
use crate::{
    digest::Digest,
    step::Compression,
    store::Blob,
    workspace::{
        entry::{Content, Entry, Node, Time},
        layer::{
            codec,
            descriptor::{Annotations, Descriptor},
            toc::TocWriter,
        },
        path::TreePath,
        snapshot::image::{Config, Manifest, RootFs},
    },
};

/// A workspace, and beside it what must not change.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> Self {
        let folder = tempfile::tempdir_in(parent).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/canary"), "alive").unwrap();
        Self { folder }
    }

    fn image(&self) -> String {
        format!("dir://{}:bad", self.folder.path().join("store").display())
    }

    /// Stores an image of these layers and restores it.
    fn restore(&self, layers: &[Descriptor]) -> Result<(), Error> {
        put(&*self.store(), "bad", layers);
        let before = seen::see(&self.folder.path().join("outside"));
        let result = restore_image(&self.image(), &self.folder.path().join("ws"), None);
        assert_eq!(before, seen::see(&self.folder.path().join("outside")));
        assert!(!self.folder.path().join("canary").exists());
        result
    }

    fn store(&self) -> Box<dyn Store> {
        store::open(&self.image().parse::<Target>().unwrap()).unwrap()
    }

    fn foreign(&self, archive: &[u8]) -> Descriptor {
        Descriptor::new(descriptor::LAYER, self.store().put_bytes(archive).unwrap())
    }
}

/// Stores an ordinary image of these layers.
pub(super) fn put(store: &dyn Store, tag: &str, layers: &[Descriptor]) {
    let rootfs = RootFs { kind: "layers".to_owned(), diff_ids: layers.iter().map(|_| Digest::of(b"")).collect() };
    let config = Config {
        created: String::new(),
        architecture: String::new(),
        os: String::new(),
        config: Default::default(),
        rootfs,
        history: Vec::new(),
        snapshot: None,
        lineage: None,
    };
    let config = store.put_bytes(&serde_json::to_vec(&config).unwrap()).unwrap();
    let manifest = Manifest {
        schema_version: 2,
        media_type: image::MANIFEST.to_owned(),
        config: Descriptor::new(image::CONFIG, config),
        layers: layers.to_vec(),
        annotations: Annotations::new(),
    };
    store.put_manifest(tag, image::MANIFEST, &serde_json::to_vec(&manifest).unwrap()).unwrap();
}

/// The member with other bytes in its header at `at`, and a checksum that fits.
fn with(mut member: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    member[at..at + bytes.len()].copy_from_slice(bytes);
    let sum = |(i, &byte): (usize, &u8)| if (148..156).contains(&i) { 32 } else { u32::from(byte) };
    let sum: u32 = member[..512].iter().enumerate().map(sum).sum();
    member[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    member
}

/// An entry of an archive, as bytes, whatever they say.
fn member(kind: u8, path: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    let bytes = header.as_mut_bytes();
    bytes[..path.len()].copy_from_slice(path.as_bytes());
    bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
    bytes[156] = kind;
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut member = header.as_bytes().to_vec();
    member.extend_from_slice(content);
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (rest + 1..rest + 9).find(|len| *len == rest + len.to_string().len()).unwrap();
    member(b'x', "pax", "", format!("{len} {key}={value}\n").as_bytes())
}

fn dir(path: &str) -> Vec<u8> {
    member(b'5', path, "", b"")
}

pub(super) fn file(path: &str) -> Vec<u8> {
    member(b'0', path, "", b"dead")
}

fn symlink(path: &str, target: &str) -> Vec<u8> {
    member(b'2', path, target, b"")
}

#[test]
fn archives() {
    let lying = with(file("f"), 124, b"00000100000\0");
    let endless = with(file("f"), 124, &[0xff; 12]);
    let huge = with(file("f"), 124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    let old_sparse = with(member(b'S', "f", "", b""), 257, b"ustar  \0");
    let deep = "a/".repeat(30_000);
    let mut bomb = member(b'x', "pax", "", &vec![b'a'; 2 << 20]);
    bomb.extend(file("f"));
    let long = |name: &str, kind| member(kind, "././@LongLink", "", format!("{name}\0").as_bytes());
    for (archive, says) in [
        (file("/outside/canary"), "is absolute"),
        (file("../outside/canary"), "holds the name \"..\""),
        (file("a/../../outside/canary"), "holds the name \"..\""),
        ([symlink("d", "../outside"), file("d/canary")].concat(), "lies below what is not a directory"),
        ([symlink("d", "."), symlink("d/e", ".."), file("d/e/canary")].concat(), "lies below what is not a directory"),
        (member(b'1', "l", "../outside/canary", b""), "holds the name \"..\""),
        (member(b'1', "l", "/outside/canary", b""), "is absolute"),
        ([symlink("s", "../outside/canary"), member(b'1', "l", "s", b"")].concat(), "hard link to what is no file"),
        (member(b'1', "l", "l", b""), "hard link to what is no file"),
        (member(b'3', "null", "", b""), "is a device"),
        (member(b'4', "disk", "", b""), "is a device"),
        (member(b'?', "f", "", b""), "unknown type '?'"),
        ([pax("path", "../outside/canary"), file("ok")].concat(), "holds the name \"..\""),
        ([pax("linkpath", "../outside/canary"), member(b'1', "l", "ok", b"")].concat(), "holds the name \"..\""),
        ([pax("size", "99999"), file("f")].concat(), "cut off"),
        ([pax("size", "-1"), file("f")].concat(), "number that is none"),
        ([pax("GNU.sparse.name", "f"), file("f")].concat(), "sparse"),
        ([long("../outside/canary", b'L'), file("ok")].concat(), "holds the name \"..\""),
        ([long("../outside/canary", b'K'), member(b'1', "l", "ok", b"")].concat(), "holds the name \"..\""),
        (lying, "cut off"),
        (endless, "larger than the"),
        (huge, "larger than the"),
        (old_sparse, "sparse file"),
        ([long(&format!("{deep}f"), b'L'), file("ok")].concat(), "has a path that is too long"),
        ([long("ok", b'L'), pax("path", "../outside/canary"), file("ok")].concat(), "holds the name \"..\""),
        ([pax("path", "ok"), long("../outside/canary", b'L'), file("ok")].concat(), ""),
        ([pax("path", "a\n19 path=../outside/x"), file("ok")].concat(), ""),
        ([pax("path", "a\0/../../outside/canary"), file("ok")].concat(), "zero byte"),
        ([pax("path", ""), file("ok")].concat(), "stands in for the whole workspace"),
        ([member(b'g', "pax", "", b"27 path=../outside/canary\n"), file("ok")].concat(), ""),
        ([symlink("s", "../outside"), member(b'1', "l", "s/canary", b"")].concat(), "hard link to what is no file"),
        ([symlink("s", "../outside"), file("s/.wh.canary")].concat(), ""),
        ([dir("d"), symlink("d", "../outside"), file("d/canary")].concat(), "lies below what is not a directory"),
        ([file(".wh.d"), symlink("d", "../outside"), file("d/.wh..wh..opq")].concat(), ""),
        (bomb, "more than 1 MiB of headers"),
        (file(".wh."), "whiteout of nothing"),
        (file(".wh..."), "whiteout of nothing"),
        (file("../.wh.outside"), "holds the name \"..\""),
        (file("."), "stands in for the whole workspace"),
        (vec![b'x'; 1024], "not a tar archive"),
        ([file("f"), vec![b'x'; 512]].concat(), "damaged one"),
        (file("f")[..700].to_vec(), "can't be read"),
    ] {
        let place = Place::new();
        let error = place.restore(&[place.foreign(&archive)]).map_or_else(|e| e.to_string(), |()| String::new());
        let named = says.is_empty() || error.contains("sha256:");
        assert!(error.contains(says) && error.is_empty() == says.is_empty() && named, "{says:?}: {error:?}");
    }
}

/// The prefix that layers of ours have in front of some names, in a layer that only says that it is one of ours.
#[test]
fn prefixes_that_hide_where_a_name_leads() {
    let up = ".tekton-wrap...";
    for layers in [
        vec![file(&format!("{up}/outside/canary"))],
        vec![file(&format!("d/{up}/{up}/outside/new"))],
        vec![dir(&format!("{up}/outside"))],
        vec![symlink(&format!("{up}/outside/canary"), "/")],
        vec![[file("f"), member(b'1', &format!("{up}/outside/link"), "f", b"")].concat()],
        vec![member(b'1', "link", &format!("{up}/outside/canary"), b"")],
        vec![file(&format!("{up}/outside/.wh.canary"))],
        vec![file(&format!("{up}/outside/.wh..wh..opq"))],
        vec![file(&format!("{up}/new")), file(&format!(".wh.{up}"))],
        vec![file(".tekton-wrap./f")],
        vec![file(".tekton-wrap..")],
    ] {
        let place = Place::new();
        let ours = |archive: &Vec<u8>| {
            let mut layer = place.foreign(archive);
            layer.annotations.insert(descriptor::ESCAPED.to_owned(), "true".to_owned());
            layer
        };
        let layers: Vec<Descriptor> = layers.iter().map(ours).collect();
        let _ = place.restore(&layers);
        let mut beside: Vec<_> =
            fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["outside", "store", "ws"]);
    }
}

/// Compressed forms that lie or blow up.
#[test]
fn streams() {
    let place = Place::new();
    let gzip = |plain: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(plain).unwrap();
        out.finish().unwrap()
    };
    let zstd = |plain: &[u8], window: u32| {
        let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        out.window_log(window).unwrap();
        out.write_all(plain).unwrap();
        out.finish().unwrap()
    };
    let (good, skippable) = (file("f"), [&0x184D_2A50_u32.to_le_bytes()[..], &u32::MAX.to_le_bytes()[..]].concat());
    for (form, blob, says) in [
        ("+gzip", gzip(&good), ""),
        ("+gzip", [gzip(&good[..600]), gzip(&good[600..])].concat(), ""),
        ("+gzip", [gzip(&good), b"garbage".to_vec()].concat(), "can't be read"),
        ("+gzip", gzip(&good)[..20].to_vec(), "can't be read"),
        ("+gzip", good.clone(), "can't be read"),
        ("+zstd", zstd(&good, 21), ""),
        ("+zstd", [zstd(&good[..600], 21), zstd(&good[600..], 21)].concat(), ""),
        ("+zstd", zstd(&good, 27), ""),
        ("+zstd", zstd(&good, 31), "can't be read"),
        ("+zstd", [zstd(&good, 21), b"garbage".to_vec()].concat(), "can't be read"),
        ("+zstd", [zstd(&good, 21), skippable].concat(), "can't be read"),
        ("+zstd", zstd(&good, 21)[..20].to_vec(), "can't be read"),
        ("+lzma", good.clone(), "is not that of a layer"),
    ] {
        let blob = place.store().put_bytes(&blob).unwrap();
        let layer = Descriptor::new(&format!("{}{form}", descriptor::LAYER), blob);
        let error = place.restore(&[layer]).map_or_else(|e| e.to_string(), |()| String::new());
        assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{form} {says:?}: {error:?}");
    }
}

/// The window of a foreign layer may be as large as compressors make it. Layers with a table are read beside each other, and
/// each reader would hold its own.
#[test]
fn windows() {
    for (window, fits) in [(20, true), (23, true), (24, false), (27, false)] {
        let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        out.window_log(window).unwrap();
        out.write_all(&[7; 4096]).unwrap();
        let packed = out.finish().unwrap();
        for (ours, fits) in [(true, fits), (false, true)] {
            let mut decoder = codec::decoder(Compression::Zstd, ours, &packed[..]).unwrap();
            assert_eq!(decoder.read_to_end(&mut Vec::new()).is_ok(), fits, "{window} {ours}");
        }
    }
}

/// A few kilobytes that unpack to a terabyte: refused before they are on the disk.
#[test]
fn a_bomb() {
    let place = Place::new();
    let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let size = 1_u64 << 40;
    let mut header = [&b"\x80\0\0\0"[..], &size.to_be_bytes()].concat();
    header.truncate(12);
    out.write_all(&with(member(b'0', "bomb", "", b""), 124, &header)).unwrap();
    out.write_all(&vec![b'x'; 8 << 20]).unwrap();
    let blob = place.store().put_bytes(&out.finish().unwrap()).unwrap();
    let error =
        place.restore(&[Descriptor::new(&format!("{}+zstd", descriptor::LAYER), blob)]).unwrap_err().to_string();
    let free = space::Space::of(&place.folder.path().join("ws")).unwrap().bytes();
    let says = if free < size { "\"bomb\" would make it larger than the" } else { "can't be read" };
    assert!(error.contains(says), "{error}");
}

#[test]
fn deep_nesting() {
    let place = Place::new();
    // Deeper than a process may have open files in many containers, if not in this one: either way is clear.
    let deep = "d/".repeat(800);
    let long = member(b'L', "././@LongLink", "", format!("{deep}f\0").as_bytes());
    match place.restore(&[place.foreign(&[long, file("f")].concat())]) {
        Ok(()) => {}
        Err(e) => assert!(e.to_string().contains("Too many open files"), "{e}"),
    }
    extract::Extractor::new(&place.folder.path().join("ws")).unwrap().remove(&TreePath::parse(b"d").unwrap()).unwrap();
}

#[test]
fn later_entries_replace_earlier_ones_and_never_go_through_them() {
    for archive in [
        [symlink("x", "../outside/canary"), file("x")].concat(),
        [symlink("x", "../outside"), dir("x"), file("x/canary")].concat(),
        [file("x"), dir("x"), file("x/canary"), symlink("x", "../outside"), file("x")].concat(),
        [dir("x"), symlink("x", "../outside"), file("x")].concat(),
    ] {
        let place = Place::new();
        place.restore(&[place.foreign(&archive)]).unwrap();
        let kind = fs::symlink_metadata(place.folder.path().join("ws/x")).unwrap().file_type();
        assert!(kind.is_file() || kind.is_dir());
    }
    // And over several layers, with whiteouts.
    let place = Place::new();
    let layers = [
        [dir("d"), file("d/a"), file("d/b"), symlink("s", "../outside"), file("gone")].concat(),
        [file("d/.wh..wh..opq"), file("d/c"), file(".wh.gone"), file(".wh.s"), file("d/.wh.none")].concat(),
    ];
    place.restore(&layers.map(|layer| place.foreign(&layer))).unwrap();
    let left: Vec<_> = seen::contents(&place.folder.path().join("ws")).into_keys().collect();
    assert_eq!(left, ["", "d", "d/c"].map(PathBuf::from));
}

#[test]
fn a_whiteout_hides_lower_layers_only() {
    let place = Place::new();
    let layers = [
        [dir("d"), file("d/a"), dir("d/e"), file("d/e/a")].concat(),
        [dir("d"), dir("d/e"), file("d/e/b"), file("d/b"), file("d/.wh..wh..opq"), file("d/.wh.b")].concat(),
    ];
    place.restore(&layers.map(|layer| place.foreign(&layer))).unwrap();
    let left: Vec<_> = seen::contents(&place.folder.path().join("ws")).into_keys().collect();
    assert_eq!(left, ["", "d", "d/b", "d/e", "d/e/b"].map(PathBuf::from));
}

fn entry(path: &str, node: Node) -> Entry {
    let path = TreePath::parse(path.as_bytes()).unwrap();
    Entry { path, node, mode: 0o644, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
}

/// A layer of ours with these entries, whatever sense they make.
fn ours(place: &Place, entries: &[Entry]) -> Descriptor {
    write::store(&*place.store(), Compression::None, &[], &mut |out| {
        for entry in entries {
            match entry.node {
                Node::File(_) => drop(out.push_file(entry.clone(), &mut &b"dead"[..]).unwrap()),
                _ => out.push(entry).unwrap(),
            }
        }
        Ok(())
    })
    .unwrap()
}

fn content() -> Content {
    Content { size: 4, hash: [0; 32] }
}

#[test]
fn layers_that_look_like_ours() {
    let link = |to: &str| Node::Link { to: TreePath::parse(to.as_bytes()).unwrap(), content: content() };
    for (entries, says) in [
        (vec![entry("d", Node::Symlink(b"../outside".to_vec())), entry("d/canary", Node::File(content()))], "d/canary"),
        (
            vec![entry("a", Node::Symlink(b"../outside/canary".to_vec())), entry("l", link("a"))],
            "a link to a, which it has not",
        ),
        (vec![entry("l", link("none"))], "a link to none, which it has not"),
        (vec![entry("none/f", Node::File(content()))], "none/f: can't be made"),
    ] {
        let place = Place::new();
        let error = place.restore(&[ours(&place, &entries)]).unwrap_err().to_string();
        assert!(error.contains(says), "{says:?}: {error:?}");
    }
}

#[test]
fn tables_that_do_not_fit() {
    let place = Place::new();
    let good = ours(&place, &[entry("aa", Node::File(content())), entry("b", Node::File(content()))]);
    place.restore(std::slice::from_ref(&good)).unwrap();

    // A table of other entries than the layer has, where the good one was.
    let with_table = |entries: &[Entry], change: fn(Vec<u8>) -> Vec<u8>| {
        let mut toc = TocWriter::new().unwrap();
        entries.iter().for_each(|entry| toc.push(entry).unwrap());
        let (payload, count) = toc.finish().unwrap();
        let plain = change(zstd::decode_all(&payload[..]).unwrap());
        let payload = zstd::encode_all(&plain[..], 1).unwrap();
        let mut blob = Vec::new();
        std::io::copy(&mut place.store().blob(&good.blob()).unwrap(), &mut blob).unwrap();
        let mut info = good.info().unwrap();
        blob.truncate(info.toc_offset as usize);
        blob.extend_from_slice(&payload);
        (info.entries, info.toc_size, info.toc_digest) = (count, payload.len() as u64, Digest::of(&payload));
        Descriptor::new(descriptor::LAYER, place.store().put_bytes(&blob).unwrap()).with_info(&info)
    };
    let as_it_is = |plain| plain;
    let file = |path| entry(path, Node::File(content()));
    let huge = entry("b", Node::File(Content { size: u64::MAX, hash: [0; 32] }));
    let up = |plain: Vec<u8>| {
        let at = plain.windows(2).position(|two| two == b"aa").unwrap();
        [&plain[..at], b"..", &plain[at + 2..]].concat()
    };
    let annotated = |name: &str, value: &str| {
        let mut layer = good.clone();
        layer.annotations.insert(format!("dev.tekton-wrap.{name}"), value.to_owned());
        layer
    };
    let other = Descriptor { digest: Digest::of(b"other"), ..good.clone() };
    let longer = Descriptor { size: good.size + 1, ..good.clone() };
    for (layer, says) in [
        (with_table(&[file("aa")], as_it_is), "does not end where its table of contents says"),
        (with_table(&[file("aa"), file("c")], as_it_is), "at c it is not what its table of contents says"),
        (with_table(&[file("aa"), huge], as_it_is), "at b it is not what its table of contents says"),
        (with_table(&[file("aa"), file("b")], up), "table of contents is damaged"),
        (
            with_table(&[file("aa"), file("b")], |plain| plain[..plain.len() / 2].to_vec()),
            "table of contents is damaged",
        ),
        (annotated("entries", "3"), "table of contents is damaged"),
        (annotated("entries", "x"), "annotation dev.tekton-wrap.entries"),
        (annotated("toc.size", "18446744073709551615"), "table of contents is not within it"),
        (annotated("toc.offset", "0"), "does not have the digest that it should have"),
        (other, "blobs/sha256"),
        (longer, "blobs/sha256"),
    ] {
        let error = place.restore(&[layer]).unwrap_err().to_string();
        assert!(error.contains(says), "{says:?}: {error:?}");
    }
}

#[test]
fn content_that_was_changed_in_the_store() {
    let place = Place::new();
    let layer = ours(&place, &[entry("a", Node::File(content()))]);
    let Blob { digest, .. } = layer.blob();
    let path = place.folder.path().join("store/blobs/sha256").join(digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|four| four == b"dead").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = place.restore(&[layer]).unwrap_err().to_string();
    assert!(error.contains(&digest.to_string()) || error.contains(&digest.hex()), "{error}");
}

#[test]
fn many_entries_are_no_trouble() {
    let place = Place::new();
    let archive: Vec<u8> = (0..20_000).flat_map(|i| member(b'0', &format!("{:03}/{i}", i % 100), "", b"")).collect();
    place.restore(&[place.foreign(&archive)]).unwrap();
    assert_eq!(fs::read_dir(place.folder.path().join("ws")).unwrap().count(), 100);
    assert_eq!(fs::read_dir(Path::new(&place.folder.path().join("ws/042"))).unwrap().count(), 200);
}

/// What a directory costs must not depend on how deep it is times how many there are.
#[test]
fn many_deep_directories_are_no_trouble() {
    // Some file systems take long to remove as many directories.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { Place::new_in(memory) } else { Place::new() };
    let file = |i: usize| {
        let path = format!("{i:02}/{}f", "d/".repeat(900));
        [member(b'L', "././@LongLink", "", format!("{path}\0").as_bytes()), file("f")].concat()
    };
    let archive: Vec<u8> = (0..60).flat_map(file).collect();
    let start = std::time::Instant::now();
    place.restore(&[place.foreign(&archive)]).unwrap();
    let time = start.elapsed();
    for i in 0..60 {
        let path = TreePath::parse(format!("{i:02}").as_bytes()).unwrap();
        extract::Extractor::new(&place.folder.path().join("ws")).unwrap().remove(&path).unwrap();
    }
    assert!(time.as_secs() < 60, "{time:?}");
}

/// The owner that system calls take for "unchanged".
#[test]
fn owners_that_no_system_has() {
    let none = "4294967295";
    for archive in [[pax("uid", none), file("f")].concat(), [pax("gid", none), file("f")].concat()] {
        let place = Place::new();
        let error = place.restore(&[place.foreign(&archive)]).unwrap_err().to_string();
        assert!(error.contains("owner 4294967295"), "{error}");
    }
    let file = || entry("f", Node::File(content()));
    for lying in [Entry { uid: u32::MAX, ..file() }, Entry { gid: u32::MAX, ..file() }] {
        let place = Place::new();
        let error = place.restore(&[ours(&place, &[lying])]).unwrap_err().to_string();
        assert!(error.contains("f has an impossible owner"), "{error}");
        assert!(!place.folder.path().join("ws/f").exists());
    }
}

/// An image by hand may be anyone's: what it holds gives no rights to whoever opens or runs it.
#[test]
fn devices_and_privileges_of_images_that_are_not_the_runs_own() {
    let place = Place::new();
    let device = entry("null", Node::Char(super::entry::Device { major: 1, minor: 3 }));
    let error = place.restore(&[ours(&place, &[device])]).unwrap_err().to_string();
    assert!(error.contains("null is a device; only the steps of a run restore devices"), "{error}");
    assert!(!place.folder.path().join("ws/null").exists());

    let capability = (b"security.capability".to_vec(), vec![0; 20]);
    let program = Entry { mode: 0o6755, xattrs: vec![capability], ..entry("su", Node::File(content())) };
    let shared = Entry { mode: 0o2755, ..entry("shared", Node::Dir { touched: false }) };
    let archived = with(self::file("base-su"), 100, b"0004755\0");
    for layers in [vec![ours(&place, &[shared, program])], vec![place.foreign(&archived)]] {
        place.restore(&layers).unwrap();
    }
    let mode = |name: &str| {
        std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(place.folder.path().join("ws").join(name)).unwrap().permissions(),
        )
    };
    assert_eq!([mode("su") & 0o7777, mode("base-su") & 0o7777, mode("shared") & 0o7777], [0o755, 0o755, 0o2755]);
    let mut value = [0; 64];
    let found = rustix::fs::lgetxattr(place.folder.path().join("ws/su"), "security.capability", &mut value);
    assert!(found.is_err(), "{found:?}");
}

/// Someone with another user's rights puts links in the place of pipes while they are made.
#[test]
fn attributes_are_never_set_through_a_link() {
    let place = Place::new();
    let (ws, canary) = (place.folder.path().join("ws"), place.folder.path().join("outside/canary"));
    fs::create_dir(&ws).unwrap();
    fs::set_permissions(&canary, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let before = seen::see(&place.folder.path().join("outside"));
    let count = 3000;
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swapped = 0;
            for i in 0..count {
                let path = ws.join(i.to_string());
                while fs::remove_file(&path).is_err() {
                    if ws.join((i + 1).to_string()).symlink_metadata().is_ok() || ws.join("end").exists() {
                        break;
                    }
                }
                swapped += usize::from(std::os::unix::fs::symlink(&canary, &path).is_ok());
            }
            swapped
        });
        let mut extractor = extract::Extractor::new(&ws).unwrap();
        let mut make = |path: &str, node| {
            let pipe = Entry { mode: 0o666, ..entry(path, node) };
            extractor.make_entry(&pipe, &mut std::io::empty(), &mut |_| {})
        };
        let refused = (0..count).filter(|i| make(&i.to_string(), Node::Fifo).is_err()).count();
        make("end", Node::Fifo).unwrap();
        println!("{refused} of {count} were refused, {} were swapped", swapper.join().unwrap());
    });
    assert_eq!(before, seen::see(&place.folder.path().join("outside")));
}

/// Deterministically: what is found in the place of what was made is left alone.
#[test]
fn what_was_put_in_the_place_of_a_pipe_is_left_alone() {
    use std::os::fd::AsFd;

    use rustix::fs::FileType;
    let place = Place::new();
    let dir = tree::Dir::open_root(place.folder.path()).unwrap();
    let path = |name: &str| place.folder.path().join(name);
    std::os::unix::fs::symlink("outside/canary", path("link")).unwrap();
    fs::hard_link(path("outside/canary"), path("name")).unwrap();
    for (name, kind) in [("link", FileType::Fifo), ("name", FileType::Fifo), ("link", FileType::RegularFile)] {
        assert!(handle::Handle::open(dir.as_fd(), name.as_bytes(), kind).is_err(), "{name}");
    }
    assert!(handle::Handle::open(dir.as_fd(), b"name", FileType::RegularFile).is_ok());
}

#[test]
fn what_is_in_the_way_may_lie_deeper_than_a_stack() {
    use rustix::fs::{CWD, Mode, OFlags};
    let place = Place::new();
    let dir = |parent: std::os::fd::BorrowedFd<'_>, name: &str| {
        rustix::fs::openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    };
    fs::create_dir_all(place.folder.path().join("ws/f")).unwrap();
    let mut at = dir(CWD, place.folder.path().join("ws/f").to_str().unwrap());
    for _ in 0..900 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = dir(std::os::fd::AsFd::as_fd(&at), "d");
    }
    let layer = place.foreign(&file("f"));
    // A stack of this size would not hold a call for each of them.
    let restored = std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(256 << 10);
        small
            .spawn_scoped(scope, || place.restore(std::slice::from_ref(&layer)).map_err(|e| e.to_string()))
            .unwrap()
            .join()
    });
    restored.unwrap().unwrap();
    assert!(place.folder.path().join("ws/f").is_file());
}
