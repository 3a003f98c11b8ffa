//! The Noise part of the handshake: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` by snow.
//!
//! Snow is given our own resolver, for four reasons:
//!
//! * its X25519 does not notice a low-order public key, with which the shared secret is zero
//!   whatever the private key is; ours refuses it, as Linux does (`noise.c::mix_dh`), so that no
//!   message is ever built on a secret that everyone knows;
//! * the secret of two static keys is computed once for all their handshakes ([`crate::known`]);
//! * the ephemeral key comes from random bytes that the caller gives, never from a hidden source;
//! * our copies of private keys are wiped.
//!
//! What snow keeps itself (chaining key, preshared key) is not wiped when it is dropped. It lives
//! in the control process only, for the length of one handshake.

use std::sync::{Arc, OnceLock};

use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::known::Known;
use crate::x25519::Key;

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// "psk2": the preshared key is mixed in at the end of the second message, not before.
const PSK_LOCATION: u8 = 2;

/// One handshake under way, on either side.
pub(crate) struct Noise {
    state: HandshakeState,
    ephemeral: Ephemeral,
}

/// The two keys of a finished handshake, in the order of Noise: the first is for messages from
/// the initiator.
pub(crate) type Split = (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>);

impl Noise {
    pub(crate) fn initiator(
        private: &PrivateKey,
        peer: &PublicKey,
        psk: &PresharedKey,
    ) -> Result<Self, HandshakeError> {
        Self::build(None, |builder| {
            builder
                .local_private_key(private.expose())?
                .remote_public_key(&peer.0)?
                .psk(PSK_LOCATION, psk.expose())?
                .build_initiator()
        })
    }

    /// The responder learns from the first message who it is that calls, and only then can say
    /// which preshared key is theirs: see [`Self::set_psk`].
    pub(crate) fn responder(identity: &Arc<Identity>) -> Result<Self, HandshakeError> {
        let private = identity.private.expose();
        Self::build(Some(Arc::clone(identity)), |builder| {
            builder.local_private_key(private)?.build_responder()
        })
    }

    pub(crate) fn set_psk(&mut self, psk: &PresharedKey) -> Result<(), HandshakeError> {
        Ok(self.state.set_psk(usize::from(PSK_LOCATION), psk.expose())?)
    }

    /// Writes the next message; `entropy` becomes the ephemeral private key.
    pub(crate) fn write<const LEN: usize>(
        &mut self,
        entropy: &[u8; 32],
        payload: &[u8],
    ) -> Result<[u8; LEN], HandshakeError> {
        let mut message = [0; LEN];
        self.ephemeral.0.set(Zeroizing::new(*entropy)).map_err(|_| HandshakeError::OutOfTurn)?;
        match self.state.write_message(payload, &mut message)? {
            len if len == LEN => Ok(message),
            _ => Err(HandshakeError::OutOfTurn),
        }
    }

    /// Reads the next message. If that fails the state is as before, and another may be tried.
    pub(crate) fn read<const LEN: usize>(
        &mut self,
        message: &[u8],
    ) -> Result<[u8; LEN], HandshakeError> {
        let mut payload = [0; LEN];
        match self.state.read_message(message, &mut payload)? {
            len if len == LEN => Ok(payload),
            _ => Err(HandshakeError::Undecryptable),
        }
    }

    /// The static key that the other side proved to have.
    pub(crate) fn peer(&self) -> Result<PublicKey, HandshakeError> {
        let key = self.state.get_remote_static().ok_or(HandshakeError::OutOfTurn)?;
        key.try_into().map(PublicKey).map_err(|_| HandshakeError::OutOfTurn)
    }

    pub(crate) fn split(&mut self) -> Result<Split, HandshakeError> {
        if !self.state.is_handshake_finished() {
            return Err(HandshakeError::OutOfTurn);
        }
        let (first, second) = self.state.dangerously_get_raw_split();
        Ok((Zeroizing::new(first), Zeroizing::new(second)))
    }

    fn build(
        identity: Option<Arc<Identity>>,
        build: impl FnOnce(Builder<'_>) -> Result<HandshakeState, snow::Error>,
    ) -> Result<Self, HandshakeError> {
        let ephemeral = Ephemeral::default();
        let params: NoiseParams = PATTERN.parse()?;
        let resolver = Box::new(Resolver { ephemeral: ephemeral.clone(), identity });
        let state = build(Builder::with_resolver(params, resolver).prologue(PROLOGUE)?)?;
        Ok(Self { state, ephemeral })
    }
}

/// Why a handshake message was refused, or could not be made.
///
/// Whatever the reason, nothing has changed: no session, and the handshake under way still waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not a message of the expected type and length.
    #[error("not a handshake message of the expected type and length")]
    Malformed,
    /// MAC1 is wrong: the sender does not know our public key.
    #[error("MAC1 is wrong")]
    BadMac1,
    /// The receiver index is not that of the handshake under way, or none is under way.
    #[error("no handshake under way has this receiver index")]
    UnknownReceiver,
    /// The message does not authenticate: forged, damaged, for another key, or with another
    /// preshared key.
    #[error("the message does not authenticate")]
    Undecryptable,
    /// A public key has low order: the shared secret would be zero for everyone.
    #[error("a public key has low order")]
    LowOrderKey,
    /// The initiation is no newer than one that was accepted before: a replay.
    #[error("the initiation is a replay")]
    Replayed,
    /// The peer sent another initiation less than 20 ms ago.
    #[error("the peer sends initiations too fast")]
    TooFast,
    /// The initiation is of another peer than the one it was given to, or of a key that nobody
    /// here has.
    #[error("the initiation is of another peer")]
    WrongPeer,
    /// The initiation is dated in the future, and too many of this peer were: see
    /// [`crate::Freshness`].
    #[error("the peer's clock is ahead of ours")]
    AheadOfTime,
    /// The handshake is not in the state for this message.
    #[error("the handshake is not in the state for this message")]
    OutOfTurn,
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Dh => Self::LowOrderKey,
            snow::Error::Decrypt => Self::Undecryptable,
            snow::Error::Input => Self::Malformed,
            // Snow was asked for what its state does not allow.
            snow::Error::Pattern(_)
            | snow::Error::Init(_)
            | snow::Error::Prereq(_)
            | snow::Error::State(_)
            | snow::Error::Rng
            | _ => Self::OutOfTurn,
        }
    }
}

/// The place where [`Noise::write`] leaves the random bytes for snow to find. Set once: a second
/// message of the same side would need a second key, and the pattern has none.
#[derive(Clone, Default)]
struct Ephemeral(Arc<OnceLock<Zeroizing<[u8; 32]>>>);

impl Random for Ephemeral {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.get() {
            Some(entropy) if dest.len() == entropy.len() => {
                dest.copy_from_slice(entropy.as_slice());
                Ok(())
            }
            Some(_) | None => Err(snow::Error::Rng),
        }
    }
}

struct Resolver {
    ephemeral: Ephemeral,
    identity: Option<Arc<Identity>>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.ephemeral.clone()))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        (*choice == DHChoice::Curve25519).then(|| Box::new(X25519::of(self.identity.clone())) as _)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// A static key of ours, made ready once for all handshakes, with the peers that it knows.
pub(crate) struct Identity {
    private: PrivateKey,
    public: [u8; 32],
    key: Key,
    known: Known,
}

impl Identity {
    /// `None` if the library refuses the key, which it does for none of 32 bytes.
    pub(crate) fn new(private: &PrivateKey, known: Known) -> Option<Self> {
        let key = Key::new(private.expose())?;
        let public = key.public()?;
        Some(Self { private: private.clone(), public, key, known })
    }

    pub(crate) fn known(&self) -> &Known {
        &self.known
    }
}

/// X25519 (RFC 7748) that refuses a shared secret of zero.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub(crate) struct X25519 {
    /// The static key of the responder that this belongs to.
    #[zeroize(skip)]
    identity: Option<Arc<Identity>>,
    /// Whether this is that key.
    is_identity: bool,
    /// Ready for use, unless it is that key. Wipes itself on drop.
    #[zeroize(skip)]
    key: Option<Key>,
    private: [u8; 32],
    public: [u8; 32],
}

impl X25519 {
    fn of(identity: Option<Arc<Identity>>) -> Self {
        let mut new = Self::default();
        new.identity = identity;
        new
    }

    /// Makes the private key ready. If that fails, every use of it does.
    fn derive(&mut self) {
        self.key = Key::new(&self.private);
        self.public = self.key.as_ref().and_then(Key::public).unwrap_or_default();
    }

    fn shared(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let Some(identity) = self.identity.as_ref().filter(|_| self.is_identity) else {
            return self.key.as_ref()?.shared(public);
        };
        // With an ephemeral key nobody is found; with a static one the secret is always the same.
        let Some(peer) = identity.known.acquaintance(&PublicKey(*public)) else {
            return identity.key.shared(public);
        };
        if let Some(secret) = peer.static_static.get() {
            return Some(secret.clone());
        }
        let secret = identity.key.shared(public)?;
        // Another thread may have been first, with the same.
        let _ = peer.static_static.set(secret.clone());
        Some(secret)
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        self.public.len()
    }

    fn priv_len(&self) -> usize {
        self.private.len()
    }

    fn set(&mut self, private: &[u8]) {
        // Snow hands over what the builder was given, which is a [`PrivateKey`].
        self.private.copy_from_slice(private);
        if let Some(identity) = &self.identity
            && bool::from(identity.private.expose().ct_eq(private))
        {
            (self.is_identity, self.public) = (true, identity.public);
        } else {
            self.derive();
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        rng.try_fill_bytes(self.private.as_mut_slice())?;
        self.is_identity = false;
        self.derive();
        if self.key.is_some() { Ok(()) } else { Err(snow::Error::Dh) }
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_slice()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let (public, _) = public.split_first_chunk::<32>().ok_or(snow::Error::Dh)?;
        let (out, _) = out.split_first_chunk_mut::<32>().ok_or(snow::Error::Dh)?;
        let secret = self.shared(public).ok_or(snow::Error::Dh)?;
        out.copy_from_slice(secret.as_slice());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::MontgomeryPoint;

    fn hex(text: &str) -> [u8; 32] {
        let byte = |i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
        std::array::from_fn(byte)
    }

    /// RFC 7748 §6.1.
    #[test]
    fn x25519_is_that_of_rfc_7748() {
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        let [mut a, mut b] = [X25519::default(), X25519::default()];
        a.set(&alice);
        b.set(&bob);
        for (own, other) in [(&a, &b), (&b, &a)] {
            let mut out = [0; 32];
            own.dh(other.pubkey(), &mut out).unwrap();
            assert_eq!(out, shared);
        }
    }

    /// The seven encodings of points of small order (RFC 7748 §6.1, cr.yp.to/ecdh.html), and two
    /// of them once more plus p, which X25519 reads as the same point.
    pub(crate) fn low_order_keys() -> Vec<[u8; 32]> {
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ]
        .map(hex)
        .to_vec()
    }

    #[test]
    fn a_shared_secret_of_zero_is_refused() {
        let mut own = X25519::default();
        own.set(&[0x42; 32]);
        for low in low_order_keys() {
            let mut out = [0xff; 32];
            assert!(matches!(own.dh(&low, &mut out), Err(snow::Error::Dh)), "{low:02x?}");
            assert_eq!(out, [0xff; 32], "nothing is written");
        }
    }

    fn agree(private: &[u8; 32], public: &[u8; 32]) -> Option<[u8; 32]> {
        let (mut own, mut out) = (X25519::default(), [0; 32]);
        own.set(private);
        own.dh(public, &mut out).ok().map(|()| out)
    }

    #[test]
    fn vectors_for_x25519_pass_the_handshakes_dh() {
        bulkhead_vectors::x25519::check(&mut agree);
    }

    #[test]
    fn random_keys_agree_with_a_second_x25519() {
        bulkhead_vectors::x25519::differ(1, 20_000, &mut agree);
    }

    /// For `make test-long`: some two minutes.
    #[test]
    #[ignore = "minutes: make test-long"]
    fn a_million_random_keys_agree_with_a_second_x25519() {
        bulkhead_vectors::x25519::differ(2, 1_000_000, &mut agree);
    }

    /// Differential: `curve25519-dalek` against `aws-lc-rs`, public keys, secrets, and the refusal of
    /// zero. Every hundredth public key is of low order, so both answers are met.
    #[test]
    fn x25519_agrees_with_a_second_library() {
        let low = low_order_keys();
        let (mut refused, mut random) = (0, 0x9e37_79b9_7f4a_7c15_u64);
        for n in 0..2_000 {
            let mut draw = || -> [u8; 32] {
                std::array::from_fn(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random.to_le_bytes()[3]
                })
            };
            let (private, mut public) = (draw(), draw());
            if n % 100 == 0 {
                public = low[n / 100 % low.len()];
            }
            let mut own = X25519::default();
            own.set(&private);
            assert_eq!(own.public, MontgomeryPoint::mul_base_clamped(private).to_bytes());
            let twin = MontgomeryPoint(public).mul_clamped(private).to_bytes();
            let mut out = [0; 32];
            match own.dh(&public, &mut out) {
                Ok(()) => assert_eq!(out, twin),
                Err(_) => {
                    assert_eq!(twin, [0; 32]);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 20);
    }

    /// A secret that was kept is the one that would be computed, and only of a peer that is known.
    #[test]
    fn the_secret_of_two_static_keys_is_computed_once() {
        let [ours, theirs, stranger] = [[1; 32], [2; 32], [3; 32]].map(PrivateKey::from_bytes);
        let known = Known::new([7; 32], &[(theirs.public_key(), 5)]);
        let identity = Arc::new(Identity::new(&ours, known).unwrap());
        let mut own = X25519::of(Some(Arc::clone(&identity)));
        own.set(ours.expose());
        assert!(own.is_identity);
        for (peer, is_kept) in [(&theirs, true), (&theirs, true), (&stranger, false)] {
            let public = peer.public_key();
            let mut out = [0; 32];
            own.dh(&public.0, &mut out).unwrap();
            assert_eq!(out, MontgomeryPoint(public.0).mul_clamped(*ours.expose()).to_bytes());
            let kept = identity.known.acquaintance(&public).map(|peer| &peer.static_static);
            assert_eq!(
                kept.and_then(OnceLock::get).map(|kept| **kept == out),
                is_kept.then_some(true)
            );
        }
        // Another key under the same identity has its own secrets.
        let mut other = X25519::of(Some(identity));
        other.set(stranger.expose());
        let mut out = [0; 32];
        other.dh(&theirs.public_key().0, &mut out).unwrap();
        let want = MontgomeryPoint(theirs.public_key().0).mul_clamped(*stranger.expose());
        assert_eq!(out, want.to_bytes());
    }

    #[test]
    fn random_bytes_come_from_the_caller_or_not_at_all() {
        let mut ephemeral = Ephemeral::default();
        let mut bytes = [0; 32];
        assert!(ephemeral.try_fill_bytes(&mut bytes).is_err());
        ephemeral.0.set(Zeroizing::new([3; 32])).unwrap();
        ephemeral.try_fill_bytes(&mut bytes).unwrap();
        assert_eq!(bytes, [3; 32]);
        assert!(ephemeral.try_fill_bytes(&mut bytes[..31]).is_err());
    }
}
