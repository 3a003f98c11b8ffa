//! Our side of a handshake that we start (whitepaper §5.4.2, §5.4.3).
//!
//! ```text
//!   initiate ──▶ Pending ── response ──▶ TransportKeys
//!                 ▲    │
//!                 └────┘ anything that does not authenticate
//! ```
//!
//! INVARIANT: a message that does not authenticate leaves [`Pending`] as it was. Otherwise anyone
//! who can guess a receiver index could end our handshakes.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, transmute};

use crate::cookie::{Cookie, CookieKey};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::keypair::{Role, TransportKeys};
use crate::mac::Mac1Key;
use crate::message::{self, KIND_INITIATION, KIND_RESPONSE};
use crate::noise::{HandshakeError, Noise};
use crate::tai64n::Tai64n;

/// Builds an initiation to `peer`. `local_index` is what the peer will call us by; `entropy` must
/// be 32 fresh random bytes. MAC2 is left zero: see [`Cookie::stamp`].
///
/// # Errors
///
/// [`HandshakeError::LowOrderKey`] if the public key of the peer has low order.
pub fn initiate(
    private: &PrivateKey,
    peer: &PublicKey,
    psk: &PresharedKey,
    local_index: u32,
    timestamp: Tai64n,
    entropy: &[u8; 32],
) -> Result<([u8; 148], Pending), HandshakeError> {
    let mut noise = Noise::initiator(private, peer, psk)?;
    let mut message = message::Initiation {
        kind: KIND_INITIATION,
        sender: U32::new(local_index),
        noise: noise.write(entropy, &timestamp.0)?,
        mac1: [0; 16],
        mac2: [0; 16],
    };
    message.mac1 = Mac1Key::of(peer).compute(message.before_mac1());
    let pending = Pending {
        noise,
        local_index,
        mac1: Some(message.mac1),
        mac1_key: Mac1Key::of(&private.public_key()),
        cookie_key: CookieKey::of(peer),
    };
    Ok((transmute!(message), pending))
}

/// An initiation that waits for its response.
pub struct Pending {
    noise: Noise,
    local_index: u32,
    /// MAC1 of the message sent: a cookie reply is bound to it. `None` once one came, so that it
    /// cannot be replayed to make an old cookie look new.
    mac1: Option<[u8; 16]>,
    mac1_key: Mac1Key,
    cookie_key: CookieKey,
}

impl Pending {
    /// The index under which responses and cookie replies come back.
    #[must_use]
    pub const fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Takes a response. After success the handshake is over, and every further one is refused.
    ///
    /// # Errors
    ///
    /// Any [`HandshakeError`]; the initiation goes on waiting.
    pub fn consume(&mut self, response: &[u8]) -> Result<TransportKeys, HandshakeError> {
        let message =
            message::Response::ref_from_bytes(response).map_err(|_| HandshakeError::Malformed)?;
        if message.kind != KIND_RESPONSE {
            return Err(HandshakeError::Malformed);
        }
        if !self.mac1_key.verify(response) {
            return Err(HandshakeError::BadMac1);
        }
        if message.receiver.get() != self.local_index {
            return Err(HandshakeError::UnknownReceiver);
        }
        let [] = self.noise.read(&message.noise)?;
        let (send, receive) = self.noise.split()?;
        Ok(TransportKeys {
            local_index: self.local_index,
            remote_index: message.sender.get(),
            send: *send,
            receive: *receive,
            role: Role::Initiator,
        })
    }

    /// Takes a cookie reply to this initiation: the peer is under load and wants the next
    /// initiation stamped with the cookie.
    ///
    /// # Errors
    ///
    /// Any [`HandshakeError`], of which [`HandshakeError::OutOfTurn`] if there was a cookie reply
    /// before; nothing changes.
    pub fn cookie(&mut self, reply: &[u8]) -> Result<Cookie, HandshakeError> {
        let message =
            message::CookieReply::ref_from_bytes(reply).map_err(|_| HandshakeError::Malformed)?;
        if message.receiver.get() != self.local_index {
            return Err(HandshakeError::UnknownReceiver);
        }
        let mac1 = self.mac1.as_ref().ok_or(HandshakeError::OutOfTurn)?;
        let cookie = self.cookie_key.open(message, mac1)?;
        self.mac1 = None;
        Ok(cookie)
    }
}
