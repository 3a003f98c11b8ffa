//! What handshakes lead to.

use std::net::SocketAddr;

use bulkhead_link::Session;
use bulkhead_wg::{PublicKey, Tai64n};

/// Something to do for the shell, in this order.
#[derive(Debug)]
pub enum Outcome {
    /// An initiation of this timestamp was accepted.
    Accepted(PublicKey, Tai64n),
    /// Install these keys, made with the peer of this identity.
    Session(PublicKey, Session),
    /// Send this message.
    Datagram(Datagram),
}

/// A handshake message under way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// To whom.
    pub remote: SocketAddr,
    /// From which of our addresses; `None`: the kernel's choice.
    pub local: Option<SocketAddr>,
    /// From which UDP port, if the address is the kernel's choice.
    pub udp_port: u16,
    /// UDP payload.
    pub bytes: Vec<u8>,
}
