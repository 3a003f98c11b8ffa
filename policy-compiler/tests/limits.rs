//! Each limit of a policy: what just fits compiles, and one more is refused with its figure and place.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

use std::fmt::Write;
use std::net::Ipv4Addr;

use bulkhead_config::{Config, KeyFileError, KeySource, PublicKey, Secret};
use bulkhead_policy_compiler::limits::{CONDITIONS_MAX, ENDPOINTS_MAX, EXPANDED_MAX};
use bulkhead_policy_compiler::{Compiled, PeerMap, compile};
use bulkhead_table::PeerIndex;
use bulkhead_table::limits::LABELS_MAX;

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

fn key(n: u32) -> PublicKey {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&(n + 1).to_le_bytes());
    PublicKey(key)
}

/// Some devices, and whatever else.
fn config(devices: u32, rest: &str) -> Config {
    let mut text = String::from(
        "schema = 1\n[gateway]\npeers_max = 262144\nsessions_max = 1048576\n[port.p]\ndevice = \"p\"\n\
         [wireguard.w]\nport = \"p\"\nprivate_key_file = \"k\"\n[service.web]\nports = [\"tcp/443\"]\n",
    );
    text.push_str(rest);
    for n in 0..devices {
        let address = Ipv4Addr::from((10 << 24) + n);
        let key = key(n);
        writeln!(text, "[device.d{n}]\npublic_key = \"{key}\"\naddresses = [\"{address}/32\"]")
            .unwrap();
    }
    Config::parse_with("large.toml", &text, &AnyKey).unwrap_or_else(|errors| panic!("{errors}"))
}

fn compiled(config: &Config) -> Result<Compiled, String> {
    let keys = config.devices.iter().map(|device| device.public_key.0);
    let peers: PeerMap = keys.zip((0..).map(PeerIndex)).collect();
    compile(config, &peers, 1).map_err(|errors| errors.to_string())
}

fn rule(id: u32, from: &str, to: &str, more: &str) -> String {
    format!(
        "[[rule]]\nid = \"r{id}\"\nfrom = [{from}]\nto = [{to}]\nservices = [\"web\"]\n{more}\n"
    )
}

/// What the manual says is what is checked.
#[test]
fn the_manual_states_the_limits() {
    let manual = include_str!("../../config/default.toml").replace("\n# ", " ");
    for want in [
        format!("may have {ENDPOINTS_MAX} endpoints"),
        format!("{EXPANDED_MAX} rules when written out"),
        format!("{LABELS_MAX} kinds of endpoints"),
        format!("{CONDITIONS_MAX} different conditions"),
    ] {
        assert!(manual.contains(&want), "{want}");
    }
}

#[test]
fn endpoints_are_bounded() {
    const { assert!(ENDPOINTS_MAX >= 100_000) };
    let mut config = config(1, &rule(0, "\"device:d0\"", "\"any\"", ""));
    let first = config.devices.remove(0);
    let more = |count: usize| {
        (0..count as u32).map(|n| {
            let mut device = first.clone();
            device.name = format!("d{n}");
            device.place.line = 10 + n;
            device.public_key = key(n);
            device.addresses =
                vec![ipnet::IpNet::from(std::net::IpAddr::from(Ipv4Addr::from((10 << 24) + n)))];
            device
        })
    };
    config.devices = more(ENDPOINTS_MAX).collect();
    assert_eq!(compiled(&config).unwrap().draft.endpoints.len(), ENDPOINTS_MAX + 1);
    config.devices = more(ENDPOINTS_MAX + 1).collect();
    let want = "policy: 262145 endpoints; at most 262144: device d262144 (line 262154) is the first \
                too many\n";
    assert_eq!(compiled(&config).unwrap_err(), want);
}

#[test]
fn rules_written_out_are_bounded() {
    let names = |count: u32| {
        let names: Vec<_> = (0..count).map(|n| format!("\"device:d{n}\"")).collect();
        names.join(", ")
    };
    let just = rule(0, &names(1_000), &names(1_000), "");
    assert_eq!(EXPANDED_MAX, 1_000 * 1_000);
    assert!(compiled(&config(1_000, &just)).is_ok());
    let more = format!("{just}{}", rule(1, "\"device:d0\"", "\"device:d1\"", ""));
    let want = "policy: 1000001 rules when written out; at most 1000000: rule r1 (line 19) is the \
                first too many\n";
    assert_eq!(compiled(&config(1_000, &more)).unwrap_err(), want);
}

#[test]
fn labels_are_bounded() {
    let alone = |count: u32| {
        let rules: String = (0..count)
            .map(|n| rule(n, &format!("\"device:d{n}\""), "\"device:last\"", ""))
            .collect();
        let last = format!(
            "[device.last]\npublic_key = \"{}\"\naddresses = [\"10.255.0.0/32\"]\n",
            key(99_999)
        );
        compiled(&config(count, &format!("{rules}{last}")))
    };
    // One for nobody, one for the destination.
    let most = LABELS_MAX as u32 - 2;
    assert_eq!(usize::from(alone(most).unwrap().draft.labels), LABELS_MAX);
    let want = "policy: the rules tell 4097 kinds of endpoints apart; at most 4096: rule r0 (line 13) \
                is the first too many; let rules name groups and tags instead of single devices\n";
    assert_eq!(alone(most + 1).unwrap_err(), want);
}

#[test]
fn conditions_that_an_endpoint_sees_are_bounded() {
    let dated = |count: u32| {
        let rules: String = (0..count)
            .map(|n| {
                let when = format!("when = 'context.risk < {n}'");
                rule(n, "\"device:d0\"", "\"device:d1\"", &when)
            })
            .collect();
        compiled(&config(2, &rules))
    };
    let most = CONDITIONS_MAX as u32;
    assert!(dated(most).is_ok());
    let want = "policy: some endpoint asks by rules with 257 different conditions; at most 256: rule \
                r256 (line 1549) is the first too many; let rules share their posture, time and \
                when\n";
    assert_eq!(dated(most + 1).unwrap_err(), want);
    // As many as one likes, if no endpoint sees all of them.
    let apart: String = (0..most + 1)
        .map(|n| {
            let from = format!("\"device:d{}\"", n % 2);
            rule(n, &from, "\"device:d1\"", &format!("when = 'context.risk < {n}'"))
        })
        .collect();
    assert!(compiled(&config(2, &apart)).is_ok());
}
