//! A gateway's key is changed under traffic: the new key is added on the same UDP port, the device
//! moves, the old key goes. No packet is lost, none is denied, nothing is restarted.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use bulkhead_tests::office::LEGACY;
use bulkhead_tests::probe::number;
use bulkhead_tests::{Deadline, Engine, KeyPair, Office, Outer, PeerSettings};

const POLICY: &str = r#"
[service.test]
ports = ["udp/7000"]
[[rule]]
id = "open"
from = ["user:anna"]
to = ["segment:offices"]
services = ["test"]
"#;

/// Packets of the stream, one every 2 ms.
const PACKETS: u64 = 5_000;

#[test]
fn a_gateway_key_is_rotated_on_one_port_without_losing_a_packet() {
    let mut office = Office::build().unwrap();
    let next = KeyPair::generate().unwrap();
    office.gateway.write_key("next.key", &next.private).unwrap();
    let old = office.config(POLICY);
    let listener = format!(
        "[wireguard.next]\nport = \"outside\"\nlisten_port = {}\nprivate_key_file = \"next.key\"\n",
        bulkhead_tests::office::LISTEN_PORT
    );
    let both = old.replace("[wireguard.wg0]\n", &format!("{listener}[wireguard.wg0]\n"));
    let new =
        old.replace("\"gateway.key\"", "\"next.key\"").replace("wireguard.wg0", "wireguard.next");
    assert!(both != old && new != old);

    office.gateway.write_config(&old).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    let pid = office.gateway.datapath_pid().unwrap();
    let laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();
    let listen = format!("stream-receive udp {LEGACY}:7000");
    let mut receiver = office.legacy.probe_server("receive", &listen).unwrap();
    let send = format!("stream-send udp {LEGACY}:7000 --interval-us 2000 --count {PACKETS}");
    let mut sender = office.laptop.probe("send", &send).unwrap();
    laptop.wait_for_peer(&office.gateway_key.public, Deadline::seconds(10)).unwrap();

    office.gateway.apply(&both).unwrap();
    // What the device sends goes to the new key from here on; its own queue holds it meanwhile.
    let with_next = PeerSettings {
        public_key: &next.public,
        preshared_key: None,
        endpoint: Some(office.gateway_endpoint(Outer::V4)),
        allowed_ips: &["10.44.0.0/16", "10.20.0.0/16", "fd44::/64", "fd20:1::/64"],
        keepalive: Some(1),
    };
    laptop.set_peer(&with_next).unwrap();
    laptop.wait_for_peer(&next.public, Deadline::seconds(10)).unwrap();
    office.gateway.apply(&new).unwrap();

    sender.wait(Deadline::seconds(40)).unwrap();
    let progress = receiver
        .wait_for_log(Deadline::seconds(20), "the last record", |log| {
            let line = log.lines().rev().find(|line| number(line, "received").is_some())?;
            (number(line, "received")? >= PACKETS).then(|| line.to_owned())
        })
        .unwrap();
    assert_eq!(number(&progress, "missing"), Some(0), "{}", receiver.log());

    let counters = office.gateway.counters().unwrap();
    counters.check_conserved().unwrap();
    for end in ["drop_no_rule", "drop_spoofed_source", "drop_no_session", "drop_forged"] {
        assert_eq!(counters.end(end).unwrap(), 0, "{end}");
    }
    assert_eq!(office.gateway.datapath_pid().unwrap(), pid, "nothing was restarted");
    // The new key alone is enough for a device that begins anew.
    laptop.set_peer(&with_next).unwrap();
    laptop.wait_for_peer(&next.public, Deadline::seconds(10)).unwrap();
    // Who does not know the new key is a stranger now.
    let heard = counters.end("drop_mac1").unwrap();
    let mut late = office.laptop_peer(Outer::V4).unwrap();
    late.handshake(Deadline::seconds(3)).unwrap_err();
    assert!(office.gateway.counters().unwrap().end("drop_mac1").unwrap() > heard);
}
