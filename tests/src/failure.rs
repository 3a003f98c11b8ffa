//! What went wrong in a world, in words that a reader of a test log can act on.

use std::fmt;
use std::io;

/// Why a step in a world failed. Printed as plain text by both `Display` and `Debug`, because
/// `unwrap` in a test shows the latter.
pub struct Failure(String);

impl Failure {
    /// A failure with this text: what was attempted, what was found, what was wanted.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}

/// Says what was being done when an operating system call failed.
pub trait During<T> {
    /// Turns the error into "`what`: error".
    ///
    /// # Errors
    ///
    /// The error of `self`, with its context.
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for Result<T, io::Error> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(format!("{}: {error}", what())))
    }
}

impl<T> During<T> for Result<T, rustix::io::Errno> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(format!("{}: {error}", what())))
    }
}
