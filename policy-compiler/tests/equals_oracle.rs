//! The table and the oracle are equal: random small policies, random flows, every outcome met.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

use core::net::IpAddr;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use bulkhead_config::{Config, Flow, KeyFileError, KeySource, Origin, Secret};
use bulkhead_policy_compiler::{Denied, PeerMap, Policy, Verdict, compile, oracle};
use bulkhead_table::{Denial, NextHop, PeerIndex, SegmentId, Service, Table};
use bulkhead_wire::Address;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config as RunnerConfig, TestRunner};

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

fn read(text: &str) -> Config {
    Config::parse_with("random.toml", text, &AnyKey)
        .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

const USERS: &[&str] = &["u0", "u1", "u2"];
const TAGS: &[&str] = &["t0", "t1"];
const DEVICES: usize = 5;
const SEGMENTS: usize = 3;
const SERVICES: &[&str] = &[
    "tcp",
    "tcp/1",
    "tcp/2",
    "tcp/2-4",
    "tcp/1-3",
    "tcp/65535",
    "udp/1",
    "udp/2-3",
    "icmp",
    "icmp/echo",
    "icmpv6/echo",
    "protocol/50",
    "protocol/7",
    "protocol/0",
    "protocol/255",
];
const ASKED: &[&str] = &[
    "tcp/1",
    "tcp/2",
    "tcp/3",
    "tcp/4",
    "tcp/5",
    "tcp/65535",
    "udp/1",
    "udp/2",
    "udp/4",
    "icmp/echo",
    "icmp/13",
    "icmpv6/echo",
    "protocol/50",
    "protocol/51",
    "protocol/7",
    "protocol/0",
    "protocol/255",
];

/// A device: its user, tags, and which of its possible addresses it has.
type Person = (Option<&'static str>, Vec<&'static str>, Vec<usize>);
/// A rule: selectors of both ends, services.
type Line = (Vec<String>, Vec<String>, Option<Vec<usize>>);

/// A host of its own, a host inside a segment, a site, a hole in the next device's site, IPv6.
fn address(device: usize, which: usize) -> String {
    match which {
        0 => format!("10.0.0.{device}/32"),
        1 => format!("10.1.{}.{device}/32", device % SEGMENTS),
        2 => format!("10.2.{device}.0/24"),
        3 => format!("10.2.{}.128/25", (device + 1) % DEVICES),
        _ => format!("fd00::{device}/128"),
    }
}

fn person() -> impl Strategy<Value = Person> {
    (
        prop::option::of(select(USERS)),
        subsequence(TAGS, 0..=TAGS.len()),
        subsequence((0..5).collect::<Vec<_>>(), 1..=5),
    )
}

fn selectors(kinds: &[&str]) -> impl Strategy<Value = Vec<String>> + use<> {
    let all: Vec<String> = [
        ("user", USERS.len(), "u"),
        ("tag", TAGS.len(), "t"),
        ("group", 2, "g"),
        ("device", DEVICES, "d"),
        ("segment", SEGMENTS, "s"),
    ]
    .into_iter()
    .filter(|(kind, ..)| kinds.contains(kind))
    .flat_map(|(kind, count, letter)| (0..count).map(move |n| format!("{kind}:{letter}{n}")))
    .collect();
    subsequence(all, 1..=3)
}

fn line() -> impl Strategy<Value = Line> {
    const ENDS: &[&str] = &["user", "tag", "group", "device", "segment"];
    let services = prop::option::weighted(0.8, subsequence(vec![0, 1, 2, 3], 1..=3));
    (selectors(ENDS), selectors(ENDS), services)
}

fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("{:?}", item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// A file with random members and rules.
fn policy() -> impl Strategy<Value = String> {
    (
        prop::collection::vec(person(), DEVICES),
        prop::collection::vec(selectors(&["user", "device"]), 2),
        prop::collection::vec(subsequence(SERVICES, 1..=3), 4),
        prop::collection::vec(line(), 0..6),
    )
        .prop_map(|(people, groups, services, rules)| {
            let mut text = String::from(
                "schema = 1\n[port.p]\ndevice = \"p\"\nkind = \"both\"\n\
                 [wireguard.w]\nport = \"p\"\nprivate_key_file = \"k\"\n",
            );
            let mut add = |table: String| text.push_str(&table);
            USERS.iter().for_each(|user| add(format!("[user.{user}]\n")));
            TAGS.iter().for_each(|tag| add(format!("[tag.{tag}]\n")));
            for (n, (user, tags, which)) in people.iter().enumerate() {
                let key = bulkhead_config::PublicKey([n as u8 + 1; 32]);
                let addresses: Vec<_> = which.iter().map(|which| address(n, *which)).collect();
                let tags: Vec<_> = tags.iter().map(|tag| format!("tag:{tag}")).collect();
                let mut table = format!("[device.d{n}]\npublic_key = \"{key}\"\n");
                writeln!(table, "addresses = {}", quoted(&addresses)).unwrap();
                writeln!(table, "tags = {}", quoted(&tags)).unwrap();
                if let Some(user) = user {
                    writeln!(table, "user = {user:?}").unwrap();
                }
                add(table);
            }
            for (n, members) in groups.iter().enumerate() {
                add(format!("[group.g{n}]\nmembers = {}\n", quoted(members)));
            }
            for n in 0..SEGMENTS {
                let subnets = [format!("10.1.{n}.0/24"), format!("fd01:{n}::/64")];
                add(format!("[segment.s{n}]\nport = \"p\"\nsubnets = {}\n", quoted(&subnets)));
            }
            for (n, ports) in services.iter().enumerate() {
                add(format!("[service.v{n}]\nports = {}\n", quoted(ports)));
            }
            for (n, (from, to, services)) in rules.iter().enumerate() {
                let services: Vec<_> = match services {
                    Some(list) => list.iter().map(|service| format!("v{service}")).collect(),
                    None => vec!["any".to_owned()],
                };
                add(format!(
                    "[[rule]]\nid = \"r{n}\"\nfrom = {}\nto = {}\nservices = {}\n",
                    quoted(from),
                    quoted(to),
                    quoted(&services)
                ));
            }
            text
        })
}

/// Addresses of everyone, their neighbours, and nobody's.
fn anywhere() -> impl Strategy<Value = IpAddr> {
    let small = 0..DEVICES as u8 + 1;
    prop_oneof![
        4 => small.clone().prop_map(|n| IpAddr::from([10, 0, 0, n])),
        4 => (0..4u8, small.clone()).prop_map(|(s, n)| IpAddr::from([10, 1, s, n])),
        3 => (small.clone(), select(vec![0u8, 127, 128, 255]))
            .prop_map(|(n, host)| IpAddr::from([10, 2, n, host])),
        1 => small.prop_map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)])),
        1 => (0..4u16).prop_map(|s| IpAddr::from([0xfd01, s, 0, 0, 0, 0, 0, 9])),
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
        1 => (0..4u16).prop_map(|n| IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, n])),
        1 => any::<[u16; 8]>().prop_map(IpAddr::from),
    ]
}

/// Families may be mixed: the policy judges endpoints, and must do so in the same way.
fn flow() -> impl Strategy<Value = Flow> {
    (anywhere(), select(ASKED)).prop_map(|(destination, service)| {
        let family = if service.starts_with("icmpv6") { "::1" } else { "10.0.0.1" };
        let read: Flow = format!("{family} {service}").parse().unwrap();
        Flow { destination, ..read }
    })
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        anywhere().prop_map(Origin::Address),
        (0..DEVICES).prop_map(|n| Origin::Device(format!("d{n}"))),
        (0..SEGMENTS).prop_map(|n| Origin::Segment(format!("s{n}"))),
    ]
}

/// Peers numbered from the end, so that nothing depends on their order.
fn peers(config: &Config) -> PeerMap {
    let keys = config.devices.iter().rev().map(|device| device.public_key.0);
    keys.zip((7..).map(PeerIndex)).collect()
}

/// Asks the bytes as the datapath does: two addresses and a service.
fn ask_table(table: &Table, from: IpAddr, flow: &Flow) -> Verdict {
    let view = table.view();
    let Some(source) = view.endpoint(view.endpoint_at(Address::from(from))) else {
        return Verdict::Deny(Denied::UnknownSource);
    };
    let destination = view.endpoint_at(Address::from(flow.destination));
    let Some(destination) = view.endpoint(destination) else {
        return Verdict::Deny(Denied::UnknownDestination);
    };
    match view.judge(source.label, destination.label, Service::new(flow.protocol, flow.port)) {
        bulkhead_table::Verdict::Allow(rule) => Verdict::Allow(rule.0),
        bulkhead_table::Verdict::Deny(Denial::NoRuleForPair) => Verdict::Deny(Denied::NoRule),
        bulkhead_table::Verdict::Deny(Denial::PortNotAllowed) => {
            Verdict::Deny(Denied::ServiceNotAllowed)
        }
    }
}

fn table_of(config: &Config) -> Table {
    let compiled = compile(config, &peers(config), 5).unwrap();
    Table::new(Arc::new(compiled.draft.emit().unwrap())).unwrap()
}

#[test]
fn table_and_oracle_are_equal_and_every_outcome_is_met() {
    let met: RefCell<BTreeMap<&str, u32>> = RefCell::default();
    let questions = prop::collection::vec((origin(), flow()), 80);
    let mut runner = TestRunner::new(RunnerConfig::with_cases(200));
    let result = runner.run(&(policy(), questions), |(text, questions)| {
        let config = read(&text);
        let table = table_of(&config);
        let policy = Policy::new(&config).unwrap();
        for (from, flow) in &questions {
            let want = oracle::judge(&config, from, flow);
            prop_assert_eq!(policy.judge(from, flow), Ok(want), "{} {}", from, flow);
            if let Origin::Address(address) = from {
                prop_assert_eq!(ask_table(&table, *address, flow), want, "{} {}", from, flow);
            }
            let name = match want {
                Verdict::Allow(0) => "allowed by the first rule",
                Verdict::Allow(_) => "allowed by a later rule",
                Verdict::Deny(Denied::NoRule) => "no rule",
                Verdict::Deny(Denied::ServiceNotAllowed) => "service not allowed",
                Verdict::Deny(Denied::UnknownSource) => "unknown source",
                Verdict::Deny(Denied::UnknownDestination) => "unknown destination",
            };
            *met.borrow_mut().entry(name).or_default() += 1;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let met = met.into_inner();
    assert_eq!(met.len(), 6, "{met:?}");
    assert!(met.values().all(|count| *count >= 100), "{met:?}");
}

/// Where each endpoint is reached, and the label of those that no rule names.
#[test]
fn next_hops_lead_to_the_right_peer_and_segment() {
    let mut runner = TestRunner::new(RunnerConfig::with_cases(30));
    let unused = RefCell::new(0);
    let result = runner.run(&policy(), |text| {
        let config = read(&text);
        let peers = peers(&config);
        let table = table_of(&config);
        let view = table.view();
        let at = |net: &ipnet::IpNet| view.endpoint(view.endpoint_at(net.addr().into())).unwrap();
        for device in &config.devices {
            let owner = |net: &&ipnet::IpNet| {
                oracle::owner(&config, net.addr()) == Some(oracle::Owner::Device(device))
            };
            for net in device.addresses.iter().filter(owner) {
                let want = NextHop::Peer(peers[&device.public_key.0]);
                prop_assert_eq!(at(net).next_hop, want);
            }
        }
        for (index, segment) in config.segments.iter().enumerate() {
            let found = at(&segment.subnets[1]);
            prop_assert_eq!(found.next_hop, NextHop::Segment(SegmentId(index as u16)));
            let mentioned = config.rules.iter().any(|rule| {
                let all = rule.from.iter().chain(&rule.to);
                let named = bulkhead_config::Selector::Segment(segment.name.clone());
                all.into_iter().any(|selector| *selector == named)
            });
            prop_assert_eq!(found.label.0 == 0, !mentioned);
            *unused.borrow_mut() += u32::from(!mentioned);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(unused.into_inner() > 0);
}

/// The same tables in another order are the same policy, byte for byte.
#[test]
fn the_same_policy_gives_the_same_bytes() {
    let mut runner = TestRunner::new(RunnerConfig::with_cases(30));
    let result = runner.run(&policy(), |text| {
        let config = read(&text);
        let bytes = |config: &Config| {
            let compiled = compile(config, &peers(config), 5).unwrap();
            compiled.draft.emit().unwrap()
        };
        prop_assert_eq!(bytes(&config), bytes(&read(&text)));

        let (head, tables) = text.split_once("[port").unwrap();
        let tables = format!("[port{tables}");
        let mut parts: Vec<_> = tables.split_inclusive('\n').collect::<Vec<_>>();
        // Each table with its lines; the rules keep their order behind the others.
        let mut blocks: Vec<String> = Vec::new();
        for line in parts.drain(..) {
            if line.starts_with('[') {
                blocks.push(String::new());
            }
            blocks.last_mut().unwrap().push_str(line);
        }
        let (rules, mut named): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|block| block.starts_with("[["));
        named.reverse();
        let shuffled = format!("{head}{}{}", named.concat(), rules.concat());
        prop_assert_eq!(bytes(&config), bytes(&read(&shuffled)));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
