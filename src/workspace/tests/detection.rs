//! Changes that leave few traces, and traces that are no change.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use super::{diff::Seen, save, *};

/// Changes a file through a shared mapping and gives it its old mtime. A C compiler is there wherever this is built.
const MAPPED: &str = r#"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
    struct stat before;
    int file = open(argv[1], O_RDWR);
    if (argc != 2 || file < 0 || fstat(file, &before)) return 1;
    char *bytes = mmap(0, before.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (bytes == MAP_FAILED) return 2;
    bytes[0] ^= 1;
    bytes[before.st_size - 1] ^= 1;
    if (munmap(bytes, before.st_size)) return 3;
    struct timespec times[2] = {before.st_atim, before.st_mtim};
    return futimens(file, times) ? 4 : 0;
}
"#;

fn flip(path: &Path) {
    let mtime = fs::metadata(path).unwrap().modified().unwrap();
    let flipped: Vec<u8> = fs::read(path).unwrap().iter().map(|byte| byte ^ 1).collect();
    let mut file = File::options().write(true).open(path).unwrap();
    file.write_all(&flipped).unwrap();
    file.set_modified(mtime).unwrap();
}

#[test]
fn what_is_written_through_a_mapping_is_seen() {
    let run = Run::new();
    let program = run.folder.path().join("mapped");
    fs::write(program.with_extension("c"), MAPPED).unwrap();
    let compile = Command::new("cc").arg("-o").arg(&program).arg(program.with_extension("c")).status();
    assert!(compile.unwrap().success());
    run.play(&task(0, &[]), |dir| fs::write(dir.join("a"), vec![7; 10_000]).unwrap());
    let left = run.play(&task(1, &[0]), |dir| {
        assert!(Command::new(&program).arg(dir.join("a")).status().unwrap().success());
    });
    assert_eq!(run.layers(1).len(), 1);
    let found = run.restore(&task(2, &[1])).unwrap();
    assert_eq!(seen::see(&left), seen::see(&found));
}

/// Clocks of old kernels tick only every few milliseconds (Linux before 6.13): a change right after the restore must not
/// have the ctime that the restore left.
#[test]
fn changes_right_after_the_restore_are_seen() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| fs::write(dir.join("a"), "0").unwrap());
    for order in 1..20 {
        run.play(&task(order, &[order - 1]), |dir| flip(&dir.join("a")));
        assert_eq!(run.layers(order).len(), 1, "after {order} changes");
    }
}

/// An image holds files whole: what of them only the mode changed is stored again, and the user is told so.
#[test]
fn files_of_which_only_the_mode_changed_are_counted() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| ["a", "b", "c"].iter().for_each(|name| fs::write(dir.join(name), "1234").unwrap()));
    let task = task(1, &[0]);
    let dir = run.restore(&task).unwrap();
    for name in ["a", "b"] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    flip(&dir.join("c"));
    let baseline = run.state(&task).join("run.1.ws");
    let progress = Progress::new(Action::Save, "ws");
    let mounts = MountPoints::default();
    let options = SaveOptions::whole(Some(&baseline), Compression::Zstd, &mounts);
    let saved = save::save(&*run.store(), &dir, options, &progress).unwrap();
    assert_eq!((saved.files, saved.bytes), (3, 12));
    assert_eq!(saved.seen, Seen { paths: 3, metadata_only: 2, metadata_only_bytes: 8 });
}

fn set_modified(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// Nothing but what they are tells them apart.
#[test]
fn a_file_in_place_of_which_there_is_a_directory() {
    let run = Run::new();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let finish = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        set_modified(path, time);
    };
    run.play(&task(0, &[]), |dir| {
        fs::write(dir.join("a"), "").unwrap();
        finish(&dir.join("a"));
    });
    let left = run.play(&task(1, &[0]), |dir| {
        fs::remove_file(dir.join("a")).unwrap();
        fs::create_dir(dir.join("a")).unwrap();
        finish(&dir.join("a"));
    });
    let found = run.restore(&task(2, &[1])).unwrap();
    assert!(found.join("a").is_dir());
    assert_eq!(seen::see(&left), seen::see(&found));
}

/// Two files that differed in nothing but in being two.
#[test]
fn files_that_became_one() {
    let run = Run::new();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    run.play(&task(0, &[]), |dir| {
        for path in ["a", "b"].map(|name| dir.join(name)) {
            fs::write(&path, "same").unwrap();
            set_modified(&path, time);
        }
    });
    let left = run.play(&task(1, &[0]), |dir| {
        fs::remove_file(dir.join("b")).unwrap();
        fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    });
    let found = run.restore(&task(2, &[1])).unwrap();
    assert_eq!(seen::see(&left), seen::see(&found));
    assert_eq!(fs::metadata(found.join("a")).unwrap().ino(), fs::metadata(found.join("b")).unwrap().ino());
}

/// What a first task finds is the volume's, and stays with it.
#[test]
fn the_root_of_a_first_task_is_no_change_of_it() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
        fs::write(dir.join("a"), "").unwrap();
    });
    let fresh = run.folder.path().join("fresh");
    fs::create_dir(&fresh).unwrap();
    let found = run.restore(&task(1, &[0])).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&found), mode(&fresh));
}
