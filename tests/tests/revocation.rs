//! A live connection whose rule is taken away, with `on_revoke = "reset"`: both programs hear of it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::net::{IpAddr, SocketAddr};

use bulkhead_tests::office::{LEGACY, SERVER_V6};
use bulkhead_tests::probe::{last_line, number};
use bulkhead_tests::{Deadline, Engine, Office, Outer};

fn policy(anna: &str) -> String {
    format!(
        r#"
[flows]
on_revoke = "reset"
[group.hr]
members = [{anna}]
[service.test]
ports = ["tcp/7000"]
[[rule]]
id = "hr"
from = ["group:hr"]
to = ["device:server", "segment:offices"]
services = ["test"]
"#
    )
}

/// On IPv6 through two tunnels and on IPv4 into a plain segment: the sender's next write and the
/// receiver's read end as "connection reset" within five seconds of the change, not in silence.
#[test]
fn a_live_tcp_connection_ends_with_connection_reset_at_both_ends() {
    let mut office = Office::build().unwrap();
    let allowed = office.config(&policy("\"user:anna\""));
    office.gateway.write_config(&allowed).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let _laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();

    let ends = [(IpAddr::from(SERVER_V6), &office.server), (LEGACY.into(), &office.legacy)];
    let mut streams = vec![];
    for (at, (to, namespace)) in ends.into_iter().enumerate() {
        let to = SocketAddr::new(to, 7_000);
        let listen = format!("stream-receive tcp {to}");
        let mut receiver = namespace.probe_server(&format!("receive-{at}"), &listen).unwrap();
        let send = format!("stream-send tcp {to} --interval-us 2000");
        let sender = office.laptop.probe(&format!("send-{at}"), &send).unwrap();
        receiver
            .wait_for_log(Deadline::seconds(20), "records", |log| {
                number(last_line(log, "progress")?, "received").filter(|received| *received >= 100)
            })
            .unwrap();
        streams.push((receiver, sender));
    }

    office.gateway.apply(&office.config(&policy(""))).unwrap();
    let bound = Deadline::seconds(5);
    for (receiver, sender) in &mut streams {
        let told = receiver
            .wait_for_log(bound, "the end of the connection", |log| {
                last_line(log, "broken").or_else(|| last_line(log, "closed")).map(str::to_owned)
            })
            .unwrap();
        assert!(told.contains("error=ConnectionReset"), "{told}");
        let status = sender.wait(bound).unwrap();
        let log = sender.log();
        assert!(!status.success() && log.contains("os error 104"), "{status}: {log}");
    }
    let counters = office.gateway.counters().unwrap();
    counters.check_conserved().unwrap();
    assert!(counters.end("drop_revoked").unwrap() > 0);
}
