//! `[service]`, `[[rule]]` and `[[test]]`: who may speak to whom about what.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use toml::de::DeTable;

use super::condition;
use crate::error::Mistake;
use crate::reader::{At, Reader, unknown_name};
use crate::section::Section;
use crate::selector::{self, Accepted, Kind};
use crate::service::{FLOW_ACCEPTED, Flow, RANGE_ACCEPTED, ServiceRange};
use crate::source::Span;
use crate::when::cedar::Language;
use crate::{
    Action, Device, Expectation, Log, Origin, Rule, RuleStage, Segment, Selector, Service,
    Services, Test, keys,
};

/// The reserved name of the service that is everything.
const ANY: &str = "any";

pub(super) fn services<'a>(reader: &mut Reader<'a>, root: &'a DeTable<'a>) -> Vec<Service> {
    let mut services = Vec::new();
    for section in reader.named(root, "service", keys::SERVICE) {
        if section.name == ANY {
            let error = reader
                .mistake(&section.span, &format!("service.{ANY}"), Mistake::BadValue)
                .problem("this name is reserved: it means every protocol and port")
                .accepted("another name");
            reader.report(error);
        }
        let key = section.key("ports");
        let mut ports: Vec<ServiceRange> = Vec::new();
        for text in section.required_texts(reader, "ports", RANGE_ACCEPTED) {
            match text.value.parse() {
                Ok(range) => ports.push(range),
                Err(why) => {
                    let why: crate::InvalidService = why;
                    let error = reader
                        .mistake(&text.span, &key, Mistake::BadValue)
                        .problem(why.to_string())
                        .found(text.value)
                        .accepted(RANGE_ACCEPTED);
                    reader.report(error);
                }
            }
        }
        let place = reader.place(&section.span);
        services.push(Service { name: section.name.to_owned(), place, ports });
    }
    services
}

pub(super) fn rules<'a>(reader: &mut Reader<'a>, root: &'a DeTable<'a>) -> Vec<Rule> {
    let mut ids = BTreeMap::new();
    let mut rules = Vec::new();
    let mut language = Language::default();
    for section in reader.listed(root, "rule", "id", keys::RULE) {
        let id = unique(reader, &section, "id", &mut ids);
        if let Some(At { value, span }) = &id {
            reader.check_name(value, span, &section.key("id"));
        }
        let from = ends(reader, &section, "from", FROM_WORDS);
        let to = ends(reader, &section, "to", TO_WORDS);
        rules.push(Rule {
            id: id.map_or("", |id| id.value).to_owned(),
            place: reader.place(&section.span),
            from,
            to,
            services: rule_services(reader, &section),
            condition: condition::condition(reader, &section, &mut language),
            action: section.choice(reader, "action", ACTIONS).unwrap_or_default(),
            stage: section.choice(reader, "stage", STAGES).unwrap_or_default(),
            log: section.choice(reader, "log", LOGS).unwrap_or_default(),
        });
    }
    rules
}

const ACTIONS: &[(&str, Action)] = &[("allow", Action::Allow), ("deny", Action::Deny)];
const STAGES: &[(&str, RuleStage)] =
    &[("enforce", RuleStage::Enforce), ("shadow", RuleStage::Shadow)];
const LOGS: &[(&str, Log)] = &[("none", Log::None), ("new", Log::New), ("all", Log::All)];

const FROM_WORDS: &[(&str, Selector)] = &[("any", Selector::Any), ("internet", Selector::Internet)];
/// Only a destination can be "one of the sender's own".
const TO_WORDS: &[(&str, Selector)] =
    &[("any", Selector::Any), ("self", Selector::Own), ("internet", Selector::Internet)];

fn ends<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    key: &str,
    words: &'static [(&'static str, Selector)],
) -> Vec<Selector> {
    const ACCEPTED: &str =
        "a list of group:NAME, user:NAME, device:NAME, tag:NAME, segment:NAME, host:NAME, or any";
    let texts = section.required_texts(reader, key, ACCEPTED);
    selector::all(reader, section, key, &texts, Accepted { kinds: Kind::ALL, words })
}

fn rule_services<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Services {
    let accepted = "a list of names of [service.NAME], or [\"any\"]";
    let texts = section.required_texts(reader, "services", accepted);
    let key = section.key("services");
    let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
    let mut names = Vec::new();
    for text in &texts {
        let known = &reader.names.services;
        if let Some(first) = seen.get(text.value).cloned() {
            reader.duplicate(&text.span, &key, text.value, &first);
        } else if text.value == ANY && texts.len() > 1 {
            let error = reader
                .mistake(&text.span, &key, Mistake::Conflict)
                .problem("any already covers the other services of this rule")
                .accepted("[\"any\"] alone, or the names without it");
            reader.report(error);
        } else if text.value != ANY && !known.contains_key(text.value) {
            let mut error = unknown_name(reader, text, &key, "service", known.keys().copied());
            if text.value.parse::<ServiceRange>().is_ok() {
                error = error.help("give the ports a name, [service.NAME], and write that");
            }
            reader.report(error);
        } else {
            names.push(text.value.to_owned());
        }
        seen.entry(text.value).or_insert_with(|| text.span.clone());
    }
    if names.iter().any(|name| name == ANY) { Services::Any } else { Services::Named(names) }
}

pub(super) fn tests<'a>(
    reader: &mut Reader<'a>,
    root: &'a DeTable<'a>,
    devices: &[Device],
    segments: &[Segment],
) -> Vec<Test> {
    let mut names = BTreeMap::new();
    let mut tests = Vec::new();
    for section in reader.listed(root, "test", "name", keys::TEST) {
        let name = unique(reader, &section, "name", &mut names);
        let from = origin(reader, &section);
        let given = condition::given(reader, &section);
        let families = from.as_ref().map(|from| families_of(from, devices, segments));
        let allow = expectations(reader, &section, "allow", families);
        let deny = expectations(reader, &section, "deny", families);
        if section.value("allow").is_none() && section.value("deny").is_none() {
            let error = reader
                .mistake(&section.span, &section.key("allow"), Mistake::MissingKey)
                .problem("the test asks nothing")
                .accepted(format!("allow or deny, each a list of {FLOW_ACCEPTED}"));
            reader.report(error);
        }
        if let Some(from) = from {
            let name = name.map_or("", |name| name.value).to_owned();
            let place = reader.place(&section.span);
            tests.push(Test { name, place, from, given, allow, deny });
        }
    }
    tests
}

fn origin<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Option<Origin> {
    const ACCEPTED: &str = "device:NAME, segment:NAME or an IP address";
    let found = section.required_text(reader, "from", ACCEPTED)?;
    if let Ok(address) = found.value.parse::<IpAddr>() {
        return Some(Origin::Address(address.to_canonical()));
    }
    let key = section.key("from");
    let kinds = Accepted::kinds(&[Kind::Device, Kind::Segment]);
    match selector::one(reader, &key, &found, kinds)? {
        Selector::Device(name) => Some(Origin::Device(name)),
        Selector::Segment(name) => Some(Origin::Segment(name)),
        Selector::User(_)
        | Selector::Tag(_)
        | Selector::Group(_)
        | Selector::Host(_)
        | Selector::Any
        | Selector::Own
        | Selector::Internet => None,
    }
}

/// Whether someone can send IPv4, and IPv6.
fn families_of(from: &Origin, devices: &[Device], segments: &[Segment]) -> (bool, bool) {
    let of = |nets: &[IpNet]| {
        let v4 = nets.iter().any(|net| net.addr().is_ipv4());
        (v4, nets.iter().any(|net| net.addr().is_ipv6()))
    };
    // An endpoint whose own addresses are wrong has been reported for that.
    let known = |(v4, v6): (bool, bool)| if v4 || v6 { (v4, v6) } else { (true, true) };
    match from {
        Origin::Address(address) => (address.is_ipv4(), address.is_ipv6()),
        Origin::Device(name) => {
            let device = devices.iter().find(|device| device.name == *name);
            known(device.map_or((true, true), |device| of(&device.addresses)))
        }
        Origin::Segment(name) => {
            let segment = segments.iter().find(|segment| segment.name == *name);
            known(segment.map_or((true, true), |segment| of(&segment.subnets)))
        }
    }
}

fn expectations<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    key: &str,
    families: Option<(bool, bool)>,
) -> Vec<Expectation> {
    let (v4, v6) = families.unwrap_or((true, true));
    let path = section.key(key);
    let mut flows = Vec::new();
    for text in section.texts(reader, key) {
        let bad = |problem: String| {
            reader
                .mistake(&text.span, &path, Mistake::BadValue)
                .problem(problem)
                .found(text.value)
                .accepted(FLOW_ACCEPTED)
        };
        let error = match text.value.parse::<Flow>() {
            Err(why) => bad(why.to_string()),
            Ok(flow) if flow.destination.is_ipv4() && !v4 => {
                bad("the sender has no IPv4 address, so no such packet exists".to_owned())
            }
            Ok(flow) if flow.destination.is_ipv6() && !v6 => {
                bad("the sender has no IPv6 address, so no such packet exists".to_owned())
            }
            Ok(flow) => {
                flows.push(Expectation { place: reader.place(&text.span), flow });
                continue;
            }
        };
        reader.report(error);
    }
    flows
}

/// A text that no other table of the list has.
fn unique<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    key: &str,
    seen: &mut BTreeMap<&'a str, Span>,
) -> Option<At<&'a str>> {
    let found = section.required_text(reader, key, "a name that no other has")?;
    if let Some(first) = seen.get(found.value).cloned() {
        let what = format!("{key} {:?}", found.value);
        reader.duplicate(&found.span, &section.key(key), &what, &first);
    } else {
        seen.insert(found.value, found.span.clone());
    }
    Some(found)
}
