//! What is particular to folders of other machines, on a real rsync daemon and a real sshd: what travels, what becomes of old
//! blobs and of broken transfers, and the sentences for what goes wrong.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{Mutex, mpsc},
    thread,
    time::{Instant, SystemTime},
};

use support::rsync::USER;
use tekton_wrap::digest::Digest;

use super::*;

/// A folder of its own for each call, below ones that are not there.
pub fn in_module(server: &Rsyncd, module: &str) -> Target {
    format!("rsync://{}/{module}/{}:v1", server.address, repository()).parse().unwrap()
}

/// The same over ssh.
pub fn over_ssh(server: &Sshd) -> Target {
    format!("rsync+ssh://{}{}/{}:v1", server.login, server.folder.display(), repository()).parse().unwrap()
}

/// A mounted Secret with what leads to the sshd.
pub fn login(server: &Sshd, folder: &Path) -> Environment {
    let secret = folder.join("ssh");
    fs::create_dir(&secret).unwrap();
    for name in ["ssh-privatekey", "known_hosts"] {
        fs::write(secret.join(name), server.secret(name)).unwrap();
    }
    Environment::new(HashMap::new(), Some(&secret))
}

/// Where the module `ci` has the objects of the target.
fn folder_of(server: &Rsyncd, target: &Target) -> PathBuf {
    let Target::Rsync(place) = target else { panic!() };
    server.folder().join(place.path.split_once('/').unwrap().1)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()));
    let mut names: Vec<String> = entries.map(Iterator::collect).unwrap_or_default();
    names.sort();
    names
}

fn age(folder: &Path, blob: &Digest, hours: u64) {
    let file = fs::File::options().write(true).open(folder.join("blobs/sha256").join(blob.hex())).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
}

fn modified(folder: &Path, blob: &Digest) -> SystemTime {
    fs::metadata(folder.join("blobs/sha256").join(blob.hex())).unwrap().modified().unwrap()
}

#[test]
fn only_new_blobs_travel_and_old_ones_become_young() {
    let Some(server) = rsyncd() else { return };
    let target = in_module(server, "ci");
    let folder = folder_of(server, &target);
    let store = store::open_with(&target, &options()).unwrap();
    let content = content(1, 20_000_000);
    let blob = put(&*store, &content).unwrap();
    let inode = |blob: &Blob| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(folder.join("blobs/sha256").join(blob.digest.hex())).unwrap().ino()
    };
    let first = inode(&blob);
    age(&folder, &blob.digest, 48);
    put(&*store, &content).unwrap();
    assert_eq!(inode(&blob), first, "a file that is sent is a new one");
    let young = SystemTime::now() - Duration::from_secs(600);
    assert!(modified(&folder, &blob.digest) > young);
    age(&folder, &blob.digest, 48);
    assert!(store.has_blob(&blob.digest).unwrap());
    assert!(modified(&folder, &blob.digest) > young && inode(&blob) == first);
    assert!(get(&*store, &blob).unwrap() == content, "nothing but its time was changed");
    // One that is cut off is replaced.
    let file = fs::File::options().write(true).open(folder.join("blobs/sha256").join(blob.digest.hex())).unwrap();
    file.set_len(1000).unwrap();
    put(&*store, &content).unwrap();
    assert!(get(&*store, &blob).unwrap() == content);
}

/// docs/decisions/0019 tells these numbers: each run is a connection.
#[test]
fn a_save_and_a_restore_take_few_runs() {
    let Some(server) = rsyncd() else { return };
    let (target, folder) = (in_module(server, "ci"), tempfile::tempdir().unwrap());
    // The first one that saves below it makes it, which is a run more; that may be this test or another one.
    fs::create_dir_all(folder_of(server, &target).parent().unwrap()).unwrap();
    let target = target.to_string();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let part = target.rsplit_once('/').unwrap().1.strip_suffix(":v1").unwrap();
    let runs = |args: &[&str]| {
        let before = server.runs(part);
        let (succeeded, _, error) = prune::run(args, &[]);
        assert!(succeeded, "{error}");
        server.runs(part) - before
    };
    let (tree, copy, record) = (path("tree"), path("copy"), path("record"));
    fs::create_dir(&tree).unwrap();
    fs::write(Path::new(&tree).join("large"), content(6, 12_000_000)).unwrap();
    assert_eq!(runs(&["save", &tree, &target]), 4, "as the next one");
    assert_eq!(runs(&["save", &tree, &target]), 4, "layer, look at the tag, config, manifest with tag");
    for (layers, name) in ["one", "two", "three"].iter().enumerate() {
        let brought = runs(&["restore", &target, &copy, "--baseline", &record]);
        assert!(brought <= 4 + layers, "{brought}: tag, config, tables, layers");
        fs::write(Path::new(&copy).join(name), name).unwrap();
        assert_eq!(runs(&["save", &copy, &target, "--baseline", &record]), 5, "one look at all layers below");
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn ends_of_blobs_are_brought_without_the_rest() {
    let Some(server) = rsyncd() else { return };
    let target = in_module(server, "ci");
    let store = store::open_with(&target, &options()).unwrap();
    let content = content(2, 30_000_000);
    let blob = put(&*store, &content).unwrap();
    let (offset, len) = (29_000_000, 500_000);
    let file = folder_of(server, &target).join("blobs/sha256").join(blob.digest.hex());
    // Nothing before it is looked at: it could be anything.
    let mut damaged = content.clone();
    damaged[..1000].fill(0);
    fs::write(&file, &damaged).unwrap();
    let part = store.blob_range(&blob, offset, len).unwrap();
    assert!(part == content[offset as usize..][..len as usize]);
    let part = store.blob_range(&blob, offset + len, 1000).unwrap();
    assert!(part == content[(offset + len) as usize..][..1000], "it is here already");
    assert!(store.blob_range(&blob, 0, 1000).unwrap() == damaged[..1000]);
    assert!(get(&*store, &blob).unwrap_err().contains("the blob is damaged"));
}

/// A restore reads the tables of all layers, which are at their ends; two layers may be the same blob.
#[test]
fn ends_of_many_blobs_are_brought_together() {
    let Some(server) = rsyncd() else { return };
    let target = in_module(server, "ci");
    let store = &*store::open_with(&target, &options()).unwrap();
    let blobs: Vec<(Blob, Vec<u8>)> = (0..6)
        .map(|seed| content(40 + seed, 5_000_000))
        .map(|content| (put(store, &content).unwrap(), content))
        .collect();
    let missing = Blob { digest: Digest::of(b"missing"), size: 5_000_000 };
    let part = target.to_string().rsplit_once('/').unwrap().1.strip_suffix(":v1").unwrap().to_owned();
    let before = server.runs(&part);
    std::thread::scope(|scope| {
        for from in [4_999_000, 4_998_000] {
            for (blob, content) in &blobs {
                scope.spawn(move || {
                    let end = store.blob_range(blob, from, 1000).unwrap();
                    assert!(end == content[from as usize..][..1000], "{from}");
                });
            }
        }
        let error = store.blob_range(&missing, 4_999_000, 1000).unwrap_err().to_string();
        assert!(error.contains("the blob is not there"), "{error}");
    });
    // It is said in a list that the missing one is not there; where that was with others, they came all the same.
    let runs = server.runs(&part) - before;
    assert!(runs <= 7, "13 ends in {runs} runs");
}

/// Parallel tasks are the first ones that save into a folder.
#[test]
fn many_make_the_same_folder() {
    let Some(server) = rsyncd() else { return };
    for _ in 0..25 {
        let (target, at_once) = (in_module(server, "ci"), std::sync::Barrier::new(12));
        std::thread::scope(|scope| {
            for number in 0..12 {
                let (target, at_once) = (&target, &at_once);
                scope.spawn(move || {
                    let store = store::open_with(target, &options()).unwrap();
                    at_once.wait();
                    store.put_bytes(format!("blob {number}").as_bytes()).unwrap();
                });
            }
        });
    }
}

#[test]
fn old_blobs_without_an_image_go_and_no_others() {
    let Some(server) = rsyncd() else { return };
    let target = in_module(server, "ci");
    let folder = folder_of(server, &target);
    let store = &*store::open_with(&target, &options()).unwrap();
    let [config, kept, orphan, young] =
        ["{}", "kept", "orphan", "young"].map(|text| store.put_bytes(text.as_bytes()).unwrap());
    let image = store.put_manifest("kept", MANIFEST, &manifest(&config, &kept)).unwrap();
    let gone = store.put_manifest("gone", MANIFEST, &manifest(&config, &orphan)).unwrap();
    // What a transfer left that broke off.
    fs::create_dir(folder.join("blobs/sha256/.partial")).unwrap();
    let partial = folder.join("blobs/sha256/.partial").join(Digest::of(b"partial").hex());
    fs::write(&partial, "half").unwrap();
    let file = fs::File::options().write(true).open(&partial).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(48 * 3600)).unwrap();
    for blob in [config.digest, kept.digest, orphan.digest, image, gone] {
        age(&folder, &blob, 48);
    }
    store.delete_image("gone", &gone).unwrap();
    store.collect().unwrap();
    let mut left = [config.digest, kept.digest, young.digest, image].map(|digest| digest.hex());
    left.sort();
    let names: Vec<_> = names(&folder.join("blobs/sha256")).into_iter().filter(|name| name != ".partial").collect();
    assert_eq!(names, left);
    assert!(!partial.exists());
    assert_eq!(store.tags().unwrap(), ["kept"]);
}

#[test]
fn a_tag_that_moved_meanwhile_stays() {
    let Some(server) = rsyncd() else { return };
    let target = in_module(server, "ci");
    let store = store::open_with(&target, &options()).unwrap();
    let config = store.put_bytes(b"{}").unwrap();
    let old = store.put_manifest("v1", MANIFEST, &manifest(&config, &config)).unwrap();
    let other = store.put_bytes(b"other").unwrap();
    store.put_manifest("v1", MANIFEST, &manifest(&config, &other)).unwrap();
    store.delete_image("v1", &old).unwrap();
    assert!(store.manifest("v1").unwrap().is_some());
}

#[test]
fn a_module_with_a_password() {
    let Some(server) = rsyncd() else { return };
    let with = |password: &str| {
        let variables = [("RSYNC_PASSWORD".to_owned(), password.to_owned())].into();
        StoreOptions { cloud: Environment::new(variables, None), ..impatient() }
    };
    let target = |user: &str| -> Target {
        format!("rsync://{user}@{}/locked/{}:v1", server.address, repository()).parse().unwrap()
    };
    let store = store::open_with(&target(USER.0), &with(USER.1)).unwrap();
    let blob = store.put_bytes(b"content").unwrap();
    assert_eq!(get(&*store, &blob).unwrap(), b"content");
    for (user, password) in [(USER.0, "wrong"), ("other", USER.1), (USER.0, "")] {
        let target = target(user);
        let error = store::open_with(&target, &with(password)).unwrap().manifest("v1").unwrap_err();
        let expected = format!(
            "{}/manifests/v1: {} denied reading an object (code 5: ERROR: auth failed on module locked); the user and the password of RSYNC_PASSWORD have to be in",
            target.repository(),
            server.address
        );
        assert!(matches!(error, StoreError::Denied { .. }) && error.to_string().starts_with(&expected), "{error}");
        assert!(!error.to_string().contains(USER.1));
    }
}

/// Whoever may read the log of a step must not learn the password, however much is logged.
#[test]
fn a_password_is_in_no_log() {
    let Some(server) = rsyncd() else { return };
    let target = format!("rsync://{}@{}/locked/{}:v1", USER.0, server.address, repository());
    let env = [("RUST_LOG", "trace".to_owned()), ("RSYNC_PASSWORD", USER.1.to_owned())];
    let (_, out, log) = prune::run(&["inspect", &target], &env);
    assert!(log.contains("\"rsync\" ") && log.contains("there is no such image"), "it is logged what runs: {log}");
    assert!(!log.contains(USER.1) && !out.contains(USER.1), "{log}");
}

#[test]
fn what_a_daemon_refuses_is_said() {
    let Some(server) = rsyncd() else { return };
    let config = b"{}";
    let put_both = |target: &Target| -> Result<(), StoreError> {
        let store = store::open_with(target, &impatient())?;
        put(&*store, &content(3, 3_000_000))?;
        store.put_bytes(config).map(drop)
    };
    for (module, says) in [
        ("absent", "(code 5: ERROR: Unknown module 'absent'); there is no module \"absent\""),
        ("frozen", "denied storing an object (code 1: ERROR: module is read only); the module is read-only"),
        ("few", "it has too many connections: raise \"max connections\" of the module"),
        ("full", "there is no room left there: delete images (tekton-wrap prune does it for runs), or make room"),
    ] {
        let error = put_both(&in_module(server, module)).unwrap_err().to_string();
        assert!(error.contains(says), "{module}: {error}");
        assert!(error.contains(&format!(" {} ", server.address)), "{error}");
    }
    let target = in_module(server, "refusing");
    let store = store::open_with(&target, &impatient()).unwrap();
    let blob = store.put_bytes(config).unwrap();
    let digest = store.put_manifest("v1", MANIFEST, &manifest(&blob, &blob)).unwrap();
    let error = store.delete_manifest(&digest).unwrap_err().to_string();
    assert!(error.contains("\"refuse options\" of the module has to allow what is asked for"), "{error}");
}

/// Where ssh ends, rsync ends with the code of ssh or, if it sees the broken pipe first, with its own.
#[test]
fn servers_that_are_not_there() {
    if rsyncd().is_none() {
        return;
    }
    for (target, says) in [
        ("rsync://127.0.0.1:1/ci/a:v1", "127.0.0.1:1 failed reading an object (code 10: "),
        ("rsync://host.invalid/ci/a:v1", "host.invalid refused reading an object (code 10: "),
        ("rsync+ssh://me@127.0.0.1:1/a:v1", "127.0.0.1:1 failed reading an object (code "),
    ] {
        let target: Target = target.parse().unwrap();
        let error = store::open_with(&target, &impatient()).unwrap().manifest("v1").unwrap_err().to_string();
        assert!(error.contains(says) || error.contains("name service"), "{error}");
    }
}

#[test]
fn a_large_blob_is_read_while_it_comes_and_goes_on_where_it_broke_off() {
    let Some(server) = rsyncd() else { return };
    let target = in_module(server, "ci");
    let content = content(4, 30_000_000);
    let blob = put(&*store::open_with(&target, &options()).unwrap(), &content).unwrap();
    let (between, go_on) = stops_once(&server.address, 8_000_000);
    let through: Target = target.to_string().replace(&server.address, &between).parse().unwrap();
    let store = store::open_with(&through, &options()).unwrap();
    let mut reader = store.blob(&blob).unwrap();
    let mut got = vec![0; 6_000_000];
    // The rest does not come before what comes now has been read.
    reader.read_exact(&mut got).unwrap();
    go_on.send(()).unwrap();
    reader.read_to_end(&mut got).unwrap();
    assert!(got == content);
    let part = format!("blobs/sha256/{}", blob.digest.hex());
    // The daemon says so when it has ended, which may be later.
    let (begin, is_rest) = (Instant::now(), |len: &u64| (20_000_000..25_000_000).contains(len));
    while !server.sent(&part).iter().any(is_rest) {
        assert!(begin.elapsed() < Duration::from_secs(10), "what was here came again: {:?}", server.sent(&part));
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_reads_no_further_waits_for_nothing() {
    let Some(server) = rsyncd() else { return };
    let target = in_module(server, "ci");
    let blob = put(&*store::open_with(&target, &options()).unwrap(), &content(5, 30_000_000)).unwrap();
    let (between, go_on) = stops_once(&server.address, 8_000_000);
    let through: Target = target.to_string().replace(&server.address, &between).parse().unwrap();
    let http = tekton_wrap::store::HttpOptions { stall_timeout: Duration::from_secs(3600), ..Default::default() };
    let store = store::open_with(&through, &StoreOptions { http: Some(http), ..options() }).unwrap();
    let mut reader = store.blob(&blob).unwrap();
    reader.read_exact(&mut [0; 1000]).unwrap();
    // Or this would take the hour.
    drop((reader, store));
    drop(go_on);
}

/// Stands between a client and the server: on one connection it passes on only so many bytes of what the server sends, and when it
/// is told so, breaks it off.
fn stops_once(server: &str, bytes: u64) -> (String, mpsc::Sender<()>) {
    let (server, listener) = (server.to_owned(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap().to_string();
    let (go_on, wait) = mpsc::channel();
    let wait = Mutex::new(Some(wait));
    thread::spawn(move || {
        let wait = &wait;
        thread::scope(|scope| {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&server).unwrap();
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                scope.spawn(move || {
                    let _ = io::copy(&mut up, &mut down);
                    let _ = down.shutdown(Shutdown::Write);
                });
                scope.spawn(move || {
                    let (mut client, mut server) = (client, server);
                    let passed = io::copy(&mut (&mut server).take(bytes), &mut client).unwrap_or_default();
                    if passed == bytes {
                        match wait.lock().unwrap().take() {
                            Some(wait) => drop(wait.recv()),
                            None => drop(io::copy(&mut server, &mut client)),
                        }
                    }
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
    });
    (address, go_on)
}

/// A daemon that takes a connection and says nothing more.
#[test]
fn a_daemon_that_is_silent() {
    if rsyncd().is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target: Target = format!("rsync://{}/ci/a:v1", listener.local_addr().unwrap()).parse().unwrap();
    let http = tekton_wrap::store::HttpOptions {
        connect_timeout: Duration::from_secs(1),
        stall_timeout: Duration::from_secs(1),
        ..Default::default()
    };
    let error = store::open_with(&target, &StoreOptions { http: Some(http), ..impatient() }).unwrap();
    let error = error.manifest("v1").unwrap_err().to_string();
    assert!(error.contains("(code 30: ") || error.contains("(code 35: "), "{error}");
    assert!(error.contains("(tried "), "{error}");
}

#[test]
fn what_ssh_refuses_is_said() {
    let Some(server) = sshd() else { return };
    let target = over_ssh(server);
    let host = server.login.split_once('@').unwrap().1;
    let with = |key: &str, hosts: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("id_ed25519"), key).unwrap();
        fs::write(folder.path().join("known_hosts"), hosts).unwrap();
        let options = StoreOptions { cloud: Environment::new(HashMap::new(), Some(folder.path())), ..impatient() };
        let error = store::open_with(&target, &options).unwrap().manifest("v1").map(|_| ()).map_err(|e| e.to_string());
        error.map_err(|error| error.replace(&folder.path().display().to_string(), "SECRET"))
    };
    let (key, hosts) = (server.secret("ssh-privatekey"), server.secret("known_hosts"));
    assert_eq!(with(key, hosts), Ok(()));
    assert_eq!(with(key.trim_end(), hosts), Ok(()), "a Secret easily loses the end of the last line");
    for (key, hosts, says) in [
        (key, server.secret("other_hosts"), "its key is not the one of known_hosts: either somebody is in between"),
        (key, "", "its key is not in known_hosts: put the line of ssh-keyscan there"),
        (
            server.secret("other-privatekey"),
            hosts,
            "it takes none of SECRET/id_ed25519: put the public key into the user's authorized_keys there",
        ),
    ] {
        let error = with(key, hosts).unwrap_err();
        assert!(error.contains(&format!("{host} denied reading an object (code ")) && error.contains(says), "{error}");
    }
}

#[test]
fn what_lies_in_it() {
    let Some(server) = rsyncd() else { return };
    let target = in_module(server, "ci");
    let store = store::open_with(&target, &options()).unwrap();
    let config = store.put_bytes(b"{}").unwrap();
    let layer = put(&*store, &content(5, 9_000_000)).unwrap();
    let image = store.put_manifest("v1", MANIFEST, &manifest(&config, &layer)).unwrap();
    let folder = folder_of(server, &target);
    assert_eq!(names(&folder), ["blobs", "manifests"]);
    assert_eq!(names(&folder.join("manifests")), ["v1"]);
    let mut blobs = [config.digest, layer.digest, image].map(|digest| digest.hex());
    blobs.sort();
    assert_eq!(names(&folder.join("blobs/sha256")), blobs, "and nothing that is left over");
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("manifests/v1"), mode("manifests")), (0o644, 0o755));
}
