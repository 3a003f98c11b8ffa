//! Packet headers: bytes in, plain values out.
//!
//! ```text
//!   Ethernet ─ [802.1Q] ─ IPv4 | IPv6 [extension headers] ─ TCP | UDP | ICMP | ICMPv6 | other
//!                                                            └ WireGuard (wg.rs)
//! ```
//!
//! INVARIANT: every byte here comes from an attacker. No function panics, allocates or reads out
//! of its slice, whatever the bytes are; every loop has a constant bound; arithmetic that could
//! wrap does not compile (`arithmetic_side_effects`). What is ambiguous, so that the receiver might
//! read it otherwise than we do (source routes, overlapping fragments, lengths that disagree), is
//! [`Malformed`] and goes no further.
//!
//! Deliberately absent: TCP options, checksums of inner transports (the receiver verifies them; a
//! wrong one harms nobody but its sender), reassembly, tags within tags.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod address;
pub mod checksum;
pub mod ecn;
mod envelope;
pub mod ethernet;
pub mod icmp;
pub mod ip;
mod ipv4;
mod ipv6;
mod malformed;
mod plain;
pub mod tcp;
mod transport;
pub mod udp;
pub mod wg;

pub use address::Address;
pub use envelope::Envelope;
pub use ethernet::{Ethernet, Mac, MacError};
pub use ip::{Fragment, IpPacket, Piece};
pub use malformed::Malformed;
pub use plain::Datagram;
pub use transport::{TcpFlags, Transport};
pub use udp::OuterUdp;
