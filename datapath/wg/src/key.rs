//! Long-term keys as WireGuard's tools write them: 32 bytes, base64.
//!
//! INVARIANT: a secret is wiped when it is dropped, compared in constant time, and never printed.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use curve25519_dalek::MontgomeryPoint;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The public key of a peer, which is its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    /// Reads the 44 characters of `wg pubkey`.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] if they are not canonical base64 of 32 bytes.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

/// A static private key. Wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// Any 32 bytes are a private key: X25519 clamps them when it uses them (RFC 7748 §5).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key itself. The caller keeps it from logs and messages.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(MontgomeryPoint::mul_base_clamped(self.0).to_bytes())
    }
}

impl FromStr for PrivateKey {
    type Err = InvalidKey;

    /// Reads the 44 characters of `wg genkey`.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] if they are not canonical base64 of 32 bytes.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PrivateKey {}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// The symmetric key that two peers may share beside their key pairs. The default, all zero,
/// means that they share none (whitepaper §5.4). Wiped on drop.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl PresharedKey {
    /// A key of 32 random bytes, or zero for none.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key itself. The caller keeps it from logs and messages.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for PresharedKey {
    type Err = InvalidKey;

    /// Reads the 44 characters of `wg genpsk`.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] if they are not canonical base64 of 32 bytes.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

impl PartialEq for PresharedKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PresharedKey {}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

/// The text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard key: expected 44 characters of base64 that stand for 32 bytes")]
pub struct InvalidKey;

/// The text is deliberately not part of the error: it may be most of a secret.
fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, InvalidKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    // The decoder estimates the length in whole groups, one byte more than the key.
    let mut room = Zeroizing::new([0; 33]);
    if text.len() != 44 {
        return Err(InvalidKey);
    }
    match STANDARD.decode_slice(text, room.as_mut_slice()) {
        Ok(32) => {
            let (key, _) = room.split_first_chunk::<32>().ok_or(InvalidKey)?;
            bytes.copy_from_slice(key);
            Ok(bytes)
        }
        Ok(_) | Err(_) => Err(InvalidKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 7748 §6.1: Alice's key pair, in base64.
    #[test]
    fn a_public_key_is_that_of_rfc_7748() {
        let private: PrivateKey = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().unwrap();
        let public = private.public_key().to_string();
        assert_eq!(public, "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn only_canonical_base64_of_32_bytes_is_a_key() {
        let good = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM=";
        assert_eq!(good.parse::<PublicKey>().unwrap().to_string(), good);
        for bad in [
            "",
            "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM",
            "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjN=",
            "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM= ",
            "uFmW_sycfx_G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM=",
            "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWg==",
            "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjMA",
        ] {
            assert_eq!(bad.parse::<PublicKey>(), Err(InvalidKey), "{bad:?}");
            assert_eq!(bad.parse::<PrivateKey>(), Err(InvalidKey), "{bad:?}");
            assert_eq!(bad.parse::<PresharedKey>(), Err(InvalidKey), "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_not_printed_and_are_wiped_on_drop() {
        fn wiped_on_drop<T: ZeroizeOnDrop>() {}
        wiped_on_drop::<PrivateKey>();
        wiped_on_drop::<PresharedKey>();
        let secret = [0xa5; 32];
        for text in [
            format!("{:?}", PrivateKey::from_bytes(secret)),
            format!("{:?}", PresharedKey::from_bytes(secret)),
        ] {
            assert!(text.ends_with("(..)"), "{text}");
        }
        let mut key = PrivateKey::from_bytes(secret);
        key.zeroize();
        assert_eq!(key.expose(), &[0; 32]);
    }

    proptest! {
        #[test]
        fn keys_survive_their_text(bytes: [u8; 32]) {
            let text = PublicKey(bytes).to_string();
            prop_assert_eq!(text.len(), 44);
            prop_assert_eq!(text.parse(), Ok(PublicKey(bytes)));
            prop_assert_eq!(text.parse(), Ok(PrivateKey::from_bytes(bytes)));
            prop_assert_eq!(text.parse(), Ok(PresharedKey::from_bytes(bytes)));
        }

        #[test]
        fn secrets_are_equal_only_to_themselves(a: [u8; 32], b: [u8; 32]) {
            prop_assert_eq!(PrivateKey::from_bytes(a) == PrivateKey::from_bytes(b), a == b);
            prop_assert_eq!(PresharedKey::from_bytes(a) == PresharedKey::from_bytes(b), a == b);
            prop_assert_eq!(PrivateKey::from_bytes(a), PrivateKey::from_bytes(a));
        }
    }
}
