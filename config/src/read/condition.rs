//! `[attribute]`, `[posture]`, and the keys of a rule or test that are about them and about time.

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::when;
use crate::condition::{
    ATTRIBUTES, Attribute, AttributeKind, Condition, Demand, Given, Must, Posture, TimeOfWeek,
    Value,
};
use crate::error::Mistake;
use crate::keys;
use crate::reader::{At, Reader, unknown_name};
use crate::section::Section;
use crate::source::Span;
use crate::when::cedar::Language;

pub(super) fn attributes<'a>(reader: &mut Reader<'a>, root: &'a DeTable<'a>) -> Vec<Attribute> {
    const KINDS: &[(&str, Option<AttributeKind>)] = &[
        ("bool", Some(AttributeKind::Bool)),
        ("int", Some(AttributeKind::Int)),
        ("text", Some(AttributeKind::Text)),
    ];
    /// What tests and expressions call the time.
    const RESERVED: &[&str] = &["at", "weekday", "minute"];
    let mut attributes = Vec::new();
    for section in reader.named(root, "attribute", keys::ATTRIBUTE) {
        let path = format!("attribute.{}", section.name);
        let problem = if ATTRIBUTES.iter().any(|(name, _)| *name == section.name) {
            Some("this attribute is built in")
        } else if !identifier(section.name) || RESERVED.contains(&section.name) {
            Some("not the name of an attribute")
        } else {
            None
        };
        if let Some(problem) = problem {
            let error = reader
                .mistake(&section.span, &path, Mistake::BadValue)
                .problem(problem)
                .accepted("another name of letters, digits and _, not at, weekday or minute");
            reader.report(error);
        }
        section.require(reader, "type", "bool, int, text");
        let kind = section.choice(reader, "type", KINDS).flatten();
        // One without a kind comes with a mistake, so it never leaves the reader.
        let kind = kind.unwrap_or(AttributeKind::Bool);
        reader.names.attributes.insert(section.name, kind);
        let place = reader.place(&section.span);
        attributes.push(Attribute { name: section.name.to_owned(), place, kind });
    }
    for (name, kind) in ATTRIBUTES {
        reader.names.attributes.insert(name, *kind);
    }
    attributes
}

/// What Cedar and most programming languages take as a name.
fn identifier(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

pub(super) fn postures<'a>(reader: &mut Reader<'a>, root: &'a DeTable<'a>) -> Vec<Posture> {
    let mut postures = Vec::new();
    for section in reader.named(root, "posture", keys::POSTURE) {
        let mut demands = Vec::new();
        for (key, value, span) in values(reader, &section, "require") {
            if let Some((attribute, value)) = attribute_value(reader, &key, value, &span) {
                demands.push(Demand { attribute, must: Must::Be(value) });
            }
        }
        for (list, must) in
            [("at_most", Must::NotExceed as fn(i64) -> Must), ("at_least", Must::Reach)]
        {
            for (key, value, span) in values(reader, &section, list) {
                // First: what is written may be a number, and be what is wrong all the same.
                let name = key.rsplit_once('.').map_or(key.as_str(), |(_, name)| name);
                let kind = reader.names.attributes.get(name).copied();
                if let Some(kind @ (AttributeKind::Bool | AttributeKind::Text)) = kind {
                    let error = reader
                        .mistake(&span, &key, Mistake::WrongType)
                        .problem(format!("only whole numbers have a limit; {name} is {kind}"))
                        .accepted("an attribute that is a whole number")
                        .help("write it in require");
                    reader.report(error);
                    continue;
                }
                if let Some((attribute, Value::Int(limit))) =
                    attribute_value(reader, &key, value, &span)
                {
                    demands.push(Demand { attribute, must: must(limit) });
                }
            }
        }
        let asked = ["require", "at_most", "at_least"];
        if asked.iter().all(|key| section.value(key).is_none()) {
            let error = reader
                .mistake(&section.span, &section.key("require"), Mistake::MissingKey)
                .problem("the posture demands nothing")
                .accepted("require, at_most or at_least, each like { disk_encrypted = true }");
            reader.report(error);
        }
        demands.sort();
        let place = reader.place(&section.span);
        postures.push(Posture { name: section.name.to_owned(), place, demands });
    }
    postures
}

/// The keys and values of an inner table: what each is called in messages, and its own place.
fn values<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    key: &str,
) -> Vec<(String, &'a Spanned<DeValue<'a>>, Span)> {
    let Some(value) = section.value(key) else { return Vec::new() };
    let path = section.key(key);
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong_type(value, &path, "a table, for example { disk_encrypted = true }");
        return Vec::new();
    };
    table
        .iter()
        .map(|(name, value)| (format!("{path}.{}", name.get_ref()), value, name.span()))
        .collect()
}

/// The last name of `path` as an attribute, with a value of its kind.
fn attribute_value(
    reader: &mut Reader<'_>,
    path: &str,
    value: &Spanned<DeValue<'_>>,
    span: &Span,
) -> Option<(String, Value)> {
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
    let Some(kind) = reader.names.attributes.get(name).copied() else {
        let found = At { value: name, span: span.clone() };
        let known = reader.names.attributes.keys().copied();
        let error = unknown_name(reader, &found, path, "attribute", known);
        reader.report(error);
        return None;
    };
    let read = match (kind, value.get_ref()) {
        (AttributeKind::Bool, DeValue::Boolean(value)) => Some(Value::Bool(*value)),
        (AttributeKind::Text, DeValue::String(value)) => Some(Value::Text(value.to_string())),
        (AttributeKind::Int, DeValue::Integer(value)) => {
            i64::from_str_radix(value.as_str(), value.radix()).ok().map(Value::Int)
        }
        (AttributeKind::Bool | AttributeKind::Int | AttributeKind::Text, _) => None,
    };
    if read.is_none() {
        reader.wrong_type(value, path, &kind.to_string());
    }
    read.map(|read| (name.to_owned(), read))
}

/// The conditions of a rule.
pub(super) fn condition<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    language: &mut Language,
) -> Condition {
    let starts =
        section.value("starts").and_then(|value| instant(reader, value, &section.key("starts")));
    let expires =
        section.value("expires").and_then(|value| instant(reader, value, &section.key("expires")));
    if let (Some(from), Some(until), Some(value)) = (starts, expires, section.value("expires"))
        && until <= from
    {
        let error = reader
            .mistake(&value.span(), &section.key("expires"), Mistake::Conflict)
            .problem("the rule expires before it starts")
            .accepted("a time after starts");
        reader.report(error);
    }
    Condition {
        posture: posture(reader, section),
        time: time(reader, section),
        when: when::when(reader, section, language),
        starts,
        expires,
    }
}

fn posture<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Vec<String> {
    let key = section.key("posture");
    let mut names: Vec<String> = Vec::new();
    for text in section.texts(reader, "posture") {
        let known = &reader.names.postures;
        if !known.contains_key(text.value) {
            let error = unknown_name(reader, &text, &key, "posture", known.keys().copied());
            reader.report(error);
        } else if names.iter().any(|name| name == text.value) {
            let span = text.span.clone();
            reader.duplicate(&text.span, &key, text.value, &span);
        } else {
            names.push(text.value.to_owned());
        }
    }
    names.sort();
    names
}

fn instant(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>, key: &str) -> Option<Timestamp> {
    const ACCEPTED: &str = "a date and time with an offset, for example 2026-12-31T18:00:00+01:00";
    let DeValue::Datetime(written) = value.get_ref() else {
        reader.wrong_type(value, key, ACCEPTED);
        return None;
    };
    let written = written.to_string();
    let read = written.parse().ok();
    if read.is_none() {
        let error = reader
            .mistake(&value.span(), key, Mistake::BadValue)
            .problem("not a moment")
            .found(written)
            .accepted(ACCEPTED)
            .help("without an offset it would be another moment in every time zone");
        reader.report(error);
    }
    read
}

fn time<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Option<TimeOfWeek> {
    const DAYS: &str =
        "mon, tue, wed, thu, fri, sat, sun, ranges as mon-fri, and lists as mon-wed,fri";
    const HOURS: &str = "from-to as 07:00-19:00 or 22:00-06:00, two digits each and never the same twice, and lists of \
         them; 24:00 is the end of a day";
    let table = section.table(reader, "time", keys::TIME)?;
    let mut words = Vec::new();
    let mut time = TimeOfWeek {
        days: [true; 7],
        hours: vec![(0, DAY)],
        zone: "UTC".to_owned(),
        text: String::new(),
    };
    if let Some(found) = table.text(reader, "days") {
        match days(found.value) {
            Some(days) => time.days = days,
            None => wrong(reader, &table, "days", &found, DAYS),
        }
        words.push(found.value);
    }
    if let Some(found) = table.text(reader, "hours") {
        match hours(found.value) {
            Some(hours) => time.hours = hours,
            None => wrong(reader, &table, "hours", &found, HOURS),
        }
        words.push(found.value);
    }
    if let Some(found) = table.text(reader, "zone") {
        if TimeZoneDatabase::bundled().get(found.value).is_ok() {
            time.zone = found.value.to_owned();
        } else {
            let mut error = reader
                .mistake(&found.span, &table.key("zone"), Mistake::UnknownName)
                .problem("there is no such time zone")
                .found(found.value)
                .accepted("an IANA name, for example Europe/Berlin");
            let database = TimeZoneDatabase::bundled();
            let known: Vec<String> = database.available().map(|name| name.to_string()).collect();
            if let Some(near) = reader.nearest(found.value, known.iter().map(String::as_str)) {
                error = error.help(format!("did you mean {near}?"));
            }
            reader.report(error);
        }
    }
    time.text = [words.join(" "), time.zone.clone()].join(" ").trim().to_owned();
    Some(time)
}

fn wrong(
    reader: &mut Reader<'_>,
    table: &Section<'_>,
    key: &str,
    found: &At<&str>,
    accepted: &str,
) {
    let error = reader
        .mistake(&found.span, &table.key(key), Mistake::BadValue)
        .problem(format!("cannot be read as {key}"))
        .found(found.value)
        .accepted(accepted);
    reader.report(error);
}

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// `mon-fri,sun`. A range may run over the end of the week.
fn days(text: &str) -> Option<[bool; 7]> {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let day = |name: &str| NAMES.iter().position(|known| *known == name.trim());
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + 7 - first) % 7;
        for at in first..=first + count {
            *days.get_mut(at % 7)? = true;
        }
    }
    Some(days)
}

/// `08:00-12:00,13:00-17:00`, in minutes of the day.
fn hours(text: &str) -> Option<Vec<(u16, u16)>> {
    let of_part = |part: &str| {
        let (first, last) = part.split_once('-')?;
        let (first, last) = (minute(first.trim())?, minute(last.trim())?);
        (first != last && first != DAY && last != 0).then_some((first, last))
    };
    text.split(',').map(of_part).collect()
}

fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| {
        let good = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if good { digits.parse::<u16>().ok() } else { None }
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    (minute < 60 && 60 * hour + minute <= DAY).then_some(60 * hour + minute)
}

/// What a test takes as given.
pub(super) fn given<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Given {
    let mut given = Given::default();
    for (key, value, span) in values(reader, section, "given") {
        if key.ends_with(".given.at") {
            given.at = instant(reader, value, &key);
        } else {
            given.attributes.extend(attribute_value(reader, &key, value, &span));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_names_ranges_and_lists() {
        let week = |text: &str| {
            days(text)
                .map(|days| days.map(|day| if day { 'x' } else { '.' }).iter().collect::<String>())
        };
        for (text, want) in [
            ("mon-fri", "xxxxx.."),
            ("sun", "......x"),
            ("fri-mon", "x...xxx"),
            ("mon-wed, fri", "xxx.x.."),
            ("mon-sun", "xxxxxxx"),
        ] {
            assert_eq!(week(text).as_deref(), Some(want), "{text}");
        }
        for bad in ["", "Mon", "monday", "mon-", "mon--fri", "mon;tue", "1-5"] {
            assert_eq!(days(bad), None, "{bad}");
        }
    }

    #[test]
    fn hours_are_windows_that_may_run_over_midnight() {
        for (text, want) in [
            ("07:00-19:00", vec![(420, 1_140)]),
            ("22:00-06:00", vec![(1_320, 360)]),
            ("00:00-24:00", vec![(0, 1_440)]),
            ("08:00-12:00, 13:00-17:30", vec![(480, 720), (780, 1_050)]),
        ] {
            assert_eq!(hours(text), Some(want), "{text}");
        }
        for bad in [
            "",
            "7-19",
            "07:00",
            "07:00-07:00",
            "24:00-06:00",
            "22:00-00:00",
            "07:60-08:00",
            "07:00-24:01",
            "+7:00-08:00",
        ] {
            assert_eq!(hours(bad), None, "{bad}");
        }
    }
}
