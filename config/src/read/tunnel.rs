//! `[wireguard.NAME]`: the listeners with the gateway's keys and their timers.

use core::time::Duration;

use toml::de::DeTable;

use super::client::client;
use crate::error::Mistake;
use crate::limits::{self, default};
use crate::reader::Reader;
use crate::section::Section;
use crate::source::Span;
use crate::{Dscp, Listener, Timers, keys};

/// All listeners; none of those that came with a mistake.
pub(super) fn listeners<'a>(reader: &mut Reader<'a>, root: &'a DeTable<'a>) -> Vec<Listener> {
    let sections = reader.named(root, "wireguard", keys::WIREGUARD);
    // What is there but not a table has been reported.
    let none = |value: &toml::Spanned<toml::de::DeValue<'_>>| {
        value.get_ref().as_table().is_some_and(|table| table.is_empty())
    };
    if root.get("wireguard").is_none_or(none) {
        let error = reader
            .mistake(&(0..0), "wireguard", Mistake::MissingKey)
            .problem("there is no [wireguard.NAME]")
            .accepted("at least one");
        reader.report(error);
    }
    let mut listeners: Vec<Listener> = Vec::new();
    let mut spans: Vec<Span> = Vec::new();
    for section in &sections {
        let Some(listener) = one(reader, section) else { continue };
        if let Some((at, same)) =
            position(&listeners, |known| known.public_key == listener.public_key)
        {
            let what = format!("the key of listener {}", same.name);
            let first = spans.get(at).cloned().unwrap_or_default();
            reader.duplicate(&section.span, &section.key("private_key_file"), &what, &first);
        }
        let crowd = listeners.iter().filter(|known| known.listen_port == listener.listen_port);
        if crowd.count() >= limits::LISTENERS_PER_UDP_PORT_MAX {
            let error = reader
                .mistake(&section.span, &section.key("listen_port"), Mistake::Conflict)
                .problem("too many listeners share this UDP port")
                .accepted(format!("at most {}", limits::LISTENERS_PER_UDP_PORT_MAX));
            reader.report(error);
        }
        listeners.push(listener);
        spans.push(section.span.clone());
    }
    if let Some(first_too_many) = sections.get(limits::LISTENERS_MAX) {
        let error = reader
            .mistake(&first_too_many.span, "wireguard", Mistake::OutOfRange)
            .problem("too many listeners")
            .accepted(format!("at most {}", limits::LISTENERS_MAX));
        reader.report(error);
    }
    listeners
}

fn position(listeners: &[Listener], is: impl Fn(&Listener) -> bool) -> Option<(usize, &Listener)> {
    listeners.iter().enumerate().find(|(_, listener)| is(listener))
}

fn one<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Option<Listener> {
    let port = section.reference(reader, "port", "port", |names| &names.ports);
    if let Some(port) = &port
        && !port.value.1.has_wireguard()
    {
        let error = reader
            .mistake(&port.span, &section.key("port"), Mistake::Conflict)
            .problem("this port is for segments only")
            .accepted("a port of kind wireguard or both");
        reader.report(error);
    }
    let listen_port =
        section.number(reader, "listen_port", 1..=u64::from(u16::MAX), default::LISTEN_PORT);
    let mtu = section.number(reader, "mtu", limits::MTU, default::MTU);
    let dscp = dscp(reader, section);
    section.require(reader, "private_key_file", "the path of a file made by wg genkey");
    let private_key = section.secret(reader, "private_key_file");
    let public_key = private_key.as_ref().map(crate::Secret::public_key);
    let dark = section.flag(reader, "dark");
    let show_private_key = section.flag(reader, "show_private_key");
    let show_preshared_keys = section.flag(reader, "show_preshared_keys");
    let client = client(reader, section);
    let timers = section
        .table(reader, "timers", keys::TIMERS)
        .map_or_else(Timers::default, |timers| self::timers(reader, &timers));
    Some(Listener {
        name: section.name.to_owned(),
        place: reader.place(&section.span),
        port: port?.value.0,
        listen_port: u16::try_from(listen_port.value).unwrap_or(u16::MAX),
        private_key: private_key?,
        public_key: public_key?,
        dark,
        mtu: u16::try_from(mtu.value).unwrap_or(u16::MAX),
        dscp,
        show_private_key,
        show_preshared_keys,
        client,
        timers,
    })
}

/// A word or a number in quotes: no key of the file takes values of two types.
fn dscp<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Dscp {
    let Some(found) = section.text(reader, "dscp") else { return Dscp::default() };
    let code = found.value.parse().ok().filter(|code| limits::DSCP.contains(code));
    match (found.value, code) {
        ("clear", _) => Dscp::Clear,
        ("copy", _) => Dscp::Copy,
        (_, Some(code)) => Dscp::Fixed(code),
        (_, None) => {
            let error = reader
                .mistake(&found.span, &section.key("dscp"), Mistake::BadValue)
                .problem("not a DSCP policy")
                .found(found.value)
                .accepted("\"clear\", \"copy\", or a code point from \"0\" to \"63\"");
            reader.report(error);
            Dscp::default()
        }
    }
}

/// Each at most what the protocol says: a longer one would break promises of WireGuard's.
fn timers<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Timers {
    let protocol = Timers::default();
    let mut timer = |key, most| {
        section
            .duration(reader, key, Duration::from_millis(1)..=most)
            .map_or(most, |found| found.value)
    };
    let timers = Timers {
        rekey_after: timer("rekey_after", protocol.rekey_after),
        reject_after: timer("reject_after", protocol.reject_after),
        rekey_attempt: timer("rekey_attempt", protocol.rekey_attempt),
        rekey_timeout: timer("rekey_timeout", protocol.rekey_timeout),
        keepalive: timer("keepalive", protocol.keepalive),
    };
    let mut relation = |holds: bool, key: &str, problem: &str| {
        if !holds {
            let span = section.value(key).map_or(section.span.clone(), toml::Spanned::span);
            let error = reader
                .mistake(&span, &section.key(key), Mistake::Conflict)
                .problem(problem)
                .help("a timer that is not written keeps the protocol's value");
            reader.report(error);
        }
    };
    relation(
        timers.rekey_after < timers.reject_after,
        "reject_after",
        "not above rekey_after: a session would end before its successor is asked for",
    );
    relation(
        timers.rekey_timeout < timers.rekey_attempt,
        "rekey_timeout",
        "not below rekey_attempt: a handshake would never be tried again",
    );
    relation(
        timers.keepalive + timers.rekey_timeout < timers.reject_after,
        "keepalive",
        "with rekey_timeout not below reject_after: a session could end before it is renewed",
    );
    timers
}
