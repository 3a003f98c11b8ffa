//! X25519 (RFC 7748), and nothing else of the library that computes it: to use another one is to
//! change this file.
//!
//! `aws-lc-rs` needs half the time of `curve25519-dalek`, which is its twin in the tests of
//! [`crate::noise`].

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A private key, made ready for use. The library wipes it on drop.
pub(crate) struct Key(PrivateKey);

impl Key {
    /// `None` if the library refuses the key, which it does for none of 32 bytes.
    pub(crate) fn new(private: &[u8; 32]) -> Option<Self> {
        PrivateKey::from_private_key(&X25519, private).ok().map(Self)
    }

    /// The public key.
    pub(crate) fn public(&self) -> Option<[u8; 32]> {
        self.0.compute_public_key().ok()?.as_ref().try_into().ok()
    }

    /// The secret shared with the owner of `public`; `None` if it would be zero, which everyone
    /// knows (Linux `noise.c::mix_dh`).
    pub(crate) fn shared(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let public = UnparsedPublicKey::new(&X25519, public);
        let secret = agree(&self.0, public, (), |secret| {
            <[u8; 32]>::try_from(secret).map(Zeroizing::new).map_err(drop)
        });
        // The library refuses it too, today; its manual does not promise that.
        secret.ok().filter(|secret| !bool::from(secret.ct_eq(&[0; 32])))
    }
}
