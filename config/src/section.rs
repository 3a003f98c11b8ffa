//! One table and its values.
//!
//! Every question that a [`Section`] answers is of the same form: the value with its span, or
//! `None`, and then the mistake is already in the report, or the key is not there.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Secret;
use crate::error::Mistake;
use crate::limits;
use crate::names::Names;
use crate::reader::{At, Reader, unknown_name};
use crate::source::Span;
use crate::value::{duration_of, number_of, text_of, written};

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

    /// Yes or no; no if the key is not there or its value was reported.
    pub(crate) fn flag(&self, reader: &mut Reader<'a>, key: &str) -> bool {
        let Some(value) = self.value(key) else { return false };
        value.get_ref().as_bool().unwrap_or_else(|| {
            reader.wrong_type(value, &self.key(key), "true or false");
            false
        })
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

    /// As [`Self::duration`], without fractions of a second; `why` not, as help.
    pub(crate) fn seconds(
        &self,
        reader: &mut Reader<'a>,
        key: &str,
        limits: RangeInclusive<Duration>,
        why: &str,
    ) -> Option<Duration> {
        let found = self.duration(reader, key, limits)?;
        if found.value.subsec_nanos() == 0 {
            return Some(found.value);
        }
        let error = reader
            .mistake(&found.span, &self.key(key), Mistake::BadValue)
            .problem("not whole seconds")
            .found(format!("{}ms", found.value.as_millis()))
            .help(why);
        reader.report(error);
        None
    }

    /// A persistent keepalive.
    pub(crate) fn keepalive(&self, reader: &mut Reader<'a>) -> Option<Duration> {
        let (least, most) = (*limits::KEEPALIVE_SECONDS.start(), *limits::KEEPALIVE_SECONDS.end());
        let limits = Duration::from_secs(least)..=Duration::from_secs(most);
        self.seconds(reader, "keepalive", limits, "WireGuard's tools know keepalives in seconds")
    }

    /// The secret in the file that `key` names.
    pub(crate) fn secret(&self, reader: &mut Reader<'a>, key: &str) -> Option<Secret> {
        use crate::key::{KeyFileError as E, PERMISSION_DENIED};
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
            E::Io(why) if why == PERMISSION_DENIED => report.help(
                "chown it to the user that the daemon runs as: bulkhead, if the package started it",
            ),
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
