//! who-can, reach, lint and explain, each against the oracle or a policy made for the purpose.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

use std::collections::BTreeSet;

use bulkhead_config::{Config, KeyFileError, KeySource, Origin, Secret};
use bulkhead_policy_compiler::{
    Facts, FindingKind, Outcome, Reading, Usage, Verdict, explain_given, given, lint, oracle,
    reach, who_can,
};
use bulkhead_table::Service;
use jiff::Timestamp;

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

const EXAMPLE: &str = include_str!("../../config/examples/small-company.toml");

fn read(text: &str) -> Config {
    Config::parse_with("bulkhead.toml", text, &AnyKey).unwrap_or_else(|errors| panic!("{errors}"))
}

fn now() -> Timestamp {
    "2026-11-24T12:00:00+01:00".parse().unwrap()
}

/// The first address of every device and segment, which no longer prefix takes away.
fn everybody(config: &Config) -> Vec<(String, std::net::IpAddr)> {
    let devices = config
        .devices
        .iter()
        .map(|device| (format!("device:{}", device.name), device.addresses[0].addr()));
    let segments = config.segments.iter().map(|segment| {
        let net = segment.subnets[0];
        (format!("segment:{}", segment.name), net.hosts().nth(40).unwrap())
    });
    devices.chain(segments).collect()
}

#[test]
fn who_can_and_reach_are_the_exact_sets_of_the_oracle() {
    let config = read(EXAMPLE);
    let facts = Facts::at(now());
    let everybody = everybody(&config);
    let mut met = BTreeSet::new();
    for (_, to) in &everybody {
        for service in ["tcp/443", "tcp/22", "tcp/5432", "udp/4070"] {
            let question = format!("{to} {service}");
            let found = who_can(&config, &facts, &question).unwrap();
            let flow = question.parse().unwrap();
            for (name, from) in &everybody {
                let asks = Origin::Address(*from);
                let verdict = oracle::judge(&config, Reading::Enforced, &facts, &asks, &flow);
                let allowed = matches!(verdict, Verdict::Allow(_));
                // Networks of devices inside a segment's win over it.
                let in_row = |row: &&bulkhead_policy_compiler::ReachRow| {
                    let mut nets = row.from.prefixes.iter().filter(|net| net.contains(from));
                    if name.starts_with("device") {
                        nets.any(|net| net.prefix_len() > 27)
                    } else {
                        row.from.others.contains(name)
                    }
                };
                assert_eq!(
                    found.rows.iter().filter(in_row).count() == 1,
                    allowed,
                    "{name} {question}"
                );
                met.insert(allowed);
            }
        }
    }
    assert_eq!(met.len(), 2);
    for (name, from) in &everybody {
        let found = reach(&config, &facts, name).unwrap();
        for (_, to) in everybody.iter().filter(|(_, to)| to.is_ipv4() == from.is_ipv4()) {
            let rows =
                found.rows.iter().filter(|row| row.to.prefixes.iter().any(|net| net.contains(to)));
            let services: Vec<_> = rows.flat_map(|row| row.services.clone()).collect();
            for port in [22, 443, 5432] {
                let flow = format!("{to} tcp/{port}").parse().unwrap();
                let asks = Origin::Address(*from);
                let verdict = oracle::judge(&config, Reading::Enforced, &facts, &asks, &flow);
                let service = Service::tcp(port);
                let held =
                    services.iter().any(|span| span.first <= service && service <= span.last);
                let allowed = matches!(verdict, Verdict::Allow(_));
                assert!(held || !allowed, "{name} to {flow}");
            }
        }
    }
}

#[test]
fn a_question_about_nobody_names_the_nearest() {
    let config = read(EXAMPLE);
    let ask = |who| reach(&config, &Facts::default(), who).unwrap_err().to_string();
    assert_eq!(
        ask("group:hrr"),
        "group:hrr: there is no group \"hrr\"; did you mean group:hr?; accepted are addresses, \
         kind:name, any and internet"
    );
    assert!(ask("hr").contains("neither an address nor kind:name"));
    let none = reach(&config, &Facts::default(), "192.0.2.1").unwrap();
    assert!(none.rows.is_empty() && none.to_string().contains("nothing is allowed"));
}

const MEANT: &str = r#"schema = 1
[port.p]
device = "p"
kind = "both"
[wireguard.w]
port = "p"
private_key_file = "k"
[user.anna]
[device.a]
user = "anna"
public_key = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM="
addresses = ["10.44.0.7/32"]
[device.b]
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
addresses = ["10.44.0.8/32"]
[segment.s]
port = "p"
subnets = ["10.20.1.0/24"]
[segment.t]
port = "p"
subnets = ["10.20.2.0/24"]
[group.none]
members = []
[group.nested]
members = ["group:none"]
[service.web]
ports = ["tcp/443"]
[service.all-tcp]
ports = ["tcp"]
[service.ssh]
ports = ["tcp/22"]
[posture.healthy]
require = { disk_encrypted = true }
"#;

fn rule(id: &str, from: &str, to: &str, service: &str, more: &str) -> String {
    format!(
        "[[rule]]\nid = \"{id}\"\nfrom = [\"{from}\"]\nto = [\"{to}\"]\nservices = [\"{service}\"]\n{more}\n"
    )
}

#[test]
fn lint_finds_what_is_not_meant_and_nothing_else() {
    let rules = [
        rule("wide", "device:a", "any", "any", ""),
        rule("web", "device:b", "segment:s", "web", ""),
        rule("covered", "device:a", "segment:s", "web", ""),
        rule("twin", "device:b", "segment:s", "web", ""),
        rule("nobody", "group:nested", "segment:s", "web", ""),
        rule("over", "device:b", "segment:t", "web", "expires = 2026-01-01T00:00:00Z"),
        rule("forbidden", "device:b", "segment:t", "ssh", ""),
        rule("no-tcp", "device:b", "segment:t", "all-tcp", "action = \"deny\""),
        rule("vain", "segment:t", "segment:s", "ssh", "action = \"deny\""),
        rule("again", "device:b", "segment:t", "ssh", "action = \"deny\""),
        // Others hold whenever these do only if they have the same condition or none.
        rule("sometimes", "segment:s", "device:b", "web", "posture = [\"healthy\"]"),
        rule("always", "segment:s", "device:b", "web", ""),
        rule("fine", "segment:t", "device:b", "web", "time = { hours = \"07:00-19:00\" }"),
        rule("tried", "device:b", "segment:s", "ssh", "stage = \"shadow\""),
    ];
    let found = lint(&read(&(MEANT.to_owned() + &rules.concat())), now(), None).unwrap();
    let of = |about: &str| {
        let about = found.findings.iter().filter(|finding| finding.about == about);
        about.map(|finding| finding.kind).collect::<Vec<_>>()
    };
    for (about, want) in [
        ("segment s", vec![]),
        ("segment t", vec![FindingKind::SharedWire]),
        ("group none", vec![FindingKind::EmptyGroup]),
        ("group nested", vec![FindingKind::EmptyGroup]),
        ("rule wide", vec![FindingKind::TooWide]),
        ("rule web", vec![]),
        ("rule covered", vec![FindingKind::Redundant]),
        ("rule twin", vec![FindingKind::Redundant]),
        ("rule nobody", vec![FindingKind::NeverMatching]),
        ("rule over", vec![FindingKind::Expired]),
        ("rule forbidden", vec![FindingKind::Shadowed]),
        ("rule no-tcp", vec![]),
        ("rule vain", vec![FindingKind::Shadowed]),
        ("rule again", vec![FindingKind::Redundant]),
        ("rule sometimes", vec![FindingKind::Redundant]),
        ("rule always", vec![]),
        ("rule fine", vec![]),
        ("rule tried", vec![]),
    ] {
        assert_eq!(of(about), want, "{about}: {found}");
    }
    assert!(found.findings.windows(2).all(|pair| pair[0].line <= pair[1].line));
}

/// Goal: who shares a wire is said once for each segment but the first, with the places of both.
/// Method: segments with every combination of port and tag, out of the order of their names.
#[test]
fn lint_names_segments_that_share_a_wire() {
    let head = "schema = 1\n[port.p]\ndevice = \"p\"\nkind = \"both\"\n[port.q]\ndevice = \"q\"\n\
                kind = \"segment\"\n[wireguard.w]\nport = \"p\"\nprivate_key_file = \"k\"\n";
    let segments = [
        ("z", "p", "vlan = 7"),
        ("y", "p", ""),
        ("x", "q", "vlan = 7"),
        ("b", "p", "vlan = 8"),
        ("a", "p", "vlan = 7"),
        ("c", "p", "vlan = 7"),
        ("d", "p", ""),
    ];
    let mut text = head.to_owned();
    for (number, (name, port, vlan)) in (1..).zip(segments) {
        text += &format!(
            "[segment.{name}]\nport = \"{port}\"\nsubnets = [\"10.20.{number}.0/24\"]\n{vlan}\n"
        );
    }
    let found = lint(&read(&text), now(), None).unwrap();
    let can = "hosts of one can take addresses of the other";
    let want = format!(
        "bulkhead.toml:27: segment a: it has port p and VLAN 7, as segment z at line 11 has: {can}\n\
         bulkhead.toml:31: segment c: it has port p and VLAN 7, as segment z at line 11 has: {can}\n\
         bulkhead.toml:35: segment d: it has port p and no VLAN, as segment y at line 15 has: {can}\n"
    );
    assert_eq!(found.to_string(), want);
}

#[test]
fn an_explanation_says_which_condition_failed_and_what_would_flip_the_verdict() {
    let text = MEANT.to_owned()
        + &rule(
            "web",
            "user:anna",
            "segment:s",
            "web",
            "posture = [\"healthy\"]\n\
            time = { days = \"mon-fri\", hours = \"07:00-19:00\", zone = \"Europe/Berlin\" }",
        )
        + &rule("never-risky", "any", "any", "web", "action = \"deny\"\nposture = [\"risky\"]")
        + "[posture.risky]\nat_least = { risk = 51 }\n";
    let config = read(&text);
    let ask = |at: &str, what: &[&str]| {
        let what: Vec<String> = what.iter().map(|what| (*what).to_owned()).collect();
        let facts = given(&config, "device:a", &what, at.parse().unwrap()).unwrap();
        explain_given(&config, &facts, "device:a", "10.20.1.5 tcp/443").unwrap()
    };
    let noon = "2026-11-24T12:00:00+01:00";
    let allowed = ask(noon, &["disk_encrypted=true", "risk=10"]);
    assert_eq!(allowed.verdict, Verdict::Allow(0));
    assert_eq!(allowed.took_part.len(), 2);
    assert_eq!(allowed.took_part[1].holds, Outcome::Fails);
    assert_eq!(allowed.took_part[0].rule.file, "bulkhead.toml");
    assert_eq!(allowed.flips.len(), 1, "{:?}", allowed.flips);

    // One condition fails: that is all that would have to change.
    let night = ask("2026-11-24T20:00:00+01:00", &["disk_encrypted=true", "risk=10"]);
    assert!(matches!(night.verdict, Verdict::Deny(_)));
    assert_eq!(night.flips.len(), 1);
    assert!(night.flips[0].contains("time mon-fri 07:00-19:00 Europe/Berlin"), "{:?}", night.flips);
    assert_eq!(night.nearest[0].rule.id, "web");

    // Nothing is known: the denial holds, and the rule that allows does not.
    let blind = ask(noon, &[]);
    assert_eq!(blind.verdict, Verdict::Deny(bulkhead_policy_compiler::Denied::Rule(1)));
    assert_eq!(blind.flips.len(), 2, "{:?}", blind.flips);
    assert!(blind.to_string().contains("not known to hold"), "{blind}");

    let bad = given(&config, "device:a", &["risc=5".to_owned()], now()).unwrap_err();
    assert_eq!(bad.to_string(), "risc=5: there is no attribute \"risc\"; did you mean risk?");
    for bad in ["risk", "risk=high", "disk_encrypted=1"] {
        assert!(given(&config, "device:a", &[bad.to_owned()], now()).is_err(), "{bad}");
    }
    assert!(given(&config, "10.20.1.5", &["risk=1".to_owned()], now()).is_err(), "no device");
}

/// `[[test]]` with postures and times.
#[test]
fn tests_take_postures_and_times_as_given() {
    let rules = rule(
        "web",
        "user:anna",
        "segment:s",
        "web",
        "posture = [\"healthy\"]\ntime = { hours = \"07:00-19:00\" }",
    );
    let test = |name: &str, given: &str, key: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\nfrom = \"device:a\"\n{given}\n{key} = [\"10.20.1.5 tcp/443\"]\n"
        )
    };
    let healthy = "given = { at = 2026-11-24T12:00:00Z, disk_encrypted = true }";
    let text = MEANT.to_owned()
        + &rules
        + &test("day", healthy, "allow")
        + &test("night", "given = { at = 2026-11-24T22:00:00Z, disk_encrypted = true }", "deny")
        + &test("ill", "given = { at = 2026-11-24T12:00:00Z, disk_encrypted = false }", "deny")
        + &test("unknown", "given = { at = 2026-11-24T12:00:00Z }", "deny")
        + &test("no time", "given = { disk_encrypted = true }", "deny")
        + &test("wrong", healthy, "deny");
    let outcomes = bulkhead_policy_compiler::run_tests(&read(&text)).unwrap();
    let passed: Vec<bool> = outcomes.iter().map(|outcome| outcome.passed()).collect();
    assert_eq!(passed, [true, true, true, true, true, false]);
}

/// Unused since, with recorded traffic.
#[test]
fn lint_names_the_rules_that_recorded_traffic_did_not_use() {
    let rules = [
        rule("web", "device:b", "segment:s", "web", ""),
        rule("old", "device:a", "segment:s", "web", ""),
        rule("never", "device:a", "segment:t", "web", ""),
        rule("new", "device:b", "segment:t", "web", ""),
        rule("over", "device:b", "segment:t", "ssh", "expires = 2026-01-01T00:00:00Z"),
    ];
    let config = read(&(MEANT.to_owned() + &rules.concat()));
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut usage = Usage {
        counted_since: at("2026-06-01T00:00:00Z"),
        unused_since: at("2026-09-01T00:00:00Z"),
        known: ["web", "old", "never", "over"].map(str::to_owned).into(),
        last: [
            ("web".to_owned(), at("2026-09-01T00:00:00Z")),
            ("old".to_owned(), at("2026-08-31T23:59:59Z")),
        ]
        .into(),
    };
    let unused = |usage: &Usage| -> Vec<String> {
        let found = lint(&config, now(), Some(usage)).unwrap();
        let unused = found.findings.iter().filter(|found| found.kind == FindingKind::Unused);
        unused.map(|found| format!("{}: {}", found.about, found.problem)).collect()
    };
    let old = "rule old: it was used last at 2026-08-31T23:59:59Z".to_owned();
    let never = "rule never: it was not used since ".to_owned();
    assert_eq!(unused(&usage), [old.clone(), never.clone() + "2026-09-01T00:00:00Z"]);
    // Of the time before it was counted nothing is claimed.
    usage.counted_since = at("2026-10-01T00:00:00Z");
    assert_eq!(unused(&usage), [old, never + "2026-10-01T00:00:00Z"]);
}

/// What the manual calls an example passes its own tests, and lint has nothing to say about it.
#[test]
fn the_clinic_passes_its_tests_and_lint_finds_nothing() {
    let config = read(include_str!("../../config/examples/clinic.toml"));
    let outcomes = bulkhead_policy_compiler::run_tests(&config).unwrap();
    assert_eq!(outcomes.len(), 6);
    for outcome in &outcomes {
        assert!(outcome.passed(), "{outcome}");
    }
    let found = lint(&config, now(), None).unwrap();
    assert_eq!(found.findings, [], "{found}");
    // The shadow rule changes nothing, and its effect can be asked for.
    let ask =
        explain_given(&config, &Facts::at(now()), "device:contractor", "10.30.0.33 icmp/echo");
    let found = ask.unwrap();
    assert_eq!(found.verdict, Verdict::Allow(2));
    assert_eq!(found.shadow, Some(Verdict::Deny(bulkhead_policy_compiler::Denied::Rule(6))));
    assert!(found.to_string().contains("denied if the shadow rules were in force"), "{found}");
}
