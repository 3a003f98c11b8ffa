//! WireGuard as the gateway speaks it: what an independent engine (boringtun) hears from it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::net::SocketAddr;
use std::time::Duration;

use bulkhead_tests::office::{LAPTOP, SERVER};
use bulkhead_tests::{Deadline, KeyPair, Look, Office, Outer, WirePeer, inner, until};

const POLICY: &str = r#"
[service.test]
ports = ["udp/7"]
[[rule]]
id = "open"
from = ["device:anna-laptop"]
to = ["device:server"]
services = ["test"]
"#;

fn started(mut office: Office, config: &str) -> Office {
    office.gateway.write_config(config).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    office
}

fn packet() -> Vec<u8> {
    let from = SocketAddr::new(LAPTOP.into(), 4000);
    inner::udp(from, SocketAddr::new(SERVER.into(), 7), b"anybody there?").unwrap()
}

/// Goal: who receives data and has nothing to say answers with a keepalive (whitepaper §6.5).
/// Method: the server gets a packet through the gateway and stays silent; the laptop, which sent
/// it, must hear an empty data message after KEEPALIVE_TIMEOUT, and not before.
#[test]
fn data_is_answered_by_a_keepalive() {
    let office = Office::build().unwrap();
    let config = office.config_with_timers("keepalive = \"2s\"", POLICY);
    let office = started(office, &config);
    let mut server = office.server_peer(Outer::V4).unwrap();
    let mut laptop = office.laptop_peer(Outer::V4).unwrap();
    server.handshake(Deadline::seconds(10)).unwrap();
    server.send(&[]).unwrap();
    laptop.handshake(Deadline::seconds(10)).unwrap();
    laptop.send(&packet()).unwrap();
    let got = server.receive(Deadline::seconds(10)).unwrap().expect("the packet arrives");
    assert_eq!(got[20..], packet()[20..], "everything behind the IP header");

    let early = laptop.receive_datagram(Deadline::after(Duration::from_millis(1_500))).unwrap();
    assert_eq!(early, None, "not before its time");
    let answer = laptop.receive_datagram(Deadline::seconds(5)).unwrap().expect("a keepalive");
    assert_eq!((answer.len(), &answer[..4]), (32, &[4, 0, 0, 0][..]), "an empty data message");
    office.gateway.counters().unwrap().check_conserved().unwrap();
}

/// A device with a preshared key connects with it, and with nothing else.
#[test]
fn a_preshared_key_is_required_where_it_is_configured() {
    let office = Office::build().unwrap();
    let right = KeyPair::generate().unwrap().private;
    let wrong = KeyPair::generate().unwrap().private;
    office.gateway.write_key("laptop.psk", &right).unwrap();
    let laptop = "addresses = [\"10.44.0.7/32\", \"fd44::7/128\"]";
    let with_key = format!("{laptop}\npreshared_key_file = \"laptop.psk\"");
    let config = office.config(POLICY).replace(laptop, &with_key);
    assert!(config.contains("laptop.psk"), "the office's configuration is as expected");
    let office = started(office, &config);

    let mut server = office.server_peer(Outer::V4).unwrap();
    server.handshake(Deadline::seconds(10)).unwrap();
    server.send(&[]).unwrap();
    let to = office.gateway_endpoint(Outer::V4);
    let peer = |psk: Option<&str>| {
        let (key, gateway) = (&office.laptop_key, &office.gateway_key.public);
        WirePeer::new(&office.laptop, key, gateway, psk, to).unwrap()
    };
    for bad in [None, Some(wrong.as_str())] {
        let patience = Deadline::after(Duration::from_millis(500));
        assert!(peer(bad).handshake(patience).is_err(), "{bad:?} is not the key");
    }
    let mut laptop = peer(Some(&right));
    laptop.handshake(Deadline::seconds(10)).unwrap();
    laptop.send(&packet()).unwrap();
    assert!(server.receive(Deadline::seconds(10)).unwrap().is_some(), "the packet arrives");
}

/// Goal: a peer may speak the moment it has our response, and is heard (whitepaper §5.1).
/// Method: boringtun says an empty message at once when a handshake is done; after 60 handshakes no
/// packet may have found no session.
#[test]
fn the_first_packet_of_a_session_is_never_too_early() {
    let office = Office::build().unwrap();
    let config = office.config(POLICY);
    let office = started(office, &config);
    for _ in 0..60 {
        let mut laptop = office.laptop_peer(Outer::V4).unwrap();
        laptop.handshake(Deadline::seconds(10)).unwrap();
    }
    until(Deadline::seconds(10), "sixty keepalives", || {
        let heard = office.gateway.counters()?.end("keepalive")?;
        Ok(if heard >= 60 { Look::Ready(()) } else { Look::NotYet(format!("{heard}")) })
    })
    .unwrap();
    let counters = office.gateway.counters().unwrap();
    assert_eq!(counters.end("drop_no_session").unwrap(), 0, "somebody was too early");
    assert_eq!(counters.end("keepalive").unwrap(), 60);
    counters.check_conserved().unwrap();
}
