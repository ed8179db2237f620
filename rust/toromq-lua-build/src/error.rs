//! What can go wrong while the script table is built.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why the script table could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The reason given by the operating system.
        source: io::Error,
    },
    /// The Lua sources break the rules; all that was found is listed, not only the first.
    #[error("{}", in_lines(.0))]
    Problems(Vec<Problem>),
}

impl BuildError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// One broken rule and where it is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the Lua folder.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Collects the problems of one file, so that the checks need not repeat its name.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    file: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(file: &'a str, problems: &'a mut Vec<Problem>) -> Self {
        Self { file, problems }
    }

    pub(crate) fn add(&mut self, line: usize, message: impl Into<String>) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            message: message.into(),
        });
    }
}

fn in_lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
