//! What is not TOML.

use toml::de::Error;

use crate::error::{ConfigError, Mistake};
use crate::source::{Source, Span};

/// The parser's complaints as mistakes. For a key that is there twice, both places are told.
pub(super) fn errors(source: &Source<'_>, defects: &[Error]) -> Vec<ConfigError> {
    defects
        .iter()
        .map(|defect| {
            let span = defect.span().unwrap_or(0..0);
            match first_use(source, &span) {
                Some(first) if defect.message().contains("duplicate key") => {
                    let name = source.text.get(span.clone()).unwrap_or("").trim();
                    ConfigError::at(source, &span, "", Mistake::Duplicate)
                        .problem(format!("{name} is already at line {first}"))
                        .accepted("each only once")
                }
                Some(_) | None => ConfigError::at(source, &span, "", Mistake::Syntax)
                    .problem(format!("not TOML: {}", defect.message())),
            }
        })
        .collect()
}

/// Syntax first: what follows from a line that could not be read is not reported again.
pub(super) fn merge(syntax: Vec<ConfigError>, meaning: Vec<ConfigError>) -> Vec<ConfigError> {
    let unread: Vec<u32> = syntax.iter().map(|error| error.line).collect();
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
