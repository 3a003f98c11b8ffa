//! Cookies: under load, only who can receive at its source address is answered (whitepaper
//! §5.4.7).
//!
//! ```text
//!   initiator                                      checker (no private key needed)
//!      │ initiation, MAC2 zero                           │
//!      │ ──────────────────────────────────────────────▶ │ under load: MAC2 wrong
//!      │     cookie = MAC(secret, source address, port)  │
//!      │ ◀────────────────────────────────────────────── │ cookie reply, sealed
//!      │ next initiation, MAC2 = MAC(cookie, message)    │
//!      │ ──────────────────────────────────────────────▶ │ MAC2 right: pass it on
//! ```
//!
//! The checker keeps no state per source, so it can be flooded from any number of them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use subtle::ConstantTimeEq;
use zerocopy::byteorder::little_endian::U32;
use zerocopy::transmute;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::PublicKey;
use crate::limits::COOKIE_SECRET_TIME;
use crate::mac::{hash, mac};
use crate::message::{CookieReply, KIND_COOKIE_REPLY, Maced};
use crate::noise::HandshakeError;
use crate::time::Time;

/// Proof that its holder received a packet at its source address. Wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Cookie([u8; 16]);

impl Cookie {
    /// Writes MAC2 into an initiation or a response whose MAC1 is already in place.
    pub fn stamp(&self, message: &mut [u8]) {
        if let Some(mac2) = Maced::parse(message).map(|message| self.mac2(&message))
            && let Some(field) = message.last_chunk_mut()
        {
            *field = mac2;
        }
    }

    fn mac2(&self, message: &Maced<'_>) -> [u8; 16] {
        mac(&self.0, &[message.before_mac2])
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// The key under which the owner of a public key sends its cookies. Anyone can derive it; what
/// makes a reply trustworthy is that it names the MAC1 of the message that it answers.
#[derive(Clone)]
pub struct CookieKey(XChaCha20Poly1305);

impl CookieKey {
    /// The key for cookies made by `maker`.
    #[must_use]
    pub fn of(maker: &PublicKey) -> Self {
        Self(XChaCha20Poly1305::new(&hash(b"cookie--", &maker.0).into()))
    }

    /// Opens a reply to the message that carried `mac1`.
    pub(crate) fn open(
        &self,
        reply: &CookieReply,
        mac1: &[u8; 16],
    ) -> Result<Cookie, HandshakeError> {
        if reply.kind != KIND_COOKIE_REPLY {
            return Err(HandshakeError::Malformed);
        }
        let mut cookie = Cookie(reply.cookie);
        self.0
            .decrypt_in_place_detached(
                (&reply.nonce).into(),
                mac1,
                &mut cookie.0,
                (&reply.tag).into(),
            )
            .map_err(|_| HandshakeError::Undecryptable)?;
        Ok(cookie)
    }

    fn seal(
        &self,
        cookie: &Cookie,
        receiver: u32,
        mac1: &[u8; 16],
        nonce: [u8; 24],
    ) -> Option<CookieReply> {
        let mut sealed = cookie.0;
        let tag = self.0.encrypt_in_place_detached((&nonce).into(), mac1, &mut sealed).ok()?.into();
        Some(CookieReply {
            kind: KIND_COOKIE_REPLY,
            receiver: U32::new(receiver),
            nonce,
            cookie: sealed,
            tag,
        })
    }
}

/// Makes and checks cookies for one public key. One per process that answers for the key: a
/// cookie is honoured only where it was made.
pub struct CookieChecker {
    key: CookieKey,
    secret: Secret,
    renewed_at: Time,
}

impl CookieChecker {
    /// A checker for messages to `receiver`; `secret` must be 32 fresh random bytes.
    #[must_use]
    pub fn new(receiver: &PublicKey, secret: [u8; 32], now: Time) -> Self {
        Self { key: CookieKey::of(receiver), secret: Secret(secret), renewed_at: now }
    }

    /// Whether the secret is two minutes old and [`Self::renew`] is due.
    #[must_use]
    pub fn renewal_due(&self, now: Time) -> bool {
        now.since(self.renewed_at) >= COOKIE_SECRET_TIME
    }

    /// Takes a new secret of 32 fresh random bytes. Cookies made before are void; their holders
    /// get another with their next initiation, like those of Linux.
    pub fn renew(&mut self, secret: [u8; 32], now: Time) {
        self.secret = Secret(secret);
        self.renewed_at = now;
    }

    /// Whether the handshake message from `source` carries the MAC2 of the cookie that was sent
    /// there. Constant time in the MAC. Says nothing about MAC1.
    #[must_use]
    pub fn verify(&self, message: &[u8], source: SocketAddr) -> bool {
        Maced::parse(message)
            .is_some_and(|message| self.cookie(source).mac2(&message).ct_eq(message.mac2).into())
    }

    /// The cookie reply to a handshake message whose MAC1 is right; `None` if it is no handshake
    /// message. `nonce` must be 24 fresh random bytes.
    #[must_use]
    pub fn reply(&self, message: &[u8], source: SocketAddr, nonce: [u8; 24]) -> Option<[u8; 64]> {
        let message = Maced::parse(message)?;
        let cookie = self.cookie(source);
        let reply = self.key.seal(&cookie, message.sender, message.mac1, nonce)?;
        Some(transmute!(reply))
    }

    fn cookie(&self, source: SocketAddr) -> Cookie {
        let port = source.port().to_be_bytes();
        // A mapped address and the IPv4 address it maps are one source.
        Cookie(match source.ip().to_canonical() {
            IpAddr::V4(ip) => mac(&self.secret.0, &[&ip.octets(), &port]),
            IpAddr::V6(ip) => mac(&self.secret.0, &[&ip.octets(), &port]),
        })
    }
}

/// What cookies are made of. Wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret(pub(crate) [u8; 32]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initiator::initiate;
    use crate::key::{PresharedKey, PrivateKey};
    use crate::tai64n::Tai64n;
    use std::time::Duration;

    const HERE: &str = "192.0.2.7:51820";

    fn world() -> (CookieChecker, [u8; 148], crate::Pending) {
        let [gateway, device] = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
        let checker = CookieChecker::new(&gateway.public_key(), [3; 32], Time::default());
        let (message, pending) = initiate(
            &device,
            &gateway.public_key(),
            &PresharedKey::default(),
            77,
            Tai64n::default(),
            &[4; 32],
        )
        .unwrap();
        (checker, message, pending)
    }

    #[test]
    fn a_cookie_is_good_at_its_source_only() {
        let (checker, mut message, mut pending) = world();
        let here: SocketAddr = HERE.parse().unwrap();
        assert!(!checker.verify(&message, here));
        let reply = checker.reply(&message, here, [5; 24]).unwrap();
        pending.cookie(&reply).unwrap().stamp(&mut message);
        assert!(checker.verify(&message, here));
        assert!(checker.verify(&message, "[::ffff:192.0.2.7]:51820".parse().unwrap()));
        for elsewhere in ["192.0.2.8:51820", "192.0.2.7:51821", "[2001:db8::7]:51820"] {
            assert!(!checker.verify(&message, elsewhere.parse().unwrap()), "{elsewhere}");
        }
        for bit in 0..148 * 8 {
            let mut flipped = message;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!checker.verify(&flipped, here), "bit {bit}");
        }
    }

    #[test]
    fn a_new_secret_voids_the_cookies_before() {
        let (mut checker, mut message, mut pending) = world();
        let here = HERE.parse().unwrap();
        let reply = checker.reply(&message, here, [5; 24]).unwrap();
        pending.cookie(&reply).unwrap().stamp(&mut message);
        let at = |seconds| Time(Duration::from_secs(seconds));
        assert!(!checker.renewal_due(at(119)));
        assert!(checker.renewal_due(at(120)));
        checker.renew([6; 32], at(120));
        assert!(!checker.renewal_due(at(239)));
        assert!(!checker.verify(&message, here));
    }

    #[test]
    fn a_forged_reply_gives_no_cookie_and_leaves_the_genuine_one_welcome() {
        let (checker, message, mut pending) = world();
        let reply = checker.reply(&message, HERE.parse().unwrap(), [5; 24]).unwrap();
        for bit in 0..64 * 8 {
            let mut forged = reply;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(pending.cookie(&forged).is_err(), "bit {bit}");
        }
        for len in 0..64 {
            assert!(matches!(pending.cookie(&reply[..len]), Err(HandshakeError::Malformed)));
        }
        assert!(pending.cookie(&reply).is_ok());
        assert!(matches!(pending.cookie(&reply), Err(HandshakeError::OutOfTurn)), "once only");
    }

    /// A reply is bound to the MAC1 of one message: it cannot be answered to another.
    #[test]
    fn a_reply_to_another_message_gives_no_cookie() {
        let (checker, mut message, mut pending) = world();
        message[116] ^= 1;
        let reply = checker.reply(&message, HERE.parse().unwrap(), [5; 24]).unwrap();
        assert!(matches!(pending.cookie(&reply), Err(HandshakeError::Undecryptable)));
    }

    #[test]
    fn only_handshake_messages_are_stamped_and_answered() {
        let (checker, _, _) = world();
        let mut data = [4; 148];
        Cookie([9; 16]).stamp(&mut data);
        assert_eq!(data, [4; 148]);
        assert_eq!(checker.reply(&data, HERE.parse().unwrap(), [5; 24]), None);
    }
}
