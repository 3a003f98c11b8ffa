//! References of the form `kind:name`, and the few that are a word of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Selector;
use crate::error::Mistake;
use crate::names::Names;
use crate::reader::{At, Reader, unknown_name};
use crate::section::Section;
use crate::source::Span;

/// What a selector may select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Device,
    Tag,
    Group,
    Segment,
    Host,
}

impl Kind {
    pub(crate) const ALL: &[Self] =
        &[Self::Group, Self::User, Self::Device, Self::Tag, Self::Segment, Self::Host];

    const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Device => "device",
            Self::Tag => "tag",
            Self::Group => "group",
            Self::Segment => "segment",
            Self::Host => "host",
        }
    }

    fn names<'n, 'a>(self, names: &'n Names<'a>) -> &'n BTreeMap<&'a str, ()> {
        match self {
            Self::User => &names.users,
            Self::Device => &names.devices,
            Self::Tag => &names.tags,
            Self::Group => &names.groups,
            Self::Segment => &names.segments,
            Self::Host => &names.hosts,
        }
    }

    fn selector(self, name: &str) -> Selector {
        let name = name.to_owned();
        match self {
            Self::User => Selector::User(name),
            Self::Device => Selector::Device(name),
            Self::Tag => Selector::Tag(name),
            Self::Group => Selector::Group(name),
            Self::Segment => Selector::Segment(name),
            Self::Host => Selector::Host(name),
        }
    }
}

/// What a reference may be at one place of the file.
#[derive(Clone, Copy)]
pub(crate) struct Accepted {
    /// Kinds of names.
    pub(crate) kinds: &'static [Kind],
    /// Words that stand alone.
    pub(crate) words: &'static [(&'static str, Selector)],
}

impl Accepted {
    /// Names of some kinds and no words.
    pub(crate) const fn kinds(kinds: &'static [Kind]) -> Self {
        Self { kinds, words: &[] }
    }
}

/// Reads a list of selectors of some kinds. One that selects nothing is reported and left out.
pub(crate) fn all(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &str,
    texts: &[At<&str>],
    accepted: Accepted,
) -> Vec<Selector> {
    let key = section.key(key);
    let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
    let mut selectors = Vec::new();
    for text in texts {
        if let Some(first) = seen.get(text.value).cloned() {
            reader.duplicate(&text.span, &key, text.value, &first);
            continue;
        }
        seen.insert(text.value, text.span.clone());
        selectors.extend(one(reader, &key, text, accepted));
    }
    selectors
}

/// Reads one selector; `None` with a mistake in the report.
pub(crate) fn one(
    reader: &mut Reader<'_>,
    key: &str,
    text: &At<&str>,
    accepted: Accepted,
) -> Option<Selector> {
    let Accepted { kinds, words } = accepted;
    if let Some((_, selector)) = words.iter().find(|(word, _)| *word == text.value) {
        return Some(selector.clone());
    }
    let split = text.value.split_once(':');
    let kind = split.and_then(|(word, _)| kinds.iter().find(|kind| kind.word() == word));
    let (Some(kind), Some((_, name))) = (kind, split) else {
        report_shape(reader, key, text, accepted);
        return None;
    };
    let names = kind.names(&reader.names);
    if names.contains_key(name) {
        return Some(kind.selector(name));
    }
    let error = unknown_name(reader, text, key, kind.word(), names.keys().copied());
    reader.report(error);
    None
}

fn report_shape(reader: &mut Reader<'_>, key: &str, text: &At<&str>, accepted: Accepted) {
    let Accepted { kinds, words } = accepted;
    let forms = kinds.iter().map(|kind| format!("{}:NAME", kind.word()));
    let forms: Vec<String> =
        forms.chain(words.iter().map(|(word, _)| (*word).to_owned())).collect();
    let mut error = reader
        .mistake(&text.span, key, Mistake::BadValue)
        .found(text.value)
        .accepted(forms.join(", "));
    error = match text.value.split_once(':') {
        _ if is_address(text.value) && kinds.contains(&Kind::Host) => error
            .problem("an address stands here under a name only")
            .help("give the addresses a name, [host.NAME], and write host:NAME"),
        Some((word, name)) => {
            let near = reader.nearest(word, kinds.iter().map(|kind| kind.word()));
            let error = error.problem(format!("{word:?} cannot be referred to here"));
            match near {
                Some(near) => error.help(format!("did you mean {near}:{name}?")),
                None => error,
            }
        }
        None if SELECTOR_WORDS.contains(&text.value) => {
            error.problem(format!("{:?} cannot be referred to here", text.value))
        }
        None => {
            let error = error.problem("the kind is missing");
            let fits = kinds.iter().find(|kind| kind.names(&reader.names).contains_key(text.value));
            let near = reader.nearest(text.value, words.iter().map(|(word, _)| *word));
            match (fits, near) {
                (Some(kind), _) => {
                    error.help(format!("did you mean {}:{}?", kind.word(), text.value))
                }
                (None, Some(near)) => error.help(format!("did you mean {near}?")),
                (None, None) => error,
            }
        }
    };
    reader.report(error);
}

/// Addresses have no kind of their own: rules name them.
fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok()
}

/// Words that are a selector at some place of the file.
const SELECTOR_WORDS: &[&str] = &["any", "self", "internet"];
