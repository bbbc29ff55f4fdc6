//! The image at the end: which layers it has, what it costs to make, what it says about itself, and what `crane export` shows.

use std::{cell::Cell, collections::BTreeMap, fs, io::Read, path::Path};

use super::{
    Compression, Descriptor, Lineage, Run, Task, descriptor, image, lineage::Base, load, many::Counted, put_file,
    restore_image, save_dir, seen, task,
};
use crate::{
    digest::Digest,
    target::Target,
    workspace::snapshot::assemble::{self, ImageLabels},
};

/// The tree of an image or a directory: what files hold, nothing of directories.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// What one task after the other does.
type Works<'a> = &'a [&'a dyn Fn(&Path)];

/// A run of a chain of tasks, on top of a base if there is one. Layers are without compression.
fn chain(base: Option<&Run>, works: Works<'_>) -> Run {
    let mut run = Run::new();
    (run.base, run.compression) = (base.map(Run::target), Compression::None);
    for (order, work) in (0..).zip(works) {
        run.play(&task(order, &Vec::from_iter(order.checked_sub(1))), work);
    }
    run
}

/// What the whole chain of so many tasks made.
fn lineage_of(run: &Run, tasks: u32) -> Lineage {
    run.input(&task(tasks, &[tasks - 1])).unwrap().lineage
}

/// What `crane export` makes of `target`, unpacked: the members of all layers from the top, without those that an earlier one
/// hides (go-containerregistry, mutate.Extract).
fn exported(run: &Run) -> Tree {
    let (mut tree, mut hides) = (Tree::new(), BTreeMap::<String, bool>::new());
    for layer in load::image(&*run.store(), "done", "done").unwrap().unwrap().manifest.layers.iter().rev() {
        let mut archive = tar::Archive::new(run.store().blob(&layer.blob()).unwrap());
        for member in archive.entries().unwrap() {
            let mut member = member.unwrap();
            let path = member.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
            let path = if path == "." { String::new() } else { path };
            let is_dir = member.header().entry_type().is_dir();
            let (folder, name) = path.rsplit_once('/').map_or((None, &*path), |(folder, name)| (Some(folder), name));
            let gone = name
                .strip_prefix(".wh.")
                .map(|name| folder.map_or(name.to_owned(), |folder| format!("{folder}/{name}")));
            let path = gone.clone().unwrap_or(path);
            let is_hidden = |above: &Path| hides.get(above.to_str().unwrap()) == Some(&true);
            if hides.contains_key(&path) || Path::new(&path).ancestors().skip(1).any(is_hidden) {
                continue;
            }
            hides.insert(path.clone(), gone.is_some() || !is_dir);
            if gone.is_some() || path.is_empty() {
                continue;
            }
            let mut content = Vec::new();
            member.read_to_end(&mut content).unwrap();
            let linked = member.link_name().unwrap().map(|to| tree[to.to_str().unwrap()].clone());
            tree.insert(path, linked.unwrap_or((!is_dir).then_some(content)));
        }
    }
    tree
}

fn tree(root: &Path) -> Tree {
    let contents = seen::contents(root).into_iter().filter(|(path, _)| !path.as_os_str().is_empty());
    contents
        .map(|(path, (kind, content))| (path.to_str().unwrap().to_owned(), (kind != "dir").then_some(content)))
        .collect()
}

#[test]
fn crane_shows_what_the_tasks_left() {
    let linked = |dir: &Path| {
        put_file(dir, "a", "linked");
        fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    };
    let nothing = |_: &Path| {};
    let again = |dir: &Path| put_file(dir, "d/new", "new");
    let cases: [(&str, Works<'_>); 6] = [
        (
            "a file for each",
            &[&|dir| put_file(dir, "x", "1"), &|dir| put_file(dir, "y", "2"), &|dir| put_file(dir, "x", "3")],
        ),
        (
            "deleted and made again by a third task",
            &[&|dir| put_file(dir, "d/old", ""), &|dir| fs::remove_dir_all(dir.join("d")).unwrap(), &again],
        ),
        (
            "deleted and made again by one task",
            &[
                &|dir| put_file(dir, "d/old", ""),
                &|dir| {
                    fs::remove_dir_all(dir.join("d")).unwrap();
                    again(dir);
                },
                &nothing,
            ],
        ),
        (
            "a file in place of a directory",
            &[
                &|dir| put_file(dir, "d/old", ""),
                &|dir| {
                    fs::remove_dir_all(dir.join("d")).unwrap();
                    put_file(dir, "d", "a file");
                },
                &|dir| {
                    fs::remove_file(dir.join("d")).unwrap();
                    again(dir);
                },
            ],
        ),
        (
            "another file under the first name",
            &[&linked, &|dir| {
                fs::remove_file(dir.join("a")).unwrap();
                put_file(dir, "a", "another");
            }],
        ),
        ("a name outlives the first one", &[&linked, &|dir| fs::remove_file(dir.join("a")).unwrap()]),
    ];
    for (what, works) in cases {
        let run = chain(None, works);
        assert_eq!(exported(&run), tree(&run.dir(works.len() as u32 - 1)), "{what}");
    }
}

/// An image is written after each task of a run: what that costs must not grow with what the run has made.
#[test]
fn a_chain_is_stacked_without_reading_it_or_adding_to_it() {
    let maker = chain(None, &[&|dir| ["a", "b", "d/c"].iter().for_each(|path| put_file(dir, path, "base"))]);
    let delete = |path: &'static str| move |dir: &Path| fs::remove_file(dir.join(path)).unwrap();
    let add = |path: &'static str| move |dir: &Path| put_file(dir, path, "added");
    let cases: [(bool, Works<'_>); 4] = [
        (false, &[&add("1")]),
        (false, &[&add("1"), &add("2"), &add("1"), &add("3")]),
        (true, &[&add("1"), &add("2"), &add("3")]),
        // What the first one deletes is the base's, and nothing comes after the last one.
        (true, &[&delete("d/c"), &add("2"), &add("3"), &delete("b")]),
    ];
    for (has_base, works) in cases {
        let run = chain(Some(&maker).filter(|_| has_base), works);
        let tasks = works.len() as u32;
        let counted = Counted::new(run.store());
        let labels = ImageLabels::default();
        assemble::put_whole(&counted, "again", &lineage_of(&run, tasks), Compression::None, &labels).unwrap();
        assert_eq!((counted.read(), counted.sent()), (0, 0), "{has_base} {tasks}");
        let layers = |run: &Run, tag| load::image(&*run.store(), tag, tag).unwrap().unwrap().manifest.layers;
        let base = if has_base { layers(&maker, "done") } else { Vec::new() };
        let all: Vec<Descriptor> = base.into_iter().chain((0..tasks).flat_map(|order| run.layers(order))).collect();
        let digests = |layers: &[Descriptor]| layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
        assert_eq!(digests(&layers(&run, "again")), digests(&all), "{has_base} {tasks}");
    }
}

#[test]
fn layers_of_another_image_are_brought_once_and_mounted_if_possible() {
    let from = Run::new();
    let layer = |content: &[u8]| Descriptor::new(descriptor::LAYER, from.store().put_bytes(content).unwrap());
    let layers = [layer(b"a"), layer(b"b"), layer(b"a"), layer(b"c")];
    let (place, elsewhere) = (from.target().parse::<Target>().unwrap(), "r.example/a:v1".parse::<Target>().unwrap());
    for (there, mounted_from, sent) in [
        (&[][..], None, 3),
        (&[&b"b"[..]], None, 2),
        (&[b"a", b"b", b"c"], None, 0),
        (&[b"a", b"b", b"c"], Some(&elsewhere), 0),
        (&[], Some(&elsewhere), 3),
        (&[b"b"], Some(&place), 0),
    ] {
        let (to, opened) = (Run::new(), Cell::new(0));
        for content in there {
            to.store().put_bytes(content).unwrap();
        }
        let counted = Counted::new(to.store());
        let open = || {
            opened.set(opened.get() + 1);
            Ok(from.store())
        };
        assemble::bring(&counted, layers.iter(), mounted_from, &open).unwrap();
        assert_eq!((counted.sent(), opened.get()), (sent, u64::from(sent > 0)), "{there:?} {mounted_from:?}");
        assert!(layers.iter().all(|layer| to.store().has_blob(&layer.digest).unwrap()));
    }
}

/// An image of OCI has no layers of Docker's types (OCI image-spec, manifest.md, "layers").
#[test]
fn layers_of_a_base_have_the_names_that_oci_has_for_them() {
    let run = Run::new();
    let (docker, oci) = ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar");
    let types = [
        (format!("{docker}.gzip"), format!("{oci}+gzip")),
        (docker.to_owned(), oci.to_owned()),
        (format!("{oci}+zstd"), format!("{oci}+zstd")),
        ("application/vnd.other".to_owned(), "application/vnd.other".to_owned()),
    ];
    let layer =
        |(found, _): &(String, String)| Descriptor::new(found, run.store().put_bytes(found.as_bytes()).unwrap());
    let layers: Vec<Descriptor> = types.iter().map(layer).collect();
    let diff_ids = layers.iter().map(|layer| layer.digest).collect();
    let base = Base { image: run.target(), manifest: Digest::of(b""), layers, diff_ids };
    let lineage = Lineage { base: Some(base), ..Lineage::default() };
    assemble::put_whole(&*run.store(), "again", &lineage, Compression::None, &ImageLabels::default()).unwrap();
    let stacked = load::image(&*run.store(), "again", "again").unwrap().unwrap().manifest.layers;
    let stacked: Vec<(String, Digest)> = stacked.into_iter().map(|layer| (layer.media_type, layer.digest)).collect();
    assert_eq!(stacked, types.map(|(found, expected)| (expected, Digest::of(found.as_bytes()))));
}

/// The images that `prune` could not find otherwise.
#[test]
fn images_name_those_that_they_replaced() {
    let run = Run::new();
    let replaces = |tag: &str| {
        let found = load::image(&*run.store(), tag, tag).unwrap().unwrap();
        found.manifest.annotations.get(image::REPLACES).cloned()
    };
    let digest = |tag: &str| run.store().digest(tag).unwrap().unwrap().to_string();
    run.play(&task(0, &[]), |dir| put_file(dir, "0", ""));
    assert_eq!((replaces("done"), replaces("run.0.ws")), (None, None));
    let mut last = digest("done");
    let parallel = [1, 2].map(|order| Task { parallel: vec![(3 - order, 3 - order)], ..task(order, &[0]) });
    for task in &parallel {
        put_file(&run.restore(task).unwrap(), &task.order.to_string(), "");
    }
    for task in &parallel {
        run.save(task).unwrap();
        assert_eq!(replaces("done"), Some(last));
        last = digest("done");
        // Two that end at the same time may both replace the same one: each lists what it wrote, beside its snapshot.
        let (list, own) = (format!("run.r{}.ws", task.order), format!("run.{}.ws", task.order));
        assert_eq!((replaces(&list), replaces(&own)), (Some(last.clone()), None));
        let config = |tag: &str| load::image(&*run.store(), tag, tag).unwrap().unwrap().manifest.config;
        assert_eq!(config(&list), config(&own));
    }
    run.play(&task(3, &[1, 2]), |dir| put_file(dir, "3", ""));
    assert_eq!(replaces("done"), Some(last));
    assert!(run.store().digest("run.r3.ws").unwrap().is_none());
    // Several, as after a task that looked again while others wrote.
    let both = [digest("run.1.ws"), digest("run.2.ws")];
    let digests = both.each_ref().map(|digest| digest.parse::<Digest>().unwrap());
    assemble::put_replaced(&*run.store(), "list", &digests[0], &digests).unwrap();
    assert_eq!(replaces("list"), Some(both.join(",")));
}

/// Whose it is now: what it was restored from may be out of reach of whoever reads it.
#[test]
fn an_image_by_hand_does_not_say_where_its_layers_were_before() {
    let run = chain(None, &[&|dir| put_file(dir, "a", "")]);
    let (dir, baseline) = (run.dir(1), run.folder.path().join("baseline"));
    restore_image(&run.target(), &dir, Some(&baseline)).unwrap();
    put_file(&dir, "b", "");
    let other = format!("dir://{}:v1", run.folder.path().join("other").display());
    save_dir(&dir, &other, Some(&baseline)).unwrap();
    let store = super::store::open(&other.parse::<Target>().unwrap()).unwrap();
    let lineage = load::image(&*store, "v1", "v1").unwrap().unwrap().config.lineage.unwrap();
    assert_eq!((lineage.origin.as_deref(), lineage.writers.len()), (None, 2));
}
