//! Our side of a handshake that the peer starts (whitepaper §5.4.2, §5.4.3).
//!
//! ```text
//!   bytes ── consume ──▶ Initiation { peer, timestamp } ── respond(psk) ──▶ message, TransportKeys
//! ```
//!
//! Between the two steps the caller decides: whether the peer is known, whether its timestamp is
//! greater than all before, and what its preshared key is.

use std::sync::Arc;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, transmute};

use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::keypair::{Role, TransportKeys};
use crate::known::Known;
use crate::mac::Mac1Key;
use crate::message::{self, KIND_INITIATION, KIND_RESPONSE};
use crate::noise::{HandshakeError, Identity, Noise};
use crate::tai64n::Tai64n;

/// Reads initiations that are addressed to one private key.
pub struct Responder {
    identity: Option<Arc<Identity>>,
    /// Whether strangers are refused, or everybody is nobody in particular.
    choosy: bool,
    mac1_key: Mac1Key,
}

impl Responder {
    /// A responder with this static key that takes initiations of anybody.
    #[must_use]
    pub fn new(private: &PrivateKey) -> Self {
        Self { choosy: false, ..Self::knowing(private, Known::default()) }
    }

    /// A responder with this static key that takes initiations of these peers only.
    #[must_use]
    pub fn knowing(private: &PrivateKey, known: Known) -> Self {
        let mac1_key = Mac1Key::of(&private.public_key());
        let identity = Identity::new(private, known).map(Arc::new);
        Self { identity, choosy: true, mac1_key }
    }

    /// Authenticates an initiation. Costs some 20 µs of X25519 once MAC1 is right, twice that for
    /// a peer's first, so strangers must have been held back before. Changes nothing; any thread
    /// may call it.
    ///
    /// # Errors
    ///
    /// Any [`HandshakeError`] that speaks of the message itself; [`HandshakeError::WrongPeer`] if
    /// its sender is not known.
    pub fn consume(&self, initiation: &[u8]) -> Result<Initiation, HandshakeError> {
        let message = message::Initiation::ref_from_bytes(initiation)
            .map_err(|_| HandshakeError::Malformed)?;
        if message.kind != KIND_INITIATION {
            return Err(HandshakeError::Malformed);
        }
        if !self.mac1_key.verify(initiation) {
            return Err(HandshakeError::BadMac1);
        }
        let identity = self.identity.as_ref().ok_or(HandshakeError::OutOfTurn)?;
        let mut noise = Noise::responder(identity)?;
        let timestamp = Tai64n(noise.read(&message.noise)?);
        let peer = noise.peer()?;
        let tag = identity.known().find(&peer);
        if self.choosy && tag.is_none() {
            return Err(HandshakeError::WrongPeer);
        }
        Ok(Initiation { peer, tag, timestamp, sender: message.sender.get(), noise })
    }
}

/// An initiation that authenticated: `peer` did make it. It may still be a replay.
pub struct Initiation {
    /// The static key of the sender.
    pub peer: PublicKey,
    /// What [`Known`] calls it; `None` only from a responder that takes anybody's.
    pub tag: Option<u32>,
    /// When it was made, by the sender's clock.
    pub timestamp: Tai64n,
    /// What the sender wants to be called by.
    pub sender: u32,
    noise: Noise,
}

impl Initiation {
    /// Builds the response, and the keys of the session that begins once the peer's first data
    /// packet arrives. `entropy` must be 32 fresh random bytes. MAC2 is left zero: see
    /// [`crate::Cookie::stamp`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError::LowOrderKey`]; [`Responder::consume`] would have refused it before.
    pub fn respond(
        mut self,
        psk: &PresharedKey,
        local_index: u32,
        entropy: &[u8; 32],
    ) -> Result<([u8; 92], TransportKeys), HandshakeError> {
        self.noise.set_psk(psk)?;
        let mut message = message::Response {
            kind: KIND_RESPONSE,
            sender: U32::new(local_index),
            receiver: U32::new(self.sender),
            noise: self.noise.write(entropy, &[])?,
            mac1: [0; 16],
            mac2: [0; 16],
        };
        message.mac1 = Mac1Key::of(&self.peer).compute(message.before_mac1());
        let (receive, send) = self.noise.split()?;
        let keys = TransportKeys {
            local_index,
            remote_index: self.sender,
            send: *send,
            receive: *receive,
            role: Role::Responder,
        };
        Ok((transmute!(message), keys))
    }
}
