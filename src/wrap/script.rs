//! Commands in front of a step's script.

/// Shells that understand what is put in front of a script.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

/// `script` with `commands`, lines for any shell, in front; none if it is not a shell script. Without a shebang it is one for
/// `sh` (Tekton: pkg/pod/script.go).
pub fn with_commands_before(script: &str, commands: &str) -> Option<String> {
    if script.is_empty() {
        return None;
    }
    let Some(shebang) = script.strip_prefix("#!") else { return Some(format!("{commands}{script}")) };
    let (line, rest) = shebang.split_once('\n').unwrap_or((shebang, ""));
    let mut words = line.split_whitespace().filter(|word| !word.starts_with('-'));
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let program = match base(words.next()?).as_str() {
        "env" => base(words.next()?),
        program => program.to_owned(),
    };
    SHELLS.contains(&program.as_str()).then(|| format!("#!{line}\n{commands}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shell_scripts() {
        for (script, expected) in [
            ("echo\n", Some("cd\necho\n")),
            ("#!/bin/sh\necho\n", Some("#!/bin/sh\ncd\necho\n")),
            ("#!/usr/bin/env bash\nset -e\n", Some("#!/usr/bin/env bash\ncd\nset -e\n")),
            ("#!/usr/bin/env -S bash -e\n", Some("#!/usr/bin/env -S bash -e\ncd\n")),
            ("#!/bin/bash", Some("#!/bin/bash\ncd\n")),
            ("#!/usr/bin/python3\nprint()\n", None),
            ("#!/usr/bin/env node\n", None),
            ("#!", None),
            ("", None),
        ] {
            assert_eq!(with_commands_before(script, "cd\n").as_deref(), expected, "{script:?}");
        }
    }
}
