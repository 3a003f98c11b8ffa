//! What a flood of handshakes does to the tunnels that are there, and to a peer that is new.
//!
//! ```text
//!   laptop ══ iperf3, paced ══▶ gateway ══▶ server        counted at the server's device
//!   made-up sources ── initiations, N times the capacity ──▶ gateway
//!   newcomer ── initiation, cookie, initiation ──▶ gateway    timed
//! ```

use std::time::Duration;

use bulkhead_tests::flood::{Flood, Flooded, Mac1};
use bulkhead_tests::{Deadline, Failure, KeyPair, Outer, WirePeer, now};
use bulkhead_wg::{PresharedKey, PrivateKey, Responder, Tai64n, initiate};

use crate::hub::Hub;
use crate::measure::{Rate, measure, median};
use crate::profile::{HubKind, Profile};

/// Handshakes that are computed to learn the capacity.
const SAMPLE: u32 = 2_000;

/// How long the newcomer waits for the answer to one initiation before it sends the next.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs the profile and prints its figures.
///
/// # Errors
///
/// If the world does not come up, or the newcomer does not get in at all.
#[expect(clippy::print_stdout, reason = "the report is the product")]
pub fn run(profile: &Profile, times_capacity: u32) -> Result<(), Failure> {
    let capacity = capacity()?;
    println!("perf flood capacity: {capacity} handshakes/s, computed on one idle core");
    let per_second = capacity.saturating_mul(u64::from(times_capacity));
    for load in &profile.load {
        let (mut quiet, mut wrong, mut right) = (vec![], vec![], vec![]);
        for _ in 0..profile.rounds {
            let newcomer = KeyPair::generate()?;
            let hub = Hub::start_with(HubKind::Bulkhead, &newcomer_section(&newcomer))?;
            quiet.push(measure(&hub.office, load, profile.seconds)?);
            let flood = Flood::start(&hub.office, Mac1::Wrong, per_second)?;
            wrong.push(measure(&hub.office, load, profile.seconds)?);
            said("wrong", flood.stop()?, capacity);
            let flood = Flood::start(&hub.office, Mac1::Right, per_second)?;
            right.push(measure(&hub.office, load, profile.seconds)?);
            let connected = connect(&hub, &newcomer)?;
            said("right", flood.stop()?, capacity);
            println!("perf flood newcomer: connected in {:.0} ms", connected.as_secs_f64() * 1e3);
            let counters = hub.office.gateway.counters()?;
            println!(
                "perf flood ends: {} cookie_reply, {} drop_cookie_rate, {} handshake, {} drop_mac1",
                counters.end("cookie_reply")?,
                counters.end("drop_cookie_rate")?,
                counters.end("handshake")?,
                counters.end("drop_mac1")?
            );
        }
        let [quiet, wrong, right] = [&mut quiet, &mut wrong, &mut right].map(|all| median(all));
        report(&load.name, quiet, wrong, right);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the report is the product")]
fn report(load: &str, quiet: Rate, wrong: Rate, right: Rate) {
    println!(
        "perf flood {load}: {:.0} packets/s without a flood, {:.0} with a wrong MAC1, {:.0} with a \
         right one: {:.3} of the second, target 0.95",
        quiet.packets,
        wrong.packets,
        right.packets,
        right.packets / wrong.packets
    );
}

#[expect(clippy::print_stdout, reason = "the report is the product")]
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn said(mac1: &str, flooded: Flooded, capacity: u64) {
    let times = flooded.per_second / capacity as f64;
    println!(
        "perf flood sent, {mac1} MAC1: {:.0}/s, {times:.1} of the capacity",
        flooded.per_second
    );
}

/// Responses to known peers that one core computes in a second: what `bulkheadd` does, without what
/// it does besides, so the true capacity is lower.
fn capacity() -> Result<u64, Failure> {
    let failed = |error| Failure::new(format!("a handshake failed: {error}"));
    let [gateway, peer] = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
    let (psk, stamp) = (PresharedKey::from_bytes([3; 32]), Tai64n::default());
    let (initiation, _) =
        initiate(&peer, &gateway.public_key(), &psk, 7, stamp, &[4; 32]).map_err(failed)?;
    let responder = Responder::new(&gateway);
    let started = now();
    for _ in 0..SAMPLE {
        let read = responder.consume(&initiation).map_err(failed)?;
        let _ = read.respond(&psk, 9, &[5; 32]).map_err(failed)?;
    }
    let elapsed = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(u64::from(SAMPLE) * 1_000_000 / elapsed.max(1))
}

fn newcomer_section(key: &KeyPair) -> String {
    format!(
        "[device.newcomer]\nuser = \"anna\"\npublic_key = \"{}\"\naddresses = [\"10.44.0.8/32\"]\n",
        key.public
    )
}

/// How long a peer that was never there needs. It tries again as soon as it has a cookie, or after
/// [`PATIENCE`]; stock clients wait for five seconds (REKEY_TIMEOUT) by the protocol.
fn connect(hub: &Hub, key: &KeyPair) -> Result<Duration, Failure> {
    let office = &hub.office;
    let to = office.gateway_endpoint(Outer::V4);
    let mut peer = WirePeer::new(&office.laptop, key, &office.gateway_key.public, None, to)?;
    let (started, deadline) = (now(), Deadline::seconds(20));
    loop {
        match peer.handshake(Deadline::after(PATIENCE)) {
            Ok(()) => return Ok(started.elapsed()),
            Err(failure) if deadline.is_over() => return Err(failure),
            Err(_) => {}
        }
    }
}
