//! What every kind of store has to do.

use std::{collections::HashMap, io, thread};

use tekton_wrap::{
    digest::Digest,
    store::{self, Blob, Store, StoreError},
    target::Target,
};

use super::*;
use support::{registry::crane, servers::Server};

/// Registries of other makers.
static SERVERS: LazyLock<Vec<Server>> = LazyLock::new(|| wait_for(Server::start_all()));

/// Two places of one kind, from the first of which blobs can be mounted into the second.
struct Places {
    first: Target,
    second: Target,
    options: StoreOptions,
    mounts: bool,
    complete: bool,
    _folder: tempfile::TempDir,
}

fn every_kind(test: impl Fn(&Places, &dyn Store)) {
    let folder = tempfile::tempdir().unwrap();
    let dir = |name: &str| Target::Dir { path: folder.path().join(name), tag: "v1".to_owned() };
    let run = |name: &str, (first, second), variables: HashMap<String, String>, mounts, complete| {
        println!("{name}");
        let secrets = tempfile::tempdir().unwrap();
        // One of them wants credentials, whichever.
        let user = json!({"username": "user", "password": "any"});
        let hosts = SERVERS.iter().map(|server| (server.address.clone(), user.clone()));
        let config = secrets.path().join("config.json");
        fs::write(&config, json!({"auths": hosts.collect::<serde_json::Map<_, _>>()}).to_string()).unwrap();
        let cloud = Environment::new(variables, None);
        let options = StoreOptions { cloud, ..options_with(&config) };
        let options = match (&first, sshd()) {
            (Target::Rsync(_), Some(server)) => StoreOptions { cloud: rsync::login(server, secrets.path()), ..options },
            _ => options,
        };
        let store = store::open_with(&first, &options).unwrap();
        test(&Places { first, second, options, mounts, complete, _folder: secrets }, &*store);
    };
    let nothing = HashMap::new;
    run("a folder", (dir("first"), dir("second")), nothing(), true, true);
    let repositories = |host: &str| (target(host, &repository()), target(host, &repository()));
    run("distribution", repositories(&REGISTRY.address), nothing(), true, true);
    for server in &*SERVERS {
        run(server.name, repositories(&server.address), nothing(), server.mounts, server.complete);
    }
    for server in s3() {
        run(server.name, (bucket("s3"), bucket("s3")), server.variables(&server.address), true, true);
    }
    if let Some(server) = gcs() {
        run("Google Cloud Storage", (bucket("gs"), bucket("gs")), server.variables(), true, true);
    }
    if let Some(server) = rsyncd() {
        let places = (rsync::in_module(server, "ci"), rsync::in_module(server, "ci"));
        run("rsync", places, nothing(), false, true);
    }
    if let Some(server) = sshd() {
        run("rsync over ssh", (rsync::over_ssh(server), rsync::over_ssh(server)), nothing(), false, true);
    }
}

#[test]
fn blobs_of_every_size_come_back() {
    every_kind(|_, store| {
        for size in [0, 1, 120 << 10, (120 << 10) + 1, 5_000_000, 8 << 20, 20_000_000] {
            let content = content(size as u64, size);
            let blob = put(store, &content).unwrap();
            assert_eq!(blob, Blob { digest: Digest::of(&content), size: size as u64 });
            assert!(store.has_blob(&blob.digest).unwrap());
            assert!(get(store, &blob).unwrap() == content, "{size}");
            // Again, by the other way: it is there already.
            assert_eq!(store.put_bytes(&content).unwrap(), blob);
        }
        let small = store.put_bytes(b"small").unwrap();
        assert_eq!(get(store, &small).unwrap(), b"small");
    });
}

#[test]
fn ranges() {
    every_kind(|_, store| {
        let content = content(1, 300_000);
        let blob = put(store, &content).unwrap();
        for (offset, len) in [(0, 10), (299_990, 10), (150_000, 100_000), (7, 0), (0, 300_000), (300_000, 0)] {
            let part = store.blob_range(&blob, offset as u64, len as u64).unwrap();
            assert!(part == content[offset..offset + len], "{offset} {len}");
        }
        for (offset, len) in [(299_990, 11), (300_001, 0), (u64::MAX, 1), (0, u64::MAX)] {
            let error = store.blob_range(&blob, offset, len).unwrap_err().to_string();
            assert!(error.contains("outside of the blob"), "{error}");
        }
    });
}

#[test]
fn what_is_not_there() {
    every_kind(|_, store| {
        let absent = Blob { digest: Digest::of(b"absent"), size: 6 };
        assert!(store.manifest("v1").unwrap().is_none());
        assert!(store.manifest(&absent.digest.to_string()).unwrap().is_none());
        assert!(!store.has_blob(&absent.digest).unwrap());
        for error in [get(store, &absent).unwrap_err(), store.blob_range(&absent, 0, 1).unwrap_err().to_string()] {
            assert!(error.contains(&absent.digest.hex()), "{error}");
        }
    });
}

#[test]
fn tags_move() {
    every_kind(|_, store| {
        let config = store.put_bytes(b"{}").unwrap();
        let mut digests = Vec::new();
        for layer in [&b"one"[..], b"two"] {
            let layer = store.put_bytes(layer).unwrap();
            let bytes = manifest(&config, &layer);
            let digest = store.put_manifest("v1", MANIFEST, &bytes).unwrap();
            assert_eq!(digest, Digest::of(&bytes));
            assert_eq!(store.digest("v1").unwrap(), Some(digest));
            for reference in ["v1", &digest.to_string()] {
                let found = store.manifest(reference).unwrap().unwrap();
                assert_eq!((found.digest, found.media_type.as_str(), &found.bytes), (digest, MANIFEST, &bytes));
            }
            digests.push(digest);
        }
        assert!(store.manifest(&digests[0].to_string()).unwrap().is_some(), "what had the tag before is still there");
        assert!(store.manifest("v2").unwrap().is_none());
        assert_eq!(store.digest("v2").unwrap(), None);
    });
}

#[test]
fn a_size_that_lies_is_found() {
    every_kind(|_, store| {
        let blob = store.put_bytes(b"content").unwrap();
        for size in [6, 8] {
            let error = get(store, &Blob { size, ..blob }).unwrap_err();
            assert!(error.contains(&blob.digest.hex()), "{error}");
        }
    });
}

#[test]
fn what_fails_to_be_made_is_not_stored() {
    every_kind(|_, store| {
        let content = content(2, 1_000_000);
        let mut calls = 0;
        let result = store.put_blob(&mut |to| {
            calls += 1;
            to.write_all(&content)?;
            Err(io::Error::other("the file sources/a vanished"))
        });
        assert!(result.unwrap_err().to_string().contains("the file sources/a vanished"));
        assert_eq!(calls, 1, "there is no use in trying again");
        assert!(!store.has_blob(&Digest::of(&content)).unwrap());
    });
}

#[test]
fn mounts_what_another_place_has() {
    every_kind(|places, first| {
        let second = store::open_with(&places.second, &places.options).unwrap();
        let content = content(3, 100_000);
        let blob = put(first, &content).unwrap();
        assert_eq!(second.mount_blob(&blob.digest, &places.first).unwrap(), places.mounts);
        if !places.mounts {
            put(&*second, &content).unwrap();
        }
        assert!(get(&*second, &blob).unwrap() == content);
        assert!(second.mount_blob(&blob.digest, &places.second).unwrap(), "it is there");
        assert!(!second.mount_blob(&Digest::of(b"absent"), &places.first).unwrap());
        let elsewhere: Target = "registry.example.com/a:b".parse().unwrap();
        assert!(!second.mount_blob(&Digest::of(b"absent"), &elsewhere).unwrap());
    });
}

#[test]
fn tags_are_listed_and_images_deleted() {
    every_kind(|places, store| {
        if !places.complete {
            return;
        }
        let config = store.put_bytes(b"{}").unwrap();
        let mut digests = Vec::new();
        for tag in ["b", "a", "c"] {
            let layer = store.put_bytes(tag.as_bytes()).unwrap();
            digests.push(store.put_manifest(tag, MANIFEST, &manifest(&config, &layer)).unwrap());
        }
        assert_eq!(store.tags().unwrap(), ["a", "b", "c"]);
        assert!(store.delete_image("b", &digests[0]).unwrap());
        assert!(store.delete_manifest(&digests[1]).unwrap());
        for reference in ["b".to_owned(), digests[0].to_string(), digests[1].to_string()] {
            assert!(store.manifest(&reference).unwrap().is_none(), "{reference}");
        }
        assert!(store.manifest("c").unwrap().is_some(), "what they share with others stays");
        assert!(!store.delete_image("b", &digests[0]).unwrap(), "it is gone");
        assert!(!store.delete_manifest(&digests[0]).unwrap(), "it is gone");
    });
}

#[test]
fn many_threads() {
    every_kind(|_, store| {
        thread::scope(|scope| {
            for thread in 0..6 {
                scope.spawn(move || {
                    for turn in 0..5 {
                        let content = content(thread * 100 + turn, 200_000);
                        let blob = put(store, &content).unwrap();
                        assert!(get(store, &blob).unwrap() == content);
                        let config = store.put_bytes(b"{}").unwrap();
                        let tag = format!("t{thread}-{turn}");
                        store.put_manifest(&tag, MANIFEST, &manifest(&config, &blob)).unwrap();
                        assert!(store.manifest(&tag).unwrap().is_some());
                    }
                });
            }
        });
    });
}

#[test]
fn crane_reads_what_was_stored() {
    let repository = repository();
    let store = open(&REGISTRY.address, &repository, &options());
    let layer = put(&*store, &content(4, 500_000)).unwrap();
    let config = store.put_bytes(br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
    let bytes = manifest(&config.unwrap(), &layer);
    store.put_manifest("v1", MANIFEST, &bytes).unwrap();
    let image = format!("{}/{repository}", REGISTRY.address);
    let read = |args: &[&str]| {
        let output = crane().args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert_eq!(read(&["manifest", &format!("{image}:v1")]), bytes);
    assert!(read(&["blob", &format!("{image}@{}", layer.digest)]) == content(4, 500_000));
}

#[test]
fn a_manifest_whose_blobs_are_missing_is_refused() {
    let repository = repository();
    let store = open(&REGISTRY.address, &repository, &options());
    let absent = Blob { digest: Digest::of(b"absent"), size: 6 };
    let error = store.put_manifest("v1", MANIFEST, &manifest(&absent, &absent)).unwrap_err();
    assert!(matches!(error, StoreError::MissingBlob { .. }), "{error:?}");
    let text = error.to_string();
    let image = format!("{}/{repository}:v1: ", REGISTRY.address);
    assert!(
        text.starts_with(&image) && text.contains("MANIFEST_BLOB_UNKNOWN") && text.contains("is missing"),
        "{text}"
    );
}
