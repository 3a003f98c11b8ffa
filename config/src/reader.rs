//! The report under way: what all tables share while a file is read.
//!
//! serde stops at the first mistake, so the tables are walked by hand, and mistakes are collected
//! instead of stopped at.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Place;
use crate::error::{ConfigError, Mistake};
use crate::key::KeySource;
use crate::limits::{ERRORS_MAX, NAME_CHARS_MAX};
use crate::names::Names;
use crate::nearest::nearest;
use crate::section::Section;
use crate::source::{Source, Span};
use crate::value::type_name;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// What all tables share while a file is read.
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) names: Names<'a>,
    pub(crate) keys: &'a dyn KeySource,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source<'a>, keys: &'a dyn KeySource, names: Names<'a>) -> Self {
        Self { source, names, keys, errors: Vec::new() }
    }

    pub(crate) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    pub(crate) fn place(&self, span: &Span) -> Place {
        self.source.place(span)
    }

    pub(crate) fn mistake(&self, span: &Span, key: &str, kind: Mistake) -> ConfigError {
        ConfigError::at(self.source, span, key, kind)
    }

    pub(crate) fn report(&mut self, error: ConfigError) {
        // More than are shown, so that those shown are the first of the file in all but the most
        // broken ones.
        if self.errors.len() < 10 * ERRORS_MAX {
            self.errors.push(error);
        }
    }

    /// The nearest name, unless so many mistakes were found already that looking for it would
    /// take longer than reading about it.
    pub(crate) fn nearest<'n>(
        &self,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) -> Option<&'n str> {
        (self.errors.len() < ERRORS_MAX).then(|| nearest(name, known)).flatten()
    }

    /// Reports that a thing was already there, with both places.
    pub(crate) fn duplicate(&mut self, span: &Span, key: &str, what: &str, first: &Span) {
        let line = self.place(first).line;
        let error = self
            .mistake(span, key, Mistake::Duplicate)
            .problem(format!("{what} is already at line {line}"))
            .accepted("each only once");
        self.report(error);
    }

    /// The tables `[kind.NAME]`, by name; a bad name is reported and kept, so that references to
    /// it are not reported as well.
    pub(crate) fn named(
        &mut self,
        root: &'a DeTable<'a>,
        kind: &'static str,
        keys: &'static [&'static str],
    ) -> Vec<Section<'a>> {
        let Some(value) = root.get(kind) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("tables [{kind}.NAME]");
            self.wrong_type(value, kind, &what);
            return Vec::new();
        };
        // The map is sorted by name.
        table
            .iter()
            .filter_map(|(name, value)| {
                let path = format!("{kind}.{}", name.get_ref());
                self.check_name(name.get_ref(), &name.span(), &path);
                Section::open(self, value, path, name.get_ref(), name.span(), keys)
            })
            .collect()
    }

    /// The tables `[[kind]]`, in the order of the file. They are called by the value of `label`.
    pub(crate) fn listed(
        &mut self,
        root: &'a DeTable<'a>,
        kind: &'static str,
        label: &str,
        keys: &'static [&'static str],
    ) -> Vec<Section<'a>> {
        let Some(value) = root.get(kind) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(value, kind, &format!("a list of tables [[{kind}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let named = item.get_ref().as_table().and_then(|table| table.get(label));
            let (name, span) = match named {
                Some(name) => (name.get_ref().as_str().unwrap_or(""), name.span()),
                None => ("", item.span()),
            };
            let path = match name {
                "" => format!("{kind}[{}]", index + 1),
                name => format!("{kind}.{name}"),
            };
            sections.extend(Section::open(self, item, path, name, span, keys));
        }
        sections
    }

    /// Reports a name that could not be referred to or would be hard to read in a log.
    pub(crate) fn check_name(&mut self, name: &str, span: &Span, key: &str) {
        let mut chars = name.chars();
        let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = chars.all(|c| c.is_ascii_alphanumeric() || "-_.@+".contains(c));
        if !first || !rest || name.chars().count() > NAME_CHARS_MAX {
            let error =
                self.mistake(span, key, Mistake::BadValue).problem("not a name").accepted(format!(
                    "1 to {NAME_CHARS_MAX} letters, digits and - _ . @ +, beginning with a letter \
                     or digit"
                ));
            self.report(error);
        }
    }

    /// Reports a value of another type than wanted.
    pub(crate) fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, key: &str, accepted: &str) {
        let error = self
            .mistake(&value.span(), key, Mistake::WrongType)
            .problem("wrong type")
            .found(type_name(value.get_ref()))
            .accepted(accepted);
        self.report(error);
    }
}

/// A reference to something that is not there, with what is.
pub(crate) fn unknown_name<'n>(
    reader: &Reader<'_>,
    found: &At<&str>,
    key: &str,
    kind: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) -> ConfigError {
    let name = found.value.rsplit_once(':').map_or(found.value, |(_, name)| name);
    let mut error = reader
        .mistake(&found.span, key, Mistake::UnknownName)
        .problem(format!("there is no {kind} {name:?}"))
        .accepted(list_names(known.clone(), kind));
    if let Some(near) = reader.nearest(name, known) {
        error = error.help(format!("did you mean {near}?"));
    }
    error
}

/// The first few names: the list is a reminder, not a catalogue.
fn list_names<'n>(names: impl Iterator<Item = &'n str>, kind: &str) -> String {
    const SHOWN: usize = 8;
    let all: Vec<_> = names.collect();
    match all.get(..SHOWN) {
        _ if all.is_empty() => format!("nothing: this file defines no [{kind}.NAME]"),
        Some(first) if all.len() > SHOWN => {
            format!("{} and {} more", first.join(", "), all.len() - SHOWN)
        }
        Some(_) | None => all.join(", "),
    }
}
