//! What other tools make of the image at the end of a run; and tasks that end at the same time.

use std::{
    collections::BTreeMap,
    io::Cursor,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
    thread,
};

use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    config::ConfigFile,
    secrets::RegistryAuth,
};
use serde_json::Value;
use support::registry::crane;
use tekton_wrap::{
    digest::Digest,
    step::StepConfig,
    workspace::{restore_image, restore_task, save_task},
};

use super::*;

/// A run whose tasks share one workspace.
struct Run {
    folder: tempfile::TempDir,
    target: String,
    compression: &'static str,
}

impl Run {
    fn new(compression: &'static str) -> Self {
        let target = format!("{}/{}:v1", REGISTRY.address, repository());
        Self { folder: tempfile::tempdir().unwrap(), target, compression }
    }

    fn step(&self, order: u32, after: &[u32], parallel: Option<(u32, u32)>) -> StepConfig {
        let after: Vec<Value> =
            after.iter().map(|order| json!({"task": format!("t{order}"), "order": order})).collect();
        let workspace = json!({
            "name": "ws", "path": self.dir(order), "target": self.target, "after": after,
            "parallel": Vec::from_iter(parallel),
        });
        let step = json!({
            "run": "run", "task": format!("t{order}"), "order": order, "compression": self.compression,
            "workspaces": [workspace],
        });
        serde_json::from_value(step).unwrap()
    }

    /// A whole task that does `work` in its directory, with its restore and save steps.
    fn play(&self, step: StepConfig, work: impl FnOnce(&Path)) {
        let (dir, state) = (self.dir(step.order), self.folder.path().join(format!("state{}", step.order)));
        [&dir, &state].iter().for_each(|dir| fs::create_dir(dir).unwrap());
        if !step.workspaces[0].after.is_empty() {
            restore_task(step.clone(), &state).unwrap();
        }
        work(&dir);
        save_task(step, &state).unwrap();
    }

    fn dir(&self, order: u32) -> PathBuf {
        self.folder.path().join(format!("ws{order}"))
    }

    /// Compares what this program, and what other tools make of the target.
    fn compare(&self, what: &str) {
        let ours = tempfile::tempdir().unwrap();
        restore_image(&self.target, ours.path(), None).unwrap();
        let ours = list(ours.path());

        let theirs = tempfile::tempdir().unwrap();
        let mut export = crane().args(["export", &self.target, "-"]).stdout(Stdio::piped()).spawn().unwrap();
        let archive = export.stdout.take().unwrap();
        run(Command::new("tar").args(["-xp", "-C"]).arg(theirs.path()).stdin(archive));
        assert!(export.wait().unwrap().success());
        assert_eq!(ours, list(theirs.path()), "crane export | tar x: {what}");

        wait_for(self.read_by_oci_client(what));

        let Some(unpacked) = self.unpack() else { return };
        assert_eq!(ours, list(&unpacked.path().join("bundle/rootfs")), "skopeo copy, umoci unpack: {what}");
    }

    /// oci-client parses manifest and configuration by types of its own, and compares every blob with its digest. What it
    /// reads is what our store has, and each layer unpacks to what the configuration says.
    async fn read_by_oci_client(&self, what: &str) {
        // The features that it is built with choose no provider; another test may have done so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
        let client = Client::try_from(config).unwrap();
        let image: Reference = self.target.parse().unwrap();
        let (manifest, digest, config) =
            client.pull_manifest_and_config(&image, &RegistryAuth::Anonymous).await.unwrap();

        let target: Target = self.target.parse().unwrap();
        let store = store::open_with(&target, &options()).unwrap();
        let stored = store.manifest(&target.reference()).unwrap().unwrap();
        assert_eq!(digest, stored.digest.to_string(), "{what}");
        let blob = |digest: &str, size: i64| {
            get(&*store, &Blob { digest: digest.parse().unwrap(), size: size.try_into().unwrap() }).unwrap()
        };
        assert_eq!(config.as_bytes(), blob(&manifest.config.digest, manifest.config.size), "{what}");

        let config: ConfigFile = serde_json::from_str(&config).unwrap();
        assert_eq!(manifest.layers.len(), config.rootfs.diff_ids.len(), "{what}");
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let mut pulled = Vec::new();
            client.pull_blob(&image, layer, &mut pulled).await.unwrap();
            assert!(pulled == blob(&layer.digest, layer.size), "{what}: {}", layer.digest);
            let archive = match &*layer.media_type {
                "application/vnd.oci.image.layer.v1.tar+zstd" => zstd::decode_all(Cursor::new(pulled)).unwrap(),
                "application/vnd.oci.image.layer.v1.tar+gzip" => {
                    let mut archive = Vec::new();
                    flate2::read::MultiGzDecoder::new(&*pulled).read_to_end(&mut archive).unwrap();
                    archive
                }
                "application/vnd.oci.image.layer.v1.tar" => pulled,
                other => panic!("{what}: a layer is {other}"),
            };
            assert_eq!(Digest::of(&archive).to_string(), *diff_id, "{what}: {}", layer.digest);
        }
    }

    /// By skopeo and umoci, where they are installed. This version of umoci may not know zstd.
    fn unpack(&self) -> Option<tempfile::TempDir> {
        let is_there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
        if self.compression == "zstd" || !["skopeo", "umoci"].into_iter().all(is_there) {
            eprintln!("skipped: skopeo and umoci with an image that is not compressed by zstd");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (layout, bundle) = (folder.path().join("layout"), folder.path().join("bundle"));
        let (from, to) = (format!("docker://{}", self.target), format!("oci:{}:v1", layout.display()));
        run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to]));
        let image = format!("{}:v1", layout.display());
        run(Command::new("umoci").args(["unpack", "--rootless", "--image", &image]).arg(bundle));
        Some(folder)
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What is in `root`: by path its mode, and the content of files with the first of their names. The mtime of files too.
fn list(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut names, mut folders) = (BTreeMap::new(), BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_owned();
            let text = if meta.is_dir() {
                folders.push(path);
                format!("dir {:o}", meta.mode())
            } else if meta.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else {
                let first: &PathBuf = names.entry(meta.ino()).or_insert_with(|| name.clone());
                let content = fs::read_to_string(&path).unwrap();
                format!("{first:?} ({}) {:o} {}: {content}", meta.nlink(), meta.mode(), meta.mtime())
            };
            found.insert(name, text);
        }
    }
    found
}

fn write(dir: &Path, path: &str, content: &str) {
    fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
    fs::write(dir.join(path), content).unwrap();
}

fn chmod(dir: &Path, path: &str, mode: u32) {
    fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn other_tools_see_the_same() {
    for compression in ["zstd", "gzip", "none"] {
        let run = Run::new(compression);
        run.play(run.step(0, &[], None), |dir| {
            for path in ["gone", "kept", "d/x", "d/y", "e/f/g", "becomes-dir", "linked"] {
                write(dir, path, path);
            }
            ["name1", "e/name2"].iter().for_each(|name| fs::hard_link(dir.join("linked"), dir.join(name)).unwrap());
            std::os::unix::fs::symlink("d/x", dir.join("symlink")).unwrap();
        });
        run.compare("one task");
        run.play(run.step(1, &[0], None), |dir| {
            fs::remove_file(dir.join("gone")).unwrap();
            fs::remove_dir_all(dir.join("d")).unwrap();
            write(dir, "d", "a file now");
            fs::remove_file(dir.join("becomes-dir")).unwrap();
            write(dir, "becomes-dir/x", "");
            chmod(dir, "kept", 0o755);
            chmod(dir, "e/f", 0o700);
        });
        run.compare("deleted, replaced, chmod");
        run.play(run.step(2, &[0, 1], Some((3, 3))), |dir| {
            fs::remove_file(dir.join("linked")).unwrap();
            fs::remove_dir_all(dir.join("e/f")).unwrap();
            write(dir, "e/left", "left");
        });
        run.play(run.step(3, &[0, 1], Some((2, 2))), |dir| {
            write(dir, "becomes-dir/right", "right");
            chmod(dir, "e", 0o711);
            write(dir, "e/f/touched", "");
            fs::remove_file(dir.join("e/f/touched")).unwrap();
        });
        run.compare("parallel");
        run.play(run.step(4, &[0, 1, 2, 3], None), |dir| {
            fs::hard_link(dir.join("e/left"), dir.join("again")).unwrap();
            chmod(dir, "name1", 0o600);
        });
        run.compare("joined");
        run.play(run.step(5, &[0, 1, 2, 3, 4], None), |dir| fs::remove_dir_all(dir.join("e")).unwrap());
        run.play(run.step(6, &[0, 1, 2, 3, 4, 5], None), |dir| write(dir, "e/made-again", ""));
        run.compare("deleted and made again");
    }
}

/// What podman mounts, and what is restored from the image layout that oras copies, of a target with deletions.
#[test]
fn podman_and_oras_read_a_target() {
    let run = Run::new("zstd");
    run.play(run.step(0, &[], None), |dir| {
        ["gone", "kept", "d/x", "d/y"].iter().for_each(|path| write(dir, path, path));
        fs::hard_link(dir.join("kept"), dir.join("name")).unwrap();
    });
    run.play(run.step(1, &[0], None), |dir| {
        fs::remove_file(dir.join("gone")).unwrap();
        fs::remove_dir_all(dir.join("d")).unwrap();
        write(dir, "d/new", "new");
        chmod(dir, "kept", 0o755);
    });
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    restore_image(&run.target, &place("ours"), None).unwrap();
    let ours = list(&place("ours"));
    match support::assets::built("oras") {
        None => eprintln!("skipped: oras, which tests/assets/build oras builds"),
        Some(oras) => {
            let layout = format!("{}:v1", place("layout").display());
            let copy = ["copy", "--from-plain-http", &run.target, "--to-oci-layout", &layout];
            crate::tools::run(Command::new(oras).args(copy));
            restore_image(&format!("dir://{layout}"), &place("by-oras"), None).unwrap();
            assert_eq!(ours, list(&place("by-oras")), "oras copy");
        }
    }
    // Mounting takes root, or a user namespace of podman's own.
    if fs::metadata("/proc/self").unwrap().uid() != 0 || Command::new("podman").arg("--version").output().is_err() {
        eprintln!("skipped: podman as root");
        return;
    }
    fs::write(place("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        command
            .args(["--storage-driver", "vfs", "--root"])
            .arg(place("storage"))
            .arg("--runroot")
            .arg(place("running"));
        let output = command.args(args).env("XDG_RUNTIME_DIR", folder.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let policy = place("policy.json");
    podman(&["pull", "--quiet", "--tls-verify=false", "--signature-policy", policy.to_str().unwrap(), &run.target]);
    let mounted = podman(&["image", "mount", &run.target]);
    assert_eq!(ours, list(Path::new(&mounted)), "podman image mount");
    podman(&["image", "unmount", &run.target]);
}

/// `crane export` overlooks the deletion of a directory that a higher layer has again, unless the target corrects it.
#[test]
fn a_directory_that_was_deleted_and_made_again() {
    for replaced in [false, true] {
        let run = Run::new("gzip");
        run.play(run.step(0, &[], None), |dir| write(dir, "d/old", ""));
        run.play(run.step(1, &[0], None), |dir| {
            fs::remove_dir_all(dir.join("d")).unwrap();
            if replaced {
                write(dir, "d", "a file");
            }
        });
        run.play(run.step(2, &[0, 1], None), |dir| {
            if replaced {
                fs::remove_file(dir.join("d")).unwrap();
            }
            write(dir, "d/new", "");
        });
        run.compare(if replaced { "a file in between" } else { "nothing in between" });
    }
}

#[test]
fn an_image_of_many_tasks() {
    let run = Run::new("gzip");
    for order in 0..66_u32 {
        let after = Vec::from_iter(order.checked_sub(1));
        run.play(run.step(order, &after, None), |dir| {
            write(dir, &format!("d{}/f{order}", order % 5), &order.to_string());
            if order % 10 == 9 {
                fs::remove_dir_all(dir.join(format!("d{}", order / 10 % 5))).unwrap();
            }
        });
    }
    let manifest = crane().args(["manifest", &run.target]).output().unwrap();
    let manifest: Value = serde_json::from_slice(&manifest.stdout).unwrap();
    assert!(manifest["layers"].as_array().unwrap().len() <= 64);
    run.compare("many tasks");
}

#[test]
fn nothing_is_lost_when_tasks_end_at_the_same_time() {
    for _ in 0..5 {
        let run = &Run::new("zstd");
        thread::scope(|scope| {
            for order in 0..6 {
                let step = run.step(order, &[], Some((0, 5)));
                let work = move |dir: &Path| write(dir, &format!("left-by-{order}"), "");
                scope.spawn(move || run.play(step, work));
            }
        });
        let end = tempfile::tempdir().unwrap();
        restore_image(&run.target, end.path(), None).unwrap();
        assert_eq!(list(end.path()).len(), 6);
    }
}
