//! What a session must survive, with every implementation: renewal under load, a peer that starts
//! anew, a clock that jumps.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bulkhead_tests::office::{LEGACY, SERVER, SERVER_V6};
use bulkhead_tests::probe::{last_line, number};
use bulkhead_tests::{
    Deadline, Engine, Guest, Implementation, Look, Office, Outer, PeerSettings, Tunnel,
    TunnelSettings, until,
};

/// Where the peer listens.
const PORT: u16 = 40_002;

const POLICY: &str = r#"
[service.test]
ports = ["udp/7", "udp/7000"]
[[rule]]
id = "open"
from = ["device:server", "segment:offices"]
to = ["device:server", "segment:offices"]
services = ["test"]
"#;

/// Every minute of a session is about a second: a new one every two, and a peer that is silent for
/// two is called.
const TIMERS: &str = "rekey_after = \"2s\"\nreject_after = \"8s\"\nrekey_timeout = \"1s\"\n\
                      keepalive = \"1s\"";

/// A gateway that knows where its one peer is, and that peer's implementation.
struct Scene {
    office: Office,
    whose: Implementation,
}

impl Scene {
    fn with_program(engine: Engine, timers: &str) -> Self {
        let office = Office::build().unwrap();
        let whose = Implementation::program(&office, engine);
        Self { office, whose }.start(timers)
    }

    fn with_kernel(timers: &str) -> Self {
        let office = Office::build().unwrap();
        let whose = Implementation::kernel(&office).unwrap();
        Self { office, whose }.start(timers)
    }

    fn start(mut self, timers: &str) -> Self {
        let config = self.office.config_with_timers(timers, POLICY);
        let device = "[device.server]\n";
        assert!(config.contains(device));
        let at = SocketAddr::new(self.whose.outer_address(Outer::V4), PORT);
        let config = config.replace(device, &format!("{device}endpoint = \"{at}\"\n"));
        self.office.gateway.write_config(&config).unwrap();
        self.office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
        self
    }

    /// The peer: it knows where the gateway is, or waits to be called.
    fn tunnel(&self, calling: bool) -> Tunnel {
        let peer = PeerSettings {
            public_key: &self.office.gateway_key.public,
            preshared_key: None,
            endpoint: calling.then(|| self.office.gateway_endpoint(Outer::V4)),
            allowed_ips: &["10.20.1.0/24", "fd20:1::/64"],
            keepalive: None,
        };
        let settings = TunnelSettings {
            device: "wg0",
            key: &self.office.server_key,
            listen_port: Some(PORT),
            addresses: &[&format!("{SERVER}/32"), &format!("{SERVER_V6}/128")],
            mtu: 1420,
            peers: &[peer],
        };
        self.whose.tunnel(&settings).unwrap()
    }

    fn handshakes(&self, name: &str) -> u64 {
        let answer = self.office.gateway.cli_json(&["counters"]).unwrap();
        answer["handshakes"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {answer}"))
    }

    fn settle(&self) {
        let counters = self.office.gateway.counters().unwrap();
        counters.check_conserved().unwrap();
        assert_eq!(counters.end("drop_forged").unwrap(), 0, "{:?}", counters.met());
    }
}

/// Whether a receiver has this many records and misses none.
fn complete(log: &str, count: u64) -> bool {
    let line = log.lines().rev().find(|line| number(line, "received").is_some());
    line.is_some_and(|line| {
        number(line, "received") == Some(count) && number(line, "missing") == Some(0)
    })
}

/// The gateway renews the session every two seconds, by itself, while numbered records flow both
/// ways: none is lost.
fn rekey(scene: &Scene) {
    const RECORDS: u64 = 4000;
    let Scene { office, whose } = scene;
    let tunnel = scene.tunnel(false);
    let listen = |at: IpAddr| format!("stream-receive udp {}", SocketAddr::new(at, 7000));
    let send = |at: IpAddr| {
        let at = SocketAddr::new(at, 7000);
        format!("stream-send udp {at} --interval-us 2000 --count {RECORDS} --bytes 600")
    };
    let here = tunnel.probe_server("receive", &listen(SERVER.into())).unwrap();
    let there = office.legacy.probe_server("receive", &listen(LEGACY.into())).unwrap();
    let mut to_peer = office.legacy.probe("send", &send(SERVER.into())).unwrap();
    // The peer knows where to send from the first handshake on, which the other stream brings about.
    here.wait_for_log(Deadline::seconds(20), "the first record", |log| {
        last_line(log, "first").map(|_| ())
    })
    .unwrap();
    let _to_legacy = tunnel.probe("send", &send(LEGACY.into())).unwrap();
    to_peer.wait(Deadline::seconds(90)).unwrap();
    let logs: [(&str, &dyn Fn() -> String); 2] =
        [("to the peer", &|| here.log().unwrap()), ("from the peer", &|| there.log())];
    for (what, log) in logs {
        until(Deadline::seconds(90), format!("{whose}, {what}: all records"), || {
            let log = log();
            Ok(if complete(&log, RECORDS) { Look::Ready(()) } else { Look::NotYet(log) })
        })
        .unwrap();
    }
    let done = scene.handshakes("sessions_initiator");
    assert!(done >= 3, "{whose}: 8 s of traffic, a session every 2 s, and {done} handshakes");
    println!("{whose}: {done} sessions in {RECORDS} records each way, none lost");
    scene.settle();
}

#[test]
fn rekey_under_load_loses_no_packet_with_wireguard_go() {
    rekey(&Scene::with_program(Engine::WireguardGo, TIMERS));
}

#[test]
fn rekey_under_load_loses_no_packet_with_boringtun() {
    rekey(&Scene::with_program(Engine::Boringtun, TIMERS));
}

#[test]
fn rekey_under_load_loses_no_packet_with_gotatun() {
    rekey(&Scene::with_program(Engine::Gotatun, TIMERS));
}

#[test]
fn rekey_under_load_loses_no_packet_with_the_linux_kernel() {
    rekey(&Scene::with_kernel(TIMERS));
}

/// A peer that lost its sessions and waits to be called: the gateway notices that it does not
/// answer and calls. A peer that calls by itself is heard at once.
fn restart(scene: &Scene) {
    let Scene { office, whose } = scene;
    let to_peer = format!("udp-ping {SERVER}:7 --count 1 --patience-ms 300");
    let to_legacy = format!("udp-ping {LEGACY}:7 --count 1 --patience-ms 300");
    let echo = |at: IpAddr| format!("udp-echo {}", SocketAddr::new(at, 7));
    let _legacy = office.legacy.probe_server("echo", &echo(LEGACY.into())).unwrap();
    // Returns how long the traffic was away.
    let returns = |what: &str, ping: &dyn Fn() -> Option<i32>| {
        let since = Deadline::seconds(60);
        until(since, format!("{whose}: {what}"), || {
            Ok(if ping() == Some(0) { Look::Ready(()) } else { Look::NotYet("no echo".into()) })
        })
        .unwrap();
        let away = since.elapsed();
        println!("{whose}: {what} after {:.1} s", away.as_secs_f64());
        away
    };
    let from_legacy = || office.legacy.probe_once(&to_peer).unwrap().code;
    let mut lives = 0;
    for calling in [false, false, true] {
        let tunnel = scene.tunnel(calling);
        let _echo = tunnel.probe_server("echo", &echo(SERVER.into())).unwrap();
        let from_peer = || tunnel.probe_once(&to_legacy).unwrap().code;
        let (away, what) = if calling {
            (returns("a peer that calls is heard", &from_peer), "called")
        } else {
            (returns("a peer that waits is called", &from_legacy), "waited")
        };
        // KEEPALIVE_TIMEOUT and REKEY_TIMEOUT are 1 s each here, with jitter on top; the rest is
        // for a machine with other work.
        assert!(away < Duration::from_secs(20), "{whose} {what} for {away:?}");
        // And the other way as well.
        returns("the peer is reached", &from_legacy);
        returns("the segment is reached", &from_peer);
        lives += 1;
        drop(tunnel);
    }
    let sessions = scene.handshakes("sessions_initiator") + scene.handshakes("sessions_responder");
    assert!(sessions >= lives, "{whose}: {lives} lives and {sessions} sessions");
    scene.settle();
}

#[test]
fn a_restarted_peer_is_reached_again_with_wireguard_go() {
    restart(&Scene::with_program(
        Engine::WireguardGo,
        "keepalive = \"1s\"\nrekey_timeout = \"1s\"",
    ));
}

#[test]
fn a_restarted_peer_is_reached_again_with_boringtun() {
    restart(&Scene::with_program(Engine::Boringtun, "keepalive = \"1s\"\nrekey_timeout = \"1s\""));
}

#[test]
fn a_restarted_peer_is_reached_again_with_gotatun() {
    restart(&Scene::with_program(Engine::Gotatun, "keepalive = \"1s\"\nrekey_timeout = \"1s\""));
}

#[test]
fn a_restarted_peer_is_reached_again_with_the_linux_kernel() {
    restart(&Scene::with_kernel("keepalive = \"1s\"\nrekey_timeout = \"1s\""));
}

/// The clock of a real kernel jumps a year ahead and back again. A session does not notice; the
/// first initiation after the jump ahead is taken, because its timestamp is greater; and after the
/// jump back the gateway still gets through by calling, because then its own clock counts.
#[test]
fn a_peer_whose_clock_jumps_keeps_its_session_and_gets_new_ones() {
    const YEAR: i64 = 365 * 86_400;
    // The gateway calls a peer that has been silent for both together: later than the new peer does,
    // also on a slow machine, because whose initiation is taken is the question.
    let scene = Scene::with_kernel("keepalive = \"9s\"\nrekey_timeout = \"1s\"");
    let Scene { office, whose: Implementation::Kernel(guest) } = &scene else { unreachable!() };
    let echo = |at: IpAddr| format!("udp-echo {}", SocketAddr::new(at, 7));
    let _legacy = office.legacy.probe_server("echo", &echo(LEGACY.into())).unwrap();
    let patient = format!("udp-ping {LEGACY}:7 --count 20 --interval-us 5000 --patience-ms 15000");
    let all_return = |tunnel: &Tunnel, when: &str| {
        let output = tunnel.probe_once(&patient).unwrap();
        let counters = office.gateway.counters().unwrap();
        assert_eq!(output.code, Some(0), "{when}: {output:?}; {:?}", counters.met());
    };
    let sessions = || scene.handshakes("sessions_responder");

    let tunnel = scene.tunnel(true);
    // The first packets, which wait for a session and for neighbours, are not what is tested here.
    until(Deadline::seconds(20), "the first echo", || {
        let output = tunnel.probe_once(&format!("udp-ping {LEGACY}:7 --count 1"))?;
        Ok(if output.code == Some(0) { Look::Ready(()) } else { Look::NotYet(output.stdout) })
    })
    .unwrap();
    all_return(&tunnel, "before");
    let before = sessions();
    jump(guest, YEAR);
    all_return(&tunnel, "in the same session, a year later");
    jump(guest, -YEAR);
    all_return(&tunnel, "in the same session, back again");
    assert_eq!(sessions(), before, "it was the same session");

    drop(tunnel);
    jump(guest, YEAR);
    let tunnel = scene.tunnel(true);
    all_return(&tunnel, "in a session of next year");
    assert_eq!(sessions(), before + 1);
    drop(tunnel);

    jump(guest, -YEAR);
    let tunnel = scene.tunnel(false);
    let _echo = tunnel.probe_server("echo", &echo(SERVER.into())).unwrap();
    let to_peer = format!("udp-ping {SERVER}:7 --count 1 --patience-ms 300");
    until(Deadline::seconds(60), "the gateway to reach a peer of last year", || {
        let output = office.legacy.probe_once(&to_peer)?;
        Ok(if output.code == Some(0) { Look::Ready(()) } else { Look::NotYet(output.stdout) })
    })
    .unwrap();
    all_return(&tunnel, "in the session that the gateway began");
    scene.settle();
}

/// Moves the guest's clock by so many seconds.
fn jump(guest: &Guest, seconds: i64) {
    let now = || guest.exec("date +%s").unwrap().trim().parse::<i64>().unwrap();
    let before = now();
    guest.exec(&format!("date -s @{}", before + seconds)).unwrap();
    let moved = now() - before - seconds;
    assert!((0..60).contains(&moved), "the clock moved by {moved} s more than it should");
}
