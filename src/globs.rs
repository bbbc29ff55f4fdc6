//! Patterns for paths, as gitignore has them: without a slash they match at every depth, with one from the root; `**` spans
//! folders, and what a pattern matches, everything below it matches too.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// One pattern. [`ignore`] reads it, the library of ripgrep, so that it means what it means to git.
#[derive(Clone, Debug)]
pub struct Glob(Gitignore);

/// A pattern that can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{pattern:?} is not a pattern as in .gitignore: {problem}")]
pub struct InvalidGlob {
    pattern: String,
    problem: String,
}

impl Glob {
    /// The pattern `pattern`.
    pub fn new(pattern: &str) -> Result<Self, InvalidGlob> {
        let invalid = |problem: &str| InvalidGlob { pattern: pattern.to_owned(), problem: problem.to_owned() };
        if pattern.starts_with('!') {
            return Err(invalid("one that begins with ! takes others back, and there are none"));
        }
        let mut builder = GitignoreBuilder::new("/");
        builder.add_line(None, pattern).map_err(|error| invalid(&error.to_string()))?;
        let glob = builder.build().map_err(|error| invalid(&error.to_string()))?;
        if glob.is_empty() { Err(invalid("it is empty or a comment")) } else { Ok(Self(glob)) }
    }

    /// Whether it matches `path`, which begins at the root and has no slash in front, or a folder that `path` lies in.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        let path = Path::new("/").join(OsStr::from_bytes(path));
        self.0.matched_path_or_any_parents(path, is_dir).is_ignore()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    const PATTERNS: [&str; 14] = [
        "*.log",
        "/a",
        "a/",
        "a/b",
        "**/.git/index",
        "cache/**",
        "**",
        "a/**/z",
        "[ab].txt",
        "\\#x",
        "x y",
        "*.l?g",
        "/*/b",
        "a\\*",
    ];

    const PATHS: [&str; 18] = [
        "x.log",
        "a",
        "a/b",
        "a/b/z",
        "b/a",
        "b/a/c",
        ".git/index",
        "sub/.git/index",
        "cache/x/y",
        "b/cache/x",
        "a.txt",
        "c/b.txt",
        "#x",
        "x y",
        "a/z",
        "q/b",
        "a*",
        "ab",
    ];

    /// The judge is git itself.
    #[test]
    fn as_git_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let mut command = Command::new("git");
            command.args(args).current_dir(folder.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
            command
        };
        assert!(git(&["init", "-q"]).status().unwrap().success());
        for pattern in PATTERNS {
            std::fs::write(folder.path().join(".gitignore"), format!("{pattern}\n")).unwrap();
            let mut check = git(&["check-ignore", "--no-index", "--stdin", "-z"]);
            let mut child = check.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(PATHS.join("\0").as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let ignored: Vec<&[u8]> = output.stdout.split(|&b| b == 0).collect();
            let glob = Glob::new(pattern).unwrap();
            // git never looks into its own folder.
            for path in PATHS.iter().filter(|path| !path.contains(".git/")) {
                assert_eq!(
                    glob.matches(path.as_bytes(), false),
                    ignored.contains(&path.as_bytes()),
                    "{pattern} {path}"
                );
            }
        }
        assert!(Glob::new("**/.git/index").unwrap().matches(b"sub/.git/index", false));
    }

    #[test]
    fn rejects() {
        for pattern in ["", "# comment", "!a"] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
    }
}
