//! What the program is called, and what is made from its command line: completions and man pages.

use std::{ffi::OsStr, io::Write, path::Path};

use clap_complete::Shell;

use super::PluginError;

/// Commands that nobody types: they are hidden where the program is a plugin.
const OF_SERVICE: [&str; 1] = ["webhook"];

/// As which program it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledAs {
    /// `tekton-wrap`
    Own,
    /// `tkn wrap`
    Tkn,
    /// `kubectl wrap`
    Kubectl,
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
#[expect(missing_docs, reason = "names of programs")]
pub enum ShellName {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

impl CalledAs {
    /// By the name of the file that was started (tkn: docs/README.md, "plugins"; kubectl: "Extend kubectl with plugins").
    pub fn of(argv0: Option<&OsStr>) -> Self {
        let name = argv0.and_then(|path| Path::new(path).file_stem()).and_then(OsStr::to_str);
        match name {
            Some("tkn-wrap") => Self::Tkn,
            Some("kubectl-wrap") => Self::Kubectl,
            _ => Self::Own,
        }
    }

    /// `command` as this program shows it.
    pub fn dress(self, command: clap::Command) -> clap::Command {
        let (name, file) = match self {
            Self::Own => return command,
            Self::Tkn => ("tkn wrap", "tkn-wrap"),
            Self::Kubectl => ("kubectl wrap", "kubectl-wrap"),
        };
        let command = OF_SERVICE
            .iter()
            .fold(command, |command, service| command.mut_subcommand(service, |service| service.hide(true)));
        command.name(file).display_name(name).bin_name(name)
    }

    /// The name of the file.
    fn file(self) -> &'static str {
        match self {
            Self::Own => "tekton-wrap",
            Self::Tkn => "tkn-wrap",
            Self::Kubectl => "kubectl-wrap",
        }
    }

    /// Writes the completions of `command` for `shell`.
    pub fn complete(
        self,
        mut command: clap::Command,
        shell: ShellName,
        out: &mut dyn Write,
    ) -> Result<(), PluginError> {
        let shell = match shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Zsh => Shell::Zsh,
            ShellName::Fish => Shell::Fish,
            ShellName::Powershell => Shell::PowerShell,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, self.file(), &mut script);
        out.write_all(&script).map_err(PluginError::Output)
    }
}

/// Writes a man page for `command` and each of its subcommands into the folder `dir`.
pub fn write_man_pages(command: clap::Command, dir: &Path) -> Result<(), PluginError> {
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command, dir))
        .map_err(|e| PluginError::Argument(format!("the man pages can't be written to {}: {e}", dir.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (path, program) in [
            (Some("/usr/local/bin/tkn-wrap"), CalledAs::Tkn),
            (Some("kubectl-wrap.exe"), CalledAs::Kubectl),
            (Some("/tekton-wrap/bin/tekton-wrap"), CalledAs::Own),
            (Some("anything"), CalledAs::Own),
            (None, CalledAs::Own),
        ] {
            assert_eq!(CalledAs::of(path.map(OsStr::new)), program, "{path:?}");
        }
    }
}
