//! `bulkhead policy hits`: what the datapath counted of each rule, by name, whatever happens to the
//! table and to the control process meanwhile.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use bulkhead_tests::office::SERVER;
use bulkhead_tests::{Deadline, Engine, Office, Outer};
use serde_json::Value;

const SERVICES: &str = r#"
[service.echo]
ports = ["udp/7"]
[service.other]
ports = ["udp/9"]
[service.third]
ports = ["udp/11"]
"#;

const ECHO: &str = r#"
[[rule]]
id = "echo"
from = ["user:anna"]
to = ["device:server"]
services = ["echo"]
"#;

/// Allows what the first does as well: never hit as long as that is before it.
const WIDE: &str = r#"
[[rule]]
id = "wide"
from = ["user:anna"]
to = ["device:server"]
services = ["echo", "other"]
"#;

const REST: &str = r#"
[[rule]]
id = "not-other"
from = ["user:anna"]
to = ["device:server"]
services = ["other"]
action = "deny"
[[rule]]
id = "try-third"
from = ["user:anna"]
to = ["device:server"]
services = ["third"]
stage = "shadow"
[[rule]]
id = "try-no-echo"
from = ["user:anna"]
to = ["device:server"]
services = ["echo"]
action = "deny"
stage = "shadow"
"#;

/// Effect, flows and packets of a rule.
fn hit(answer: &Value, rule: &str) -> (String, u64, u64) {
    let rules = answer["rules"].as_array().unwrap();
    let found = rules.iter().find(|found| found["rule"] == rule).unwrap();
    let effect = found["effect"].as_str().unwrap().to_owned();
    (effect, found["flows"].as_u64().unwrap(), found["packets"].as_u64().unwrap())
}

fn ping(office: &Office, port: u16, patience_ms: u32) -> bool {
    let ping = format!(
        "udp-ping {SERVER}:{port} --count 20 --interval-us 2000 --patience-ms {patience_ms}"
    );
    office.laptop.probe_once(&ping).unwrap().code == Some(0)
}

#[test]
fn hit_counters_of_a_gateway_are_exact_across_applies_and_restarts_of_control() {
    let mut office = Office::build().unwrap();
    let policy = |rules: [&str; 3]| office.config(&(SERVICES.to_owned() + &rules.concat()));
    let (first, second) = (policy([ECHO, WIDE, REST]), policy([REST, WIDE, ECHO]));
    office.gateway.write_config(&first).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let _laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();
    let _echo = office.server.probe_server("echo", &format!("udp-echo {SERVER}:7")).unwrap();

    // Allowed, there and back; denied by a rule; by none, but a shadow rule would allow it.
    assert!(ping(&office, 7, 5_000));
    assert!(!ping(&office, 9, 200) && !ping(&office, 11, 200));
    let hits = |office: &Office| office.gateway.cli_json(&["policy", "hits"]).unwrap();
    let want = |answer: &Value, echo: u64, wide: u64| {
        assert_eq!(hit(answer, "echo"), ("allow".to_owned(), echo.min(1), echo), "{answer}");
        assert_eq!(hit(answer, "wide"), ("allow".to_owned(), wide.min(1), wide), "{answer}");
        assert_eq!(hit(answer, "not-other"), ("deny".to_owned(), 0, 20), "{answer}");
        assert_eq!(hit(answer, "try-third"), ("would-allow".to_owned(), 0, 20), "{answer}");
        let flows = echo.min(1) + wide.min(1);
        assert_eq!(hit(answer, "try-no-echo"), ("would-deny".to_owned(), flows, 0), "{answer}");
    };
    let answer = hits(&office);
    want(&answer, 40, 0);
    let forwarded = office.gateway.counters().unwrap().end("forwarded").unwrap();
    assert_eq!(forwarded, 40);

    // Other numbers, the same names; now the other rule is first. And a control process that is new.
    office.gateway.apply(&second).unwrap();
    assert!(ping(&office, 7, 5_000));
    want(&hits(&office), 40, 40);
    office.gateway.kill_control().unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    let answer = hits(&office);
    want(&answer, 40, 40);

    // What was not used: by the running gateway, and by the file of its figures.
    let lint = |office: &Office, words: &[&str]| {
        let words = [&["policy", "lint", "--unused-since", "2026-01-01T00:00:00Z"], words].concat();
        office.gateway.cli(&words).unwrap()
    };
    let found = lint(&office, &[]);
    assert!(!found.stdout.contains("it was not used"), "{found:?}");
    let file = office.gateway.run_dir().join("hits.json");
    let unused = answer.to_string().replace("\"last_ms\":", "\"ignored\":");
    std::fs::write(&file, unused).unwrap();
    let found = lint(&office, &["--hits", file.to_str().unwrap()]);
    assert!(found.stdout.contains("rule echo: it was not used since"), "{found:?}");

    // A rule that goes leaves its figures to the sum of those that are gone.
    office.gateway.apply(&office.config(&(SERVICES.to_owned() + WIDE))).unwrap();
    let answer = hits(&office);
    assert_eq!(answer["gone"]["packets"], 40 + 20 + 20, "{answer}");
    assert_eq!(hit(&answer, "wide").2, 40);
}
