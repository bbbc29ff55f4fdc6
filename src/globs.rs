//! Patterns for paths, as gitignore has them: without a slash they match at every depth, with one from the root; `**` spans
//! folders, and what a pattern matches, everything below it matches too.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The most bytes of patterns that are read together: what they become takes some hundred times as much memory.
const MAX_BYTES: usize = 16 << 10;

/// One pattern. [`ignore`] reads it, the library of ripgrep, so that it means what it means to git.
#[derive(Clone, Debug)]
pub struct Glob(Gitignore);

/// Several patterns: of those that match a path the last one counts, and one that begins with `!` takes the path out again.
#[derive(Clone, Debug)]
pub struct Globs(Gitignore);

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
        built(&[pattern]).map(Self)
    }

    /// Whether it matches `path`, which begins at the root and has no slash in front, or a folder that `path` lies in.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        let path = Path::new("/").join(OsStr::from_bytes(path));
        self.0.matched_path_or_any_parents(path, is_dir).is_ignore()
    }
}

impl Globs {
    /// The patterns in their order. The first one can't begin with `!`: there would be nothing to take out.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, InvalidGlob> {
        let patterns: Vec<&str> = patterns.iter().map(AsRef::as_ref).collect();
        patterns.iter().take(1).try_for_each(|first| Glob::new(first).map(drop))?;
        built(&patterns).map(Self)
    }

    /// Whether they match `path`, which begins at the root and has no slash in front, or a folder that `path` lies in.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        let path = Path::new("/").join(OsStr::from_bytes(path));
        self.0.matched_path_or_any_parents(path, is_dir).is_ignore()
    }
}

fn built(patterns: &[&str]) -> Result<Gitignore, InvalidGlob> {
    let invalid = |pattern: &str, problem: String| InvalidGlob { pattern: pattern.to_owned(), problem };
    let bytes = patterns.iter().map(|pattern| pattern.len()).sum::<usize>();
    if bytes > MAX_BYTES {
        let beginning = patterns.iter().flat_map(|pattern| pattern.chars()).take(60).chain(['…']).collect::<String>();
        return Err(invalid(&beginning, format!("it and those beside it have {bytes} bytes, more than {MAX_BYTES}")));
    }
    let mut builder = GitignoreBuilder::new("/");
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|error| invalid(pattern, error.to_string()))?;
        if pattern.trim().is_empty() || pattern.starts_with('#') {
            return Err(invalid(pattern, "it is empty or a comment".to_owned()));
        }
    }
    builder.build().map_err(|error| invalid(&patterns.join(", "), error.to_string()))
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
    fn of_several_the_last_one_that_matches_counts() {
        let globs = Globs::new(&["src/**", "*.toml", "!src/vendor/**", "src/vendor/keep"]).unwrap();
        for (path, is_dir, expected) in [
            ("src", true, false),
            ("src/a/b.rs", false, true),
            ("Cargo.toml", false, true),
            ("docs/deep/x.toml", false, true),
            ("docs/x.md", false, false),
            ("src/vendor/x", false, false),
            ("src/vendor/keep", false, true),
        ] {
            assert_eq!(globs.matches(path.as_bytes(), is_dir), expected, "{path}");
        }
    }

    #[test]
    fn rejects() {
        for pattern in ["", "# comment", "!a"] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
            assert!(Globs::new(&[pattern]).is_err(), "{pattern}");
        }
        assert!(Globs::new(&["a".repeat(16_000), "b".repeat(384)]).is_ok());
        let long = Globs::new(&["a".repeat(16_000), "b".repeat(4_000)]).unwrap_err().to_string();
        assert!(
            long.ends_with("it and those beside it have 20000 bytes, more than 16384") && long.len() < 200,
            "{long}"
        );
        assert!(Globs::new(&["a", "!b"]).is_ok() && Globs::new(&["a", "#"]).is_err());
    }
}
