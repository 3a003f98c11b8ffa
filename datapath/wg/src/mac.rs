//! MAC1: the sender knows our public key (whitepaper §5.4.4).
//!
//! The cheapest test of a handshake message, a four-hundredth of the handshake itself,
//! and the first: who does not know whom they talk to is not worth an answer.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use subtle::ConstantTimeEq;

use crate::key::PublicKey;
use crate::message::Maced;

/// The key of MAC1 for messages to one receiver. Anyone who knows the receiver's public key can
/// compute it, so it is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mac1Key([u8; 32]);

impl Mac1Key {
    /// The key for messages to `receiver`.
    #[must_use]
    pub fn of(receiver: &PublicKey) -> Self {
        Self(hash(b"mac1----", &receiver.0))
    }

    /// Whether `message` is an initiation or a response, by type and exact length, with the right
    /// MAC1. Constant time in the MAC.
    #[must_use]
    pub fn verify(&self, message: &[u8]) -> bool {
        Maced::parse(message)
            .is_some_and(|message| mac(&self.0, &[message.before_mac1]).ct_eq(message.mac1).into())
    }

    /// Writes MAC1 into an initiation or a response, by type and exact length; nothing into other
    /// bytes. What a stranger who knows the public key can do.
    pub fn stamp(&self, message: &mut [u8]) {
        let Some(mac1) = Maced::parse(message).map(|message| self.compute(message.before_mac1))
        else {
            return;
        };
        let before_mac2 = message.len() - 16;
        if let Some(field) = message.get_mut(..before_mac2).and_then(<[u8]>::last_chunk_mut) {
            *field = mac1;
        }
    }

    /// The MAC1 of a message of which `before_mac1` are the bytes before the field.
    pub(crate) fn compute(&self, before_mac1: &[u8]) -> [u8; 16] {
        mac(&self.0, &[before_mac1])
    }
}

/// BLAKE2s-256 of a label and a public key: how WireGuard derives the keys for MAC1 and cookies.
pub(crate) fn hash(label: &[u8; 8], key: &[u8; 32]) -> [u8; 32] {
    Blake2s256::new().chain_update(label).chain_update(key).finalize().into()
}

/// The first bytes of BLAKE2s-256 over a secret and an input of two parts, which fit into one block:
/// for what only its maker checks. BLAKE2s marks its last block (RFC 7693 §3.3), so that nobody can
/// go on from a hash that he has seen, and a secret in front is a key. The keyed mode would spend a
/// block on the key alone, for every message of a flood.
pub(crate) fn prf<const LEN: usize>(secret: &[u8; 32], input: &[u8], rest: &[u8]) -> [u8; LEN] {
    const { assert!(LEN <= 32, "BLAKE2s gives 32 bytes") };
    debug_assert!(input.len() + rest.len() <= 32, "one block");
    let hash = Blake2s256::new().chain_update(secret).chain_update(input).chain_update(rest);
    let mut out = [0; LEN];
    for (byte, from) in out.iter_mut().zip(hash.finalize()) {
        *byte = from;
    }
    out
}

/// Keyed BLAKE2s-128 over the concatenation of `parts`.
pub(crate) fn mac<const KEY_LEN: usize>(key: &[u8; KEY_LEN], parts: &[&[u8]]) -> [u8; 16] {
    const { assert!(KEY_LEN <= 32, "BLAKE2s takes keys of up to 32 bytes") };
    #[expect(clippy::expect_used, reason = "the only error is a key longer than 32 bytes")]
    let mut mac = Blake2sMac::<U16>::new_from_slice(key).expect("the key is short enough");
    for part in parts {
        Update::update(&mut mac, part);
    }
    mac.finalize_fixed().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;

    fn initiation() -> ([u8; 148], Mac1Key) {
        let key = Mac1Key::of(&PrivateKey::from_bytes([7; 32]).public_key());
        let mut message = [0x5a; 148];
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        let mac1 = key.compute(&message[..116]);
        message[116..132].copy_from_slice(&mac1);
        (message, key)
    }

    /// The twin is the hash of the same bytes in one piece.
    #[test]
    fn the_function_for_cookies_is_the_start_of_a_hash() {
        let (secret, input) = ([7; 32], [1, 2, 3, 4]);
        let whole: [u8; 32] = Blake2s256::digest([&secret[..], &input].concat()).into();
        assert_eq!(prf::<32>(&secret, &input[..3], &input[3..]), whole);
        assert_eq!(prf::<16>(&secret, &input, &[]), whole[..16]);
    }

    /// BLAKE2s with a key, from the reference implementation's test vectors (blake2-kat.json,
    /// key 00..1f, empty input), here for 32 bytes of output to prove the library's keying.
    #[test]
    fn the_library_keys_blake2s_as_rfc_7693_does() {
        use blake2::Blake2sMac256;
        let key: Vec<u8> = (0..32).collect();
        let mac = Blake2sMac256::new_from_slice(&key).unwrap();
        let out: [u8; 32] = mac.finalize_fixed().into();
        assert_eq!(out[..8], [0x48, 0xa8, 0x99, 0x7d, 0xa4, 0x07, 0x87, 0x6b]);
    }

    #[test]
    fn every_bit_under_mac1_counts_and_no_other() {
        let (message, key) = initiation();
        assert!(key.verify(&message));
        for bit in 0..148 * 8 {
            let mut flipped = message;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify(&flipped), bit / 8 >= 132, "bit {bit}");
        }
    }

    #[test]
    fn only_handshake_messages_of_exact_length_have_a_mac1() {
        let (message, key) = initiation();
        for len in 0..148 {
            assert!(!key.verify(&message[..len]), "{len}");
        }
        let long: Vec<u8> = message.iter().copied().chain([0]).collect();
        assert!(!key.verify(&long));
        assert!(!Mac1Key::of(&PublicKey([9; 32])).verify(&message));
    }

    /// A right MAC1 makes no handshake message of anything else: the first word, reserved bytes
    /// included, and the length must both be those of an initiation, or both of a response.
    #[test]
    fn a_right_mac1_under_another_type_is_refused() {
        let (_, key) = initiation();
        let kinds = [0, 1, 2, 3, 4, 0x0101, 0x0001_0001, 0x0100_0001, 0x0102, 0xff00_0002];
        for len in [64, 91, 92, 93, 147, 148, 149] {
            for kind in kinds {
                let mut message = vec![0x5a; len];
                message[..4].copy_from_slice(&u32::to_le_bytes(kind));
                let mac1 = key.compute(&message[..len - 32]);
                message[len - 32..len - 16].copy_from_slice(&mac1);
                let want = matches!((kind, len), (1, 148) | (2, 92));
                assert_eq!(key.verify(&message), want, "type {kind:#x}, {len} bytes");
            }
        }
    }
}
