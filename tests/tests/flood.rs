//! Issue 3, must hold 3, in small: a flood of handshakes from made-up sources. The figures of a whole
//! machine are the affair of `perf/profiles/flood.toml`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "tests fail by panicking, their helpers too"
)]

use std::time::Duration;

use bulkhead_tests::flood::{Flood, Mac1};
use bulkhead_tests::office::{LAPTOP, SERVER};
use bulkhead_tests::{Deadline, KeyPair, Office, Outer, WirePeer, inner, now};

/// What the laptop says to the server, packets a second.
const RATE: u32 = 500;

/// How long each measurement takes.
const TIME: Duration = Duration::from_secs(3);

/// Handshake messages a second: a debug build computes some 2,000 handshakes on an idle core.
const FLOOD: u64 = 40_000;

/// Goal: under a flood with right MAC1 and made-up sources an established tunnel keeps its rate, and a
/// new peer connects within a second.
/// Method: the same flood with a wrong MAC1 is what the rate is compared with, because the sender takes
/// its share of the cores in both.
#[test]
fn a_flood_leaves_tunnels_their_rate_and_lets_a_new_peer_in_within_a_second() {
    let mut office = Office::build().unwrap();
    let newcomer = KeyPair::generate().unwrap();
    let policy = format!(
        "[service.stream]\nports = [\"udp/5000\"]\n\n[[rule]]\nid = \"stream\"\n\
         from = [\"user:anna\"]\nto = [\"device:server\"]\nservices = [\"stream\"]\n\n\
         [device.newcomer]\nuser = \"anna\"\npublic_key = \"{}\"\n\
         addresses = [\"10.44.0.8/32\"]\n",
        newcomer.public
    );
    office.gateway.write_config(&office.config(&policy)).unwrap();
    office.gateway.start_and_wait(Deadline::seconds(30)).unwrap();
    let mut laptop = office.laptop_peer(Outer::V4).unwrap();
    let mut server = office.server_peer(Outer::V4).unwrap();
    laptop.handshake(Deadline::seconds(10)).unwrap();
    server.handshake(Deadline::seconds(10)).unwrap();
    // The gateway may send to the server once it has heard from it.
    server.send(&[]).unwrap();
    let quiet = delivered(&mut laptop, &mut server);
    assert!(quiet > 0.5, "without a flood {quiet:.2} of the packets arrive");

    let flood = Flood::start(&office, Mac1::Wrong, FLOOD).unwrap();
    let before = delivered(&mut laptop, &mut server);
    let wrong = flood.stop().unwrap();

    let flood = Flood::start(&office, Mac1::Right, FLOOD).unwrap();
    let during = delivered(&mut laptop, &mut server);
    let to = office.gateway_endpoint(Outer::V4);
    let key = &office.gateway_key.public;
    let mut peer = WirePeer::new(&office.laptop, &newcomer, key, None, to).unwrap();
    let started = now();
    // A client that tries again at once when it has a cookie; stock ones wait for five seconds.
    while peer.handshake(Deadline::after(Duration::from_millis(100))).is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "{}", office.gateway.log());
    }
    let connected = started.elapsed();
    let right = flood.stop().unwrap();

    let counters = office.gateway.counters().unwrap();
    println!(
        "floods of {:.0} and {:.0} messages a second; delivered {quiet:.3}, then {before:.3} with a \
         wrong MAC1, {during:.3} with a right one; a new peer connected in {:.0} ms; {:?}",
        wrong.per_second,
        right.per_second,
        connected.as_secs_f64() * 1e3,
        counters.met(),
    );
    counters.check_conserved().unwrap();
    let cookies = counters.end("cookie_reply").unwrap() + counters.end("drop_cookie_rate").unwrap();
    assert!(cookies > 1_000, "the flood made load: {cookies}");
    assert!(counters.end("handshake").unwrap() < right.sent / 4, "it did not reach control");
    assert!(during >= 0.8 * before, "{during:.3} of {before:.3}");
    assert!(connected < Duration::from_secs(1), "{connected:?}");
}

/// The share of the packets that arrive.
fn delivered(laptop: &mut WirePeer, server: &mut WirePeer) -> f64 {
    let packet = inner::udp((LAPTOP, 4_000).into(), (SERVER, 5_000).into(), &[7; 200]).unwrap();
    let total = RATE * u32::try_from(TIME.as_secs()).unwrap();
    let mut arrived = 0;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let started = now();
            for n in 0..total {
                let due = TIME * n / total;
                std::thread::sleep(due.saturating_sub(started.elapsed()));
                laptop.send(&packet).unwrap();
            }
        });
        while !sending.is_finished() {
            arrived +=
                u32::from(server.receive(Deadline::after(Duration::ZERO)).unwrap().is_some());
        }
        while server.receive(Deadline::after(Duration::from_millis(200))).unwrap().is_some() {
            arrived += 1;
        }
    });
    f64::from(arrived) / f64::from(total)
}
