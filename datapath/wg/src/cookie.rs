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

use chacha20::cipher::consts::U10;
use chacha20::hchacha;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use subtle::ConstantTimeEq;
use zerocopy::byteorder::little_endian::U32;
use zerocopy::transmute;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::PublicKey;
use crate::mac::{hash, mac, prf};
use crate::message::{CookieReply, KIND_COOKIE_REPLY, Maced};
use crate::noise::HandshakeError;

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
pub struct CookieKey([u8; 32]);

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieKey(..)")
    }
}

impl CookieKey {
    /// The key for cookies made by `maker`.
    #[must_use]
    pub fn of(maker: &PublicKey) -> Self {
        Self(hash(b"cookie--", &maker.0))
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
        let (key, nonce) = self.under(&reply.nonce).ok_or(HandshakeError::Undecryptable)?;
        key.open_in_place_separate_tag(
            nonce,
            Aad::from(mac1),
            Tag::from(reply.tag),
            &mut cookie.0,
            0..,
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
        let (key, inner) = self.under(&nonce)?;
        let tag = key.seal_in_place_separate_tag(inner, Aad::from(mac1), &mut sealed).ok()?;
        Some(CookieReply {
            kind: KIND_COOKIE_REPLY,
            receiver: U32::new(receiver),
            nonce,
            cookie: sealed,
            tag: tag.as_ref().try_into().ok()?,
        })
    }

    /// XChaCha20-Poly1305 is ChaCha20-Poly1305 under the key and the nonce that these are
    /// (draft-irtf-cfrg-xchacha-03 §2.3). Always there: the key has the right length.
    fn under(&self, nonce: &[u8; 24]) -> Option<(LessSafeKey, Nonce)> {
        let (of_key, rest) = nonce.split_first_chunk::<16>()?;
        let subkey = hchacha::<U10>(&self.0.into(), of_key.into());
        let key = UnboundKey::new(&CHACHA20_POLY1305, &subkey).ok()?;
        let mut inner = [0; 12];
        *inner.last_chunk_mut::<8>()? = rest.try_into().ok()?;
        Some((LessSafeKey::new(key), Nonce::assume_unique_for_key(inner)))
    }
}

/// The secret behind a gateway's cookies, and the one before it. Both prove the same: that who
/// holds a cookie could receive at its source address. Shared by everyone who answers for the
/// gateway, so that a cookie of one is honoured by all, under whichever of its public keys.
///
/// The secret before is kept so that a change of secrets, every [`COOKIE_SECRET_TIME`], voids no
/// cookie that is under way; a cookie lives two to four minutes so. Linux forgets it at once
/// (`drivers/net/wireguard/cookie.c`, `make_cookie`), and a peer that is caught by it waits for
/// another round.
///
/// [`COOKIE_SECRET_TIME`]: crate::limits::COOKIE_SECRET_TIME
#[derive(Clone)]
pub struct CookieSecrets {
    current: Secret,
    previous: Option<Secret>,
}

impl CookieSecrets {
    /// The first secret: 32 fresh random bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { current: Secret(secret), previous: None }
    }

    /// Makes cookies with 32 fresh random bytes from now on, and honours those that `self` makes.
    #[must_use]
    pub fn renewed(&self, secret: [u8; 32]) -> Self {
        Self { current: Secret(secret), previous: Some(self.current.clone()) }
    }

    /// Whether the handshake message from `source` carries the MAC2 of a cookie that was sent
    /// there. Constant time in the MAC. Says nothing about MAC1.
    #[must_use]
    pub fn verify(&self, message: &[u8], source: SocketAddr) -> bool {
        let Some(message) = Maced::parse(message) else { return false };
        // Whoever has no cookie sends zeros (whitepaper §5.4.4); most of a flood ends here. That a
        // cookie's MAC is zero by chance does not happen, and would cost its holder one retry.
        if *message.mac2 == [0; 16] {
            return false;
        }
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|secret| secret.cookie(source).mac2(&message).ct_eq(message.mac2).into())
    }

    /// The cookie reply to a handshake message whose MAC1 is right for `maker`'s key; `None` if it
    /// is no handshake message. `nonce` must be 24 bytes that never come twice; see [`Nonces`].
    #[must_use]
    pub fn reply(
        &self,
        maker: &CookieKey,
        message: &[u8],
        source: SocketAddr,
        nonce: [u8; 24],
    ) -> Option<[u8; 64]> {
        let message = Maced::parse(message)?;
        let cookie = self.current.cookie(source);
        let reply = maker.seal(&cookie, message.sender, message.mac1, nonce)?;
        Some(transmute!(reply))
    }
}

impl fmt::Debug for CookieSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieSecrets(..)")
    }
}

/// What cookies are made of. Wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret(pub(crate) [u8; 32]);

impl Secret {
    fn cookie(&self, source: SocketAddr) -> Cookie {
        let port = source.port().to_be_bytes();
        // A mapped address and the IPv4 address it maps are one source.
        Cookie(match source.ip().to_canonical() {
            IpAddr::V4(ip) => prf(&self.0, &ip.octets(), &port),
            IpAddr::V6(ip) => prf(&self.0, &ip.octets(), &port),
        })
    }
}

/// Nonces of cookie replies, without a random generator on the way of a packet: BLAKE2s of a
/// key and a counter. They do not repeat (a collision of 192 bits aside), and do not show how many
/// came before.
pub struct Nonces {
    key: Secret,
    maker: u64,
    drawn: u64,
}

impl Nonces {
    /// `key` must be 32 fresh random bytes; no two makers with the same key may have the same number.
    #[must_use]
    pub fn new(key: [u8; 32], maker: u64) -> Self {
        Self { key: Secret(key), maker, drawn: 0 }
    }

    /// The next one.
    pub fn draw(&mut self) -> [u8; 24] {
        self.drawn = self.drawn.wrapping_add(1);
        prf(&self.key.0, &self.maker.to_le_bytes(), &self.drawn.to_le_bytes())
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initiator::initiate;
    use crate::key::{PresharedKey, PrivateKey};
    use crate::tai64n::Tai64n;
    use chacha20poly1305::aead::AeadInPlace;
    use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::Ipv6Addr;

    const HERE: &str = "192.0.2.7:51820";

    struct Checker {
        key: CookieKey,
        secrets: CookieSecrets,
    }

    impl Checker {
        fn verify(&self, message: &[u8], source: SocketAddr) -> bool {
            self.secrets.verify(message, source)
        }

        fn reply(&self, message: &[u8], source: SocketAddr, nonce: [u8; 24]) -> Option<[u8; 64]> {
            self.secrets.reply(&self.key, message, source, nonce)
        }
    }

    fn world() -> (Checker, [u8; 148], crate::Pending) {
        let [gateway, device] = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
        let key = CookieKey::of(&gateway.public_key());
        let checker = Checker { key, secrets: CookieSecrets::new([3; 32]) };
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

    /// Every byte of an address counts, of either family.
    #[test]
    fn a_cookie_of_one_host_is_not_that_of_a_neighbour() {
        let (checker, message, mut pending) = world();
        let home: SocketAddr = "[2001:db8::7]:51820".parse().unwrap();
        let reply = checker.reply(&message, home, [5; 24]).unwrap();
        let cookie = pending.cookie(&reply).unwrap();
        let mut stamped = message;
        cookie.stamp(&mut stamped);
        assert!(checker.verify(&stamped, home));
        let IpAddr::V6(address) = home.ip() else { unreachable!() };
        for bit in 0..128 {
            let away = Ipv6Addr::from_bits(address.to_bits() ^ (1 << bit));
            assert!(!checker.verify(&stamped, (away, home.port()).into()), "{away}");
        }
        assert!(!checker.verify(&stamped, (address, 51_821).into()));
    }

    #[test]
    fn a_cookie_outlives_one_change_of_the_secret_and_not_two() {
        let (mut checker, mut message, mut pending) = world();
        let here = HERE.parse().unwrap();
        let reply = checker.reply(&message, here, [5; 24]).unwrap();
        pending.cookie(&reply).unwrap().stamp(&mut message);
        checker.secrets = checker.secrets.renewed([6; 32]);
        assert!(checker.verify(&message, here));
        let newer = checker.reply(&message, here, [5; 24]).unwrap();
        assert_ne!(newer, reply, "cookies are made with the new secret");
        checker.secrets = checker.secrets.renewed([7; 32]);
        assert!(!checker.verify(&message, here));
    }

    #[test]
    fn a_message_without_mac2_has_no_cookie() {
        let (checker, message, _) = world();
        assert_eq!(message[132..], [0; 16], "as it is sent without a cookie");
        assert!(!checker.verify(&message, HERE.parse().unwrap()));
    }

    #[test]
    fn nonces_do_not_repeat_and_differ_between_makers() {
        let (mut one, mut other) = (Nonces::new([1; 32], 0), Nonces::new([1; 32], 1));
        let drawn: BTreeSet<_> = (0..1_000).flat_map(|_| [one.draw(), other.draw()]).collect();
        assert_eq!(drawn.len(), 2_000);
        let tails: BTreeSet<_> = drawn.iter().map(|nonce| &nonce[16..]).collect();
        assert_eq!(tails.len(), 2_000, "all of the nonce differs");
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

    proptest! {
        /// The twin is XChaCha20-Poly1305 whole, of another library.
        #[test]
        fn replies_are_sealed_as_by_another_library(
            maker: [u8; 32], text: [u8; 16], mac1: [u8; 16], nonce: [u8; 24],
        ) {
            let ours = CookieKey::of(&PublicKey(maker));
            let theirs = XChaCha20Poly1305::new(&hash(b"cookie--", &maker).into());
            let sealed = ours.seal(&Cookie(text), 7, &mac1, nonce).unwrap();
            let mut twin = text;
            let tag = theirs.encrypt_in_place_detached((&nonce).into(), &mac1, &mut twin).unwrap();
            prop_assert_eq!((sealed.cookie, sealed.tag), (twin, <[u8; 16]>::from(tag)));
            prop_assert_eq!(ours.open(&sealed, &mac1).unwrap().0, text);
        }
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
