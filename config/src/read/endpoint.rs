//! `[user]`, `[tag]`, `[device]` and `[segment]`: who and what has addresses.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use toml::de::DeTable;

use crate::error::Mistake;
use crate::key::{KEY_ACCEPTED, PublicKey};
use crate::limits;
use crate::prefix::{Prefixes, Subnets, network};
use crate::reader::Reader;
use crate::section::Section;
use crate::selector::{self, Accepted, Kind};
use crate::source::Span;
use crate::{Device, EndpointName, Listener, Segment, Selector, Stage, Tag, User, keys};

pub(super) fn users<'a>(reader: &mut Reader<'a>, root: &'a DeTable<'a>) -> Vec<User> {
    let sections = reader.named(root, "user", keys::USER);
    let user = |section: Section<'a>| User {
        name: section.name.to_owned(),
        place: reader.place(&section.span),
        email: section.text(reader, "email").map_or("", |email| email.value).to_owned(),
    };
    sections.into_iter().map(user).collect()
}

pub(super) fn tags<'a>(reader: &mut Reader<'a>, root: &'a DeTable<'a>) -> Vec<Tag> {
    let sections = reader.named(root, "tag", keys::TAG);
    let tag = |section: Section<'a>| Tag {
        name: section.name.to_owned(),
        place: reader.place(&section.span),
        description: section.text(reader, "description").map_or("", |text| text.value).to_owned(),
    };
    sections.into_iter().map(tag).collect()
}

pub(super) fn devices<'a>(
    reader: &mut Reader<'a>,
    root: &'a DeTable<'a>,
    prefixes: &mut Prefixes,
    listeners: &[Listener],
) -> Vec<Device> {
    let mut key_owners: BTreeMap<PublicKey, (&str, Span)> = BTreeMap::new();
    let mut devices = Vec::new();
    for section in reader.named(root, "device", keys::DEVICE) {
        let user = section
            .value("user")
            .and_then(|_| section.reference(reader, "user", "user", |names| &names.users))
            .and_then(|_| section.text(reader, "user"))
            .map(|user| user.value.to_owned());
        let public_key = public_key(reader, &section, &mut key_owners, listeners);
        let listener = section
            .value("listener")
            .and_then(|_| {
                section.reference(reader, "listener", "wireguard", |names| &names.listeners)
            })
            .map(|found| found.value);
        let (endpoint, endpoint_name) = outer_endpoint(reader, &section);
        devices.push(Device {
            name: section.name.to_owned(),
            place: reader.place(&section.span),
            user,
            // A device without a key comes with a mistake, so it never leaves the reader.
            public_key: public_key.unwrap_or(PublicKey([0; 32])),
            preshared_key: section.secret(reader, "preshared_key_file"),
            addresses: addresses(reader, &section, prefixes),
            listener,
            endpoint,
            endpoint_name,
            keepalive: section.keepalive(reader),
            tags: device_tags(reader, &section),
        });
    }
    devices
}

fn public_key<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    owners: &mut BTreeMap<PublicKey, (&'a str, Span)>,
    listeners: &[Listener],
) -> Option<PublicKey> {
    let found = section.required_text(reader, "public_key", KEY_ACCEPTED)?;
    let key = section.key("public_key");
    let Ok(public_key) = found.value.parse::<PublicKey>() else {
        // Not quoted: whoever pastes the wrong key pastes the private one.
        let error = reader
            .mistake(&found.span, &key, Mistake::BadValue)
            .problem("not a WireGuard key")
            .found(format!("{} characters", found.value.chars().count()))
            .accepted(KEY_ACCEPTED)
            .help("wg pubkey < PRIVATE_KEY_FILE prints it");
        reader.report(error.without_source());
        return None;
    };
    if let Some(own) = listeners.iter().find(|listener| listener.public_key == public_key) {
        let error = reader
            .mistake(&found.span, &key, Mistake::Conflict)
            .problem(format!("this is the gateway's own key, of listener {}", own.name))
            .accepted("the key of the device")
            .help("on the device, wg pubkey < PRIVATE_KEY_FILE prints it");
        reader.report(error);
    }
    if let Some((owner, first)) = owners.get(&public_key) {
        let what = format!("the key of device {owner}");
        reader.duplicate(&found.span, &key, &what, first);
    } else {
        owners.insert(public_key, (section.name, found.span));
    }
    Some(public_key)
}

fn addresses<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    prefixes: &mut Prefixes,
) -> Vec<IpNet> {
    const ACCEPTED: &str = "a list of networks, for example [\"10.44.0.7/32\", \"fd44::7/128\"]";
    let key = section.key("addresses");
    let owner = format!("device {}", section.name);
    let mut nets = Vec::new();
    for text in section.required_texts(reader, "addresses", ACCEPTED) {
        if let Some(net) = network(reader, &key, &text) {
            prefixes.claim(reader, &key, &owner, &net);
            nets.push(net.value);
        }
    }
    nets
}

/// An address with a port, or a name with one.
fn outer_endpoint<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
) -> (Option<SocketAddr>, Option<EndpointName>) {
    let Some(found) = section.text(reader, "endpoint") else { return (None, None) };
    match found.value.parse::<SocketAddr>() {
        Ok(endpoint)
            if endpoint.port() != 0
                && !endpoint.ip().is_unspecified()
                && !endpoint.ip().is_multicast() =>
        {
            return (Some(endpoint), None);
        }
        Ok(_) => {}
        Err(_) => {
            if let Some(name) = endpoint_name(found.value) {
                return (None, Some(name));
            }
        }
    }
    let error = reader
        .mistake(&found.span, &section.key("endpoint"), Mistake::BadValue)
        .problem("not an address or host name with a port")
        .found(found.value)
        .accepted("203.0.113.7:51820, [2001:db8::7]:51820 or vpn.example.com:51820");
    reader.report(error);
    (None, None)
}

/// Host names as RFC 1123 §2.1 has them. The last label is not a number, so that an address that is
/// not quite one is no name (RFC 3696 §2).
fn endpoint_name(text: &str) -> Option<EndpointName> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let valid = host.len() <= 253 && host.split('.').all(label);
    let last = host.rsplit('.').next()?;
    (valid && !numeric(last)).then(|| EndpointName { host: host.to_ascii_lowercase(), port })
}

/// Tags are written with their kind, as in rules.
fn device_tags<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Vec<String> {
    let tags = section.texts(reader, "tags");
    selector::all(reader, section, "tags", &tags, Accepted::kinds(&[Kind::Tag]))
        .into_iter()
        .filter_map(|tag| match tag {
            Selector::Tag(name) => Some(name),
            Selector::User(_)
            | Selector::Device(_)
            | Selector::Group(_)
            | Selector::Segment(_)
            | Selector::Host(_)
            | Selector::Any
            | Selector::Own
            | Selector::Internet => None,
        })
        .collect()
}

pub(super) fn segments<'a>(
    reader: &mut Reader<'a>,
    root: &'a DeTable<'a>,
    prefixes: &mut Prefixes,
) -> Vec<Segment> {
    let mut subnets = Subnets::default();
    let mut segments = Vec::new();
    for section in reader.named(root, "segment", keys::SEGMENT) {
        let port = section.reference(reader, "port", "port", |names| &names.ports);
        if let Some(port) = &port
            && !port.value.1.has_segments()
        {
            let error = reader
                .mistake(&port.span, &section.key("port"), Mistake::Conflict)
                .problem("this port is for WireGuard only")
                .accepted("a port of kind segment or both");
            reader.report(error);
        }
        let vlan = section
            .value("vlan")
            .map(|_| section.number(reader, "vlan", limits::VLAN, *limits::VLAN.start()));
        segments.push(Segment {
            name: section.name.to_owned(),
            place: reader.place(&section.span),
            port: port.map_or(0, |port| port.value.0),
            subnets: segment_subnets(reader, &section, &mut subnets, prefixes),
            vlan: vlan.and_then(|vlan| u16::try_from(vlan.value).ok()),
            stage: stage(reader, &section),
        });
    }
    segments
}

fn segment_subnets<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    subnets: &mut Subnets,
    prefixes: &mut Prefixes,
) -> Vec<IpNet> {
    const ACCEPTED: &str = "a list of networks, for example [\"10.20.1.0/24\"]";
    let key = section.key("subnets");
    let owner = format!("segment {}", section.name);
    let mut nets = Vec::new();
    for text in section.required_texts(reader, "subnets", ACCEPTED) {
        if let Some(net) = network(reader, &key, &text)
            && subnets.take(reader, &key, &owner, &net)
        {
            prefixes.claim(reader, &key, &owner, &net);
            nets.push(net.value);
        }
    }
    nets
}

/// The other stages have their names already, so that their refusal can say what they are.
fn stage<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Stage {
    const LATER: &[&str] = &["observe", "shadow", "locked", "retired"];
    if let Some(found) = section.text(reader, "stage")
        && found.value != "enforce"
    {
        let known = LATER.contains(&found.value);
        let problem = if known { "not in this release" } else { "unknown value" };
        let error = reader
            .mistake(&found.span, &section.key("stage"), Mistake::BadValue)
            .problem(problem)
            .found(found.value)
            .accepted("enforce");
        reader.report(error);
    }
    Stage::Enforce
}
