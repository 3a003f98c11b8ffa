//! The text of a file, and where in it something stands.

use core::ops::Range;

use crate::Place;

/// Bytes of the text.
pub(crate) type Span = Range<usize>;

/// A file's text with an index of its lines.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
}

/// A line worth quoting, and what to point at.
pub(crate) struct Excerpt<'a> {
    pub(crate) place: Place,
    /// Of a long line only a part around the span.
    pub(crate) line: &'a str,
    /// Characters of `line` in front of the span.
    pub(crate) indent: u32,
    /// Characters of the span within `line`; at least one.
    pub(crate) width: u32,
}

impl<'a> Source<'a> {
    pub(crate) fn new(path: &'a str, text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = core::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { path, text, lines }
    }

    pub(crate) fn place(&self, span: &Span) -> Place {
        self.excerpt(span).place
    }

    pub(crate) fn excerpt(&self, span: &Span) -> Excerpt<'a> {
        let number = self.lines.partition_point(|start| *start <= span.start).max(1);
        let start = self.lines.get(number - 1).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or("");
        let line = rest.lines().next().unwrap_or("");
        let chars = |bytes: usize| -> u32 {
            // Offsets come from the parser and lie on characters; a stray one is rounded down.
            let count = line.char_indices().take_while(|(at, _)| *at < bytes).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let before = chars(span.start.saturating_sub(start));
        let end = chars(span.end.saturating_sub(start));
        let (line, skipped) = part(line, before);
        let shown = u32::try_from(line.chars().count()).unwrap_or(u32::MAX);
        let indent = before - skipped;
        let width = end.saturating_sub(before).min(shown.saturating_sub(indent)).max(1);
        let place = Place {
            line: u32::try_from(number).unwrap_or(u32::MAX),
            column: before.saturating_add(1),
        };
        Excerpt { place, line, indent, width }
    }
}

/// What of a line is quoted, and how many characters of it are left out in front. A report must
/// not grow with the length of a line: a file can be one line.
fn part(line: &str, column: u32) -> (&str, u32) {
    const QUOTED_MAX: usize = 160;
    const BEFORE_MAX: u32 = 80;
    if line.len() <= QUOTED_MAX {
        return (line, 0);
    }
    let skipped = column.saturating_sub(BEFORE_MAX);
    let mut starts = line.char_indices().map(|(at, _)| at);
    let from = usize::try_from(skipped).ok().and_then(|skip| starts.nth(skip)).unwrap_or(0);
    let to = starts.nth(QUOTED_MAX - 1).unwrap_or(line.len());
    (line.get(from..to).unwrap_or(""), skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters_and_carets_stay_on_the_line() {
        let source = Source::new("x", "a = 1\r\nä = 'öö'\nlast");
        let at = |span: Span| {
            let Excerpt { place, line, indent, width } = source.excerpt(&span);
            assert_eq!(indent + 1, place.column);
            (place.line, place.column, line, width)
        };
        assert_eq!(at(0..1), (1, 1, "a = 1", 1));
        // "ä" is two bytes: 7..9; the value is 12..18.
        assert_eq!(at(12..18), (2, 5, "ä = 'öö'", 4));
        // A span over two lines is shown on its first.
        assert_eq!(at(12..22), (2, 5, "ä = 'öö'", 4));
        // The end of the text.
        assert_eq!(at(23..23), (3, 5, "last", 1));
        // Nothing of a carriage return, nothing beyond the text.
        assert_eq!(at(4..9), (1, 5, "a = 1", 1));
        assert_eq!(at(90..99), (3, 5, "last", 1));
        assert_eq!(Source::new("x", "").place(&(0..0)), Place { line: 1, column: 1 });
    }

    #[test]
    fn of_a_long_line_a_part_is_quoted() {
        let text = "ä".repeat(100_000);
        let source = Source::new("x", &text);
        let Excerpt { place, line, indent, width } = source.excerpt(&(100_000..100_010));
        assert_eq!((place.line, place.column), (1, 50_001));
        assert_eq!((line.chars().count(), indent, width), (160, 80, 5));
        let Excerpt { line, indent, width, .. } = source.excerpt(&(199_990..300_000));
        assert_eq!((line.chars().count(), indent, width), (85, 80, 5));
        let Excerpt { line, indent, .. } = source.excerpt(&(4..6));
        assert_eq!((line.chars().count(), indent), (160, 2));
    }
}
