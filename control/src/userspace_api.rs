//! The text protocol by which `wg` of wireguard-tools reads a WireGuard implementation in user
//! space (<https://www.wireguard.com/xplatform/>, "Configuration Protocol"; its reader is `ipc-uapi.h`
//! of wireguard-tools). No socket here: bytes in, bytes out.
//!
//! ```text
//!   get=1\n\n   ─▶  private_key=… listen_port=… (public_key=… endpoint=… allowed_ip=… …)* errno=0\n\n
//!   set=1\n…\n\n ─▶  errno=-30\n\n       EROFS: the configuration file is the only place to change things
//!   other       ─▶  errno=-22\n\n       EINVAL
//! ```
//!
//! INVARIANT: a secret is written only if the listener's configuration says so, and every buffer
//! that held one is wiped. A request is never kept: of what cannot be answered nothing but its first
//! bytes is looked at.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use bulkhead_wg::PresharedKey;
use zeroize::Zeroizing;

use crate::figures::{Figures, PeerFigures};
use crate::intent::{Device, Listening};

/// The longest request that is read to its end, bytes. `wg set` with a thousand peers has some 200
/// KB; a longer one gets its answer as well, and then the connection is closed.
pub const REQUEST_MAX: usize = 1 << 20;

const GET: &[u8] = b"get=1\n\n";
const SET: &[u8] = b"set=1\n";
const END: &[u8] = b"\n\n";

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To read.
    Get,
    /// To change.
    Set,
    /// Something else.
    Nonsense,
    /// More than [`REQUEST_MAX`] bytes of it. What follows is its rest, not a request.
    TooLong,
}

/// Reads one request; `None` at the end of what the client says. `wg` asks whether a socket is alive
/// by connecting and saying nothing.
///
/// # Errors
///
/// Whatever the reader says, which has its own deadline.
pub fn read_wish(reader: &mut impl BufRead) -> io::Result<Option<Wish>> {
    let (mut head, mut last, mut len) = ([0u8; GET.len()], 0u8, 0usize);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok((len > 0).then_some(Wish::Nonsense));
        }
        let (mut taken, mut ended) = (0, false);
        for byte in bytes {
            if let Some(place) = head.get_mut(len) {
                *place = *byte;
            }
            (len, taken) = (len + 1, taken + 1);
            ended = [last, *byte] == *END;
            last = *byte;
            if ended || len == REQUEST_MAX {
                break;
            }
        }
        reader.consume(taken);
        if ended {
            return Ok(Some(match &head {
                head if *head == *GET => Wish::Get,
                head if head.starts_with(SET) => Wish::Set,
                _ => Wish::Nonsense,
            }));
        }
        if len == REQUEST_MAX {
            return Ok(Some(Wish::TooLong));
        }
    }
}

/// The answer to everything that is not a question; `None`: to a question.
#[must_use]
pub fn refusal(wish: Wish) -> Option<&'static str> {
    match wish {
        Wish::Get => None,
        Wish::Set | Wish::TooLong => Some("errno=-30\n\n"),
        Wish::Nonsense => Some("errno=-22\n\n"),
    }
}

/// Writes everything that is known of a listener. `now` is the wall clock since the epoch: the
/// handshakes are told as times, not as ages.
///
/// # Errors
///
/// Whatever the writer says.
pub fn write_listener(
    out: &mut impl Write,
    listener: &Listening,
    figures: &Figures,
    now: Duration,
) -> io::Result<()> {
    if listener.shows.private_key {
        write_key(out, "private_key", listener.private.expose())?;
    }
    writeln!(out, "listen_port={}", listener.udp_port)?;
    let own = listener.private.public_key();
    for (device, peer) in figures.intent.devices.iter().zip(&figures.peers) {
        if device.listener.is_none_or(|only| only == own) {
            write_peer(out, device, peer, listener.shows.preshared_keys, now)?;
        }
    }
    out.write_all(b"errno=0\n\n")
}

fn write_peer(
    out: &mut impl Write,
    device: &Device,
    figures: &PeerFigures,
    preshared: bool,
    now: Duration,
) -> io::Result<()> {
    write_key(out, "public_key", &device.public_key.0)?;
    if preshared && device.preshared_key != PresharedKey::default() {
        write_key(out, "preshared_key", device.preshared_key.expose())?;
    }
    if let Some(endpoint) = figures.endpoint {
        writeln!(out, "endpoint={endpoint}")?;
    }
    let keepalive = device.keepalive.map_or(0, |interval| interval.as_secs());
    writeln!(out, "persistent_keepalive_interval={keepalive}")?;
    for address in &device.addresses {
        writeln!(out, "allowed_ip={address}")?;
    }
    let at = figures.handshake_age.map_or(Duration::ZERO, |age| now.saturating_sub(age));
    writeln!(out, "last_handshake_time_sec={}", at.as_secs())?;
    writeln!(out, "last_handshake_time_nsec={}", at.subsec_nanos())?;
    writeln!(out, "rx_bytes={}\ntx_bytes={}", figures.received.bytes, figures.sent.bytes)?;
    out.write_all(b"protocol_version=1\n")
}

/// A key as the protocol wants it: 64 lower-case hexadecimal digits.
fn write_key(out: &mut impl Write, name: &str, key: &[u8; 32]) -> io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or(b'0');
    let mut hex = Zeroizing::new([0u8; 64]);
    for (pair, byte) in hex.chunks_exact_mut(2).zip(key) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(*byte)]);
    }
    out.write_all(name.as_bytes())?;
    out.write_all(b"=")?;
    out.write_all(hex.as_slice())?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests;
