//! What came of handshakes, for the operator.

use bulkhead_wg::HandshakeError;
use serde::{Deserialize, Serialize};

/// What came of handshake messages since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandshakeCounters {
    /// Messages from the datapath.
    pub messages: u64,
    /// Messages that found the queue to the handshake thread full.
    pub queue_full: u64,
    /// Sessions made as responder.
    pub sessions_responder: u64,
    /// Sessions made as initiator.
    pub sessions_initiator: u64,
    /// Initiations sent.
    pub initiations_sent: u64,
    /// Initiations of static keys that are not in the configuration.
    pub unknown_peer: u64,
    /// Initiations that were accepted before, or are older than one that was.
    pub replayed: u64,
    /// Initiations dated in the future, by peers that have made too many of those.
    pub clock_ahead: u64,
    /// Initiations closer than 20 ms to the one before of the same peer.
    pub too_fast: u64,
    /// Messages that do not authenticate, are malformed, or have a wrong MAC1.
    pub invalid: u64,
    /// Responses and cookie replies to no initiation of ours.
    pub unknown_receiver: u64,
    /// Handshakes given up because all `sessions_max` slots are in use.
    pub no_slot: u64,
    /// Sessions wanted with a peer of which no endpoint is known.
    pub no_endpoint: u64,
    /// Peers that did not answer for REKEY_ATTEMPT_TIME.
    pub given_up: u64,
}

impl HandshakeCounters {
    /// A message was refused.
    pub(super) fn refused(&mut self, error: HandshakeError) {
        match error {
            HandshakeError::Replayed => self.replayed += 1,
            HandshakeError::AheadOfTime => self.clock_ahead += 1,
            HandshakeError::TooFast => self.too_fast += 1,
            HandshakeError::UnknownReceiver => self.unknown_receiver += 1,
            HandshakeError::WrongPeer => self.unknown_peer += 1,
            HandshakeError::Malformed
            | HandshakeError::BadMac1
            | HandshakeError::Undecryptable
            | HandshakeError::LowOrderKey
            | HandshakeError::OutOfTurn => self.invalid += 1,
        }
    }
}
