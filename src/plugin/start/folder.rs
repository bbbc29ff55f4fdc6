//! Local folders as what workspaces start with.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use ignore::WalkBuilder;

use super::super::{PluginError, stored::StoredRun};
use crate::workspace;

/// `NAME=DIR`
pub struct Folder {
    /// Name of the workspace.
    pub workspace: String,
    dir: PathBuf,
}

impl Folder {
    /// Parses `NAME=DIR`; the folder must exist.
    pub fn parse(text: &str) -> Result<Self, PluginError> {
        let wrong = |problem: &str| PluginError::Argument(format!("--base {text:?}: {problem}"));
        let (workspace, dir) = text.split_once('=').ok_or_else(|| wrong("write NAME=DIR"))?;
        let dir = PathBuf::from(dir);
        if !dir.is_dir() {
            return Err(wrong("there is no such folder"));
        }
        Ok(Self { workspace: workspace.to_owned(), dir })
    }
}

/// Saves `folders` as images beside the target of the workspace `beside` of a run that is about to be created. Gives what
/// param `base` says about them. A workspace without a folder starts empty. `is_named`: the user said where the target is, and not
/// whoever may change the defaults of the namespace.
pub fn save(
    folders: &[Folder],
    run: &StoredRun<'_>,
    beside: &str,
    ignores: bool,
    is_named: bool,
) -> Result<String, PluginError> {
    if run.repository_has_uid(beside) {
        return Err(PluginError::Argument(format!(
            "--base: the repository of the target of workspace {beside:?} has the UID of the run in it, which is not known before: put the UID into the tag, or give --target"
        )));
    }
    let place = |workspace: &str| {
        let target = if is_named { run.named_target(beside) } else { run.target(beside) }?;
        Ok::<_, PluginError>(target.with_tag(&format!("base-{}-{workspace}", run.name())))
    };
    for workspace in run.workspaces() {
        let staged = Staged::new()?;
        if let Some(folder) = folders.iter().find(|folder| folder.workspace == workspace) {
            staged.fill(&folder.dir, ignores)?;
        }
        workspace::save_dir(&staged.0, &place(workspace)?.to_string(), None)?;
    }
    Ok(place("{{workspace}}")?.to_string())
}

/// A folder that is removed again. It has names of the user's files (hard links), or copies where that can't be.
struct Staged(PathBuf);

impl Staged {
    fn new() -> Result<Self, PluginError> {
        let parent = std::env::temp_dir();
        let mut number = std::process::id();
        loop {
            let dir = parent.join(format!("tekton-wrap-{number}"));
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(Self(dir)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number = number.wrapping_add(1),
                Err(e) => return Err(workspace::Error::file(dir.display(), "can't be made")(e).into()),
            }
        }
    }

    /// Adds what is in `dir`, but for what git ignores if `ignores`.
    fn fill(&self, dir: &Path, ignores: bool) -> Result<(), PluginError> {
        let mut walk = WalkBuilder::new(dir);
        walk.standard_filters(false);
        if ignores {
            walk.git_ignore(true).git_exclude(true).git_global(true).parents(true).require_git(false);
        }
        for found in walk.build() {
            let found = found.map_err(|e| PluginError::Argument(format!("{}: {e}", dir.display())))?;
            let path = found.path();
            let below = path.strip_prefix(dir).unwrap_or(path);
            if !below.as_os_str().is_empty() {
                put(path, &self.0.join(below)).map_err(workspace::Error::file(path.display(), "can't be read"))?;
            }
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(from: &Path, to: &Path) -> io::Result<()> {
    let status = fs::symlink_metadata(from)?;
    match status.file_type() {
        kind if kind.is_dir() => {
            fs::create_dir(to)?;
            // One's own files must fit into it.
            fs::set_permissions(to, fs::Permissions::from_mode(status.permissions().mode() | 0o700))
        }
        kind if kind.is_symlink() => symlink(fs::read_link(from)?, to),
        kind if kind.is_file() => match fs::hard_link(from, to) {
            Ok(()) => Ok(()),
            Err(_) => {
                fs::copy(from, to)?;
                fs::File::open(to)?.set_modified(status.modified()?)
            }
        },
        // Sockets and the like belong to this machine.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_ignores_stays() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(".gitignore", "target\n*.log\n");
        write("target/large", "x");
        write("a/b.log", "x");
        write("a/c", "c");
        write(".hidden", "h");
        symlink("a/c", folder.path().join("link")).unwrap();
        let names = |ignores: bool| {
            let staged = Staged::new().unwrap();
            staged.fill(folder.path(), ignores).unwrap();
            let mut names: Vec<String> = WalkBuilder::new(&staged.0)
                .standard_filters(false)
                .build()
                .map(|found| found.unwrap().path().strip_prefix(&staged.0).unwrap().display().to_string())
                .collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(names(true), " .gitignore .hidden a a/c link");
        assert_eq!(names(false), " .gitignore .hidden a a/b.log a/c link target target/large");
        assert!(Folder::parse("x").is_err() && Folder::parse("x=/no/such/folder").is_err());
    }
}
