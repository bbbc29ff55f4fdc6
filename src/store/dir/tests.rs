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
