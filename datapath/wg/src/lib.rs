//! WireGuard without input or output: handshakes, cookies, timers, transport keys, replay window.
//!
//! Nothing in this crate reads a clock, draws a random number or names a socket. `now`, fresh
//! random bytes and received messages are arguments; messages to send and keys to install are
//! results. So every rule of the protocol can be tested in no time and without luck.
//!
//! ```text
//!   control process (holds the static key)      │  datapath (holds session keys only)
//!                                               │
//!   peer ── schedule    when to initiate        │  mac, cookie   strangers, before any x25519
//!     ├──── initiator ┐                         │  keypair       seal, open
//!     └──── responder ┴ noise ──▶ TransportKeys ─▶ send_counter, replay   each counter once
//!                                               │  timers        keepalive, rekey, expiry
//! ```
//!
//! The protocol is that of "WireGuard: Next Generation Kernel Network Tunnel" (Donenfeld, 2020
//! revision), cited below as "whitepaper"; where the Linux kernel is more exact, the kernel file
//! is cited.
#![forbid(unsafe_code)]

/// The atomics of [`send_counter`], by a name that `tests/models` gives another meaning.
mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
}
pub mod cookie;
pub mod freshness;
pub mod initiator;
pub mod key;
pub mod keypair;
pub mod known;
pub mod limits;
pub mod mac;
mod message;
mod noise;
pub mod peer;
pub mod replay;
pub mod responder;
pub mod schedule;
pub mod send_counter;
pub mod tai64n;
pub mod time;
pub mod timers;
mod x25519;
#[cfg(test)]
mod zeroed;

pub use cookie::{Cookie, CookieKey, CookieSecrets, Nonces};
pub use freshness::Freshness;
pub use initiator::{Pending, initiate};
pub use key::{InvalidKey, PresharedKey, PrivateKey, PublicKey};
pub use keypair::{
    Forged, Open, ReceiveKey, Role, Seal, SendKey, TransportKeys, open_batch, seal_batch,
};
pub use known::Known;
pub use limits::Limits;
pub use mac::Mac1Key;
pub use noise::HandshakeError;
pub use peer::Peer;
pub use replay::ReplayWindow;
pub use responder::{Initiation, Responder};
pub use schedule::Schedule;
pub use send_counter::SendCounter;
pub use tai64n::Tai64n;
pub use time::Time;
pub use timers::Timers;

/// Length of a handshake initiation on the wire, in bytes (whitepaper §5.4.2).
pub const INITIATION_LEN: usize = size_of::<message::Initiation>();
/// Length of a handshake response on the wire, in bytes (whitepaper §5.4.3).
pub const RESPONSE_LEN: usize = size_of::<message::Response>();
/// Length of a cookie reply on the wire, in bytes (whitepaper §5.4.7).
pub const COOKIE_REPLY_LEN: usize = size_of::<message::CookieReply>();

const _: () = assert!(INITIATION_LEN == 148 && RESPONSE_LEN == 92 && COOKIE_REPLY_LEN == 64);
