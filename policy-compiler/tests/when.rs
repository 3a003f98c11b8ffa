//! Rules with `when`: explained, relabelled when what they name changes, and woken for on time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic, and its numbers are small"
)]

use std::sync::Arc;

use bulkhead_config::{Config, KeyFileError, KeySource, Origin, Secret, Value};
use bulkhead_policy_compiler::{
    Compiled, Fact, Facts, PeerMap, Reading, Standing, Verdict, compile_with, explain_given, lint,
    oracle, run_tests,
};
use bulkhead_table::{PeerIndex, Service, Table};
use bulkhead_wire::Address;
use jiff::Timestamp;

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

/// Port 1 is for who is calm or tiered, 2 for the office hours of HR, 3 for all but the phone, and 4
/// for everybody, unless the laptop is risky.
const POLICY: &str = r#"schema = 1
[port.p]
device = "p"
kind = "both"
[wireguard.w]
port = "p"
private_key_file = "k"
[user.anna]
[group.hr]
members = ["user:anna"]
[group.staff]
members = ["group:hr"]
[device.laptop]
user = "anna"
public_key = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM="
addresses = ["10.44.0.7/32"]
[device.phone]
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
addresses = ["10.44.0.8/32"]
[segment.apps]
port = "p"
subnets = ["10.20.1.0/24"]
[service.one]
ports = ["tcp/1"]
[service.two]
ports = ["tcp/2"]
[service.three]
ports = ["tcp/3"]
[service.four]
ports = ["tcp/4"]
[[rule]]
id = "calm"
from = ["any"]
to = ["segment:apps"]
services = ["one"]
when = 'context.managed && (context.risk < 50 || context.tier > 2)'
[[rule]]
id = "office"
from = ["any"]
to = ["segment:apps"]
services = ["two"]
time = { zone = "Europe/Berlin" }
when = 'principal.groups.contains("staff") && context.minute >= 420 && context.minute < 1140'
[[rule]]
id = "no-phone"
from = ["any"]
to = ["segment:apps"]
services = ["three"]
when = 'principal.name != "phone"'
[[rule]]
id = "all"
from = ["any"]
to = ["segment:apps"]
services = ["four"]
[[rule]]
id = "risky"
from = ["any"]
to = ["segment:apps"]
services = ["four"]
action = "deny"
when = 'principal.name == "laptop" && context.risk > 90'
[[test]]
name = "expressions"
from = "device:laptop"
given = { at = 2026-11-24T12:00:00+01:00, managed = true, risk = 10, tier = 1 }
allow = ["10.20.1.5 tcp/1", "10.20.1.5 tcp/2", "10.20.1.5 tcp/3", "10.20.1.5 tcp/4"]
deny = ["10.20.1.5 tcp/5"]
"#;

fn config(text: &str) -> Config {
    Config::parse_with("bulkhead.toml", text, &AnyKey).unwrap_or_else(|errors| panic!("{errors}"))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn fact(value: Value, set_at: Timestamp) -> Fact {
    Fact { value, source: "test".to_owned(), set_at, ttl: None }
}

const LAPTOP: &str = "10.44.0.7";
const PHONE: &str = "10.44.0.8";
const SERVER: &str = "10.20.1.5";

struct Gateway {
    config: Config,
    table: Table,
    standing: Standing,
}

impl Gateway {
    fn new(facts: Facts) -> Self {
        let config = config(POLICY);
        let keys = config.devices.iter().map(|device| device.public_key.0);
        let peers: PeerMap = keys.zip((0..).map(PeerIndex)).collect();
        let compiled = compile_with(&config, &peers, 3, Reading::Enforced, &facts).unwrap();
        let Compiled { draft, labels, .. } = compiled;
        let table = Table::new(Arc::new(draft.emit().unwrap())).unwrap();
        let standing = Standing::new(&config, labels, facts, 3);
        Self { config, table, standing }
    }

    /// The ports of 1 to 4 that the labels as they stand let pass; never more than the oracle, which
    /// asks Cedar.
    fn allowed(&self, from: &str) -> Vec<u16> {
        let view = self.table.view();
        let label = |address: &str| {
            let address = Address::from(address.parse::<std::net::IpAddr>().unwrap());
            self.standing.label(view.endpoint_at(address))
        };
        let allows = |port: &u16| {
            let verdict = view.judge(label(from), label("10.20.1.9"), Service::tcp(*port));
            matches!(verdict, bulkhead_table::Verdict::Allow(_))
        };
        let found: Vec<u16> = (1..5).filter(allows).collect();
        let wanted = self.wanted(from);
        assert!(found.iter().all(|port| wanted.contains(port)), "{found:?} {wanted:?}");
        found
    }

    fn wanted(&self, from: &str) -> Vec<u16> {
        let origin = Origin::Address(from.parse().unwrap());
        let facts = self.standing.facts();
        let allows = |port: &u16| {
            let flow = format!("10.20.1.9 tcp/{port}").parse().unwrap();
            let verdict = oracle::judge(&self.config, Reading::Enforced, facts, &origin, &flow);
            matches!(verdict, Verdict::Allow(_))
        };
        (1..5).filter(allows).collect()
    }
}

fn noon() -> Gateway {
    let now = at("2026-11-24T12:00:00+01:00");
    let mut facts = Facts::at(now);
    for device in ["laptop", "phone"] {
        let context = facts.devices.entry(device.to_owned()).or_default();
        context.set("managed", fact(Value::Bool(true), now));
        context.set("risk", fact(Value::Int(10), now));
        context.set("tier", fact(Value::Int(1), now));
    }
    Gateway::new(facts)
}

#[test]
fn expressions_see_who_asks_and_segments_are_nobody() {
    let gateway = noon();
    assert_eq!(gateway.allowed(LAPTOP), [1, 2, 3, 4]);
    assert_eq!(gateway.allowed(PHONE), [1, 4]);
    // Of a server nothing is known, not even that it is not the laptop.
    assert_eq!(gateway.allowed(SERVER), Vec::<u16>::new());
    for from in [LAPTOP, PHONE, SERVER] {
        assert_eq!(gateway.allowed(from), gateway.wanted(from));
    }
    assert!(run_tests(&gateway.config).unwrap().iter().all(|test| test.passed()));
    // Nothing known, not even the time.
    let gateway = Gateway::new(Facts::default());
    assert_eq!((gateway.allowed(LAPTOP), gateway.allowed(PHONE)), (vec![3], vec![4]));
    assert_eq!(gateway.wanted(PHONE), [4]);
}

#[test]
fn an_attribute_that_an_expression_names_changes_the_label() {
    let mut gateway = noon();
    let now = at("2026-11-24T12:01:00+01:00");
    let risky = gateway.standing.learn("laptop", "risk", fact(Value::Int(95), now), now);
    assert_eq!(risky.relabels.len(), 1);
    // Two are lost at once: no more than what is left of each.
    assert!(gateway.allowed(LAPTOP).iter().all(|port| [2, 3].contains(port)));
    assert_eq!(gateway.wanted(LAPTOP), [2, 3]);
    let other = gateway.standing.learn("laptop", "patch_age_days", fact(Value::Int(1), now), now);
    assert_eq!(other, Default::default(), "no expression names it");

    let mut gateway = noon();
    let lost = gateway.standing.forget("phone", "tier", now);
    assert_eq!((lost.relabels.len(), lost.recompile), (1, false));
    assert_eq!((gateway.allowed(PHONE), gateway.wanted(PHONE)), (vec![4], vec![4]));
}

#[test]
fn minutes_are_waited_for_on_the_clock_of_the_rule() {
    let mut gateway = noon();
    let mut now = at("2026-11-24T12:00:00+01:00");
    let mut heard = Vec::new();
    for _ in 0..6 {
        now = gateway.standing.next_change(now).unwrap();
        gateway.standing.tick(now);
        heard.push((now, gateway.allowed(LAPTOP).contains(&2)));
        assert_eq!(gateway.allowed(LAPTOP), gateway.wanted(LAPTOP));
        assert_eq!(gateway.allowed(PHONE), [1, 4]);
    }
    // The minute after each limit is looked at too, for comparisons that turn there.
    let want = [
        ("24T19:00", false),
        ("24T19:01", false),
        ("25T00:00", false),
        ("25T07:00", true),
        ("25T07:01", true),
        ("25T19:00", false),
    ];
    assert_eq!(heard, want.map(|(time, open)| (at(&format!("2026-11-{time}:00+01:00")), open)));
}

#[test]
fn an_explanation_shows_the_part_that_fails_with_what_is_known() {
    let gateway = noon();
    let mut facts = gateway.standing.facts().clone();
    let now = facts.now.unwrap();
    let phone = facts.devices.get_mut("phone").unwrap();
    phone.set("risk", fact(Value::Int(60), now));
    let found = explain_given(&gateway.config, &facts, "device:phone", "10.20.1.5 tcp/1").unwrap();
    let text = found.to_string();
    for want in [
        "because  a rule would allow it, but its conditions are not known to hold",
        "it holds: when context.managed; context.managed is true",
        "it does not hold: when (context.risk < 50 || context.tier > 2); context.risk is 60, \
         context.tier is 1",
    ] {
        assert!(text.contains(want), "{text}");
    }
    assert_eq!(
        found.flips,
        ["not any more: rule calm: it does not hold: when (context.risk < 50 || context.tier > \
          2); context.risk is 60, context.tier is 1"]
    );
    let ask = |facts: &Facts, from: &str, port: u16| {
        let to = format!("10.20.1.5 tcp/{port}");
        explain_given(&gateway.config, facts, from, &to).unwrap()
    };
    let found = ask(&facts, "device:phone", 2);
    let want = "when principal.groups.contains(\"staff\"); principal.groups is []";
    assert!(found.to_string().contains(want), "{found}");
    let found = ask(&facts, "device:laptop", 2);
    assert_eq!(
        found.flips,
        ["rule office: not when principal.groups.contains(\"staff\"); principal.groups is \
          [\"hr\", \"staff\"]"]
    );
    let found = ask(&Facts::default(), "device:laptop", 4);
    let want = "it is not known to hold: when context.risk > 90; context.risk is unknown";
    assert!(found.to_string().contains(want), "{found}");
    assert_eq!(found.verdict, Verdict::Deny(bulkhead_policy_compiler::Denied::Rule(4)));
}

/// By what it says, not by how it is written.
#[test]
fn rules_with_the_same_expression_are_redundant() {
    let twin = "[[rule]]\nid = \"twin\"\nfrom = [\"device:phone\"]\nto = [\"segment:apps\"]\n\
                services = [\"three\"]\nwhen = '(principal.name)!=\"phone\"'\n";
    let now = at("2026-11-24T12:00:00Z");
    let findings = lint(&config(&format!("{POLICY}{twin}")), now, None).unwrap().findings;
    let about: Vec<_> = findings.iter().map(|finding| finding.about.as_str()).collect();
    assert_eq!(about, ["rule twin"]);
    let other = twin.replace("!=", "==");
    assert!(lint(&config(&format!("{POLICY}{other}")), now, None).unwrap().findings.is_empty());
}
