//! What is not TOML.

use std::collections::BTreeSet;

use toml::de::Error;

use crate::error::{ConfigError, Mistake};
use crate::limits::ERRORS_MAX;
use crate::source::{Source, Span};

/// The parser's complaints as mistakes, the first of each line: what it finds behind a broken spot
/// follows from that. For a key that is there twice, both places are told.
///
/// With them come all lines of which something could not be read.
pub(super) fn errors(source: &Source<'_>, defects: &[Error]) -> (Vec<ConfigError>, BTreeSet<u32>) {
    let mut errors: Vec<ConfigError> = defects
        .iter()
        .take(10 * ERRORS_MAX)
        .map(|defect| {
            let span = defect.span().unwrap_or(0..0);
            let twice = defect.message().contains("duplicate key");
            match twice.then(|| first_use(source, &span)).flatten() {
                Some(first) => {
                    let name = source.text.get(span.clone()).unwrap_or("").trim();
                    ConfigError::at(source, &span, "", Mistake::Duplicate)
                        .problem(format!("{name} is already at line {first}"))
                        .accepted("each only once")
                }
                None => ConfigError::at(source, &span, "", Mistake::Syntax)
                    .problem(format!("not TOML: {}", message(defect))),
            }
        })
        .collect();
    errors.sort_by_key(|error| (error.line, error.column));
    errors.dedup_by_key(|error| error.line);
    let unread = errors.iter().map(|error| error.line).collect();
    // A list that is not closed swallows line after line.
    let in_list = |error: &ConfigError| error.problem.contains("array");
    let mut swallowed = None;
    errors.retain(|error| {
        let follows = swallowed.is_some_and(|line| error.line == line + 1) && in_list(error);
        swallowed = in_list(error).then_some(error.line);
        !follows
    });
    (errors, unread)
}

/// The parser's words, but for what it says wherever no value begins.
fn message(defect: &Error) -> &str {
    match defect.message() {
        "string values must be quoted, expected literal string" => {
            "no value: texts stand in quotes, and commas between the items of a list"
        }
        other => other,
    }
}

/// Syntax first: what follows from a line that could not be read is not reported again.
pub(super) fn merge(
    (syntax, unread): (Vec<ConfigError>, BTreeSet<u32>),
    meaning: Vec<ConfigError>,
) -> Vec<ConfigError> {
    let mut errors = syntax;
    errors.extend(meaning.into_iter().filter(|error| {
        let consequence = matches!(error.kind, Mistake::MissingKey | Mistake::UnknownName);
        unread.is_empty() || (!consequence && !unread.contains(&error.line))
    }));
    errors
}

/// The line on which the same table header, or the same key of the same table, stood before.
fn first_use(source: &Source<'_>, span: &Span) -> Option<u32> {
    let at = usize::try_from(source.place(span).line).ok()?;
    let subject = |line: &str| -> Option<String> {
        let line = line.trim();
        let end = if line.starts_with('[') { line.find(']')? } else { line.find('=')? };
        Some(line.get(..end)?.trim().to_owned())
    };
    let before: Vec<&str> = source.text.lines().take(at).collect();
    let (wanted, before) = before.split_last()?;
    let wanted = subject(wanted)?;
    let mut lines = before.iter().enumerate().rev();
    let found = if wanted.starts_with('[') {
        lines.find(|(_, line)| subject(line).as_deref() == Some(&wanted))
    } else {
        lines
            .take_while(|(_, line)| !line.trim_start().starts_with('['))
            .find(|(_, line)| subject(line).as_deref() == Some(&wanted))
    };
    found.and_then(|(index, _)| u32::try_from(index + 1).ok())
}
