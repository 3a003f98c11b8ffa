//! The gateway between stock clients: what must hold, on real sockets.
//!
//! Every scenario ends in [`settle`], which adds the counters up once more and looks whether
//! anything faulted.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bulkhead_tests::gateway::code;
use bulkhead_tests::office::{LAPTOP, LAPTOP_V6, LEGACY, LEGACY_V6, SERVER, SERVER_V6};
use bulkhead_tests::probe::{field, http::Content, last_line, number};
use bulkhead_tests::{
    Counters, Deadline, Engine, Look, Namespace, Office, Outer, Process, Random, RawPort, WirePeer,
    inner, until,
};

/// Everybody may speak to everybody about the ports of these tests.
const OPEN: &str = r#"
[group.hr]
members = ["user:anna"]
[service.test]
ports = ["tcp/80", "tcp/7000", "udp/7", "udp/7000", "icmp/echo", "icmpv6/echo"]
[[rule]]
id = "open"
from = ["group:hr", "device:server", "segment:offices"]
to = ["group:hr", "device:server", "segment:offices"]
services = ["test"]
"#;

/// Starts the gateway with this policy.
fn office(policy: &str) -> Office {
    let mut office = Office::build().unwrap();
    let config = office.config(policy);
    office.gateway.write_config(&config).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
    office
}

/// The law of every scenario: each received packet has one end, the kernel lied about no frame.
fn settle(office: &Office) -> Counters {
    let counters = office.gateway.counters().unwrap();
    counters.check_conserved().unwrap();
    let status = office.gateway.cli_json(&["status"]).unwrap();
    for port in status["datapath"]["ports"].as_array().unwrap() {
        assert_eq!(port["faults"], 0, "{port}");
    }
    counters
}

fn echo(from: &Namespace, to: &str, count: u32) {
    let output = from.probe_once(&format!(
        "udp-ping {to} --count {count} --interval-us 2000 --patience-ms 5000"
    ));
    let output = output.unwrap();
    assert_eq!(output.code, Some(0), "{} to {to}: {output:?}", from.name());
}

fn ping(from: &Namespace, to: IpAddr) {
    from.exec(&["ping", "-c", "3", "-i", "0.05", "-W", "5", &to.to_string()]).unwrap();
}

fn download(from: &Namespace, at: SocketAddr, content: Content) {
    let output = from.probe_once(&format!("http-get {at}")).unwrap();
    let sha256 = content.sha256().unwrap();
    assert_eq!(field(&output.stdout, "sha256"), Some(sha256.as_str()), "{at}: {output:?}");
}

/// Both inner families, both directions, TCP with full segments, ICMP, and the plain segment.
fn everybody_talks(office: &Office) {
    let content = Content { seed: 9, len: 400_000 };
    for (to, namespace) in [
        (IpAddr::from(SERVER), &office.server),
        (SERVER_V6.into(), &office.server),
        (LEGACY.into(), &office.legacy),
        (LEGACY_V6.into(), &office.legacy),
    ] {
        ping(&office.laptop, to);
        let at = SocketAddr::new(to, 80);
        let label = format!("http-{}", to.is_ipv4());
        let _http = namespace
            .probe_server(&label, &format!("http-serve {at} --seed 9 --bytes {}", content.len))
            .unwrap();
        download(&office.laptop, at, content);
    }
    for to in [IpAddr::from(LAPTOP), LAPTOP_V6.into()] {
        ping(&office.server, to);
        ping(&office.legacy, to);
    }
}

fn interop(laptop: Engine, server: Engine, outer: Outer) {
    let office = office(OPEN);
    let server = office.server_tunnel(server, outer).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let _laptop = office.laptop_tunnel(laptop, outer).unwrap();
    everybody_talks(&office);
    let counters = settle(&office);
    assert_eq!(counters.end("drop_forged").unwrap(), 0);
    assert_eq!(counters.end("drop_replayed").unwrap(), 0);
}

#[test]
fn wireguard_go_and_boringtun_over_ipv4() {
    interop(Engine::WireguardGo, Engine::Boringtun, Outer::V4);
}

#[test]
fn wireguard_go_and_boringtun_over_ipv6() {
    interop(Engine::WireguardGo, Engine::Boringtun, Outer::V6);
}

#[test]
fn boringtun_and_wireguard_go_over_ipv4() {
    interop(Engine::Boringtun, Engine::WireguardGo, Outer::V4);
}

#[test]
fn boringtun_and_wireguard_go_over_ipv6() {
    interop(Engine::Boringtun, Engine::WireguardGo, Outer::V6);
}

/// A counter of the handshake thread, since `bulkheadd` started.
fn handshakes(office: &Office, name: &str) -> u64 {
    let answer = office.gateway.cli_json(&["counters"]).unwrap();
    answer["handshakes"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {answer}"))
}

fn wait_received(receiver: &mut Process, count: u64) -> String {
    receiver
        .wait_for_log(Deadline::seconds(20), &format!("{count} records"), |log| {
            let line = log.lines().rev().find(|line| number(line, "received").is_some())?;
            (number(line, "received")? >= count).then(|| line.to_owned())
        })
        .unwrap()
}

#[test]
fn a_laptop_roams_to_another_port_and_another_address() {
    let office = office(OPEN);
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();
    let _echo = office.server.probe_server("echo", &format!("udp-echo {SERVER}:7")).unwrap();
    let to = format!("{SERVER}:7");
    echo(&office.laptop, &to, 20);
    laptop.set_listen_port(40_009).unwrap();
    echo(&office.laptop, &to, 20);
    wait_endpoint(&office, "anna-laptop", "192.0.2.11:40009");
    office.laptop.ip("address del 192.0.2.11/24 dev wan").unwrap();
    office.laptop.ip("address add 192.0.2.77/24 dev wan").unwrap();
    // wireguard-go goes on sending from the address that it remembers until its socket is new.
    laptop.set_listen_port(40_010).unwrap();
    echo(&office.laptop, &to, 20);
    wait_endpoint(&office, "anna-laptop", "192.0.2.77:40010");
    settle(&office);
}

fn wait_endpoint(office: &Office, device: &str, want: &str) {
    until(Deadline::seconds(10), format!("{device} to be seen at {want}"), || {
        let answer = office.gateway.cli_json(&["peer", "list"])?;
        let peers = answer["peers"].as_array().expect("peers");
        let peer = peers.iter().find(|peer| peer["name"] == device).expect(device);
        Ok(if peer["endpoint"] == want { Look::Ready(()) } else { Look::NotYet(peer.to_string()) })
    })
    .unwrap();
}

/// Ten thousand packets, no rule: none is forwarded, each is counted under its own reason.
#[test]
fn by_default_everything_is_denied_and_accounted_for() {
    const PACKETS: u64 = 10_000;
    const CHUNK: u64 = 500;
    let office = office("");
    let mut laptop = office.laptop_peer(Outer::V4).unwrap();
    let mut server = office.server_peer(Outer::V4).unwrap();
    laptop.handshake(Deadline::seconds(10)).unwrap();
    server.handshake(Deadline::seconds(10)).unwrap();
    // Whatever belongs to the handshakes has come to its end before the count begins.
    let before = steady(&office);
    let mut lan = RawPort::open(&office.legacy, "lan").unwrap();

    let seed = 0x00b1_63ea_d000_0001;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let mut want = [0_u64; 4];
    for sent in 1..=PACKETS {
        let (packet, end) = random_packet(&mut random);
        want[end] += 1;
        laptop.send(&packet).unwrap();
        if sent % CHUNK == 0 {
            wait_ended(&office, &before, sent);
        }
    }
    let after = settle(&office);
    let grown = |name: &str| after.end(name).unwrap() - before.end(name).unwrap();
    assert_eq!(grown("forwarded"), 0);
    let got = REASONS.map(grown);
    assert_eq!(got, want, "by reason; ends: {:?}", after.met());
    assert!(want.iter().all(|count| *count > 1000), "{want:?} do not exercise every reason");
    assert_eq!(server.receive(Deadline::after(Duration::from_millis(200))).unwrap(), None);
    let is_ip = |frame: &[u8]| {
        let unicast = frame[0] & 1 == 0;
        unicast && (frame[12..14] == [8, 0] || (frame[12..14] == [0x86, 0xdd] && frame[20] != 58))
    };
    let leaked = lan.collect(Deadline::after(Duration::from_millis(200)), is_ip).unwrap();
    assert!(leaked.is_empty(), "{leaked:?}");
}

/// What must deny the packets of [`random_packet`].
const REASONS: [&str; 4] =
    ["drop_no_rule", "drop_unknown_destination", "drop_unknown_source", "drop_spoofed_source"];

/// A packet from the laptop, and the index of the reason that must deny it.
fn random_packet(random: &mut Random) -> (Vec<u8>, usize) {
    let v4 = below(random, 2) == 0;
    let pick = |random: &mut Random, v4_from: [IpAddr; 2], v6_from: [IpAddr; 2]| {
        let index = below(random, 2);
        if v4 { v4_from[index] } else { v6_from[index] }
    };
    let end = below(random, REASONS.len());
    let known = ([SERVER.into(), LEGACY.into()], [SERVER_V6.into(), LEGACY_V6.into()]);
    let strange: ([IpAddr; 2], [IpAddr; 2]) = (
        ["10.99.0.1".parse().unwrap(), "172.16.5.5".parse().unwrap()],
        ["fd99::1".parse().unwrap(), "2001:db8:77::1".parse().unwrap()],
    );
    let own = ([LAPTOP.into(); 2], [LAPTOP_V6.into(); 2]);
    let from = match end {
        2 => pick(random, strange.0, strange.1),
        3 => pick(random, known.0, known.1),
        _ => pick(random, own.0, own.1),
    };
    let to = match end {
        1 => pick(random, strange.0, strange.1),
        _ => pick(random, known.0, known.1),
    };
    let source = SocketAddr::new(from, port(random));
    let destination = SocketAddr::new(to, port(random));
    let packet = match below(random, 3) {
        0 => inner::udp(source, destination, &vec![0x5a; below(random, 1200)]).unwrap(),
        1 => inner::tcp_syn(source, destination, 7).unwrap(),
        _ => inner::echo_request(from, to, port(random), 1).unwrap(),
    };
    (packet, end)
}

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(u64::try_from(limit).unwrap())).unwrap()
}

fn port(random: &mut Random) -> u16 {
    u16::try_from(1 + random.below(0xffff)).unwrap()
}

/// The counters once two looks in a row agree.
fn steady(office: &Office) -> Counters {
    let mut last = Counters::default();
    until(Deadline::seconds(10), "the counters to stand still", || {
        let now = office.gateway.counters()?;
        let same = now == last;
        last = now.clone();
        Ok(if same { Look::Ready(now) } else { Look::NotYet(format!("{now:?}")) })
    })
    .unwrap()
}

/// Waits until `count` more packets have ended: the sender must not outrun the rings, where the
/// kernel would drop what then has no end.
fn wait_ended(office: &Office, before: &Counters, count: u64) {
    until(Deadline::seconds(20), format!("{count} packets to end"), || {
        let ended = office.gateway.counters()?.ended - before.ended;
        Ok(if ended >= count { Look::Ready(()) } else { Look::NotYet(ended.to_string()) })
    })
    .unwrap();
}

/// No answer of any kind: noise, every message type with a wrong MAC, and a right first message
/// from a key that nobody knows.
#[test]
fn strangers_get_no_answer() {
    let office = office(OPEN);
    let to = office.gateway_endpoint(Outer::V4);
    let stranger = bulkhead_tests::KeyPair::generate().unwrap();
    let mut peer =
        WirePeer::new(&office.laptop, &stranger, &office.gateway_key.public, None, to).unwrap();
    // Have the kernel's neighbours known first: ARP is not what is watched.
    ping(&office.laptop, to.ip());
    let before = steady(&office);
    let mut wan = RawPort::open(&office.laptop, "wan").unwrap();
    let lengths = [1_usize, 31, 32, 64, 92, 148, 149, 1400];
    for len in lengths {
        for kind in 0..=5 {
            let mut datagram = vec![0xa5; len];
            datagram[..len.min(4)].copy_from_slice(&[kind, 0, 0, 0][..len.min(4)]);
            peer.send_datagram(&datagram).unwrap();
        }
    }
    assert!(peer.handshake(Deadline::after(Duration::from_millis(500))).is_err());
    let sent = u64::try_from(lengths.len()).unwrap() * 6 + 1;
    wait_ended(&office, &before, sent);
    let from_gateway = |frame: &[u8]| frame[12..14] == [8, 0] && frame[26..30] == [192, 0, 2, 1];
    let heard = wan.collect(Deadline::after(Duration::from_millis(300)), from_gateway).unwrap();
    assert!(heard.is_empty(), "the gateway spoke to a stranger: {heard:?}");
    let after = settle(&office);
    let grown = |name: &str| after.end(name).unwrap() - before.end(name).unwrap();
    // Right lengths: a first and a second message with a wrong MAC1; the stranger's own first
    // message; a cookie reply to nothing that was sent; six data messages.
    let ends = ["drop_mac1", "handshake", "drop_unasked", "drop_no_session", "drop_not_wireguard"];
    assert_eq!(ends.map(grown), [2, 1, 1, 6, 39], "{:?}", after.met());
    assert_eq!(grown("forwarded"), 0);
    assert_eq!(handshakes(&office, "unknown_peer"), 1);
}

/// A bad configuration is refused with exit code 3 and the running policy stays.
#[test]
fn a_mistake_in_the_configuration_changes_nothing() {
    let office = office(OPEN);
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let _laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();
    ping(&office.laptop, SERVER.into());
    let before = office.gateway.cli_json(&["status"]).unwrap()["generation"].clone();
    for (broken, want) in [
        (office.config(&OPEN.replace("device:server", "device:serwer")), code::INVALID),
        (office.config("[group.x]\nmembers = \"all\""), code::INVALID),
        (
            office.config(&format!(
                "{OPEN}\n[[test]]\nname = \"wrong\"\nfrom = \"device:server\"\nallow = [\"{LEGACY} tcp/22\"]"
            )),
            code::POLICY_TEST,
        ),
    ] {
        office.gateway.write_config(&broken).unwrap();
        let output = office.gateway.cli(&["apply"]).unwrap();
        assert_eq!(output.code, Some(want), "{output:?}");
        let place = if want == code::INVALID { "bulkhead.toml:" } else { "(line " };
        assert!(output.stderr.contains(place), "no {place:?} in {output:?}");
        let output = office.gateway.cli(&["check"]).unwrap();
        assert_eq!(output.code, Some(want), "{output:?}");
    }
    assert_eq!(office.gateway.cli_json(&["status"]).unwrap()["generation"], before);
    ping(&office.laptop, SERVER.into());
    settle(&office);
}

/// A UDP stream from the laptop to the server, one record every 2 ms.
struct Stream {
    receiver: Process,
    _sender: Process,
}

fn stream(office: &Office) -> Stream {
    let listen = format!("stream-receive udp {SERVER}:7000 --quiet-ms 200");
    let mut receiver = office.server.probe_server("receive", &listen).unwrap();
    let send = format!("stream-send udp {SERVER}:7000 --interval-us 2000");
    let _sender = office.laptop.probe("send", &send).unwrap();
    wait_received(&mut receiver, 200);
    Stream { receiver, _sender }
}

#[test]
fn control_is_killed_and_restarted_and_no_packet_is_lost() {
    let mut office = office(OPEN);
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let _laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();
    let mut stream = stream(&office);
    let datapath = office.gateway.datapath_pid().unwrap();
    let before = office.gateway.counters().unwrap();

    for _ in 0..3 {
        office.gateway.kill_control().unwrap();
        let line = stream.receiver.log();
        let had = number(last_line(&line, "progress").unwrap(), "received").unwrap();
        wait_received(&mut stream.receiver, had + 250);
        let unreachable = office.gateway.cli(&["status"]).unwrap();
        assert_eq!(unreachable.code, Some(code::UNREACHABLE), "{unreachable:?}");
        office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
        let line = stream.receiver.log();
        let had = number(last_line(&line, "progress").unwrap(), "received").unwrap();
        let line = wait_received(&mut stream.receiver, had + 250);
        assert_eq!(number(&line, "missing"), Some(0), "{}", stream.receiver.log());
    }
    assert_eq!(office.gateway.datapath_pid().unwrap(), datapath, "the datapath was not adopted");
    let after = settle(&office);
    assert!(after.received > before.received + 1000, "the counters did not survive");
    assert!(!stream.receiver.log().contains("gap "), "{}", stream.receiver.log());
    let peers = office.gateway.cli_json(&["peer", "list"]).unwrap();
    assert_eq!(peers["peers"].as_array().unwrap().len(), 2);
    assert!(peers["peers"][0]["handshake_age_ms"].is_u64(), "no adopted session: {peers}");
}

#[test]
fn the_datapath_is_killed_and_traffic_returns() {
    let mut office = office(OPEN);
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let _laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();
    let mut stream = stream(&office);
    let killed = office.gateway.kill_datapath().unwrap();
    // Reachable for its administrators all the while: its kernel answers.
    ping(&office.laptop, "192.0.2.1".parse().unwrap());
    office.gateway.wait_confirmed(Deadline::seconds(20)).unwrap();
    let now = office.gateway.datapath_pid().unwrap().expect("no datapath");
    assert_ne!(now, killed);
    // The clients notice by themselves that their session is gone: 15 s (KEEPALIVE_TIMEOUT +
    // REKEY_TIMEOUT) without an answer, and then a handshake.
    stream
        .receiver
        .wait_for_log(Deadline::seconds(40), "the stream again", |log| {
            last_line(log, "resumed").map(|_| ())
        })
        .unwrap();
    settle(&office);
}

/// The capabilities of the units are enough, and root is not needed.
#[test]
fn both_daemons_run_with_the_privileges_of_their_units() {
    let mut office = Office::build().unwrap();
    office.gateway.write_config(&office.config(OPEN)).unwrap();
    office.gateway.start_as_units().unwrap();
    office.gateway.wait_confirmed(Deadline::seconds(20)).unwrap();
    for pid in [office.gateway.control_pid(), office.gateway.datapath_pid().unwrap()] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.unwrap())).unwrap();
        assert!(status.contains("Uid:\t65534\t65534"), "{status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
    let server = office.server_tunnel(Engine::Boringtun, Outer::V4).unwrap();
    server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20)).unwrap();
    let _laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4).unwrap();
    everybody_talks(&office);
    settle(&office);
}
