//! One mutant, as `cargo mutants --list --json` describes it.

use serde::Deserialize;

/// A change of one place in a file.
#[derive(Deserialize)]
pub struct Mutant {
    /// For people: `src/a.rs:12:5: replace < with <= in b`.
    pub name: String,
    /// Relative to the repository.
    pub file: String,
    pub span: Span,
    pub replacement: String,
    /// `FnValue`, `BinaryOperator`, `UnaryOperator`, `MatchArm`, `MatchArmGuard` or `StructField`.
    pub genre: String,
}

#[derive(Deserialize)]
pub struct Span {
    pub start: Position,
}

/// Both from 1, in characters.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Mutant {
    /// What names it when lines move: its name without the position, and the source's line.
    pub fn key(&self, source: &str) -> String {
        let line = source.lines().nth(self.span.start.line - 1).unwrap_or_default();
        let change = self.name.splitn(4, ':').nth(3).unwrap_or_default();
        format!("{}:{change} at `{}`", self.file, line.trim())
    }
}
