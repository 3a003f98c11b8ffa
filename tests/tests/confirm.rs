//! An apply that cuts its operator off, and comes back by itself.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use bulkhead_tests::gateway::code;
use bulkhead_tests::office::SERVER;
use bulkhead_tests::probe::{last_line, number};
use bulkhead_tests::{Deadline, Engine, Office, Outer};

/// The operator is anna: her laptop reaches the server from which the gateway is managed.
fn policy(operators: &str) -> String {
    format!(
        r#"
[group.operators]
members = [{operators}]
[service.manage]
ports = ["udp/7000"]
[[rule]]
id = "manage"
from = ["group:operators"]
to = ["device:server"]
services = ["manage"]
"#
    )
}

/// Seconds that the operator gives herself.
const CONFIRM_S: u64 = 3;

/// Room for sessions cannot change while the datapath runs, so the apply restarts it,
/// and so does the way back.
#[test]
fn an_apply_that_restarts_the_datapath_is_rolled_back_with_another_restart() {
    let mut office = Office::build().unwrap();
    let before = office.config(&policy("\"user:anna\""));
    office.gateway.write_config(&before).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    let first = office.gateway.datapath_pid().unwrap();
    let larger = before.replace("name = \"office\"", "name = \"office\"\nsessions_max = 32768");
    office.gateway.write_config(&larger).unwrap();
    let applied =
        office.gateway.cli_json(&["apply", "--restart-datapath", "--confirm", "3s"]).unwrap();
    assert_eq!(applied["datapath_restarted"], true, "{applied}");
    let second = office.gateway.datapath_pid().unwrap();
    assert_ne!(second, first);

    office
        .gateway
        .wait_for_status(Deadline::seconds(30), "the way back", |status| {
            let configuration = &status["configuration"];
            (configuration["in_force"] == configuration["standing"]).then_some(())
        })
        .unwrap();
    // Healthy: the datapath has the sizes of what stands, and every worker judges by its table.
    let status = office.gateway.wait_confirmed(Deadline::seconds(20)).unwrap();
    assert_ne!(office.gateway.datapath_pid().unwrap(), second);
    assert!(status["generation"].as_u64() > applied["generation"].as_u64(), "{status}");
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    office.gateway.counters().unwrap().check_conserved().unwrap();
}

/// The stream falls quiet when the policy without her comes into force, and resumes by itself: not
/// before her time is up, and soon after. In between control is killed, so it is the next one that
/// rolls back.
#[test]
fn an_apply_that_cuts_its_operator_off_is_rolled_back_and_traffic_returns() {
    let mut office = Office::build().unwrap();
    let with = office.config(&policy("\"user:anna\""));
    office.gateway.write_config(&with).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let _laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();
    let listen = format!("stream-receive udp {SERVER}:7000 --quiet-ms 200");
    let mut receiver = office.server.probe_server("receive", &listen).unwrap();
    let send = format!("stream-send udp {SERVER}:7000 --interval-us 2000");
    let _sender = office.laptop.probe("send", &send).unwrap();
    let received = |log: &str| number(last_line(log, "progress")?, "received");
    let enough = |log: &str| received(log).filter(|received| *received >= 200);
    receiver.wait_for_log(Deadline::seconds(20), "records", enough).unwrap();

    office.gateway.write_config(&office.config(&policy(""))).unwrap();
    let dry = office.gateway.cli_json(&["apply", "--dry-run"]).unwrap();
    let verdicts = dry["verdicts"].as_array().unwrap();
    assert!(verdicts.iter().all(|region| region["allowed"] == false), "{dry}");
    let server = SERVER.to_string();
    assert!(verdicts.iter().any(|region| region["witness"][1] == *server), "{dry}");
    let applied = office.gateway.cli_json(&["apply", "--confirm", "3s", "-m", "clean up"]).unwrap();
    assert_eq!(applied["confirm_within_s"], CONFIRM_S);
    let silence = |log: &str| last_line(log, "quiet").map(|_| ());
    receiver.wait_for_log(Deadline::seconds(10), "the operator to be cut off", silence).unwrap();

    office.gateway.kill_control().unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    let resumed = receiver
        .wait_for_log(Deadline::seconds(30), "traffic to return", |log| {
            number(last_line(log, "resumed")?, "after_ns")
        })
        .unwrap();
    // The silence begins with the table, a moment before its time begins to count.
    assert!(resumed >= (CONFIRM_S * 1_000 - 500) * 1_000_000, "after {resumed} ns: too early");
    let status = office.gateway.wait_confirmed(Deadline::seconds(20)).unwrap();
    let (standing, generation) =
        (status["configuration"]["standing"].as_u64(), status["generation"].as_u64());
    assert_eq!(status["configuration"]["in_force"].as_u64(), standing);
    assert!(generation > applied["generation"].as_u64(), "the number of the table always rises");
    let history = office.gateway.cli_json(&["history"]).unwrap();
    let states: Vec<_> =
        history["entries"].as_array().unwrap().iter().map(|entry| &entry["state"]).collect();
    assert_eq!(states, ["confirmed", "rolled-back"]);
    let late = office.gateway.cli(&["confirm"]).unwrap();
    assert_eq!(late.code, Some(code::NOTHING_WAITING), "{late:?}");
    office.gateway.counters().unwrap().check_conserved().unwrap();
}
