//! What `bulkhead-probe` does inside a namespace: streams whose losses are numbered, echoes,
//! downloads with a known hash, connection attempts. Standard library sockets only, so that nothing
//! of ours but the gateway is under test.
//!
//! Every line of output is `word key=value key=value …`; [`field`] reads it back. Times are
//! `CLOCK_MONOTONIC` nanoseconds, comparable across processes (see `wait.rs`).

pub mod echo;
pub mod http;
pub mod sequence;
pub mod stream;

use std::io::{self, Write};

/// The value of `key` in an output line of the probe.
#[must_use]
pub fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .find_map(|(name, value)| (name == key).then_some(value))
}

/// The value of `key` as a number.
#[must_use]
pub fn number(line: &str, key: &str) -> Option<u64> {
    field(line, key)?.parse().ok()
}

/// The last line of a log that starts with this word.
#[must_use]
pub fn last_line<'a>(log: &'a str, word: &str) -> Option<&'a str> {
    log.lines().rev().find(|line| line.split_ascii_whitespace().next() == Some(word))
}

/// Writes one line to standard output and flushes it: a reader of the log waits for it.
///
/// # Errors
///
/// If standard output is gone.
pub fn tell(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let log = "listening at=10.0.0.1:80\nquiet last_at=17 received=3\nresumed at=20\n";
        let line = last_line(log, "quiet").unwrap();
        assert_eq!(number(line, "last_at"), Some(17));
        assert_eq!(number(line, "at"), None);
        assert_eq!(field(last_line(log, "listening").unwrap(), "at"), Some("10.0.0.1:80"));
        assert_eq!(last_line(log, "closed"), None);
    }
}
