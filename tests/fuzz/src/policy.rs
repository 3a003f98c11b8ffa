//! A company out of bytes: the compiled table and the oracle must agree about everything in it.
//!
//! The bytes choose people, nested groups, addresses that nest in others, rules with every key, what is
//! known of the devices, and the time. A small company is asked about each pair of its ends, so a
//! search needs no luck to find the one question that matters.

use std::collections::BTreeSet;
use std::fmt::Write;

use bulkhead_config::{Config, Flow, KeyFileError, KeySource, Origin, PublicKey, Secret, Value};
use bulkhead_policy_compiler::{Denied, Fact, Facts, Policy, Verdict};
use jiff::{SignedDuration, Timestamp};

use crate::input::Input;

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().expect("a key"))
    }
}

const DEVICES: u8 = 4;
const GROUPS: u8 = 4;

const ADDRESSES: [&str; 8] = [
    "10.0.0.N/32",
    "10.1.0.N/32",
    "10.2.N.0/24",
    "10.2.M.128/25",
    "fd00::N/128",
    "fd01:0:0:N::/64",
    "fd01::N/128",
    "10.N.0.0/16",
];

const SERVICES: [&str; 8] =
    ["tcp/1", "tcp/2-4", "tcp", "udp/1", "icmp/echo", "icmp/3.4", "icmpv6", "protocol/50"];

const ASKED: [&str; 6] = ["tcp/1", "tcp/3", "tcp/9", "udp/1", "icmp/echo", "protocol/50"];

const CONDITIONS: [&str; 12] = [
    "",
    "",
    "posture = [\"healthy\"]",
    "posture = [\"calm\"]",
    "time = { days = \"mon-fri\", hours = \"07:00-19:00\", zone = \"Europe/Berlin\" }",
    "time = { hours = \"22:00-06:00\" }",
    "starts = 2026-11-24T00:00:00Z",
    "expires = 2026-11-25T00:00:00+01:00",
    "when = 'context.risk <= 50 && !context.disk_encrypted'",
    "when = 'context.minute < 720 || context.weekday > 5'",
    "when = 'principal.groups.contains(\"g1\") || principal.name == \"d2\"'",
    "when = 'if context.disk_encrypted then context.risk < 20 else principal.user == \"u0\"'",
];

/// A company in which table and oracle disagree is a defect.
pub fn policy(bytes: &[u8]) {
    let _ = outcomes(bytes);
}

/// What was met: the sorts of verdicts, and on what they depended.
///
/// # Panics
///
/// If the compiled table and the oracle disagree, or the company is refused.
#[must_use]
pub fn outcomes(bytes: &[u8]) -> BTreeSet<&'static str> {
    let mut input = Input(bytes);
    let facts = facts(&mut input);
    let text = company(&mut input);
    let mut met = BTreeSet::new();
    let config = Config::parse_with("company.toml", &text, &AnyKey)
        .unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let policy = Policy::with(&config, facts).expect("a small company compiles");
    let mut ends: Vec<Origin> =
        config.devices.iter().map(|device| Origin::Device(device.name.clone())).collect();
    ends.extend(config.segments.iter().map(|segment| Origin::Segment(segment.name.clone())));
    ends.push(Origin::Address([192, 0, 2, 1].into()));
    let nets = config.devices.iter().flat_map(|device| &device.addresses);
    let nets = nets.chain(config.segments.iter().flat_map(|segment| &segment.subnets));
    let destinations = nets.map(ipnet::IpNet::addr).chain([[8, 8, 8, 8].into()]);
    for destination in destinations {
        for service in ASKED {
            let flow: Flow = format!("10.0.0.1 {service}").parse().expect("a flow");
            let flow = Flow { destination, ..flow };
            for from in &ends {
                let verdict = policy.judge(from, &flow).expect("table and oracle agree");
                policy.shadow(from, &flow).expect("with the shadow rules too");
                met.insert(sort(&config, verdict));
            }
        }
    }
    met
}

fn sort(config: &Config, verdict: Verdict) -> &'static str {
    let conditional = |rule: u32| {
        let rule = usize::try_from(rule).ok().and_then(|rule| config.rules.get(rule));
        rule.map_or("", |rule| match () {
            () if rule.condition.when.is_some() => "when",
            () if rule.condition.always() => "always",
            () => "posture or time",
        })
    };
    match verdict {
        Verdict::Allow(rule) => match conditional(rule) {
            "when" => "allowed by when",
            "always" => "allowed",
            _ => "allowed by posture or time",
        },
        Verdict::Deny(Denied::Rule(rule)) => match conditional(rule) {
            "when" => "denied by when",
            "always" => "denied by a rule",
            _ => "denied by posture or time",
        },
        Verdict::Deny(Denied::NoRule) => "no rule",
        Verdict::Deny(Denied::ServiceNotAllowed) => "service not allowed",
        Verdict::Deny(Denied::UnknownSource) => "unknown source",
        Verdict::Deny(Denied::UnknownDestination) => "unknown destination",
    }
}

/// All that the corpus must meet.
pub const OUTCOMES: [&str; 10] = [
    "allowed",
    "allowed by posture or time",
    "allowed by when",
    "denied by a rule",
    "denied by posture or time",
    "denied by when",
    "no rule",
    "service not allowed",
    "unknown destination",
    "unknown source",
];

fn facts(input: &mut Input<'_>) -> Facts {
    const MOMENTS: [&str; 4] = [
        "2026-11-24T05:30:00Z",
        "2026-11-24T12:00:00Z",
        "2026-11-24T23:30:00Z",
        "2026-11-28T12:00:00Z",
    ];
    let moment = input.byte();
    let now = (moment < 224).then(|| MOMENTS[usize::from(moment % 4)].parse().expect("a moment"));
    let mut facts = Facts { now, ..Facts::default() };
    for n in 0..DEVICES {
        let (known, risk) = (input.byte(), input.byte());
        let context = facts.devices.entry(format!("d{n}")).or_default();
        let ttl = (known & 4 != 0).then(|| SignedDuration::from_secs(60));
        let set_at = now.unwrap_or(Timestamp::UNIX_EPOCH)
            - SignedDuration::from_secs(if known & 8 == 0 { 10 } else { 100 });
        let mut set = |name: &str, value| {
            context.set(name, Fact { value, source: "fuzz".to_owned(), set_at, ttl });
        };
        if known & 1 != 0 {
            set("disk_encrypted", Value::Bool(known & 16 != 0));
        }
        if known & 2 != 0 {
            set("risk", Value::Int(i64::from(risk % 100)));
        }
    }
    facts
}

fn company(input: &mut Input<'_>) -> String {
    let mut text = String::from(
        "schema = 1\n[port.p]\ndevice = \"p\"\nkind = \"both\"\n[wireguard.w]\nport = \"p\"\n\
         private_key_file = \"k\"\n[user.u0]\n[user.u1]\n[tag.t0]\n[tag.t1]\n\
         [posture.healthy]\nrequire = { disk_encrypted = true }\n\
         [posture.calm]\nat_most = { risk = 50 }\n\
         [segment.s0]\nport = \"p\"\nsubnets = [\"10.1.0.0/24\", \"fd01::/60\"]\n\
         [segment.s1]\nport = \"p\"\nsubnets = [\"10.2.0.0/15\"]\n\
         [host.h0]\naddresses = [\"10.1.0.0/25\"]\n[host.h1]\naddresses = [\"10.0.0.0/14\"]\n",
    );
    let mut add = |table: std::fmt::Arguments<'_>| {
        text.write_fmt(table).expect("writing to a text");
    };
    for n in 0..DEVICES {
        let (owner, addresses) = (input.byte(), input.byte());
        let key = PublicKey([n + 1; 32]);
        let own = ADDRESSES[usize::from(addresses % 8)];
        let other = ADDRESSES[usize::from(addresses / 8 % 8)];
        let put = |address: &str| {
            address.replace('N', &n.to_string()).replace('M', &((n + 1) % DEVICES).to_string())
        };
        add(format_args!("[device.d{n}]\npublic_key = \"{key}\"\naddresses = [\"{}\"", put(own)));
        if other != own {
            add(format_args!(", \"{}\"", put(other)));
        }
        add(format_args!(
            "]\ntags = [{}]\n",
            ["", "\"tag:t0\"", "\"tag:t1\""][usize::from(owner % 3)]
        ));
        if owner & 64 == 0 {
            add(format_args!("user = \"u{}\"\n", owner / 4 % 2));
        }
    }
    for n in 0..GROUPS {
        let mut members = BTreeSet::new();
        for _ in 0..input.byte() % 4 {
            let which = input.byte();
            // Only groups behind this one, so that there is no circle.
            let behind = n + 1 + which / 8 % GROUPS;
            members.insert(match which % 8 {
                0..3 if behind < GROUPS => format!("group:g{behind}"),
                kind => plain(kind, which / 8),
            });
        }
        let members: Vec<_> = members.iter().map(|member| format!("{member:?}")).collect();
        add(format_args!("[group.g{n}]\nmembers = [{}]\n", members.join(", ")));
    }
    for n in 0..3 {
        let (a, b) = (input.byte(), input.byte());
        let ports = BTreeSet::from([SERVICES[usize::from(a % 8)], SERVICES[usize::from(b % 8)]]);
        let ports: Vec<_> = ports.iter().map(|port| format!("{port:?}")).collect();
        add(format_args!("[service.v{n}]\nports = [{}]\n", ports.join(", ")));
    }
    let mut id = 0;
    while !input.is_empty() && id < 6 {
        let (from, to, kind, service) = (input.byte(), input.byte(), input.byte(), input.byte());
        let own = if kind & 1 != 0 { "self".to_owned() } else { end(to) };
        let action = if kind & 6 == 6 { "deny" } else { "allow" };
        let stage = if kind & 24 == 24 { "shadow" } else { "enforce" };
        let services =
            if service % 4 == 3 { "any".to_owned() } else { format!("v{}", service % 4) };
        let condition = CONDITIONS[usize::from(service / 4) % CONDITIONS.len()];
        add(format_args!(
            "[[rule]]\nid = \"r{id}\"\nfrom = [\"{}\"]\nto = [\"{own}\"]\nservices = [\"{services}\"]\n\
             action = \"{action}\"\nstage = \"{stage}\"\n{condition}\n",
            end(from),
        ));
        id += 1;
    }
    text
}

/// Somebody who is no group.
fn plain(kind: u8, which: u8) -> String {
    match kind % 5 {
        0 => format!("user:u{}", which % 2),
        1 => format!("tag:t{}", which % 2),
        2 => format!("segment:s{}", which % 2),
        3 => format!("host:h{}", which % 2),
        _ => format!("device:d{}", which % DEVICES),
    }
}

/// One end of a rule.
fn end(byte: u8) -> String {
    match byte % 8 {
        0 => "any".to_owned(),
        1 | 2 => format!("group:g{}", byte / 8 % GROUPS),
        kind => plain(kind, byte / 8),
    }
}

/// Companies to begin with.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut random = crate::seeds::Random::new(24);
    let mut all = vec![("empty".to_owned(), Vec::new())];
    for n in 0..12 {
        // Facts, people and their addresses in few networks, so that most are accepted.
        let mut bytes = random.bytes(75);
        for device in 0..usize::from(DEVICES) {
            bytes[10 + 2 * device] = [0, 1, 4 + 8 * 4, 5, 6, 8, 2, 0][(n + device) % 8];
        }
        all.push((format!("company-{n}"), bytes));
    }
    all
}
