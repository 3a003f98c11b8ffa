//! What handshakes lead to.

use std::net::SocketAddr;

use bulkhead_link::{Endpoint, Session, SessionIndex, SessionKeys, Terms};
use bulkhead_wg::{Freshness, PublicKey, Role, TransportKeys};

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

/// What the datapath is told of the keys that a handshake with a listener of ours made.
pub(super) fn session(
    (peer, listener): (u32, PublicKey),
    keys: &TransportKeys,
    endpoint: Endpoint,
    terms: Terms,
) -> Session {
    Session {
        peer,
        index: SessionIndex(keys.local_index),
        remote_index: keys.remote_index,
        initiator: keys.role == Role::Initiator,
        endpoint,
        listener: listener.0,
        terms,
        keys: SessionKeys { send: keys.send, receive: keys.receive },
    }
}
