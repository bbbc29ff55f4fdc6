//! `save` and `restore` as processes without privileges, on trees that their owner has locked.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

#[expect(dead_code, reason = "the data plane's own tests use all of it")]
#[path = "../../src/workspace/tests/seen.rs"]
mod seen;

/// The task's user, and another one as OpenShift would choose it. Who may not change its user is itself twice.
const USERS: [u32; 2] = [12_345, 1_000_650_000];

/// A module cache of Go is read-only; what is closed altogether is still the owner's.
const TREE: &str = r"
mkdir -p go/pkg/mod none/below plain
echo module > go/pkg/mod/go.mod
ln go/pkg/mod/go.mod plain/link
ln -s ../go plain/symlink
mkfifo plain/pipe
echo secret > none/below/secret
chmod 0444 go/pkg/mod/go.mod
chmod 0555 go go/pkg go/pkg/mod
chmod 0000 none/below/secret none/below none
";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(user: u32, dir: &Path, program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir);
    if is_root() {
        command.uid(user).gid(0);
    }
    command.output().unwrap()
}

fn tekton_wrap(user: u32, dir: &Path, args: &[&str]) -> (bool, String) {
    let output = run(user, dir, "./tekton-wrap", args);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A folder in which both users may make directories of their own, with the program: it may have been built where they
/// can't go.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_tekton-wrap"), folder.path().join("tekton-wrap")).unwrap();
    folder
}

fn own(folder: &Path, user: u32, name: &str) -> String {
    let dir = folder.join(name);
    assert!(run(user, folder, "mkdir", &["-m", "0777", name]).status.success());
    dir.display().to_string()
}

/// Owners are not restored without privileges.
fn without_owners(root: &Path) -> seen::Seen {
    seen::see(root).into_iter().map(|(path, item)| (path, seen::Item { owner: None, ..item })).collect()
}

#[test]
fn locked_files_and_directories_come_back_as_they_were() {
    let folder = folder();
    let [from, store, to] = ["from", "store", "to"].map(|name| folder.path().join(name));
    let image = format!("dir://{}:x", own(folder.path(), USERS[0], "store"));
    let left = own(folder.path(), USERS[0], "from");
    assert!(run(USERS[0], &from, "sh", &["-ec", TREE]).status.success());
    let before = without_owners(&from);
    assert_eq!(before.len(), 12);

    let (ok, said) = tekton_wrap(USERS[0], folder.path(), &["save", &left, &image]);
    assert!(ok, "{said}");
    assert_eq!(without_owners(&from), before, "after the save");
    // The other user only reads the store.
    assert!(run(USERS[0], &store, "chmod", &["-R", "a+rX", "."]).status.success());
    let (found, baseline) = (own(folder.path(), USERS[1], "to"), own(folder.path(), USERS[1], "state") + "/baseline");
    let (ok, said) = tekton_wrap(USERS[1], folder.path(), &["restore", &image, &found, "--baseline", &baseline]);
    assert!(ok, "{said}");
    assert_eq!(without_owners(&to), before, "after the restore");

    let other = format!("dir://{}:x", own(folder.path(), USERS[1], "store2"));
    let (ok, said) = tekton_wrap(USERS[1], folder.path(), &["save", &found, &other, "--baseline", &baseline]);
    assert!(ok && said.contains("nothing changed"), "{said}");
    assert_eq!(without_owners(&to), before, "after the second save");
    [from, to].iter().for_each(|root| seen::open_up(root));
}

/// Each of them is held until its mode is set back: more than a process may have open at first.
#[test]
fn many_locked_directories() {
    let folder = folder();
    let image = format!("dir://{}:x", own(folder.path(), USERS[0], "store"));
    let left = own(folder.path(), USERS[0], "from");
    let from = folder.path().join("from");
    let make = "for i in $(seq 300); do mkdir d$i; echo $i > d$i/f; chmod 0 d$i; done";
    assert!(run(USERS[0], &from, "sh", &["-ec", make]).status.success());
    let script = format!("ulimit -Sn 100 && exec ./tekton-wrap save {left} {image}");
    let output = run(USERS[0], folder.path(), "sh", &["-ec", &script]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(": 300 files, "), "{said}");
    let mode = |i: u32| fs::metadata(from.join(format!("d{i}"))).unwrap().permissions().mode() & 0o777;
    assert!((1..=300).all(|i| mode(i) == 0));
    seen::open_up(&from);
}

#[test]
fn a_file_that_may_not_be_read_is_named_and_nothing_is_stored() {
    if !is_root() {
        eprintln!("skipped: only root can make files of another user");
        return;
    }
    let folder = folder();
    let image = format!("dir://{}:x", own(folder.path(), USERS[0], "store"));
    let left = own(folder.path(), USERS[0], "from");
    fs::create_dir(Path::new(&left).join("roots")).unwrap();
    fs::write(Path::new(&left).join("roots/key"), "secret").unwrap();
    fs::set_permissions(Path::new(&left).join("roots/key"), fs::Permissions::from_mode(0o600)).unwrap();
    let (ok, said) = tekton_wrap(USERS[0], folder.path(), &["save", &left, &image]);
    assert!(!ok && said.contains("roots/key: can't be read: Permission denied"), "{said}");
    let (ok, said) = tekton_wrap(USERS[0], folder.path(), &["restore", &image, &(left + "2")]);
    assert!(!ok && said.contains("there is no such image"), "{said}");
}
