//! What other containers have mounted in a workspace stays mounted while it is restored, and is nobody's change.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::*;

/// Another container of the pod: a process with mounts of its own.
struct Container {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Container {
    /// With each first path mounted at the second one. None where that can't be done here.
    fn start(mounts: &[(&Path, &Path)]) -> Option<Self> {
        let mounts = mounts.iter().map(|(what, at)| format!("mount --bind '{}' '{}'\n", what.display(), at.display()));
        let script = format!(
            "set -e\n{}echo ready\nwhile read -r path; do cat \"$path\" 2>&1 | head -n 1 || true; done",
            mounts.collect::<String>()
        );
        let root: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let mut command = Command::new("unshare");
        command.args(root).args(["--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut container = Self { child, input, output: BufReader::new(output) };
        if container.line() == "ready" {
            return Some(container);
        }
        eprintln!("skipped: no mount namespace can be made here");
        None
    }

    /// The first line of the file at `path`, as the container sees it.
    fn read(&mut self, path: &Path) -> String {
        writeln!(self.input, "{}", path.display()).unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file and a folder to be mounted.
fn sources(run: &Run) -> (PathBuf, PathBuf) {
    let (file, folder) = (run.folder.path().join("config-map"), run.folder.path().join("volume"));
    fs::write(&file, "from the ConfigMap\n").unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("f"), "from the volume\n").unwrap();
    (file, folder)
}

/// Makes a file as mount point as a container runtime does, with the directories above it.
fn mount_point(dir: &Path, path: &str) {
    fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
    fs::File::create(dir.join(path)).unwrap();
}

fn mounted(task: Task, paths: &[&str]) -> Task {
    Task { mounts: paths.iter().map(|path| (*path).to_owned()).collect(), ..task }
}

#[test]
fn a_mounted_file_and_a_mounted_folder_stay_mounted() {
    // Without being told, files are kept too.
    for told in [&["settings.json", "conf/new.json", "cache"][..], &[]] {
        let run = Run::new();
        let (file, folder) = sources(&run);
        let first = run.play(&task(0, &[]), |dir| {
            fs::write(dir.join("settings.json"), "from the first task\n").unwrap();
            fs::create_dir(dir.join("cache")).unwrap();
            fs::write(dir.join("cache/x"), "x\n").unwrap();
        });
        let next = mounted(task(1, &[0]), told);
        let dir = run.dir(1);
        mount_point(&dir, "settings.json");
        mount_point(&dir, "conf/new.json");
        fs::create_dir(dir.join("cache")).unwrap();
        let [settings, new, cache] = ["settings.json", "conf/new.json", "cache"].map(|path| dir.join(path));
        let Some(mut other) = Container::start(&[(&file, &settings), (&file, &new), (&folder, &cache)]) else { return };
        run.restore(&next).unwrap();
        for (path, expected) in
            [(&settings, "from the ConfigMap"), (&new, "from the ConfigMap"), (&cache.join("f"), "from the volume")]
        {
            assert_eq!(other.read(path), expected, "{path:?} {told:?}");
        }
        // Whoever has it not mounted sees what the first task left.
        assert_eq!(fs::read_to_string(&settings).unwrap(), "from the first task\n");
        let (was, is) = (fs::metadata(first.join("settings.json")).unwrap(), fs::metadata(&settings).unwrap());
        assert_eq!((was.mode(), was.mtime_nsec()), (is.mode(), is.mtime_nsec()));
        assert_eq!(fs::read_to_string(cache.join("x")).unwrap(), "x\n");
        run.save(&next).unwrap();
        if told.is_empty() {
            return;
        }
        assert_eq!(run.layers(1), [], "what the runtime made is not saved");
        let last = run.restore(&task(2, &[1])).unwrap();
        assert_eq!(seen::see(&first), seen::see(&last));
    }
}

#[test]
fn what_does_not_fit_a_mount_point_is_left_out_and_not_deleted() {
    let maker = Run::new();
    maker.play(&task(0, &[]), |dir| {
        ["gone.json", "both/gone", "both/kept"].iter().for_each(|path| {
            fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
            fs::write(dir.join(path), "base").unwrap();
        });
    });
    let mut run = Run::new();
    run.base = Some(maker.target());
    let (file, _) = sources(&run);
    let first = run.play(&task(0, &[]), |dir| {
        fs::remove_file(dir.join("gone.json")).unwrap();
        fs::remove_dir_all(dir.join("both")).unwrap();
        symlink("elsewhere", dir.join("link")).unwrap();
        fs::write(dir.join("conf"), "a file").unwrap();
        fs::create_dir_all(dir.join("dir/deep")).unwrap();
        fs::write(dir.join("dir/deep/x"), "x").unwrap();
        fs::write(dir.join("one"), "hard-linked").unwrap();
        fs::hard_link(dir.join("one"), dir.join("two")).unwrap();
    });
    let first = seen::see(&first);
    let paths = ["gone.json", "both/kept", "link", "conf/app.json", "dir", "two"];
    let next = mounted(task(1, &[0]), &paths);
    let dir = run.dir(1);
    paths.iter().for_each(|path| mount_point(&dir, path));
    let places = paths.map(|path| dir.join(path));
    let mounts: Vec<(&Path, &Path)> = places.iter().map(|place| (&*file, &**place)).collect();
    let Some(mut other) = Container::start(&mounts) else { return };
    run.restore(&next).unwrap();
    for place in &places {
        assert_eq!(other.read(place), "from the ConfigMap", "{place:?}");
        assert_eq!(fs::metadata(place).unwrap().len(), 0, "{place:?}");
    }
    assert_eq!(fs::read_to_string(dir.join("one")).unwrap(), "hard-linked");
    run.save(&next).unwrap();
    assert_eq!(run.layers(1), []);
    run.base = maker.target().into();
    let last = run.restore(&task(2, &[1])).unwrap();
    assert_eq!(first, seen::see(&last));
}

/// The container with the mount may start after the restore.
#[test]
fn a_mount_point_that_is_not_there_yet_is_in_the_way_of_nothing() {
    let maker = Run::new();
    maker.play(&task(0, &[]), |dir| fs::write(dir.join("conf"), "a file").unwrap());
    let mut run = Run::new();
    run.base = Some(maker.target());
    let next = mounted(task(1, &[0]), &["conf/app.json"]);
    let first = run.play(&task(0, &[]), |dir| {
        fs::remove_file(dir.join("conf")).unwrap();
        fs::create_dir(dir.join("conf")).unwrap();
        fs::write(dir.join("conf/other"), "x").unwrap();
    });
    assert_eq!(seen::see(&first), seen::see(&run.restore(&next).unwrap()));
    mount_point(&run.dir(1), "conf/app.json");
    run.save(&next).unwrap();
    // The runtime changed when the folder was changed last, and nothing else.
    assert!(run.layers(1).is_empty() || paths_of(&run.restore(&task(2, &[1])).unwrap()) == ["", "conf", "conf/other"]);
}

#[test]
fn what_a_step_without_the_mount_writes_there_is_saved() {
    let run = Run::new();
    let paths = ["conf/app.json", "cache", "empty"];
    // The first task has no restore step.
    let first = mounted(task(0, &[]), &paths);
    run.play(&first, |dir| {
        mount_point(dir, "conf/app.json");
        mount_point(dir, "other/plain");
        ["cache", "empty"].iter().for_each(|path| fs::create_dir(dir.join(path)).unwrap());
        fs::write(dir.join("cache/below"), "x").unwrap();
    });
    let second = mounted(task(1, &[0]), &paths);
    mount_point(&run.dir(1), "conf/app.json");
    let dir = run.play(&second, |dir| {
        assert_eq!(paths_of(dir), ["", "cache", "cache/below", "conf", "conf/app.json", "other", "other/plain"]);
        fs::write(dir.join("conf/app.json"), "by a step that sees it").unwrap();
    });
    assert_eq!(seen::see(&dir), seen::see(&run.restore(&task(2, &[1])).unwrap()));
}

/// Without being told, only what a container runtime makes is written in place: whoever shares the volume may have put anything there.
#[test]
fn what_someone_else_may_hold_is_not_written_to() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| {
        ["linked", "full", "foreign"].iter().for_each(|name| fs::write(dir.join(name), "new").unwrap())
    });
    let dir = run.dir(1);
    fs::create_dir(&dir).unwrap();
    let (second_name, foreign) = (run.folder.path().join("second-name"), dir.join("foreign"));
    fs::write(&second_name, "").unwrap();
    fs::hard_link(&second_name, dir.join("linked")).unwrap();
    fs::write(dir.join("full"), "old").unwrap();
    fs::write(&foreign, "").unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(&foreign, Some(1000), None).unwrap();
    }
    let held = ["linked", "full", "foreign"].map(|name| (name, fs::File::open(dir.join(name)).unwrap()));
    run.restore(&task(1, &[0])).unwrap();
    for (name, file) in held {
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), "new");
        let is_same = file.metadata().unwrap().ino() == fs::metadata(dir.join(name)).unwrap().ino();
        assert_eq!(is_same, name == "foreign" && !is_root, "{name}");
    }
    assert_eq!(fs::read_to_string(second_name).unwrap(), "");
}
