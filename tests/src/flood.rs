//! A flood of handshake messages with made-up source addresses, written past the kernel's stack.
//!
//! ```text
//!   server's device ──▶ switch ──▶ gateway      sources 11.0.0.0/8, each frame its own
//! ```

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use etherparse::PacketBuilder;
use serde_json::Value;

use crate::office::LISTEN_PORT;
use crate::wire_peer::decode;
use crate::{Failure, KeyPair, Office, Outer, RawPort, now};

/// Frames that are sent in turn, each with a source of its own.
const SOURCES: u32 = 16_384;

/// How often the pace is looked at.
const SLICE: Duration = Duration::from_millis(2);

/// Whether the messages show that their sender knows the gateway's public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mac1 {
    /// They do: a guard must look further.
    Right,
    /// One bit is wrong: dropped at the first look. What such a flood costs the machine is the
    /// sending, the path, and one MAC.
    Wrong,
}

/// A flood that goes on until it is stopped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, Failure>>,
    started: std::time::Instant,
}

/// What a flood was.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Messages sent.
    pub sent: u64,
    /// Messages a second.
    pub per_second: f64,
}

impl Flood {
    /// Sends initiations of a stranger from the server's place, `per_second` or as many as go out.
    ///
    /// # Errors
    ///
    /// If the device cannot be opened.
    pub fn start(office: &Office, mac1: Mac1, per_second: u64) -> Result<Self, Failure> {
        let mut port = RawPort::open(&office.server, "wan")?;
        let frames = frames(office, port.address(), mac1)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let started = now();
        let thread = std::thread::spawn(move || {
            let (mut sent, mut frames) = (0_u64, frames.iter().cycle());
            while !stopped.load(Ordering::Relaxed) {
                let elapsed = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                let due = elapsed.saturating_mul(per_second) / 1_000_000;
                for frame in
                    frames.by_ref().take(usize::try_from(due.saturating_sub(sent)).unwrap_or(0))
                {
                    // A full queue drops, like any other.
                    if port.send(frame).is_err() {
                        std::thread::yield_now();
                    }
                    sent += 1;
                    if stopped.load(Ordering::Relaxed) {
                        return Ok(sent);
                    }
                }
                std::thread::sleep(SLICE);
            }
            Ok(sent)
        });
        Ok(Self { stop, thread, started })
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// If it ended by itself.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people; counts are below 2^53")]
    pub fn stop(self) -> Result<Flooded, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let elapsed = self.started.elapsed().as_secs_f64();
        let joined = self.thread.join().map_err(|_| Failure::new("the flood panicked"))?;
        let sent = joined?;
        Ok(Flooded { sent, per_second: sent as f64 / elapsed })
    }
}

fn frames(office: &Office, own: [u8; 6], mac1: Mac1) -> Result<Vec<Vec<u8>>, Failure> {
    let gateway = hardware_address(office)?;
    let mut message = initiation(&office.gateway_key.public)?;
    if mac1 == Mac1::Wrong
        && let Some(byte) = message.get_mut(116)
    {
        *byte ^= 1;
    }
    let std::net::IpAddr::V4(to) = office.gateway_endpoint(Outer::V4).ip() else {
        return Err(Failure::new("the gateway has no IPv4 address"));
    };
    (0..SOURCES)
        .map(|n| {
            // Spread over the /8.
            let source = Ipv4Addr::from(0x0b00_0000 | (n.wrapping_mul(0x9e37_79b1) >> 8));
            let mut frame = Vec::with_capacity(200);
            PacketBuilder::ethernet2(own, gateway)
                .ipv4(source.octets(), to.octets(), 64)
                .udp(40_000, LISTEN_PORT)
                .write(&mut frame, &message)
                .map_err(|error| Failure::new(format!("building a frame: {error}")))?;
            Ok(frame)
        })
        .collect()
}

/// An initiation of somebody whom the gateway does not know, but who knows its public key.
fn initiation(gateway: &str) -> Result<Vec<u8>, Failure> {
    let stranger = StaticSecret::from(decode(&KeyPair::generate()?.private)?);
    let mut tunnel = Tunn::new(stranger, PublicKey::from(decode(gateway)?), None, None, 1, None);
    let mut buffer = [0; 256];
    match tunnel.format_handshake_initiation(&mut buffer, true) {
        TunnResult::WriteToNetwork(message) => Ok(message.to_vec()),
        other @ (TunnResult::Done
        | TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..)) => {
            Err(Failure::new(format!("no initiation: {other:?}")))
        }
    }
}

fn hardware_address(office: &Office) -> Result<[u8; 6], Failure> {
    let namespace = office.gateway.namespace();
    let text = namespace.exec(&["ip", "-json", "link", "show", "dev", "outside"])?;
    let links: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("ip printed no JSON: {error}")))?;
    let address = links.pointer("/0/address").and_then(Value::as_str).unwrap_or_default();
    let bytes: Vec<u8> =
        address.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.try_into().map_err(|_| Failure::new(format!("no hardware address in {text}")))
}
