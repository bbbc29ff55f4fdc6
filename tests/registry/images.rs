//! The images that `images/` makes, as a registry holds them and as crane reads them.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::{Value, json};

use support::registry::{self, Registry};

#[tokio::test]
async fn the_products_image_holds_the_binary_and_nothing_else() {
    let registry = Registry::start().await;
    let program = env!("CARGO_BIN_EXE_tekton-wrap");
    let reference = push(&registry, "build", &["tekton-wrap:v1", program]);

    let config: Value = serde_json::from_str(&crane(&["config", &reference])).expect("JSON");
    assert_eq!(config["config"].get("User"), None);
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0");
    assert_eq!(config["config"]["Entrypoint"], json!([tekton_wrap::step::PROGRAM]));
    let layer = crane_export(&reference);
    let mut archive = tar::Archive::new(layer.as_slice());
    let mut files = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let header = entry.as_ref().expect("an entry").header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        assert_eq!(header.mode().unwrap() & 0o777, 0o755);
        if header.entry_type().is_file() {
            assert_eq!(header.size().unwrap(), Path::new(program).metadata().unwrap().len());
            files.push(format!("/{}", entry.unwrap().path().unwrap().display()));
        }
    }
    assert_eq!(files, [tekton_wrap::step::PROGRAM]);
}

/// There is no Docker here: what `Dockerfile` says is compared with what `images/build` does.
#[test]
fn the_dockerfile_makes_the_same_image() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("it is there");
    let (dockerfile, script) = (read("Dockerfile"), read("images/build"));
    let last = dockerfile.rsplit("FROM scratch\n").next().expect("the image");
    let labels = |text: &str| -> BTreeSet<String> {
        let names = text.split("org.opencontainers.image.").skip(1);
        names.map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(labels(last), labels(&script));
    let rust = concat!("docker.io/library/rust:", env!("CARGO_PKG_RUST_VERSION"), "-");
    assert!(dockerfile.contains(rust), "the Rust of Cargo.toml");
    assert!(last.contains(concat!("ARG VERSION=", env!("CARGO_PKG_VERSION"), "\n")), "the version of Cargo.toml");
    assert!(last.contains(&format!("ENTRYPOINT [{:?}]\n", tekton_wrap::step::PROGRAM)));
    assert!(dockerfile.contains(&format!(" /root-fs{}\n", tekton_wrap::step::PROGRAM)) && !last.contains("USER"));
}

/// What rsync and ssh need is in it: they start where there is nothing else.
#[test]
fn an_image_with_rsync() {
    let isolation = support::runner::isolation();
    if super::rsyncd().is_none() || isolation.is_err() {
        return;
    }
    let registry = super::wait_for(Registry::start());
    let program = env!("CARGO_BIN_EXE_tekton-wrap");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/build");
    let reference = format!("{}/tekton-wrap:v1-rsync", registry.address);
    let reference = output(Command::new(&script).args(["--with", "rsync", &reference, program])).trim().to_owned();
    let root = tempfile::tempdir().expect("a folder");
    output(Command::new(program).args(["restore", &reference]).arg(root.path()));
    let isolation = isolation.expect("there is one");
    let run = |inside: &str| {
        let script = format!("mkdir -p \"$0/dev\" && mount --rbind /dev \"$0/dev\" && {inside}");
        let mut command = Command::new(isolation[0]);
        let output =
            command.args(&isolation[1..]).args(["sh", "-c", &script]).arg(root.path()).output().expect("sh starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    assert!(run("chroot \"$0\" /usr/bin/rsync --version").contains("rsync  version 3"));
    assert!(run("chroot \"$0\" /usr/bin/ssh -V").contains("OpenSSH"));
    // For a user that no file names, as src/store/rsync/process.rs does it.
    let wrapper = "/tekton-wrap/lib/libnss_wrapper.so";
    if rustix::process::getuid().is_root() && root.path().join(&wrapper[1..]).exists() {
        let users = "chmod 755 \"$0\"; echo step:x:1234:1234::/:/ >\"$0/users\"; echo step:x:1234: >\"$0/groups\"; loader=$(cd \"$0\"; ls lib*/ld-linux*)";
        let names = "NSS_WRAPPER_PASSWD=/users NSS_WRAPPER_GROUP=/groups";
        let ssh = format!("chroot --userspec=1234:1234 \"$0\" \"/$loader\" --preload {wrapper} /usr/bin/ssh -G host");
        assert!(run(&format!("{users}; {ssh}")).contains("No user exists for uid 1234"));
        let found = run(&format!("{users}; {names} {ssh}"));
        assert!(found.contains("user step"), "{found}");
    }
    let refused = Command::new(&script).args(["--with", "scp", "x:v1"]).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(2));
}

/// The header of an ELF program (System V ABI), as far as `images/build` reads it: class, byte order, machine.
fn stand_in(class_and_order: [u8; 2], machine: [u8; 2]) -> tempfile::NamedTempFile {
    let mut header = [0; 64];
    header[..4].copy_from_slice(b"\x7fELF");
    header[4..6].copy_from_slice(&class_and_order);
    header[6] = 1;
    header[18..20].copy_from_slice(&machine);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), header).expect("it is written");
    file
}

#[tokio::test]
async fn an_index_of_a_real_and_of_other_architectures() {
    let registry = Registry::start().await;
    let program = env!("CARGO_BIN_EXE_tekton-wrap");
    let mut images = vec![push(&registry, "build", &["tekton-wrap:real", program])];
    let real = architecture(&images[0]);
    let others = [
        ("amd64", [2, 1], [0x3e, 0]),
        ("arm64", [2, 1], [0xb7, 0]),
        ("s390x", [2, 2], [0, 0x16]),
        ("ppc64le", [2, 1], [0x15, 0]),
    ];
    for (name, class_and_order, machine) in others {
        let file = stand_in(class_and_order, machine);
        let image = push(&registry, "build", &[&format!("tekton-wrap:{name}"), file.path().to_str().expect("UTF-8")]);
        assert_eq!(architecture(&image), name);
        if name != real {
            images.push(image);
        }
    }
    let index = push(
        &registry,
        "index",
        &[&["tekton-wrap:v1"], &*images.iter().map(String::as_str).collect::<Vec<_>>()].concat(),
    );

    let manifest: Value = serde_json::from_str(&crane(&["manifest", &index])).expect("JSON");
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.index.v1+json");
    let entries = manifest["manifests"].as_array().expect("manifests");
    for (entry, image) in entries.iter().zip(&images) {
        assert_eq!(entry["platform"]["architecture"], architecture(image));
        assert!(image.ends_with(entry["digest"].as_str().expect("a digest")));
    }
    assert_eq!(entries.len(), 4);
    // What runs here takes what is for here.
    let folder = tempfile::tempdir().expect("a folder");
    output(Command::new(program).args(["restore", &index]).arg(folder.path()));
    let restored = folder.path().join("tekton-wrap/bin/tekton-wrap").metadata().expect("the program").len();
    assert_eq!(restored, Path::new(program).metadata().expect("the program").len());

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/index");
    let twice = Command::new(script).args([&index, &images[0], &images[0]]).output().expect("it starts");
    let stderr = String::from_utf8_lossy(&twice.stderr);
    assert!(!twice.status.success() && stderr.contains(&format!("are both for {real}")), "{stderr}");
}

#[tokio::test]
async fn what_is_no_program_makes_no_image() {
    let registry = Registry::start().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/build");
    for (file, expected) in
        [("Cargo.toml", "is not a program for amd64, arm64, s390x or ppc64le"), ("no-such-file", "No such file")]
    {
        let refused =
            Command::new(&script).arg(format!("{}/x:v1", registry.address)).arg(file).output().expect("it starts");
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && stderr.contains(expected), "{file}: {stderr}");
    }
}

fn architecture(image: &str) -> String {
    let config: Value = serde_json::from_str(&crane(&["config", image])).expect("JSON");
    config["architecture"].as_str().expect("an architecture").to_owned()
}

#[tokio::test]
async fn the_base_image_is_empty_and_always_the_same() {
    let registry = Registry::start().await;
    let first = push(&registry, "base", &["base:a"]);
    let second = push(&registry, "base", &["base:b"]);
    assert_eq!(first.split_once('@').unwrap().1, second.split_once('@').unwrap().1);
    let layer = crane_export(&first);
    for entry in tar::Archive::new(layer.as_slice()).entries().expect("a tar") {
        assert_eq!(entry.unwrap().path().unwrap(), Path::new("./"));
    }
}

/// Runs a script of `images/`; the reference that it prints, with a digest.
fn push(registry: &Registry, script: &str, args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images").join(script);
    output(Command::new(script).arg(format!("{}/{}", registry.address, args[0])).args(&args[1..])).trim().to_owned()
}

fn crane(args: &[&str]) -> String {
    output(registry::crane().args(args))
}

fn crane_export(reference: &str) -> Vec<u8> {
    registry::crane().args(["export", reference, "-"]).output().expect("crane starts").stdout
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
