//! What can be wrong with a configuration, and how it is told.

use std::fmt;

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `edge.pods[1].address`; empty for the file itself.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() { "(file)" } else { &self.path };
        write!(f, "{place}: {}. {}", self.what, self.fix)
    }
}

/// Why there is no [`crate::Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}. Check the path")]
    Unreadable {
        /// As the user wrote it.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{path} is not valid YAML: {message}")]
    NotYaml {
        /// As the user wrote it.
        path: String,
        /// The parser's message, with line and column.
        message: String,
    },
    /// The file is YAML with mistakes in it: all of them.
    #[error("{path} has {n} mistake{s}:\n{list}", n = problems.len(), s = plural(problems), list = list(problems))]
    Invalid {
        /// As the user wrote it.
        path: String,
        /// Every mistake, in the order of the file's sections.
        problems: Vec<Problem>,
    },
}

fn plural(problems: &[Problem]) -> &'static str {
    if problems.len() == 1 { "" } else { "s" }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}
