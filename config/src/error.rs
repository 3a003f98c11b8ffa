//! Mistakes, as the operator reads them.
//!
//! ```text
//! bulkhead.toml:14:10: port.inside.queues: out of range
//!   14 | queues = 0
//!      |          ^
//!      found:    0
//!      accepted: 1 to 256
//!      help:     …
//! ```
//!
//! The first line of each is for `grep` and editors, the rest for people. No colour and no box
//! drawing: it reads the same in a journal, a mail and a terminal.

use core::fmt;

use serde::Serialize;

use crate::limits::ERRORS_MAX;
use crate::source::{Excerpt, Source, Span};

/// Every mistake of a file, in the order of the file. At least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigErrors {
    mistakes: Vec<ConfigError>,
    /// How many more were found than are listed.
    more: usize,
}

impl ConfigErrors {
    pub(crate) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| (error.line, error.column));
        let more = errors.len().saturating_sub(ERRORS_MAX);
        errors.truncate(ERRORS_MAX);
        Self { mistakes: errors, more }
    }

    /// The mistakes as plain values.
    #[must_use]
    pub fn list(&self) -> &[ConfigError] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistakes.iter().try_for_each(|error| error.fmt(f))?;
        match (self.more, self.mistakes.first()) {
            (1.., Some(first)) => {
                writeln!(f, "{}: and at least {} more mistakes", first.path, self.more)
            }
            (_, _) => Ok(()),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// One mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// What sort of mistake it is.
    pub kind: Mistake,
    /// The file.
    pub path: String,
    /// Counted from 1; 0 if the mistake is about the whole file.
    pub line: u32,
    /// In characters, counted from 1; 0 if the mistake is about the whole file.
    pub column: u32,
    /// The key, with the names of its tables, or empty.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What stands there, if it is worth repeating. Never a secret.
    pub found: Option<String>,
    /// What would be accepted.
    pub accepted: Option<String>,
    /// What to do.
    pub help: Option<String>,
    /// The line as it stands in the file, or the part of a long one that matters. None if the
    /// mistake is about the whole file, or the line may hold a secret.
    pub source_line: Option<String>,
    /// Characters of `source_line` in front of the ones to point at.
    pub indent: u32,
    /// Characters to point at.
    pub width: u32,
}

/// Sorts of mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mistake {
    /// The file could not be read.
    File,
    /// Not TOML, or the same key twice.
    Syntax,
    /// A key that this release does not know.
    UnknownKey,
    /// A key that must be there.
    MissingKey,
    /// A string where a number should be, or the like.
    WrongType,
    /// Not one of the accepted values.
    BadValue,
    /// A number outside its limits.
    OutOfRange,
    /// A reference to something that does not exist.
    UnknownName,
    /// The same thing twice.
    Duplicate,
    /// Two settings that do not go together.
    Conflict,
    /// A key file that gives no key.
    KeyFile,
}

impl ConfigError {
    pub(crate) fn at(source: &Source<'_>, span: &Span, key: &str, kind: Mistake) -> Self {
        let Excerpt { place, line, indent, width } = source.excerpt(span);
        Self {
            kind,
            path: source.path.to_owned(),
            line: place.line,
            column: place.column,
            key: key.to_owned(),
            problem: String::new(),
            found: None,
            accepted: None,
            help: None,
            source_line: Some(line.to_owned()),
            indent,
            width,
        }
    }

    /// A mistake about the file as a whole.
    pub(crate) fn of_file(path: &str, problem: String) -> Self {
        Self {
            kind: Mistake::File,
            path: path.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            problem,
            found: None,
            accepted: None,
            help: None,
            source_line: None,
            indent: 0,
            width: 0,
        }
    }

    pub(crate) fn problem(mut self, problem: impl Into<String>) -> Self {
        self.problem = problem.into();
        self
    }

    pub(crate) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub(crate) fn accepted(mut self, accepted: impl Into<String>) -> Self {
        self.accepted = Some(accepted.into());
        self
    }

    /// Leaves out the line of the file, which may hold a secret.
    pub(crate) fn without_source(mut self) -> Self {
        self.source_line = None;
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        writeln!(f, ": {}", self.problem)?;
        let number = self.line.to_string();
        let gutter = number.len() + 2;
        if let Some(line) = &self.source_line {
            writeln!(f, "  {number} | {line}")?;
            // Tabs are repeated, so that the caret stands right whatever their width.
            let indent: String = line
                .chars()
                .take(usize::try_from(self.indent).unwrap_or(0))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let carets = "^".repeat(usize::try_from(self.width.max(1)).unwrap_or(1));
            writeln!(f, "{:gutter$} | {indent}{carets}", "")?;
        }
        let notes = [
            ("found:    ", &self.found),
            ("accepted: ", &self.accepted),
            ("help:     ", &self.help),
        ];
        for (label, note) in notes {
            if let Some(note) = note {
                writeln!(f, "{:gutter$}   {label}{note}", "")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
