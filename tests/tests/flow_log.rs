//! The flow log of a whole gateway: what stock clients did is in the file, with the right names.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::time::Duration;

use bulkhead_tests::office::{LAPTOP, SERVER, SERVER_V6};
use bulkhead_tests::{Deadline, Engine, Office, Outer};
use serde_json::Value;

const POLICY: &str = r#"
[flow_log]
denied = "new"
[flows.timeouts]
udp = "1s"
udp_stream = "1s"
[service.echo]
ports = ["udp/7"]
[service.other]
ports = ["udp/9"]
[service.quiet]
ports = ["udp/11"]
[[rule]]
id = "first"
from = ["user:anna"]
to = ["device:server"]
services = ["echo", "other"]
log = "all"
[[rule]]
id = "quiet"
from = ["user:anna"]
to = ["device:server"]
services = ["quiet"]
[[rule]]
id = "not-other"
from = ["user:anna"]
to = ["device:server"]
services = ["other"]
action = "deny"
log = "new"
"#;

fn ping(office: &Office, server: &str, count: u32, patience_ms: u32) -> bool {
    let ping =
        format!("udp-ping {server} --count {count} --interval-us 2000 --patience-ms {patience_ms}");
    office.laptop.probe_once(&ping).unwrap().code == Some(0)
}

/// The lines of one event and port.
fn lines(office: &Office, event: &str, port: u16) -> Vec<Value> {
    let path = office.gateway.state_dir().join("flows.jsonl");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["event"] == event && line["to_port"] == port).collect()
}

fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited for {what}");
}

#[test]
fn flows_of_a_gateway_are_lines_with_their_rules_names_and_counts() {
    let mut office = Office::build().unwrap();
    office.gateway.write_config(&office.config(POLICY)).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let _laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();
    let _echo = office.server.probe_server("echo", &format!("udp-echo {SERVER}:7")).unwrap();
    let _echo6 = office.server.probe_server("echo6", &format!("udp-echo [{SERVER_V6}]:7")).unwrap();
    let _quiet = office.server.probe_server("quiet", &format!("udp-echo {SERVER}:11")).unwrap();

    assert!(ping(&office, &format!("{SERVER}:7"), 20, 5_000));
    assert!(ping(&office, &format!("[{SERVER_V6}]:7"), 30, 5_000));
    assert!(ping(&office, &format!("{SERVER}:11"), 5, 5_000), "of this nothing is said");
    assert!(!ping(&office, &format!("{SERVER}:9"), 4, 200));
    assert!(!ping(&office, &format!("{SERVER}:13"), 3, 200));
    until("both flows to end", || lines(&office, "closed", 7).len() == 2);

    let opened = lines(&office, "opened", 7);
    assert_eq!(opened.len(), 2);
    let closed = lines(&office, "closed", 7);
    for (to, packets) in [(SERVER.to_string(), 20), (SERVER_V6.to_string(), 30)] {
        let closed = closed.iter().find(|line| line["to"] == to).unwrap();
        let begin = opened.iter().find(|line| line["to"] == closed["to"]).unwrap();
        for key in ["rule", "protocol", "from", "from_port", "from_name", "from_user", "to_name"] {
            assert_eq!(begin[key], closed[key], "{key}");
        }
        assert_eq!((&closed["rule"], &closed["reason"]), (&"first".into(), &"timeout".into()));
        assert_eq!(closed["from_name"], "device:anna-laptop");
        assert_eq!(
            (&closed["from_user"], &closed["to_name"]),
            (&"anna".into(), &"device:server".into())
        );
        let figures = [&closed["sent"], &closed["returned"]];
        assert_eq!(
            figures.map(|counted| counted["packets"].as_u64()),
            [Some(packets); 2],
            "{closed}"
        );
        assert_eq!(
            figures[0]["bytes"], figures[1]["bytes"],
            "an echo is as long as what it answers"
        );
    }
    assert_eq!(opened[0]["from"], LAPTOP.to_string());
    assert!(lines(&office, "opened", 11).is_empty());

    // What is denied: by a rule, and by none. Each packet that was tried.
    let (by_rule, by_none) = (lines(&office, "denied", 9), lines(&office, "denied", 13));
    assert_eq!((by_rule.len(), by_none.len()), (4, 3));
    assert_eq!((&by_rule[0]["rule"], &by_rule[0]["effect"]), (&"not-other".into(), &"deny".into()));
    assert_eq!((&by_none[0]["rule"], &by_none[0]["verdict"]), (&Value::Null, &"deny".into()));

    // A policy that stops allowing a flow ends it, and says so.
    let office = &office;
    std::thread::scope(|scope| {
        scope.spawn(|| ping(office, &format!("{SERVER}:7"), 1_000, 20));
        until("a third flow", || lines(office, "opened", 7).len() == 3);
        office
            .gateway
            .apply(&office.config(&POLICY.replace("\"echo\", \"other\"", "\"other\"")))
            .unwrap();
        until("its end", || lines(office, "closed", 7).len() == 3);
    });
    let cut = lines(office, "closed", 7).pop().unwrap();
    assert_eq!(cut["reason"], "revoked");
    assert!(cut["sent"]["packets"].as_u64() >= cut["returned"]["packets"].as_u64(), "{cut}");
    let status = office.gateway.cli_json(&["status"]).unwrap();
    let log = &status["flow_log"];
    assert_eq!((&log["lost"], &log["lost_in_datapath"]), (&0.into(), &0.into()), "{status}");
    let path = office.gateway.state_dir().join("flows.jsonl");
    let written = std::fs::read_to_string(path).unwrap().lines().count();
    assert_eq!(log["written"].as_u64(), Some(written as u64));
}
