//! What handshakes lead to.

use std::net::SocketAddr;

use bulkhead_link::Session;
use bulkhead_wg::{Freshness, PublicKey};

/// Something to do for the shell, in this order.
#[expect(clippy::large_enum_variant, reason = "moved twice for each handshake, never kept")]
#[derive(Debug)]
pub enum Outcome {
    /// An initiation was accepted: this is what no later process may accept.
    Accepted(PublicKey, Freshness),
    /// Install these keys, made with the peer of this identity.
    Session(PublicKey, Session),
    /// The peer of this identity has not answered for REKEY_ATTEMPT_TIME.
    Unanswered(PublicKey),
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
