//! The folder as a store.

use super::*;

fn store() -> (tempfile::TempDir, DirStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = DirStore::new(&folder.path().join("new/layout"));
    (folder, store)
}

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn an_absent_folder_is_an_empty_store() {
    let (_folder, store) = store();
    assert!(store.manifest("a").unwrap().is_none());
    assert!(store.manifest(&Digest::of(b"").to_string()).unwrap().is_none());
    assert!(!store.has_blob(&Digest::of(b"")).unwrap());
    let error = store.blob(&Blob { digest: Digest::of(b""), size: 0 }).err().unwrap().to_string();
    assert!(error.contains(&Digest::of(b"").hex()), "{error}");
    assert!(!store.path.exists());
}

#[test]
fn blobs_come_back() {
    let (_folder, store) = store();
    let content = vec![3; 1 << 20];
    let blob = store.put_blob(&mut |w: &mut dyn Write| w.write_all(&content)).unwrap();
    assert_eq!(blob, Blob { digest: Digest::of(&content), size: 1 << 20 });
    assert_eq!(store.put_bytes(&content).unwrap(), blob);
    let mut read = Vec::new();
    store.blob(&blob).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, content);
    assert_eq!(store.blob_range(&blob, 10, 5).unwrap(), [3; 5]);
    assert!(store.blob_range(&blob, (1 << 20) - 1, 2).is_err());
    fs::write(store.blob_path(&blob.digest), b"other").unwrap();
    assert!(store.blob(&blob).unwrap().read_to_end(&mut read).is_err());
}

#[test]
fn a_failed_upload_leaves_nothing() {
    let (_folder, store) = store();
    let failed = store.put_blob(&mut |w: &mut dyn Write| {
        w.write_all(b"half")?;
        Err(io::Error::other("no more"))
    });
    assert!(failed.unwrap_err().to_string().contains("no more"));
    let names: Vec<_> = fs::read_dir(&store.path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["blobs"]);
    assert_eq!(fs::read_dir(store.path.join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_tag_moves_and_other_entries_stay() {
    let (_folder, store) = store();
    store.put_manifest("old", TYPE, b"{\"a\":1}").unwrap();
    let mut index: Value = serde_json::from_slice(&fs::read(store.index_path()).unwrap()).unwrap();
    index["manifests"][0]["platform"] = json!({"os": "linux"});
    fs::write(store.index_path(), index.to_string()).unwrap();
    store.put_manifest("a", TYPE, b"{\"a\":1}").unwrap();
    let digest = store.put_manifest("a", TYPE, b"{\"a\":2}").unwrap();
    let by_tag = store.manifest("a").unwrap().unwrap();
    assert_eq!((by_tag.digest, by_tag.media_type.as_str(), &by_tag.bytes[..]), (digest, TYPE, &b"{\"a\":2}"[..]));
    assert_eq!(store.manifest(&digest.to_string()).unwrap().unwrap().bytes, by_tag.bytes);
    let index = store.index().unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(index["manifests"][0]["platform"]["os"], "linux");
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let (_folder, store) = store();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            // A lock belongs to an open file, so that two threads exclude each other as two processes do.
            let store = DirStore::new(&store.path);
            scope.spawn(move || {
                for turn in 0..20 {
                    store
                        .put_manifest(&format!("t{writer}-{turn}"), TYPE, format!("{{\"t\":{turn}}}").as_bytes())
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(store.index().unwrap()["manifests"].as_array().unwrap().len(), 160);
    assert_eq!(fs::read_to_string(store.path.join("oci-layout")).unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
}

#[test]
fn mounts_from_another_folder() {
    let (_folder, from) = store();
    let (_other, to) = store();
    let blob = from.put_bytes(b"layer").unwrap();
    let source = Target::Dir { path: from.path.clone(), tag: "x".to_owned() };
    assert!(to.mount_blob(&blob.digest, &source).unwrap());
    assert!(to.mount_blob(&blob.digest, &source).unwrap());
    assert!(to.has_blob(&blob.digest).unwrap());
    assert!(!to.mount_blob(&Digest::of(b"absent"), &source).unwrap());
}

/// As if it had been stored two days ago.
fn age(path: &Path) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 24 * 60 * 60);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

fn image(layer: &Blob) -> Vec<u8> {
    format!(r#"{{"layers":[{{"digest":"{}"}}]}}"#, layer.digest).into_bytes()
}

#[test]
fn deleting_an_image_leaves_what_others_need_and_what_is_young() {
    let (_folder, store) = store();
    let [one, two, part, orphan, young] =
        ["one", "two", "part", "orphan", "young"].map(|text| store.put_bytes(text.as_bytes()).unwrap());
    let first = store.put_manifest("first", TYPE, &image(&one)).unwrap();
    store.put_manifest("same", TYPE, &image(&one)).unwrap();
    store.put_manifest("second", TYPE, &image(&two)).unwrap();
    // An image for several platforms, as other tools make one: its parts have no entries of their own.
    let platform = store.put_new(&image(&part)).unwrap();
    let list =
        format!(r#"{{"manifests":[{{"digest":"{}"}},{{"digest":"{}"}}]}}"#, platform.digest, Digest::of(b"not here"));
    store.put_manifest("list", "application/vnd.oci.image.index.v1+json", list.as_bytes()).unwrap();
    fs::write(store.path.join(".tmp-1-0"), "of a writer that was killed").unwrap();
    fs::write(store.path.join("blobs/sha256/notes"), "of someone else").unwrap();
    for blob in [&one, &two, &part, &orphan, &platform] {
        age(&store.blob_path(&blob.digest));
    }
    age(&store.path.join(".tmp-1-0"));
    age(&store.path.join("blobs/sha256/notes"));

    assert!(store.delete_image("first", &first).unwrap() && !store.delete_image("first", &first).unwrap());
    assert!(store.manifest(&first.to_string()).unwrap().is_some(), "another tag names it");
    assert!(store.delete_image("same", &first).unwrap());
    assert!(store.manifest(&first.to_string()).unwrap().is_none());
    assert!(!store.delete_manifest(&platform.digest).unwrap(), "it is a part of an image");
    store.collect().unwrap();
    let there = |blob: &Blob| store.blob_path(&blob.digest).exists();
    assert_eq!([&one, &two, &part, &orphan, &young, &platform].map(there), [false, true, true, false, true, true]);
    assert!(!store.path.join(".tmp-1-0").exists() && store.path.join("blobs/sha256/notes").exists());
    // Where there is no store none is made.
    let absent = DirStore::new(&store.path.join("absent"));
    absent.collect().unwrap();
    assert!(!absent.path.exists());
}

/// A save that finds a layer names it only later.
#[test]
fn what_a_writer_found_stays_until_it_is_named() {
    let (_folder, store) = store();
    let (_other, from) = self::store();
    let layers = ["found", "stored again", "mounted"].map(|text| from.put_bytes(text.as_bytes()).unwrap());
    for layer in &layers {
        age(&from.blob_path(&layer.digest));
    }
    let source = Target::Dir { path: from.path.clone(), tag: "x".to_owned() };
    fs::create_dir_all(store.path.join("blobs/sha256")).unwrap();
    for layer in &layers[..2] {
        fs::copy(from.blob_path(&layer.digest), store.blob_path(&layer.digest)).unwrap();
        age(&store.blob_path(&layer.digest));
    }
    assert!(store.has_blob(&layers[0].digest).unwrap());
    assert_eq!(store.put_bytes(b"stored again").unwrap(), layers[1]);
    assert!(store.mount_blob(&layers[2].digest, &source).unwrap());
    DirStore::new(&store.path).collect().unwrap();
    for layer in &layers {
        assert!(store.blob_path(&layer.digest).exists());
    }
}

/// One deletes what is old while others find it: whatever was found is there when it is named.
#[test]
fn savers_and_a_pruner_at_the_same_time() {
    use std::sync::Arc;
    let (_folder, store) = store();
    // Held by each saver until it ends, however it does.
    let saving = Arc::new(());
    std::thread::scope(|scope| {
        for saver in 0..3 {
            let (store, saving) = (DirStore::new(&store.path), saving.clone());
            scope.spawn(move || {
                let _saving = saving;
                let layer = format!("layer of {saver}");
                for turn in 0..100 {
                    let layer = store.put_bytes(layer.as_bytes()).unwrap();
                    let path = store.blob_path(&layer.digest);
                    assert!(path.exists(), "{saver} {turn}");
                    let digest = store.put_manifest(&format!("t{saver}"), TYPE, &image(&layer)).unwrap();
                    assert!(store.manifest(&format!("t{saver}")).unwrap().is_some(), "{saver} {turn}");
                    // The next turn finds an old layer without an image, if it finds it.
                    age(&path);
                    assert!(store.delete_image(&format!("t{saver}"), &digest).unwrap());
                }
            });
        }
        let pruner = DirStore::new(&store.path);
        scope.spawn(move || {
            while Arc::strong_count(&saving) > 1 {
                pruner.collect().unwrap();
            }
        });
    });
}

#[test]
fn a_damaged_layout_is_one_clear_error() {
    for index in
        ["{", "{}", r#"{"manifests":[{"digest":"md5:1","annotations":{"org.opencontainers.image.ref.name":"a"}}]}"#]
    {
        let (_folder, store) = store();
        fs::create_dir_all(&store.path).unwrap();
        fs::write(store.index_path(), index).unwrap();
        let error = store.manifest("a").unwrap_err().to_string();
        assert!(error.contains("index.json: the image layout is damaged"), "{error}");
    }
}

#[test]
fn lists_its_tags() {
    let (_folder, store) = store();
    assert_eq!(store.tags().unwrap(), [] as [&str; 0]);
    for tag in ["b", "a", "b"] {
        store.put_manifest(tag, TYPE, b"{\"a\":1}").unwrap();
    }
    assert_eq!(store.tags().unwrap(), ["a", "b"]);
}

#[test]
fn what_is_no_file_is_not_read() {
    use std::os::unix::fs::symlink;
    let (folder, store) = store();
    let digest = store.put_manifest("a", TYPE, b"{\"a\":1}").unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for other in [pipe, "/dev/zero".into()] {
        for path in [store.index_path(), store.blob_path(&digest)] {
            let kept = folder.path().join("kept");
            fs::rename(&path, &kept).unwrap();
            symlink(&other, &path).unwrap();
            let error = store.manifest("a").unwrap_err().to_string();
            assert!(error.contains("it is not a file"), "{error}");
            fs::rename(kept, path).unwrap();
        }
        let blob = store.blob_path(&Digest::of(b"x"));
        symlink(&other, &blob).unwrap();
        assert!(store.blob(&Blob { digest: Digest::of(b"x"), size: 1 }).is_err());
        fs::remove_file(blob).unwrap();
    }
    assert!(store.manifest("a").unwrap().is_some());
    // Nothing is made where a link leads.
    fs::remove_file(store.path.join("oci-layout")).unwrap();
    symlink(folder.path().join("elsewhere"), store.path.join("oci-layout")).unwrap();
    assert!(store.put_manifest("b", TYPE, b"{}").is_err());
    assert!(!folder.path().join("elsewhere").exists());
}

/// Whoever has the other folder may have put anything under the name of a blob that others here need.
#[test]
fn what_is_mounted_is_what_its_name_says() {
    let (folder, other) = store();
    let here = DirStore::new(&folder.path().join("here"));
    let from = Target::Dir { path: other.path.clone(), tag: "v1".to_owned() };
    let (good, bad, linked) = (Digest::of(b"good"), Digest::of(b"bad"), Digest::of(b"linked"));
    other.put_bytes(b"good").unwrap();
    fs::write(other.blob_path(&bad), "evil").unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "linked").unwrap();
    std::os::unix::fs::symlink(&elsewhere, other.blob_path(&linked)).unwrap();
    assert!(here.mount_blob(&good, &from).unwrap() && here.has_blob(&good).unwrap());
    let error = here.mount_blob(&bad, &from).unwrap_err().to_string();
    assert!(error.contains(&Digest::of(b"evil").to_string()), "{error}");
    // What a link leads to may be another file tomorrow: it is copied by whoever mounts it.
    assert!(!here.mount_blob(&linked, &from).unwrap());
    assert!(!here.has_blob(&bad).unwrap() && !here.has_blob(&linked).unwrap());
    let names: Vec<_> = fs::read_dir(&here.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.as_encoded_bytes().starts_with(b".")), "{names:?}");
}
