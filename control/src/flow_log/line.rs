//! One record as one line of JSON. The keys are explained in `default.toml`.

use std::io::Write;

use bulkhead_link::{Counted, FlowEnding, FlowEvent, FlowPast, FlowRecord};
use jiff::Timestamp;
use serde::Serialize;

use super::Batch;
use super::who::{Owner, Who};
use crate::api::Effect;

/// The keys, in the order in which a person reads them.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'static str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Effect>,
    generation: u64,
    protocol: Protocol,
    from: std::net::IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_port: Option<u16>,
    to: std::net::IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    denial: Option<&'static str>,
    #[serde(flatten)]
    past: Option<Past>,
}

/// What is said of a flow that is over.
#[derive(Serialize)]
struct Past {
    reason: &'static str,
    opened: String,
    last: String,
    sent: Counted,
    returned: Counted,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Protocol {
    Named(&'static str),
    Number(u8),
}

/// Appends the line of a record, with its newline.
pub(super) fn write_line(lines: &mut Vec<u8>, record: &FlowRecord, batch: &Batch, who: &Who) {
    let time = |at_s: u32| time_of(batch, at_s);
    let (event, verdict, denial, past) = match record.event {
        FlowEvent::Opened => ("opened", "allow", None, None),
        FlowEvent::Denied(end) => ("denied", "deny", Some(end.name()), None),
        FlowEvent::Closed(FlowPast { reason, opened_s, last_s, sent, returned }) => {
            let (opened, last) = (time(opened_s), time(last_s));
            let past = Past { reason: reason_of(reason), opened, last, sent, returned };
            ("closed", "allow", None, Some(past))
        }
    };
    let protocol = match record.protocol {
        1 => Protocol::Named("icmp"),
        6 => Protocol::Named("tcp"),
        17 => Protocol::Named("udp"),
        58 => Protocol::Named("icmpv6"),
        other => Protocol::Number(other),
    };
    let has_ports = matches!(record.protocol, 6 | 17);
    let [kind, code] = record.to_port.to_be_bytes();
    let (from, to) = (who.has(record.from), who.has(record.to));
    let rule = who.rule(record.tag);
    let line = Line {
        time: time(record.at_s),
        event,
        verdict,
        rule: rule.map(|(id, _)| id),
        effect: rule.map(|(_, effect)| effect),
        generation: record.generation,
        protocol,
        from: record.from,
        from_port: has_ports.then_some(record.from_port),
        to: record.to,
        to_port: has_ports.then_some(record.to_port),
        icmp: matches!(record.protocol, 1 | 58).then(|| format!("{kind}.{code}")),
        from_name: from.map(Owner::name),
        from_user: from.and_then(Owner::user),
        to_name: to.map(Owner::name),
        to_user: to.and_then(Owner::user),
        denial,
        past,
    };
    // Neither a vector nor these types refuse anything.
    let _ = serde_json::to_writer(&mut *lines, &line);
    let _ = lines.write_all(b"\n");
}

fn reason_of(reason: FlowEnding) -> &'static str {
    match reason {
        FlowEnding::Timeout => "timeout",
        FlowEnding::Fin => "fin",
        FlowEnding::Reset => "reset",
        FlowEnding::Revoked => "revoked",
        FlowEnding::Displaced => "displaced",
    }
}

/// When it was by the wall clock, to the second: so long before the message was made as it was by the
/// datapath's clock.
fn time_of(batch: &Batch, at_s: u32) -> String {
    let before_ms = batch.now_ms.saturating_sub(u64::from(at_s) * 1_000);
    let at_s = batch.wall_ms.saturating_sub(before_ms) / 1_000;
    let at = i64::try_from(at_s).ok().and_then(|at| Timestamp::from_second(at).ok());
    at.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
