//! What a diff says is exactly what changes, by brute force.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

use core::net::IpAddr;
use std::fmt::Write;

use bulkhead_config::{Config, Flow, KeyFileError, KeySource, Origin, Secret};
use bulkhead_policy_compiler::{Comparison, Facts, Now, Reading, Verdict, diff, oracle};
use bulkhead_table::Service;

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

/// Numbers that look random and are the same in every run: splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

const SERVICES: &[&str] = &["tcp/1-3", "tcp/2", "udp", "icmp/echo", "icmpv6/echo", "protocol/50"];

/// Some devices, whose addresses nest, overlap hosts and come and go, and some rules.
fn policy(random: &mut Random) -> Config {
    let mut text = String::from(
        "schema = 1\n[port.p]\ndevice = \"p\"\nkind = \"both\"\n\
         [wireguard.w]\nport = \"p\"\nprivate_key_file = \"k\"\n\
         [segment.s0]\nport = \"p\"\nsubnets = [\"10.1.0.0/24\", \"fd01::/64\"]\n\
         [segment.s1]\nport = \"p\"\nsubnets = [\"10.1.1.0/24\"]\n\
         [host.h0]\naddresses = [\"10.1.0.0/25\", \"10.0.0.0/14\"]\n\
         [host.h1]\naddresses = [\"fd01::/66\", \"10.1.1.7/32\"]\n",
    );
    let mut devices = Vec::new();
    for n in 0..6u8 {
        let mut addresses = Vec::new();
        for address in [
            format!("10.0.0.{n}/32"),
            format!("10.1.0.{n}/32"),
            format!("10.2.{n}.0/24"),
            format!("10.2.{}.128/25", (n + 1) % 6),
            format!("fd00::{n}/128"),
        ] {
            if random.below(2) == 0 {
                addresses.push(format!("{address:?}"));
            }
        }
        if addresses.is_empty() {
            continue;
        }
        let key = bulkhead_config::PublicKey([n + 1; 32]);
        writeln!(
            text,
            "[device.d{n}]\npublic_key = \"{key}\"\naddresses = [{}]",
            addresses.join(", ")
        )
        .unwrap();
        devices.push(format!("device:d{n}"));
    }
    for (n, ports) in SERVICES.iter().enumerate() {
        writeln!(text, "[service.v{n}]\nports = [\"{ports}\"]").unwrap();
    }
    let mut ends = vec!["segment:s0", "segment:s1", "host:h0", "host:h1", "any"];
    ends.extend(devices.iter().map(String::as_str));
    for n in 0..2 + random.below(6) {
        let mut end = || ends[random.below(ends.len() as u64) as usize];
        let (from, to) = (end(), end());
        let action = if random.below(4) == 0 { "deny" } else { "allow" };
        let service = match random.below(12) {
            n @ 0..6 => format!("v{n}"),
            _ => "any".to_owned(),
        };
        writeln!(
            text,
            "[[rule]]\nid = \"r{n}\"\nfrom = [\"{from}\"]\nto = [\"{to}\"]\n\
             services = [\"{service}\"]\naction = \"{action}\""
        )
        .unwrap();
    }
    Config::parse_with("random.toml", &text, &AnyKey)
        .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn address(random: &mut Random, v4: bool) -> IpAddr {
    let n = random.below(8) as u8;
    let host = [0, 1, 7, 127, 128, 255][random.below(6) as usize];
    match (v4, random.below(4)) {
        (true, 0) => IpAddr::from([10, 0, 0, n]),
        (true, 1) => IpAddr::from([10, 1, n % 3, if host < 128 { n } else { host }]),
        (true, 2) => IpAddr::from([10, 2, n, host]),
        (true, _) => IpAddr::from([10, n, host, 9]),
        (false, 0..=1) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)]),
        (false, _) => IpAddr::from([0xfd01, 0, 0, 0, u16::from(n) << 13, 0, 0, 1]),
    }
}

fn flow(random: &mut Random) -> (IpAddr, Flow) {
    let v4 = random.below(3) != 0;
    let (source, destination) = (address(random, v4), address(random, v4));
    let port = random.below(5) as u16;
    let (protocol, port) = [(6, port), (17, port), (1, 0x0800), (58, 0x8000), (50, 0), (7, 0)]
        [random.below(6) as usize];
    (source, Flow { destination, protocol, port })
}

fn allowed(config: &Config, source: IpAddr, flow: &Flow) -> bool {
    let from = Origin::Address(source);
    let verdict = oracle::judge(config, Reading::Enforced, &Facts::default(), &from, flow);
    matches!(verdict, Verdict::Allow(_))
}

/// 250 pairs of policies, 400 flows each: 100,000 questions.
#[test]
fn a_diff_equals_brute_force_on_a_hundred_thousand_random_pairs() {
    let mut random = Random(20_261_124);
    let mut met = [0u32; 4];
    for _ in 0..250 {
        let (old, new) = (policy(&mut random), policy(&mut random));
        let comparison = Comparison::of(&old, &new, &Facts::default()).unwrap();
        for _ in 0..400 {
            let (source, flow) = flow(&mut random);
            let (was, is) = (allowed(&old, source, &flow), allowed(&new, source, &flow));
            let want = match (was, is) {
                (false, true) => Some(Now::Allowed),
                (true, false) => Some(Now::Denied),
                (true, true) | (false, false) => None,
            };
            let service = Service::new(flow.protocol, flow.port);
            let found = comparison.change(source, flow.destination, service);
            assert_eq!(found, want, "{source} to {flow}");
            met[usize::from(was) * 2 + usize::from(is)] += 1;
        }
        for region in comparison.diff().regions {
            let witness = region.witness;
            let (protocol, port) = (witness.service.protocol(), witness.service.port());
            let flow = Flow { destination: witness.to, protocol, port };
            let (was, is) =
                (allowed(&old, witness.from, &flow), allowed(&new, witness.from, &flow));
            assert_eq!(
                (was, is),
                (region.now == Now::Denied, region.now == Now::Allowed),
                "{region:?}"
            );
            // The regions hold whoever the question about one flow found, and name somebody.
            assert_eq!(
                comparison.change(witness.from, witness.to, witness.service),
                Some(region.now)
            );
            assert!(
                region.from.prefixes.iter().any(|net| net.contains(&witness.from)),
                "{region:?}"
            );
            assert!(region.to.prefixes.iter().any(|net| net.contains(&witness.to)), "{region:?}");
        }
    }
    assert!(met.iter().all(|count| *count > 200), "{met:?}");
}

/// Every flow that changes is in a region, and in one only.
#[test]
fn the_regions_of_a_diff_hold_every_change_once() {
    let mut random = Random(7);
    let mut changes = 0;
    for _ in 0..60 {
        let (old, new) = (policy(&mut random), policy(&mut random));
        let comparison = Comparison::of(&old, &new, &Facts::default()).unwrap();
        let regions = comparison.diff().regions;
        for _ in 0..100 {
            let (source, flow) = flow(&mut random);
            let service = Service::new(flow.protocol, flow.port);
            let Some(now) = comparison.change(source, flow.destination, service) else { continue };
            changes += 1;
            let around =
                |nets: &[ipnet::IpNet], address| nets.iter().any(|net| net.contains(&address));
            let holding = regions.iter().filter(|region| {
                region.now == now
                    && region
                        .services
                        .iter()
                        .any(|span| span.first <= service && service <= span.last)
                    && around(&region.from.prefixes, source)
                    && around(&region.to.prefixes, flow.destination)
            });
            assert!(holding.count() >= 1, "{source} to {flow}");
        }
    }
    assert!(changes > 100, "{changes}");
}

#[test]
fn a_diff_reads_like_this() {
    let text = include_str!("../../config/examples/small-company.toml");
    let read = |text: &str| {
        Config::parse_with("bulkhead.toml", text, &AnyKey)
            .unwrap_or_else(|errors| panic!("{errors}"))
    };
    let old = read(text);
    let same = diff(&old, &old, &Facts::default()).unwrap();
    assert_eq!(same.to_string(), "no verdict changes\n");
    let new = read(&text.replace("services = [\"postgres\"]", "services = [\"ssh\"]"));
    let found = diff(&old, &new, &Facts::default()).unwrap();
    let want = "\
+ allowed: tcp/22
  from     group:hr
  to       device:payroll-db
  as       10.44.0.7 to 10.20.2.10 tcp/22
- denied: tcp/5432
  from     group:hr
  to       device:payroll-db
  as       10.44.0.7 to 10.20.2.10 tcp/5432
";
    assert_eq!(found.to_string(), want);
}
