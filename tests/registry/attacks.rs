//! What an image says about itself, when whoever made it wants more than they may: attacks on the real program, each with what
//! holds it. docs/security.md lists them.

use std::process::Command;

use serde_json::Value;
use tekton_wrap::digest::Digest;

use super::*;
use support::faults::Faults;

/// A registry, a repository in it, and folders.
pub struct Place {
    pub folder: tempfile::TempDir,
    /// Without a tag.
    pub repository: String,
}

/// How the program ended.
pub struct Ended {
    pub succeeded: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        let repository = format!("{}/{}", REGISTRY.address, repository());
        Self { folder: tempfile::tempdir().unwrap(), repository }
    }

    pub fn image(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repository)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A directory with one file of this name.
    pub fn tree(&self, name: &str) -> String {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::write(self.path(name).join(name), name).unwrap();
        self.path(name).display().to_string()
    }

    pub fn program(&self, args: &[&str]) -> Ended {
        self.program_with(args, &[])
    }

    pub fn program_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
        command.args(args).env_remove("RUST_LOG").env("DOCKER_CONFIG", self.path("docker")).envs(env.iter().copied());
        let output = command.output().unwrap();
        let string = |bytes| String::from_utf8(bytes).unwrap();
        Ended { succeeded: output.status.success(), stdout: string(output.stdout), stderr: string(output.stderr) }
    }

    /// Saves the directory as the injected step of the first task does it.
    fn first_task(&self, base: Option<&str>) -> String {
        let dir = self.tree("one");
        let step = self.step("one", 0, &dir, base, json!([]));
        let ended = self.program_with(&["save"], &[("TEKTON_WRAP_STEP", &step)]);
        assert!(ended.succeeded, "{}", ended.stderr);
        self.image(&format!("{}.0.ws", uid(&self.repository)))
    }

    /// Restores as the injected step of the second task does it.
    fn second_task(&self, base: Option<&str>) -> Ended {
        let dir = self.path("two");
        fs::create_dir_all(&dir).unwrap();
        let step = self.step("two", 1, dir.to_str().unwrap(), base, json!([{"task": "one", "order": 0}]));
        self.program_with(&["restore"], &[("TEKTON_WRAP_STEP", &step)])
    }

    fn step(&self, task: &str, order: u32, dir: &str, base: Option<&str>, after: Value) -> String {
        let mut workspace = json!({"name": "ws", "path": dir, "target": self.image("done"), "after": after});
        if let Some(base) = base {
            workspace["base"] = base.into();
        }
        json!({"run": uid(&self.repository), "task": task, "order": order, "workspaces": [workspace]}).to_string()
    }

    /// What is in a directory.
    fn names(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(dir)) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Replaces an image, as whoever may push to its repository can: `change` gets its manifest and its config.
pub fn forge(image: &str, to: &str, change: impl FnOnce(&mut Value, &mut Value)) -> Digest {
    let (from, to) = (image.parse::<Target>().unwrap(), to.parse::<Target>().unwrap());
    let store = store::open_with(&from, &options()).unwrap();
    let found = store.manifest(&from.reference()).unwrap().unwrap();
    let mut manifest: Value = serde_json::from_slice(&found.bytes).unwrap();
    let config = &manifest["config"];
    let blob =
        Blob { digest: config["digest"].as_str().unwrap().parse().unwrap(), size: config["size"].as_u64().unwrap() };
    let mut bytes = Vec::new();
    store.blob(&blob).unwrap().read_to_end(&mut bytes).unwrap();
    let mut config: Value = serde_json::from_slice(&bytes).unwrap();
    change(&mut manifest, &mut config);
    let blob = store.put_bytes(&serde_json::to_vec(&config).unwrap()).unwrap();
    manifest["config"]["digest"] = blob.digest.to_string().into();
    manifest["config"]["size"] = blob.size.into();
    store.put_manifest(&to.reference(), MANIFEST, &serde_json::to_vec(&manifest).unwrap()).unwrap()
}

/// Manifest, layers and diff IDs of an image, as a snapshot names its base.
fn as_base(image: &str, shown: &str) -> Value {
    let mut base = Value::Null;
    let scratch = format!("{}-scratch", image);
    let target = image.parse::<Target>().unwrap();
    let digest = store::open_with(&target, &options()).unwrap().manifest(&target.reference()).unwrap().unwrap().digest;
    forge(image, &scratch, |manifest, config| {
        base = json!({"image": shown, "manifest": digest.to_string(), "layers": manifest["layers"], "diffIds": config["rootfs"]["diff_ids"]});
    });
    base
}

/// An image in a registry that counts requests, for whose address there are credentials; its name there.
fn secret_image(place: &Place) -> (Faults, String, Value) {
    let image = place.image("secret");
    assert!(place.program(&["save", &place.tree("secret"), &image]).succeeded);
    let other = Faults::start(&REGISTRY.address);
    fs::create_dir_all(place.path("docker")).unwrap();
    config(&place.path("docker"), &other.address, json!({"registrytoken": "secret"}));
    let shown = image.replace(&REGISTRY.address, &other.address);
    let base = as_base(&image, &shown);
    (other, shown, base)
}

#[test]
fn a_snapshot_that_names_another_base_is_refused_before_anything_is_asked_for() {
    let place = Place::new();
    let snapshot = place.first_task(None);
    let (other, _, base) = secret_image(&place);
    forge(&snapshot, &snapshot, |_, config| config["dev.tekton-wrap.snapshot"]["base"] = base.clone());
    let ended = place.second_task(None);
    assert!(!ended.succeeded && ended.stderr.contains("its base is \""), "{}", ended.stderr);
    assert!(ended.stderr.contains("that of this run is none"), "{}", ended.stderr);
    assert_eq!((other.all().len(), place.names("two").len()), (0, 0));

    // Nor is one that leaves the base out, or gives the right name to other layers.
    let mine = place.image("base");
    assert!(place.program(&["save", &place.tree("base"), &mine]).succeeded);
    forge(&snapshot, &snapshot, |_, config| {
        drop(config["dev.tekton-wrap.snapshot"].as_object_mut().unwrap().remove("base"))
    });
    let ended = place.second_task(Some(&mine));
    assert!(!ended.succeeded && ended.stderr.contains("its base is none"), "{}", ended.stderr);
    let mut lying = as_base(&mine, &mine);
    lying["layers"] = base["layers"].clone();
    forge(&snapshot, &snapshot, |_, config| config["dev.tekton-wrap.snapshot"]["base"] = lying);
    let ended = place.second_task(Some(&mine));
    assert!(!ended.succeeded && ended.stderr.contains("has other layers than it has"), "{}", ended.stderr);
    assert_eq!(place.names("two").len(), 0);

    // The base of this very run is fine.
    forge(&snapshot, &snapshot, |_, config| config["dev.tekton-wrap.snapshot"]["base"] = as_base(&mine, &mine));
    let ended = place.second_task(Some(&mine));
    assert!(ended.succeeded, "{}", ended.stderr);
    assert_eq!(place.names("two").len(), 2);
}

#[test]
fn by_hand_a_base_in_another_registry_is_read_without_credentials() {
    let place = Place::new();
    let snapshot = place.first_task(None);
    let (other, shown, base) = secret_image(&place);
    // They are sent where the user names the image.
    assert!(place.program(&["inspect", &shown]).succeeded);
    let authorized = |head: &support::http::Head| head.header("authorization").is_some();
    // The question which protocol it speaks is nobody's secret.
    assert!(other.all().iter().filter(|head| head.target() != "/v2/").all(authorized));
    let before = other.all().len();
    forge(&snapshot, &snapshot, |_, config| config["dev.tekton-wrap.snapshot"]["base"] = base.clone());
    let dir = place.path("copy").display().to_string();
    let baseline = place.path("baseline").display().to_string();
    let ended = place.program(&["restore", &snapshot, &dir, "--baseline", &baseline]);
    assert!(ended.succeeded && ended.stderr.contains("it is read without credentials"), "{}", ended.stderr);
    fs::write(place.path("copy/more"), "more").unwrap();
    // The layers of the base are copied into the new image, and read once more for that.
    let elsewhere = place.image("more").replace("/repo-", "/elsewhere-");
    let ended = place.program(&["save", &dir, &elsewhere, "--baseline", &baseline]);
    assert!(ended.succeeded, "{}", ended.stderr);
    assert!(place.program(&["inspect", &snapshot]).succeeded);
    assert!(other.all().len() > before);
    assert!(!other.all()[before..].iter().any(authorized));

    // A folder of this machine is nothing that an image in a registry may name.
    let folder = format!("dir://{}:x", place.path("private").display());
    assert!(place.program(&["save", &place.tree("private-tree"), &folder]).succeeded);
    forge(&snapshot, &snapshot, |_, config| config["dev.tekton-wrap.snapshot"]["base"] = as_base(&folder, &folder));
    let ended = place.program(&["restore", &snapshot, &place.path("none").display().to_string()]);
    assert!(!ended.succeeded && ended.stderr.contains("is a folder of this machine"), "{}", ended.stderr);
}

#[test]
fn lineages_that_lie_restore_nothing_and_say_so() {
    let place = Place::new();
    let snapshot = place.first_task(None);
    let ancestor =
        |order: u32, ancestors: &[u32]| json!({"task": "a", "order": order, "ancestors": ancestors, "layers": []});
    for (ancestors, order, says) in [
        (json!([ancestor(0, &[])]), 0, "listed twice or out of order"),
        (json!([ancestor(0, &[]), ancestor(0, &[])]), 0, "listed twice or out of order"),
        (json!([ancestor(7, &[])]), 0, "listed twice or out of order"),
        (json!([ancestor(0, &[0])]), 1, "which does not come before it"),
        (json!([ancestor(1, &[0])]), 2, "which is not listed"),
        (json!([]), 5, "not of this run"),
    ] {
        let image = place.image("forged");
        let change = |_: &mut Value, config: &mut Value| {
            config["dev.tekton-wrap.snapshot"]["ancestors"] = ancestors.clone();
            config["dev.tekton-wrap.snapshot"]["order"] = order.into();
        };
        forge(&snapshot, &image, change);
        if order == 0 || order == 5 {
            let real = place.image("real");
            forge(&snapshot, &real, |_, _| {});
            forge(&snapshot, &snapshot, change);
            let ended = place.second_task(None);
            assert!(!ended.succeeded && ended.stderr.contains(says), "{says}: {}", ended.stderr);
            forge(&real, &snapshot, |_, _| {});
        }
        if order != 5 {
            let dir = place.path("copy").display().to_string();
            for args in [&["restore", &image, &dir][..], &["inspect", &image], &["inspect", "--verify", &image]] {
                let ended = place.program(args);
                assert!(!ended.succeeded && ended.stderr.contains(says), "{args:?} {says}: {}", ended.stderr);
            }
        }
    }
    assert_eq!((place.names("two").len(), place.names("copy").len()), (0, 0));
    // A layer without a table of contents is not passed over either.
    forge(&snapshot, &snapshot, |manifest, _| {
        drop(manifest["layers"][0].as_object_mut().unwrap().remove("annotations"))
    });
    let ended = place.second_task(None);
    assert!(!ended.succeeded && ended.stderr.contains("has no table of contents"), "{}", ended.stderr);
}

#[test]
fn prune_deletes_nothing_but_snapshots_whatever_the_target_says() {
    let place = Place::new();
    place.first_task(None);
    let release = place.image("v1.2.ws");
    assert!(place.program(&["save", &place.tree("release"), &release]).succeeded);
    let target = release.parse::<Target>().unwrap();
    let store = store::open_with(&target, &options()).unwrap();
    let digest = store.manifest("v1.2.ws").unwrap().unwrap().digest;
    // Images without a tag that no save step has made.
    let blob = store.put_bytes(b"{}").unwrap();
    let foreign = store.put_manifest("foreign", MANIFEST, &manifest(&blob, &blob)).unwrap();
    let other = store.put_bytes(b"{ }").unwrap();
    store.put_manifest("foreign", MANIFEST, &manifest(&other, &other)).unwrap();
    let forged = place.image("forged");
    forge(&place.image("done"), &forged, |manifest, config| {
        manifest["annotations"]["dev.tekton-wrap.run"] = "v1".into();
        manifest["annotations"]["dev.tekton-wrap.replaces"] = format!("{digest},{foreign}").into();
        let writer = &mut config["dev.tekton-wrap.lineage"]["writers"][0];
        writer["order"] = 2.into();
        writer["manifest"] = digest.to_string().into();
    });
    let ended = place.program(&["prune", &forged]);
    assert!(ended.succeeded && ended.stdout == "0 images deleted\n", "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("v1.2.ws is not the snapshot that the target takes it for"), "{}", ended.stderr);
    assert!(place.program(&["inspect", &release]).succeeded);
    assert!(store.manifest(&foreign.to_string()).unwrap().is_some());
    // Nor does it ask for anything but tags of the repository.
    forge(&place.image("done"), &forged, |manifest, _| {
        manifest["annotations"]["dev.tekton-wrap.run"] = "../../other/manifests/x".into();
    });
    let ended = place.program(&["prune", &forged]);
    assert!(!ended.succeeded && ended.stderr.contains("is not an image reference"), "{}", ended.stderr);
}

#[test]
fn no_image_writes_to_the_terminal_or_forges_lines_of_the_log() {
    let place = Place::new();
    let snapshot = place.first_task(None);
    let evil = "x\u{1b}[2J\r\ntekton-wrap: saved all\u{9b}1K\u{202e}";
    let forged = place.image("forged");
    forge(&place.image("done"), &forged, |manifest, config| {
        manifest["annotations"]["dev.tekton-wrap.run"] = evil.into();
        manifest["annotations"]["dev.tekton-wrap.workspace"] = evil.into();
        config["dev.tekton-wrap.lineage"]["writers"][0]["task"] = evil.into();
        config["dev.tekton-wrap.lineage"]["base"] =
            json!({"image": evil, "manifest": Digest::of(b"").to_string(), "layers": [], "diffIds": []});
    });
    let named = place.image("named");
    forge(&snapshot, &named, |manifest, config| {
        manifest["layers"][0]["mediaType"] = evil.into();
        config["dev.tekton-wrap.snapshot"]["task"] = evil.into();
        config["dev.tekton-wrap.snapshot"]["base"] =
            json!({"image": evil, "manifest": Digest::of(b"").to_string(), "layers": [], "diffIds": []});
    });
    forge(&snapshot, &snapshot, |_, config| config["dev.tekton-wrap.snapshot"]["run"] = evil.into());
    let names = place.path("names");
    fs::create_dir(&names).unwrap();
    fs::write(names.join(evil), "").unwrap();
    let listed = place.image("listed");
    let copy = place.path("copy").display().to_string();
    let mut all = vec![place.second_task(None)];
    for args in [
        &["inspect", &forged][..],
        &["inspect", "--verify", &forged],
        &["inspect", "--verify", &named],
        &["inspect", &named],
        &["restore", &named, &copy],
        &["prune", &forged],
        &["save", names.to_str().unwrap(), &listed],
        &["inspect", "--tree", &listed],
        &["inspect", "--diff", &listed, &place.image("done")],
        &["restore", &format!("{}:{evil}", place.repository), &copy],
        &["save", names.join(evil).to_str().unwrap(), &listed],
    ] {
        all.push(place.program(args));
    }
    for Ended { stdout, stderr, .. } in all {
        let shown = stdout + &stderr;
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{shown:?}");
        assert!(!shown.lines().any(|line| line.starts_with("tekton-wrap: saved all")), "{shown}");
    }
}

#[test]
fn by_hand_no_program_gets_rights_from_an_image() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let (tree, image) = (place.tree("tree"), place.image("su"));
    fs::set_permissions(place.path("tree/tree"), fs::Permissions::from_mode(0o6755)).unwrap();
    assert!(place.program(&["save", &tree, &image]).succeeded);
    let ended = place.program(&["restore", &image, &place.path("copy").display().to_string()]);
    assert!(ended.succeeded, "{}", ended.stderr);
    assert!(ended.stderr.contains("1 file lost setuid, setgid or capabilities"), "{}", ended.stderr);
    let mode = fs::metadata(place.path("copy/tree")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn the_chain_behind_an_image_is_checked_digest_by_digest() {
    let place = Place::new();
    let snapshot = place.first_task(None);
    let done = place.image("done");
    let ended = place.program(&["inspect", "--verify", &done]);
    assert!(ended.succeeded, "{}", ended.stderr);
    assert!(ended.stdout.contains("every digest is right: 1 snapshot, 1 layer, "), "{}", ended.stdout);

    let forged = place.image("forged");
    let lineage = "dev.tekton-wrap.lineage";
    let zeros = format!("sha256:{}", "0".repeat(64));
    type Change<'a> = &'a dyn Fn(&mut Value, &mut Value);
    let other_task: Change<'_> = &|_, config| config[lineage]["writers"][0]["task"] = "other".into();
    let other_run: Change<'_> = &|manifest, _| manifest["annotations"]["dev.tekton-wrap.run"] = "other".into();
    let no_layers: Change<'_> = &|_, config| config[lineage]["writers"][0]["layers"] = json!([]);
    let other_diff_id: Change<'_> = &|_, config| config["rootfs"]["diff_ids"][0] = zeros.clone().into();
    let other_table: Change<'_> = &|manifest, config| {
        for layer in [&mut manifest["layers"][0], &mut config[lineage]["writers"][0]["layers"][0]] {
            layer["annotations"]["dev.tekton-wrap.toc.digest"] = zeros.clone().into();
        }
    };
    let other_snapshot: Change<'_> = &|_, config| {
        let digest = forge(&snapshot, &place.image("other"), |_, config| config["created"] = "".into());
        config[lineage]["writers"][0]["manifest"] = digest.to_string().into();
        config[lineage]["writers"][0]["order"] = 3.into();
    };
    for (change, says) in [
        (other_task, "of task \"other\" in"),
        (other_run, "its run differs from what the image says"),
        (no_layers, "the list of layers differs from what the image says"),
        (other_diff_id, "diff ID"),
        (other_table, "digest that it should have"),
        (other_snapshot, "differs from what the image says"),
    ] {
        forge(&done, &forged, |manifest, config| change(manifest, config));
        let ended = place.program(&["inspect", "--verify", &forged]);
        assert!(!ended.succeeded && ended.stderr.contains(says), "{says}: {}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    // What is gone can't be checked, and that is said.
    assert!(place.program(&["prune", &done]).succeeded);
    let ended = place.program(&["inspect", "--verify", &done]);
    assert!(ended.succeeded, "{}", ended.stderr);
    assert!(
        ended.stdout.contains("0 snapshots, 1 layer, ") && ended.stdout.contains("the snapshot of task one is gone"),
        "{}",
        ended.stdout
    );
}

/// Whoever may push could have a restore hold gigabytes of what only claims to be a cache, and end for it; but none is ever why a
/// task fails.
#[test]
fn caches_that_are_too_large_to_look_at() {
    for what in ["tables", "manifests"] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        ["tree", "ws"].iter().for_each(|name| fs::create_dir(path(name)).unwrap());
        fs::write(folder.path().join("tree/file"), "text").unwrap();
        let image = format!("dir://{}:v1", path("store"));
        let save =
            Command::new(env!("CARGO_BIN_EXE_tekton-wrap")).args(["save", &path("tree"), &image]).output().unwrap();
        assert!(save.status.success());
        let store = store::open(&image.parse().unwrap()).unwrap();
        let found = store.manifest("v1").unwrap().unwrap();
        let mut manifest: Value = serde_json::from_slice(&found.bytes).unwrap();
        let mut tags = vec!["all.0123456789ab".to_owned()];
        if what == "tables" {
            manifest["layers"][0]["size"] = (2_u64 << 30).into();
            manifest["layers"][0]["annotations"]["dev.tekton-wrap.toc.size"] = (1_u64 << 30).to_string().into();
            let blob = manifest["layers"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
            let blob = folder.path().join("store/blobs/sha256").join(blob);
            fs::File::options().write(true).open(blob).unwrap().set_len(2 << 30).unwrap();
        } else {
            manifest["layers"][0]["annotations"]["more"] = "x".repeat(3 << 20).into();
            tags.extend((0..200).map(|i| format!("all.{i:012}")));
        }
        manifest["annotations"]["dev.tekton-wrap.cache"] = "ws/modules".into();
        manifest["annotations"]["dev.tekton-wrap.cache.key"] = "all".into();
        let whose = &Digest::of(b"ws/modules\0").hex()[..12];
        let bytes = manifest.to_string().into_bytes();
        for tag in tags {
            store.put_manifest(&format!("cache.{whose}.{tag}"), MANIFEST, &bytes).unwrap();
        }
        let cache = json!({"path": "modules", "target": image, "key": "none", "restoreKeys": ["all"], "order": 20});
        let workspace = json!({"name": "ws", "path": path("ws"), "target": image, "caches": [cache]});
        let step = json!({"run": uid(&image), "task": "t", "order": 100, "workspaces": [workspace]}).to_string();
        let script = format!("ulimit -d 300000; exec '{}' restore", env!("CARGO_BIN_EXE_tekton-wrap"));
        let output = Command::new("sh").args(["-c", &script]).env("TEKTON_WRAP_STEP", step).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && log.contains("is not restored: "), "{what}: {log}");
        assert!(log.contains("larger than"), "{what}: {log}");
    }
}

/// A config may be large, as that of a run with thousands of tasks is; what it has there of things that nobody has many of would
/// become twenty times its size in memory.
#[test]
fn a_config_with_millions_of_nothing_fills_no_memory() {
    for (what, list) in [("history", "{},"), ("labels", "")] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let image = format!("dir://{}:v1", path("store"));
        let store = store::open(&image.parse().unwrap()).unwrap();
        let many: String = if what == "history" {
            format!("\"history\": [{}{{}}]", list.repeat(20_000_000))
        } else {
            let labels: String = (0..3_000_000).map(|i| format!("\"{i:x}\":\"\",")).collect();
            format!("\"config\": {{\"Labels\": {{{labels}\"z\":\"\"}}}}")
        };
        let text = format!("{{\"rootfs\": {{\"type\": \"layers\", \"diff_ids\": []}}, {many}}}");
        let config = store.put_bytes(text.as_bytes()).unwrap();
        let mut found: Value = serde_json::from_slice(&manifest(&config, &config)).unwrap();
        found["layers"] = json!([]);
        store.put_manifest("v1", MANIFEST, found.to_string().as_bytes()).unwrap();
        let script = format!("ulimit -d 250000; exec '{}' \"$@\"", env!("CARGO_BIN_EXE_tekton-wrap"));
        for args in [&["restore", &image, &path("copy")][..], &["inspect", &image]] {
            let output = Command::new("sh").args(["-c", &script, "sh"]).args(args).output().unwrap();
            let log = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{what} {args:?}: {log}");
        }
    }
}
