//! Which image is read, how much of it is believed, and what a workspace is made of by what it says.

use std::fs;

use serde_json::{Value, json};

use super::{Descriptor, EarlierRun, Lineage, Run, Store, Writer, descriptor, image, load, put_foreign, store, task};
use crate::{digest::Digest, store::Blob, target::Target};

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn folder() -> (tempfile::TempDir, Box<dyn Store>) {
    let folder = tempfile::tempdir().unwrap();
    let target: Target = format!("dir://{}:x", folder.path().display()).parse().unwrap();
    (folder, store::open(&target).unwrap())
}

fn put_json(store: &dyn Store, tag: &str, media_type: &str, value: &Value) -> Digest {
    store.put_manifest(tag, media_type, value.to_string().as_bytes()).unwrap()
}

/// Changes the manifest and the config of an image.
type Forgery<'a> = &'a dyn Fn(&mut Value, &mut Value);

/// Puts the image under `tag` in its own place, after `change` of its manifest and config.
fn forge(store: &dyn Store, tag: &str, change: impl FnOnce(&mut Value, &mut Value)) -> Digest {
    let mut manifest: Value = serde_json::from_slice(&store.manifest(tag).unwrap().unwrap().bytes).unwrap();
    let config: Descriptor = serde_json::from_value(manifest["config"].clone()).unwrap();
    let mut config: Value = serde_json::from_reader(store.blob(&config.blob()).unwrap()).unwrap();
    change(&mut manifest, &mut config);
    let blob = store.put_bytes(config.to_string().as_bytes()).unwrap();
    manifest["config"] = json!(Descriptor::new(image::CONFIG, blob));
    put_json(store, tag, image::MANIFEST, &manifest)
}

/// The error of restoring the task at `order`, which comes after the one before it.
fn refused(run: &Run, order: u32) -> String {
    run.restore(&task(order, &[order - 1])).unwrap_err().to_string()
}

#[test]
fn of_several_platforms_that_of_this_machine() {
    let (_folder, store) = folder();
    let own = image::architecture();
    let other = if own == "arm64" { "s390x" } else { "arm64" };
    let images = ["a", "b", "c"].map(|tag| {
        put_foreign(&*store, tag);
        forge(&*store, tag, |_, config| config["created"] = tag.into())
    });
    let none = ("", "");
    for (platforms, expected) in [
        (&[("windows", own), ("linux", other), ("linux", own)][..], Ok(2)),
        (&[("linux", other), ("linux", "amd64")], Ok(1)),
        (&[("linux", "amd64"), ("linux", own), none], Ok(if own == "amd64" { 0 } else { 1 })),
        (&[none, none], Ok(0)),
        // One for no platform that is known may be for any, but not beside others.
        (&[none, ("linux", own)], Ok(1)),
        (&[("linux", other), none], Err(())),
        (&[("windows", own), ("windows", "amd64")], Err(())),
        (&[], Err(())),
    ] {
        let entry = |(&(os, architecture), digest): (&(&str, &str), &Digest)| match os {
            "" => json!({"digest": digest}),
            _ => json!({"digest": digest, "platform": {"os": os, "architecture": architecture}}),
        };
        let manifests: Vec<Value> = platforms.iter().zip(&images).map(entry).collect();
        for media_type in [INDEX, DOCKER_LIST] {
            put_json(&*store, "index", media_type, &json!({"manifests": manifests}));
            let found = load::image(&*store, "index", "r:index");
            let found = found.map(|found| found.unwrap().digest).map_err(|e| e.to_string());
            let none = || format!("r:index: it has no image for linux/{own}");
            assert_eq!(found, expected.map(|index| images[index]).map_err(|()| none()), "{platforms:?}");
        }
    }
    put_json(&*store, "index", INDEX, &json!({"manifests": [{"digest": Digest::of(b"none")}]}));
    let error = load::image(&*store, "index", "r:index").unwrap_err().to_string();
    assert_eq!(error, format!("r:index: its manifest {} is missing", Digest::of(b"none")));
    put_json(&*store, "index", "application/vnd.cncf.helm", &json!({}));
    let error = load::image(&*store, "index", "r:index").unwrap_err().to_string();
    assert_eq!(error, "r:index: it is \"application/vnd.cncf.helm\", not an image");
    assert!(load::image(&*store, "other", "r:other").unwrap().is_none());
}

#[test]
fn how_much_of_an_image_is_read() {
    let (_folder, store) = folder();
    put_foreign(&*store, "a");
    let mut manifest: Value = serde_json::from_slice(&store.manifest("a").unwrap().unwrap().bytes).unwrap();
    for (size, is_too_large) in [(64 << 20, false), ((64 << 20) + 1, true)] {
        manifest["config"]["size"] = json!(size);
        put_json(&*store, "a", image::MANIFEST, &manifest);
        // It is not as large as that, whatever it says.
        let error = load::image(&*store, "a", "r:a").unwrap_err().to_string();
        assert_eq!(error == "r:a: its config is too large", is_too_large, "{error}");
    }
    put_foreign(&*store, "a");
    let mut found = load::image(&*store, "a", "r:a").unwrap().unwrap();
    let layer = found.manifest.layers[0].clone();
    let most = "r:a: it has 4097 layers, more than 4096";
    for (layers, diff_ids, says) in [
        (0, 0, None),
        (4096, 4096, None),
        (4097, 4097, Some(most)),
        (2, 1, Some("r:a: it has 2 layers, but its config names 1")),
        (0, 1, Some("r:a: it has 0 layers, but its config names 1")),
    ] {
        found.manifest.layers = vec![layer.clone(); layers];
        found.config.rootfs.diff_ids = vec![layer.digest; diff_ids];
        let error = found.check_layers("r:a").err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), says, "{layers} {diff_ids}");
    }
}

/// Whoever made the image that is restored must not choose what is read with the rights of whoever restores it.
#[test]
fn which_base_may_be_read_with_credentials() {
    let folder = |place: &str| Some(format!("i: its base {place} is a folder of this machine, which is not read"));
    let rsync = |place: &str| {
        Some(format!("i: its base {place} is a folder of a machine that you did not name, which is not read"))
    };
    for (origin, base, is_trusted, refusal) in [
        ("", "r.example/a:v1", true, None),
        ("", "dir:///data/a:v1", true, None),
        ("r.example/a:v1", "r.example/other/b:v2", true, None),
        ("r.example/a:v1", "r.example:5000/a:v1", false, None),
        ("r.example/a:v1", "s3://bucket/a:v1", false, None),
        ("r.example/a:v1", "dir:///data/a:v1", false, folder("dir:///data/a:v1")),
        ("r.example/a:v1", "rsync://host/ci/a:v1", false, rsync("rsync://host/ci/a:v1")),
        ("dir:///data/a:v1", "dir:///other/b:v1", true, None),
        ("dir:///data/a:v1", "r.example/a:v1", false, None),
        ("s3://bucket/a:v1", "s3://bucket/b:v1", true, None),
        ("s3://bucket/a:v1", "s3://other/a:v1", false, None),
        ("s3://bucket/a:v1", "gs://bucket/a:v1", false, None),
        ("s3://bucket/a:v1", "dir:///data/a:v1", false, folder("dir:///data/a:v1")),
        ("gs://bucket/a:v1", "gs://bucket/b:v1", true, None),
        ("gs://bucket/a:v1", "gs://other/a:v1", false, None),
        ("rsync://host/ci/a:v1", "rsync://host/ci/b:v1", true, None),
        ("rsync://host/ci/a:v1", "rsync://other/ci/a:v1", false, rsync("rsync://other/ci/a:v1")),
    ] {
        let origin = Some(origin.to_owned()).filter(|origin| !origin.is_empty());
        let lineage = Lineage { origin: origin.clone(), ..Lineage::default() };
        let target: Target = base.parse().unwrap();
        assert_eq!(load::is_trusted(&lineage, &target).unwrap(), is_trusted, "{origin:?} {base}");
        let named = super::lineage::Base {
            image: base.to_owned(),
            manifest: Digest::of(b""),
            layers: Vec::new(),
            diff_ids: Vec::new(),
        };
        if let Some(refusal) = refusal {
            let error = load::base_store(&lineage, &named).map(drop).unwrap_err().to_string();
            assert_eq!(error, refusal.replacen("i:", &format!("{}:", origin.unwrap_or_default()), 1));
        } else if matches!(target, Target::Registry(_) | Target::Dir { .. }) {
            load::base_store(&lineage, &named).map(drop).unwrap();
        }
    }
}

/// A layer that has no table of contents is a part of the base, as are all below it.
#[test]
fn what_an_ordinary_image_is_made_of() {
    let run = Run::new();
    for order in 0..2 {
        let after: Vec<u32> = (0..order).collect();
        run.play(&task(order, &after), |dir| fs::write(dir.join(order.to_string()), "").unwrap());
    }
    let store = run.store();
    let found = load::image(&*store, "done", "done").unwrap().unwrap();
    let [zero, one] = <[Descriptor; 2]>::try_from(found.manifest.layers.clone()).unwrap();
    assert_eq!([&zero, &one].map(|layer| layer.annotations[image::TASK].as_str()), ["t0", "t1"]);
    let mut unnamed = one.clone();
    unnamed.annotations.remove(image::TASK);
    let foreign = |number: u8| Descriptor::new(descriptor::LAYER, Blob { digest: Digest::of(&[number]), size: 1 });
    for (layers, foreign, tasks) in [
        (vec![], 0, &[][..]),
        (vec![zero.clone(), unnamed.clone()], 0, &["t0", "layer 2"]),
        (vec![foreign(0), zero.clone(), one.clone()], 1, &["t0", "t1"]),
        (vec![foreign(0), zero, foreign(1), unnamed], 3, &["layer 1"]),
        (vec![foreign(0), foreign(1)], 2, &[]),
    ] {
        let (mut manifest, mut config) = (found.manifest.clone(), found.config.clone());
        manifest.layers = layers.clone();
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.digest).collect();
        let lineage = load::of_image("i", found.digest, manifest, &config);
        assert_eq!(lineage.origin.as_deref(), Some("i"));
        let (below, own) = layers.split_at(foreign);
        let base = lineage.base.as_ref().map(|base| (&*base.image, base.manifest, &*base.layers, &*base.diff_ids));
        let expected = ("i", found.digest, below, &config.rootfs.diff_ids[..foreign]);
        assert_eq!(base, (foreign > 0).then_some(expected));
        assert!(lineage.is_chain());
        assert_eq!(lineage.layers().map(|(_, layer)| layer).collect::<Vec<_>>(), own.iter().collect::<Vec<_>>());
        let names = lineage.writers.iter().map(|writer| &*writer.task).collect::<Vec<_>>();
        assert_eq!(names, tasks);
        assert_eq!(lineage.check(), Ok(()));
    }
}

#[test]
fn what_a_snapshot_is_made_of() {
    let mut run = Run::new();
    run.play(&task(0, &[]), |dir| fs::write(dir.join("0"), "").unwrap());
    // This one changes nothing: its image has only what a registry wants at the least.
    run.play(&task(1, &[0]), |_| {});
    let found = load::image(&*run.store(), "run.1.ws", "").unwrap().unwrap();
    assert_eq!(found.manifest.layers.iter().map(load::is_placeholder).collect::<Vec<_>>(), [true]);
    let by_hand: Target = run.target().replace(":done", ":run.1.ws").parse().unwrap();
    let lineage = load::lineage(&*run.store(), &by_hand).unwrap();
    assert_eq!(lineage.origin, Some(by_hand.to_string()));
    let writers = |lineage: &Lineage| {
        let layers = |writer: &Writer| writer.layers.len();
        lineage.writers.iter().map(|writer| (writer.order, writer.run.clone(), layers(writer))).collect::<Vec<_>>()
    };
    assert_eq!(writers(&lineage), [(0, None, 1), (1, None, 0)]);
    assert_eq!(writers(&run.input(&task(2, &[1])).unwrap().lineage), [(0, None, 1), (1, None, 0)]);
    // In a rerun, each task says which run it is of, those that an earlier rerun went on from too.
    for (uid, next, expected) in [
        ("again", 2, vec![(0, Some("run"), 1), (1, Some("run"), 0), (2, None, 1)]),
        ("at-last", 3, vec![(0, Some("run"), 1), (1, Some("run"), 0), (2, Some("again"), 1), (3, None, 1)]),
    ] {
        let last = next - 1;
        run.earlier = vec![EarlierRun { run: std::mem::replace(&mut run.uid, uid).to_owned(), tasks: vec![(0, last)] }];
        run.play(&task(next, &[last]), |dir| fs::write(dir.join(next.to_string()), "").unwrap());
        let named = |(order, run, layers): (u32, Option<&str>, usize)| (order, run.map(str::to_owned), layers);
        let expected: Vec<_> = expected.into_iter().map(named).collect();
        assert_eq!(writers(&run.input(&task(next + 1, &[next])).unwrap().lineage), expected);
    }
}

#[test]
fn a_snapshot_that_cannot_be_true() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| fs::write(dir.join("0"), "").unwrap());
    let store = run.store();
    let place = format!("{} (tag run.0.ws): ", run.target());
    let layer = json!(Descriptor::new(descriptor::LAYER, store.put_bytes(&super::hostile::file("f")).unwrap()));
    let foreign = layer["digest"].as_str().unwrap();
    let snapshot = "dev.tekton-wrap.snapshot";
    let good = store.manifest("run.0.ws").unwrap().unwrap();
    let no_toc = format!(
        "its lineage is invalid: layer {foreign} of task \"t0\" has no table of contents that this version of tekton-wrap reads"
    );
    let cases: [(Forgery<'_>, &str); 5] = [
        (
            &|_, config| config[snapshot]["format"] = json!(2),
            "it has the format 2; this version of tekton-wrap reads 1",
        ),
        (&|_, config| config[snapshot] = Value::Null, "it is not a snapshot of a workspace"),
        (
            &|_, config| config[snapshot]["order"] = json!(3),
            "it is of workspace \"ws\", task \"t0\" of the run run, not of this run run",
        ),
        (
            &|_, config| {
                config[snapshot]["base"] =
                    json!({"image": "b", "manifest": Digest::of(b""), "layers": [], "diffIds": []});
            },
            "its base is \"b\", that of this run is none",
        ),
        // Nothing is passed over that might be a change.
        (&|manifest, _| manifest["layers"].as_array_mut().unwrap().push(layer.clone()), &no_toc),
    ];
    for (change, says) in cases {
        forge(&*store, "run.0.ws", change);
        assert_eq!(refused(&run, 1), format!("{place}{says}"));
        store.put_manifest("run.0.ws", &good.media_type, &good.bytes).unwrap();
    }
    run.restore(&task(1, &[0])).unwrap();
}

/// A snapshot names the layers of its base, which are restored; whoever can write snapshots must not choose them.
#[test]
fn a_base_with_other_layers_than_it_has() {
    let maker = Run::new();
    put_foreign(&*maker.store(), "done");
    let mut run = Run::new();
    run.base = Some(maker.target());
    run.play(&task(0, &[]), |_| {});
    run.play(&task(1, &[0]), |dir| assert!(dir.join("f").exists()));
    let store = run.store();
    let manifest = maker.store().digest("done").unwrap().unwrap();
    let good = store.manifest("run.1.ws").unwrap().unwrap();
    for (list, value) in [("layers", json!([])), ("diffIds", json!([Digest::of(b"other")]))] {
        forge(&*store, "run.1.ws", |_, config| {
            let base = &mut config["dev.tekton-wrap.snapshot"]["base"];
            base[list] = value;
            if list == "layers" {
                base["diffIds"] = json!([]);
            }
        });
        let says = "a snapshot of this run says that this base has other layers than it has";
        assert_eq!(refused(&run, 2), format!("{} ({manifest}): {says}", maker.target()));
        store.put_manifest("run.1.ws", &good.media_type, &good.bytes).unwrap();
    }
    forge(&*store, "run.1.ws", |_, config| {
        config["dev.tekton-wrap.snapshot"]["base"]["manifest"] = json!(Digest::of(b"none"));
    });
    let error = refused(&run, 2);
    assert_eq!(error, format!("{} ({}): there is no such image", maker.target(), Digest::of(b"none")));
}
