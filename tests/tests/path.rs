//! Bad paths between a client and the gateway: forgers on it, a NAT, loss, repetition, reordering.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bulkhead_tests::office::{LAPTOP, LAPTOP_V6, LEGACY};
use bulkhead_tests::probe::{field, http::Content};
use bulkhead_tests::{
    Counters, Deadline, End, Engine, Look, Office, Outer, PeerSettings, Plan, Random, RawPort,
    Relay, Tunnel, TunnelSettings, WirePeer, inner, until,
};

const POLICY: &str = r#"
[service.test]
ports = ["udp/7", "udp/9", "tcp/80", "icmp/echo"]
[[rule]]
id = "open"
from = ["device:anna-laptop", "segment:offices"]
to = ["device:anna-laptop", "segment:offices"]
services = ["test"]
"#;

fn office(timers: &str) -> Office {
    let mut office = Office::build().unwrap();
    office.gateway.write_config(&office.config_with_timers(timers, POLICY)).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    office
}

/// A datagram of the laptop for the echo of the segment's host, with a number in it.
fn record(number: u32) -> Vec<u8> {
    let (from, to) = (SocketAddr::new(LAPTOP.into(), 4000), SocketAddr::new(LEGACY.into(), 7));
    inner::udp(from, to, &number.to_be_bytes()).unwrap()
}

/// The number in an echo.
fn number(packet: &[u8]) -> u32 {
    assert_eq!((packet.len(), &packet[12..16]), (32, &LEGACY.octets()[..]), "an echo: {packet:?}");
    u32::from_be_bytes(packet[28..].try_into().unwrap())
}

/// Sends a record until its echo is back.
fn echo(peer: &mut WirePeer, first: u32) {
    let mut next = first;
    until(Deadline::seconds(20), "an echo from the segment", || {
        peer.send(&record(next))?;
        next += 1;
        let heard = peer.receive(Deadline::after(Duration::from_millis(500)))?;
        Ok(heard.map_or(Look::NotYet("silence".into()), |_| Look::Ready(())))
    })
    .unwrap();
}

fn endpoint(office: &Office, device: &str) -> String {
    let answer = office.gateway.cli_json(&["peer", "list"]).unwrap();
    let peers = answer["peers"].as_array().unwrap();
    let peer = peers.iter().find(|peer| peer["name"] == device).expect(device);
    peer["endpoint"].as_str().unwrap_or("none").to_owned()
}

fn wait_end(office: &Office, name: &str, count: u64) -> Counters {
    until(Deadline::seconds(30), format!("{count} packets to end as {name}"), || {
        let counters = office.gateway.counters()?;
        let met = counters.end(name)?;
        let seen = format!("{met}; {:?}", counters.met());
        Ok(if met >= count { Look::Ready(counters) } else { Look::NotYet(seen) })
    })
    .unwrap()
}

/// Somebody on the path replays genuine datagrams and sends forged ones from another source
/// address. The gateway goes on sending to the laptop, and the forger hears nothing.
#[test]
fn roaming_needs_an_authentic_and_fresh_packet() {
    const FORGED: u64 = 200;
    let office = office("");
    let listen = format!("udp-echo {LEGACY}:7");
    let _echo = office.legacy.probe_server("echo", &listen).unwrap();
    let mut laptop = office.laptop_peer(Outer::V4).unwrap();
    laptop.handshake(Deadline::seconds(20)).unwrap();
    echo(&mut laptop, 0);
    let home = format!("192.0.2.11:{}", laptop.local_address().unwrap().port());
    assert_eq!(endpoint(&office, "anna-laptop"), home);

    let mut forger = RawPort::open(&office.server, "wan").unwrap();
    let read = ["cat", "/sys/class/net/outside/address"];
    let text = office.gateway.namespace().exec(&read).unwrap();
    let gateway: Vec<u8> =
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let gateway: [u8; 6] = gateway.try_into().unwrap();
    let from: SocketAddr = "192.0.2.99:7777".parse().unwrap();
    let to = office.gateway_endpoint(Outer::V4);
    let own = forger.address();
    let mut spoof = |datagram: &[u8]| {
        let packet = inner::udp(from, to, datagram).unwrap();
        forger.send(&inner::on_ethernet(own, gateway, &packet)).unwrap();
    };

    // The genuine one first, so that the copy is a replay.
    let genuine = laptop.seal(&record(1_000)).unwrap();
    laptop.send_datagram(&genuine).unwrap();
    assert_eq!(number(&laptop.receive(Deadline::seconds(10)).unwrap().unwrap()), 1_000);
    spoof(&genuine);
    wait_end(&office, "drop_replayed", 1);
    // Not yet sent, so fresh; and wrong in one bit each.
    let seed = 0x0f04_6e12;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    for _ in 0..FORGED {
        let mut forged = laptop.seal(&record(2_000)).unwrap();
        // Behind the header: below it are the receiver, which is another end, and the counter.
        let at = usize::try_from(16 + random.below(forged.len() as u64 - 16)).unwrap();
        forged[at] ^= 1 << random.below(8);
        spoof(&forged);
    }
    let counters = wait_end(&office, "drop_forged", FORGED);
    assert_eq!(endpoint(&office, "anna-laptop"), home, "the forger moved the laptop");
    echo(&mut laptop, 3_000);
    assert_eq!(endpoint(&office, "anna-laptop"), home);
    let from_gateway = |frame: &[u8]| frame[6..12] == gateway && frame[12..14] == [8, 0];
    let heard = forger.collect(Deadline::after(Duration::from_millis(300)), from_gateway).unwrap();
    assert!(heard.is_empty(), "the forger was sent {heard:?}");
    counters.check_conserved().unwrap();

    // What does move it: the first authentic packet from elsewhere.
    laptop.roam().unwrap();
    echo(&mut laptop, 4_000);
    let moved = format!("192.0.2.11:{}", laptop.local_address().unwrap().port());
    assert_ne!(moved, home);
    assert_eq!(endpoint(&office, "anna-laptop"), moved);
}

/// Seconds for which the NAT remembers a mapping that is not used.
const NAT_SECONDS: u64 = 2;

/// A client behind a NAT that forgets after two seconds: without keepalive nobody reaches it once it
/// has been silent for longer, with keepalive everybody does.
#[test]
fn a_client_behind_a_nat_is_reached_thanks_to_its_keepalive_only() {
    let office = office("keepalive = \"1s\"");
    let home = office.world.namespace("home").unwrap();
    let inside = End { namespace: &home, device: "eth0", addresses: &["10.99.0.2/24"] };
    let router = End { namespace: &office.laptop, device: "lan", addresses: &["10.99.0.1/24"] };
    office.world.link(router, inside, 1).unwrap();
    home.ip("route add default via 10.99.0.1").unwrap();
    office.laptop.forward().unwrap();
    // A port at random, so that a new mapping is another one.
    let rules = "add table ip nat; \
                 add chain ip nat out { type nat hook postrouting priority 100; }; \
                 add rule ip nat out oifname wan masquerade random";
    office.laptop.exec(&["nft", rules]).unwrap();
    for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        office.laptop.set(&format!("netfilter/{timeout}"), &NAT_SECONDS.to_string()).unwrap();
    }
    let _echo = office.legacy.probe_server("echo", &format!("udp-echo {LEGACY}:7")).unwrap();
    let to_segment = format!("udp-ping {LEGACY}:7 --count 3 --patience-ms 15000");
    let reach = || {
        let to = LAPTOP.to_string();
        office.legacy.output(&["ping", "-c", "1", "-W", "2", &to]).unwrap().code
    };

    let tunnel = |keepalive: Option<u16>| {
        let peer = PeerSettings {
            public_key: &office.gateway_key.public,
            preshared_key: None,
            endpoint: Some(office.gateway_endpoint(Outer::V4)),
            allowed_ips: &["10.20.1.0/24"],
            keepalive,
        };
        let settings = TunnelSettings {
            device: "wg0",
            key: &office.laptop_key,
            listen_port: Some(40_001),
            addresses: &[&format!("{LAPTOP}/32")],
            mtu: 1420,
            peers: &[peer],
        };
        let tunnel = Tunnel::start(&home, Engine::WireguardGo, &settings).unwrap();
        assert_eq!(home.probe_once(&to_segment).unwrap().code, Some(0));
        tunnel
    };

    let silent = tunnel(None);
    assert_eq!(reach(), Some(0), "while the mapping lives");
    let first = endpoint(&office, "anna-laptop");
    assert!(first.starts_with("192.0.2.11:") && !first.ends_with(":40001"), "no NAT: {first}");
    // The client answers the ping, and with its answer it owes nobody anything.
    silence(&office, Duration::from_secs(2 * NAT_SECONDS));
    assert_eq!(reach(), Some(1), "the NAT should have forgotten it");
    drop(silent);

    let _kept = tunnel(Some(1));
    // As many seconds of nothing but keepalives.
    let before = office.gateway.counters().unwrap().end("keepalive").unwrap();
    wait_end(&office, "keepalive", before + 3 * NAT_SECONDS);
    assert_eq!(reach(), Some(0), "the keepalives kept no way open");
    office.gateway.counters().unwrap().check_conserved().unwrap();
}

/// Waits until the gateway has received nothing for so long.
fn silence(office: &Office, length: Duration) {
    let mut last = (0, Deadline::seconds(0));
    until(Deadline::seconds(60), format!("{length:?} of silence"), || {
        let received = office.gateway.counters()?.received;
        if received != last.0 {
            last = (received, Deadline::after(length));
        }
        let over = last.1.is_over();
        Ok(if over { Look::Ready(()) } else { Look::NotYet(format!("{received} received")) })
    })
    .unwrap();
}

/// Loses, repeats and reorders; within the reach of every implementation's window.
fn bad(seed: u64) -> Plan {
    println!("seed {seed:#x}");
    Plan { seed, lose: 5, repeat: 5, hold: 10, behind: 16 }
}

/// Every record that did not come back was lost by the path; none came back twice; every repetition
/// is counted as a replay; nothing else happened.
#[test]
fn on_a_path_that_loses_repeats_and_reorders_every_packet_is_accounted_for() {
    const RECORDS: u32 = 4_000;
    const WINDOW: u32 = 32;
    let plan = bad(0x51ed_0001);
    let office = office("");
    let _echo = office.legacy.probe_server("echo", &format!("udp-echo {LEGACY}:7")).unwrap();
    let relay = Relay::open(&office.laptop, office.gateway_endpoint(Outer::V4), plan).unwrap();
    let mut laptop = WirePeer::new(
        &office.laptop,
        &office.laptop_key,
        &office.gateway_key.public,
        None,
        relay.address(),
    )
    .unwrap();
    laptop.handshake(Deadline::seconds(60)).unwrap();
    // The neighbours are known and the session is confirmed before the account begins.
    echo(&mut laptop, 1_000_000);
    let (before, [out_before, in_before]) = settled(&office, &relay);

    let mut came = BTreeSet::new();
    let mut reordered = 0;
    for sent in 1..=RECORDS {
        laptop.send(&record(sent)).unwrap();
        if sent % WINDOW != 0 && sent != RECORDS {
            continue;
        }
        // Lock-step, so that nobody's buffer loses what the path did not.
        until(Deadline::seconds(30), format!("the fate of {sent} records"), || {
            while let Some(packet) = laptop.receive(Deadline::after(Duration::from_millis(1)))? {
                let number = number(&packet);
                // An echo of the warm-up may be late.
                if number <= RECORDS {
                    reordered += u64::from(came.last().is_some_and(|last| *last > number));
                    assert!(came.insert(number), "record {number} came twice");
                }
            }
            let [out, back] = relay.accounts();
            let lost = out.content_lost - out_before.content_lost + back.content_lost
                - in_before.content_lost;
            let came = came.len() as u64;
            let seen = format!("{came} came, {lost} lost of {sent}: {out:?} {back:?}");
            Ok(if came + lost == u64::from(sent) { Look::Ready(()) } else { Look::NotYet(seen) })
        })
        .unwrap();
    }
    let (after, [out, back]) = settled(&office, &relay);
    let grown = |name: &str| after.end(name).unwrap() - before.end(name).unwrap();
    let there = u64::from(RECORDS) - (out.content_lost - out_before.content_lost);
    assert_eq!(grown("forwarded"), 2 * there, "each record that arrived, and its echo");
    assert_eq!(grown("drop_replayed"), out.data_repeated - out_before.data_repeated);
    for name in ["drop_forged", "drop_no_session", "drop_session_expired", "drop_no_rule"] {
        assert_eq!(grown(name), 0, "{name}: {:?}", after.met());
    }
    after.check_conserved().unwrap();
    // The path was as bad as it promised.
    assert!(reordered > 50, "only {reordered} came out of order");
    for account in [out, back] {
        assert!(account.lost > 100 && account.repeated > 100 && account.overtaken > 100);
    }
}

/// The counters of the gateway and the accounts of the path once both stand still.
fn settled(office: &Office, relay: &Relay) -> (Counters, [bulkhead_tests::Account; 2]) {
    let mut last = None;
    until(Deadline::seconds(30), "the path to be empty", || {
        let now = (office.gateway.counters()?, relay.accounts());
        let quiet = last.as_ref() == Some(&now)
            && now.1.iter().all(|a| a.arrived + a.repeated == a.lost + a.passed);
        let seen = format!("{now:?}");
        last = Some(now.clone());
        Ok(if quiet { Look::Ready(now) } else { Look::NotYet(seen) })
    })
    .unwrap()
}

/// A download over the same path comes out whole, and no segment of it twice.
#[test]
fn on_a_path_that_loses_repeats_and_reorders_tcp_finishes_with_the_right_hash() {
    let content = Content { seed: 5, len: 1_500_001 };
    for (engine, seed) in [
        (Engine::WireguardGo, 0x51ed_0002),
        (Engine::Boringtun, 0x51ed_0003),
        (Engine::Gotatun, 0x51ed_0004),
    ] {
        let plan = Plan { lose: 2, ..bad(seed) };
        let office = office("");
        let serve =
            format!("http-serve {LEGACY}:80 --seed {} --bytes {}", content.seed, content.len);
        let _http = office.legacy.probe_server("http", &serve).unwrap();
        let relay = Relay::open(&office.laptop, office.gateway_endpoint(Outer::V4), plan).unwrap();
        let peer = PeerSettings {
            public_key: &office.gateway_key.public,
            preshared_key: None,
            endpoint: Some(relay.address()),
            allowed_ips: &["10.20.1.0/24"],
            keepalive: None,
        };
        let settings = TunnelSettings {
            device: "wg0",
            key: &office.laptop_key,
            listen_port: Some(40_001),
            addresses: &[&format!("{LAPTOP}/32"), &format!("{LAPTOP_V6}/128")],
            mtu: 1420,
            peers: &[peer],
        };
        let _tunnel = Tunnel::start(&office.laptop, engine, &settings).unwrap();
        let at = SocketAddr::new(IpAddr::from(LEGACY), 80);
        let get = format!("http-get {at} --patience-ms 30000");
        let output = office.laptop.probe_once(&get).unwrap();
        let hash = content.sha256().unwrap();
        assert_eq!(field(&output.stdout, "sha256"), Some(hash.as_str()), "{engine}: {output:?}");
        let (counters, [out, back]) = settled(&office, &relay);
        assert_eq!(counters.end("drop_replayed").unwrap(), out.data_repeated, "{engine}");
        assert_eq!(counters.end("drop_forged").unwrap(), 0, "{engine}");
        counters.check_conserved().unwrap();
        assert!(back.content_lost > 5 && back.data_repeated > 5, "{engine}: {back:?}");
    }
}
