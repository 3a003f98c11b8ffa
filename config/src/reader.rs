//! From the parsed text to typed values, collecting mistakes instead of stopping at them.
//!
//! serde stops at the first mistake, so the tables are walked by hand. Every question a
//! [`Section`] answers is of the same form: the value with its span, or `None`, and then the
//! mistake is already in the report, or the key is not there.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, Mistake};
use crate::key::KeySource;
use crate::limits::{ERRORS_MAX, NAME_CHARS_MAX};
use crate::names::Names;
use crate::nearest::nearest;
use crate::source::{Source, Span};
use crate::{Place, Secret};

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
    keys: &'a dyn KeySource,
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

    fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, key: &str, accepted: &str) {
        let error = self
            .mistake(&value.span(), key, Mistake::WrongType)
            .problem("wrong type")
            .found(type_name(value.get_ref()))
            .accepted(accepted);
        self.report(error);
    }
}

/// One table: its keys, and what it is called in messages.
pub(crate) struct Section<'a> {
    table: &'a DeTable<'a>,
    keys: &'static [&'static str],
    /// Its name in the file.
    pub(crate) name: &'a str,
    /// Where it is defined: its name in the header.
    pub(crate) span: Span,
    path: String,
}

impl<'a> Section<'a> {
    /// Takes a value as a table and reports the keys that it should not have.
    pub(crate) fn open(
        reader: &mut Reader<'a>,
        value: &'a Spanned<DeValue<'a>>,
        path: String,
        name: &'a str,
        span: Span,
        keys: &'static [&'static str],
    ) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong_type(value, &path, "a table");
            return None;
        };
        Some(Self::of(reader, table, path, name, span, keys))
    }

    pub(crate) fn of(
        reader: &mut Reader<'a>,
        table: &'a DeTable<'a>,
        path: String,
        name: &'a str,
        span: Span,
        keys: &'static [&'static str],
    ) -> Self {
        let section = Self { table, keys, name, span, path };
        for key in table.keys() {
            let unknown = key.get_ref().as_ref();
            if !keys.contains(&unknown) {
                let mut error = reader
                    .mistake(&key.span(), &section.key(unknown), Mistake::UnknownKey)
                    .problem("unknown key")
                    .accepted(keys.join(", "));
                if let Some(near) = reader.nearest(unknown, keys.iter().copied()) {
                    error = error.help(format!("did you mean {near}?"));
                }
                reader.report(error);
            }
        }
        section
    }

    /// What `key` of this table is called in messages.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        debug_assert!(self.keys.contains(&key), "{key} is not in the list of known keys");
        self.table.get(key)
    }

    /// The table `key` of this one.
    pub(crate) fn table(
        &self,
        reader: &mut Reader<'a>,
        key: &'static str,
        keys: &'static [&'static str],
    ) -> Option<Self> {
        let value = self.value(key)?;
        Self::open(reader, value, self.key(key), key, value.span(), keys)
    }

    /// Reports `key` if it is not there.
    pub(crate) fn require(&self, reader: &mut Reader<'a>, key: &str, accepted: &str) {
        if self.value(key).is_none() {
            let error = reader
                .mistake(&self.span, &self.key(key), Mistake::MissingKey)
                .problem(format!("{key} is missing"))
                .accepted(accepted);
            reader.report(error);
        }
    }

    pub(crate) fn text(&self, reader: &mut Reader<'a>, key: &str) -> Option<At<&'a str>> {
        let value = self.value(key)?;
        text_of(reader, value, &self.key(key))
    }

    /// A text that must not be empty.
    pub(crate) fn required_text(
        &self,
        reader: &mut Reader<'a>,
        key: &str,
        accepted: &str,
    ) -> Option<At<&'a str>> {
        self.require(reader, key, accepted);
        let found = self.text(reader, key)?;
        if found.value.is_empty() {
            let error = reader
                .mistake(&found.span, &self.key(key), Mistake::BadValue)
                .problem("empty")
                .accepted(accepted);
            reader.report(error);
            return None;
        }
        Some(found)
    }

    /// A text that may be missing, but not empty.
    pub(crate) fn required_if_there(
        &self,
        reader: &mut Reader<'a>,
        key: &str,
        accepted: &str,
    ) -> Option<At<&'a str>> {
        self.value(key)?;
        self.required_text(reader, key, accepted)
    }

    /// A list of texts. Not one of another type is kept.
    pub(crate) fn texts(&self, reader: &mut Reader<'a>, key: &str) -> Vec<At<&'a str>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let path = self.key(key);
        let DeValue::Array(array) = value.get_ref() else {
            reader.wrong_type(value, &path, "a list of texts, for example [\"…\", \"…\"]");
            return Vec::new();
        };
        array.iter().filter_map(|item| text_of(reader, item, &path)).collect()
    }

    /// A list of at least one text.
    pub(crate) fn required_texts(
        &self,
        reader: &mut Reader<'a>,
        key: &str,
        accepted: &str,
    ) -> Vec<At<&'a str>> {
        self.require(reader, key, accepted);
        if let Some(value) = self.value(key)
            && value.get_ref().as_array().is_some_and(|array| array.is_empty())
        {
            let error = reader
                .mistake(&value.span(), &self.key(key), Mistake::BadValue)
                .problem("the list is empty")
                .accepted(accepted);
            reader.report(error);
        }
        self.texts(reader, key)
    }

    /// A whole number within limits; `default` if the key is not there or its value was reported.
    pub(crate) fn number(
        &self,
        reader: &mut Reader<'a>,
        key: &str,
        limits: RangeInclusive<u64>,
        default: u64,
    ) -> At<u64> {
        let absent = At { value: default, span: self.span.clone() };
        self.value(key)
            .and_then(|value| number_of(reader, value, &self.key(key), limits))
            .unwrap_or(absent)
    }

    /// A list of whole numbers within limits.
    pub(crate) fn numbers(
        &self,
        reader: &mut Reader<'a>,
        key: &str,
        limits: &RangeInclusive<u64>,
    ) -> Vec<At<u64>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let path = self.key(key);
        let DeValue::Array(array) = value.get_ref() else {
            reader.wrong_type(value, &path, "a list of whole numbers, for example [2, 3]");
            return Vec::new();
        };
        array.iter().filter_map(|item| number_of(reader, item, &path, limits.clone())).collect()
    }

    /// A duration, written `"25s"`, `"1500ms"` or `"2m"`, within limits.
    pub(crate) fn duration(
        &self,
        reader: &mut Reader<'a>,
        key: &str,
        limits: RangeInclusive<Duration>,
    ) -> Option<At<Duration>> {
        let found = self.text(reader, key)?;
        let accepted = || format!("{} to {}", written(*limits.start()), written(*limits.end()));
        let error = match duration_of(found.value) {
            Some(value) if limits.contains(&value) => return Some(At { value, span: found.span }),
            Some(_) => reader
                .mistake(&found.span, &self.key(key), Mistake::OutOfRange)
                .problem("out of range")
                .found(found.value),
            None => reader
                .mistake(&found.span, &self.key(key), Mistake::BadValue)
                .problem("not a duration")
                .found(found.value)
                .help("write a whole number and a unit: \"1500ms\", \"25s\", \"2m\""),
        };
        reader.report(error.accepted(accepted()));
        None
    }

    /// One of a few words, or the default if the key is not there; `None` if it was reported.
    pub(crate) fn choice<T: Copy + Default>(
        &self,
        reader: &mut Reader<'a>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        if self.value(key).is_none() {
            return Some(T::default());
        }
        let found = self.text(reader, key)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == found.value) {
            return Some(*choice);
        }
        let words = || choices.iter().map(|(word, _)| *word);
        let mut error = reader
            .mistake(&found.span, &self.key(key), Mistake::BadValue)
            .problem("unknown value")
            .found(found.value)
            .accepted(words().collect::<Vec<_>>().join(", "));
        if let Some(near) = reader.nearest(found.value, words()) {
            error = error.help(format!("did you mean {near}?"));
        }
        reader.report(error);
        None
    }

    /// The secret in the file that `key` names.
    pub(crate) fn secret(&self, reader: &mut Reader<'a>, key: &str) -> Option<Secret> {
        use crate::key::KeyFileError as E;
        let found = self.text(reader, key)?;
        let error = match reader.keys.secret(found.value) {
            Ok(secret) => return Some(secret),
            Err(error) => error,
        };
        let report = reader
            .mistake(&found.span, &self.key(key), Mistake::KeyFile)
            .problem(format!("the key file cannot be used: {error}"))
            .found(found.value)
            .accepted("a file of mode 0600 or stricter with one base64 key");
        let report = match error {
            E::Mode { .. } => report.help(format!(
                "chmod 600 {}, and make a new key if others may have read it",
                found.value
            )),
            E::Owner { me, .. } => report.help(format!("chown it to user {me} or to root")),
            E::Io(_) => report.help(
                "paths are relative to the folder of this file; wg genkey makes a private key, \
                 wg genpsk a preshared one",
            ),
            E::NotAFile | E::Content => report,
        };
        reader.report(report);
        None
    }

    /// Refers to a table by its bare name.
    pub(crate) fn reference<V: Copy>(
        &self,
        reader: &mut Reader<'a>,
        key: &str,
        kind: &str,
        known: impl for<'n> Fn(&'n Names<'a>) -> &'n BTreeMap<&'a str, V>,
    ) -> Option<At<V>> {
        let found = self.required_text(reader, key, &format!("the name of a [{kind}.NAME]"))?;
        let known = known(&reader.names);
        if let Some(value) = known.get(found.value) {
            return Some(At { value: *value, span: found.span });
        }
        let error = unknown_name(reader, &found, &self.key(key), kind, known.keys().copied());
        reader.report(error);
        None
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

fn text_of<'a>(
    reader: &mut Reader<'a>,
    value: &'a Spanned<DeValue<'a>>,
    key: &str,
) -> Option<At<&'a str>> {
    let DeValue::String(text) = value.get_ref() else {
        reader.wrong_type(value, key, "a text in quotes");
        return None;
    };
    Some(At { value: text.as_ref(), span: value.span() })
}

fn number_of(
    reader: &mut Reader<'_>,
    value: &Spanned<DeValue<'_>>,
    key: &str,
    limits: RangeInclusive<u64>,
) -> Option<At<u64>> {
    let DeValue::Integer(integer) = value.get_ref() else {
        reader.wrong_type(value, key, "a whole number");
        return None;
    };
    match u64::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) if limits.contains(&number) => Some(At { value: number, span: value.span() }),
        Ok(_) | Err(_) => {
            let error = reader
                .mistake(&value.span(), key, Mistake::OutOfRange)
                .problem("out of range")
                .found(integer.to_string())
                .accepted(format!("{} to {}", limits.start(), limits.end()));
            reader.report(error);
            None
        }
    }
}

/// `None` if it is not a duration at all.
fn duration_of(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

fn written(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration_of("1500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!(duration_of("25s"), Some(Duration::from_secs(25)));
        assert_eq!(duration_of("2m"), Some(Duration::from_secs(120)));
        let too_long = format!("{}m", u64::MAX);
        for bad in ["", "s", "25", "25 s", "-1s", "+1s", "1.5s", "1h", "ö", &too_long] {
            assert_eq!(duration_of(bad), None, "{bad}");
        }
        assert_eq!(written(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(written(Duration::from_secs(120)), "120s");
    }
}
