//! Many peers at once.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use bulkhead_tests::crowd::{Member, call_at_once};
use bulkhead_tests::office::LEGACY;
use bulkhead_tests::{Deadline, KeyPair, Office, Outer};

const MEMBERS: u16 = 1_000;

/// What it takes on a quiet machine is a second or two; whoever is not answered at once calls again
/// after five, and the machine may have other work.
const PATIENCE_SECONDS: u64 = 90;

const POLICY: &str = r#"
[tag.crowd]
[service.ping]
ports = ["icmp/echo"]
[[rule]]
id = "crowd"
from = ["tag:crowd"]
to = ["segment:offices"]
services = ["ping"]
"#;

#[test]
fn a_thousand_peers_handshake_at_once_and_each_gets_its_own_answer() {
    let mut office = Office::build().unwrap();
    let members: Vec<Member> = (0..MEMBERS)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            let key = KeyPair::generate().unwrap();
            let (outer, inner) =
                (Ipv4Addr::new(198, 18, high, low), Ipv4Addr::new(10, 45, high, low));
            Member { key, outer, inner }
        })
        .collect();
    let mut devices = String::new();
    for (number, member) in members.iter().enumerate() {
        let (key, inner) = (&member.key.public, member.inner);
        write!(
            devices,
            "[device.crowd-{number}]\npublic_key = \"{key}\"\naddresses = [\"{inner}/32\"]\n\
             tags = [\"tag:crowd\"]\n"
        )
        .unwrap();
    }
    // All of a network that is used for nothing else (RFC 2544) is the laptop's, behind one address.
    office.laptop.ip("route add local 198.18.0.0/16 dev lo").unwrap();
    office.gateway.namespace().ip("route add 198.18.0.0/16 via 192.0.2.11").unwrap();
    office.gateway.write_config(&office.config(&format!("{devices}{POLICY}"))).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(60)).unwrap();

    let deadline = Deadline::seconds(PATIENCE_SECONDS);
    let to = office.gateway_endpoint(Outer::V4);
    let key = &office.gateway_key.public;
    let arrivals = call_at_once(&office.laptop, &members, key, to, LEGACY, deadline);
    let answer = office.gateway.cli_json(&["counters"]).unwrap();
    let counters = office.gateway.counters().unwrap();
    let arrivals = arrivals.unwrap_or_else(|failure| {
        panic!("{failure}; {}; {:?}", answer["handshakes"], counters.met())
    });
    let last = |times: &[std::time::Duration]| times.iter().max().unwrap().as_secs_f64();
    println!(
        "{MEMBERS} peers: all sessions after {:.2} s, all answers after {:.2} s",
        last(&arrivals.sessions),
        last(&arrivals.answers)
    );

    assert!(answer["handshakes"]["sessions_responder"].as_u64().unwrap() >= u64::from(MEMBERS));
    assert_eq!(answer["handshakes"]["no_slot"], 0);
    assert_eq!(counters.end("drop_spoofed_source").unwrap(), 0);
    counters.check_conserved().unwrap();
    let peers = office.gateway.cli_json(&["peer", "list"]).unwrap();
    let seen: BTreeSet<String> = peers["peers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|peer| peer["endpoint"].as_str()?.split(':').next().map(str::to_owned))
        .collect();
    let want: BTreeSet<String> = members.iter().map(|member| member.outer.to_string()).collect();
    assert_eq!(seen, want, "each peer is where it called from");
}
