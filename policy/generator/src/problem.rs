//! What is wrong with the owner's files: all of it, each with file, line and field.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// No policy can be made.
    Error,
    /// One is made, and something should be known about it.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The field's path from the top of its document; may be empty.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            file,
            line,
            path,
            message,
        } = self;
        write!(f, "{file}:{line}: ")?;
        if *severity == Severity::Warning {
            write!(f, "warning: ")?;
        }
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "{message}")
    }
}

/// All that is wrong; no policy is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    fn text(&self) -> String {
        let lines: Vec<_> = self.0.iter().map(Problem::to_string).collect();
        lines.join("\n")
    }

    /// Whether any of these is an error.
    #[must_use]
    pub fn any_error(problems: &[Problem]) -> bool {
        problems.iter().any(|one| one.severity == Severity::Error)
    }
}
