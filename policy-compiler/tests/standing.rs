//! Conditions that come and go: labels without a new table, held against a policy asked afresh.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

use std::sync::Arc;

use bulkhead_config::{Config, KeyFileError, KeySource, Secret, Value};
use bulkhead_policy_compiler::{
    Compiled, Context, Fact, Facts, PeerMap, Reading, Standing, Verdict, compile_with, oracle,
};
use bulkhead_table::{EndpointId, PeerIndex, Service, Table};
use bulkhead_wire::Address;
use jiff::{SignedDuration, Timestamp};

struct AnyKey;

impl KeySource for AnyKey {
    fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
        Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
    }
}

const POLICY: &str = r#"schema = 1
[port.p]
device = "p"
kind = "both"
[wireguard.w]
port = "p"
private_key_file = "k"
[device.laptop]
public_key = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM="
addresses = ["10.44.0.7/32"]
[device.phone]
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
addresses = ["10.44.0.8/32"]
[segment.hr]
port = "p"
subnets = ["10.20.1.0/24"]
[service.web]
ports = ["tcp/443"]
[service.db]
ports = ["tcp/5432"]
[service.ssh]
ports = ["tcp/22"]
[posture.healthy]
require = { disk_encrypted = true, managed = true }
[posture.calm]
at_most = { risk = 50 }
[[rule]]
id = "web"
from = ["device:laptop", "device:phone"]
to = ["segment:hr"]
services = ["web"]
posture = ["healthy"]
[[rule]]
id = "db"
from = ["device:laptop"]
to = ["segment:hr"]
services = ["db"]
posture = ["calm", "healthy"]
time = { days = "mon-fri", hours = "07:00-19:00", zone = "Europe/Berlin" }
[[rule]]
id = "ssh"
from = ["device:laptop", "device:phone"]
to = ["segment:hr"]
services = ["ssh"]
[[rule]]
id = "no-ssh-when-risky"
action = "deny"
from = ["any"]
to = ["any"]
services = ["ssh"]
posture = ["risky"]
[posture.risky]
at_least = { risk = 51 }
"#;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn fact(value: Value, set_at: Timestamp, ttl: Option<i64>) -> Fact {
    Fact { value, source: "mdm".to_owned(), set_at, ttl: ttl.map(SignedDuration::from_secs) }
}

struct Box {
    config: Config,
    table: Table,
    standing: Standing,
}

impl Box {
    fn new(facts: Facts) -> Self {
        let config = Config::parse_with("bulkhead.toml", POLICY, &AnyKey)
            .unwrap_or_else(|errors| panic!("{errors}"));
        let keys = config.devices.iter().map(|device| device.public_key.0);
        let peers: PeerMap = keys.zip((0..).map(PeerIndex)).collect();
        let compiled = compile_with(&config, &peers, 3, Reading::Enforced, &facts).unwrap();
        let Compiled { draft, labels, .. } = compiled;
        let table = Table::new(Arc::new(draft.emit().unwrap())).unwrap();
        // The labels of the table are those of the standing.
        let standing = Standing::new(&config, labels, facts, 3);
        for id in 1..draft.endpoints.len() as u32 {
            let want = draft.endpoints[id as usize].label;
            assert_eq!(standing.label(EndpointId(id)), want, "endpoint {id}");
        }
        Self { config, table, standing }
    }

    /// What the datapath would let pass with the labels as they stand: the ports of 22, 443, 5432.
    fn allowed(&self, from: &str) -> Vec<u16> {
        let view = self.table.view();
        let endpoint = |address: &str| {
            view.endpoint_at(Address::from(address.parse::<std::net::IpAddr>().unwrap()))
        };
        let label = |address| self.standing.label(endpoint(address));
        let judge = |port: &u16| {
            let service = Service::tcp(*port);
            let verdict = view.judge(label(from), label("10.20.1.5"), service);
            matches!(verdict, bulkhead_table::Verdict::Allow(_))
        };
        [22, 443, 5432].into_iter().filter(judge).collect()
    }

    /// The same by the oracle, with all that is known.
    fn wanted(&self, from: &str) -> Vec<u16> {
        let origin = bulkhead_config::Origin::Address(from.parse().unwrap());
        let judge = |port: &u16| {
            let flow = format!("10.20.1.5 tcp/{port}").parse().unwrap();
            let facts = self.standing.facts();
            let verdict = oracle::judge(&self.config, Reading::Enforced, facts, &origin, &flow);
            matches!(verdict, Verdict::Allow(_))
        };
        [22, 443, 5432].into_iter().filter(judge).collect()
    }
}

const LAPTOP: &str = "10.44.0.7";
const PHONE: &str = "10.44.0.8";

/// A Tuesday at noon; the laptop is known to be well.
fn office() -> Box {
    let now = at("2026-11-24T12:00:00+01:00");
    let mut facts = Facts::at(now);
    let mut context = Context::default();
    context.set("disk_encrypted", fact(Value::Bool(true), now, None));
    context.set("managed", fact(Value::Bool(true), now, None));
    context.set("risk", fact(Value::Int(10), now, Some(3_600)));
    facts.devices.insert("laptop".to_owned(), context);
    Box::new(facts)
}

#[test]
fn a_posture_change_is_one_label_message_and_no_new_table() {
    let mut gateway = office();
    assert_eq!(gateway.allowed(LAPTOP), [22, 443, 5432]);
    let now = at("2026-11-24T12:01:00+01:00");
    let lost = fact(Value::Bool(false), now, None);
    // Two conditions hang on it, so two are lost at once: the table knows no label for exactly
    // that, and the strictest of those it implies is taken at once.
    let changes = gateway.standing.learn("laptop", "disk_encrypted", lost, now);
    assert_eq!(changes.relabels.len(), 1);
    assert!(changes.recompile);
    assert!(!gateway.allowed(LAPTOP).contains(&443) && !gateway.allowed(LAPTOP).contains(&5432));

    let mut gateway = office();
    let risky = fact(Value::Int(40), now, None);
    assert_eq!(gateway.standing.learn("laptop", "risk", risky, now), Default::default());
    let night = gateway.standing.tick(at("2026-11-24T19:00:00+01:00"));
    assert_eq!((night.relabels.len(), night.recompile), (1, false), "one condition lost");
    assert_eq!(gateway.allowed(LAPTOP), [22, 443]);
    assert_eq!(gateway.standing.generation(), 3);
    // In the morning all of it is back, and the table knew that label.
    let morning = gateway.standing.tick(at("2026-11-25T07:00:00+01:00"));
    assert_eq!((morning.relabels.len(), morning.recompile), (1, false));
    assert_eq!(gateway.allowed(LAPTOP), [22, 443, 5432]);
}

#[test]
fn what_is_missing_or_stale_is_false_and_denials_hold_then() {
    let mut gateway = office();
    // Of the phone nothing is known: neither that it is healthy nor that it is not risky.
    assert_eq!((gateway.allowed(PHONE), gateway.wanted(PHONE)), (vec![], vec![]));
    // The risk of the laptop goes stale after an hour.
    assert_eq!(
        gateway.standing.next_change(at("2026-11-24T12:00:00+01:00")),
        Some(at("2026-11-24T13:00:00+01:00"))
    );
    let changes = gateway.standing.tick(at("2026-11-24T13:00:00+01:00"));
    assert_eq!(changes.relabels.len(), 1);
    assert_eq!(gateway.wanted(LAPTOP), [443]);
    assert!(gateway.allowed(LAPTOP).iter().all(|port| gateway.wanted(LAPTOP).contains(port)));
}

#[test]
fn the_next_change_by_itself_is_the_window_the_expiry_or_the_time_to_live() {
    let mut gateway = office();
    let mut now = at("2026-11-24T12:00:00+01:00");
    let mut moments = Vec::new();
    for _ in 0..4 {
        now = gateway.standing.next_change(now).unwrap();
        gateway.standing.tick(now);
        moments.push(now);
    }
    let want = ["24T13:00", "24T19:00", "25T07:00", "25T19:00"];
    assert_eq!(moments, want.map(|time| at(&format!("2026-11-{time}:00+01:00"))));
}

/// Random facts at random moments: never more than the oracle allows, and exactly that whenever no
/// new table is asked for.
#[test]
fn labels_never_allow_more_than_holds_and_say_when_they_allow_less() {
    let mut seed = 1u64;
    let mut below = |end: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % end
    };
    let (mut exact, mut less, mut relabelled) = (0, 0, 0);
    for _ in 0..40 {
        let mut gateway = office();
        let mut now = at("2026-11-24T12:00:00+01:00");
        let mut behind = false;
        for _ in 0..30 {
            now += SignedDuration::from_mins(1 + below(300) as i64);
            let device = ["laptop", "phone"][below(2) as usize];
            let ttl = [None, Some(600), Some(7_200)][below(3) as usize];
            let changes = match below(5) {
                0 => gateway.standing.tick(now),
                1 => gateway.standing.forget(device, "managed", now),
                2 => {
                    let value = Value::Int([10, 50, 51][below(3) as usize]);
                    gateway.standing.learn(device, "risk", fact(value, now, ttl), now)
                }
                n => {
                    let name = ["disk_encrypted", "managed"][usize::from(n == 3)];
                    let value = Value::Bool(below(4) != 0);
                    gateway.standing.learn(device, name, fact(value, now, ttl), now)
                }
            };
            relabelled += changes.relabels.len();
            behind |= changes.recompile;
            for from in [LAPTOP, PHONE] {
                let (allowed, wanted) = (gateway.allowed(from), gateway.wanted(from));
                assert!(allowed.iter().all(|port| wanted.contains(port)), "{allowed:?} {wanted:?}");
                if allowed == wanted {
                    exact += 1;
                } else {
                    assert!(behind, "{from}: {allowed:?} {wanted:?} and no new table asked for");
                    less += 1;
                }
            }
        }
        // A new table with what is known now allows exactly what holds.
        let fresh = Box::new(gateway.standing.facts().clone());
        for from in [LAPTOP, PHONE] {
            assert_eq!(fresh.allowed(from), fresh.wanted(from));
        }
    }
    assert!(exact > 100 && less > 10 && relabelled > 50, "{exact} {less} {relabelled}");
}
