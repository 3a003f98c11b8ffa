//! The key `when`: an expression, with the place in the file of what is wrong in it.

use crate::error::Mistake;
use crate::reader::Reader;
use crate::section::Section;
use crate::source::{Source, Span};
use crate::when::When;
use crate::when::cedar::Language;

pub(super) fn when<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    language: &mut Language,
) -> Option<When> {
    let found = section.text(reader, "when")?;
    let complaint = match language.read(&reader.names, found.value) {
        Ok(when) => return Some(when),
        Err(complaint) => complaint,
    };
    let span = match &complaint.span {
        Some(inside) => place(reader.source, &found.span, found.value, inside),
        None => found.span,
    };
    let mut error =
        reader.mistake(&span, &section.key("when"), complaint.kind).problem(complaint.problem);
    if let Some(accepted) = complaint.accepted {
        error = error.accepted(accepted);
    } else if complaint.kind == Mistake::BadValue {
        error = error.accepted("an expression, for example 'context.risk < 50'");
    }
    if let Some(help) = complaint.help {
        error = error.help(help);
    }
    reader.report(error);
    None
}

/// Where in the file a part of a text stands. A text that is written with escapes has other bytes
/// than it means; then the whole of it is the place.
fn place(source: &Source<'_>, text: &Span, value: &str, inside: &Span) -> Span {
    let written = source.text.get(text.clone()).unwrap_or("");
    match written.find(value) {
        // The end of the text is a place too: there something is missing.
        Some(at) => {
            let start = text.start + at + inside.start.min(value.len());
            let end = text.start + at + inside.end.min(value.len());
            start..end
        }
        None => text.clone(),
    }
}
