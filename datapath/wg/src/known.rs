//! The peers that a static key of ours knows: who is behind a decrypted public key, and the
//! static-static secret shared with them.
//!
//! ```text
//!   public key ── keyed hash ──▶ bucket ── compare all of it, in constant time ──▶ tag
//! ```
//!
//! What is constant time. The 32 bytes of an initiator's key are a secret of the protocol (identity
//! hiding, whitepaper §5.4.2). They are hashed under a random key that never leaves the process, by
//! BLAKE2s, which has no data-dependent branch or index; the hash, which tells an observer nothing
//! without that key, selects a bucket; and every key of the bucket is compared with all 32 bytes,
//! whether or not one was found. There is no early exit on key bytes. How many keys share a bucket
//! is visible, and is chance.
//!
//! The secret of static with static is the same for all handshakes of two keys, so it is computed
//! once (Linux `noise.c`, `precomputed_static_static`): a quarter of the responder's X25519. It is
//! kept from the first handshake on, not from the start: 20,000 peers would delay that by half a
//! second.

use std::fmt;
use std::sync::OnceLock;

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::key::PublicKey;
use crate::mac::mac;

/// Mean number of peers in a bucket is at most a half, so that most hold one or none.
const BUCKETS_PER_PEER: usize = 2;

/// Peers by public key. The default knows nobody.
#[derive(Default)]
pub struct Known {
    hash_key: HashKey,
    /// A power of two of them, or none.
    buckets: Vec<Vec<Acquaintance>>,
}

/// One peer.
pub(crate) struct Acquaintance {
    public: PublicKey,
    tag: u32,
    /// With the one static key that this list was made for.
    pub(crate) static_static: OnceLock<Zeroizing<[u8; 32]>>,
}

#[derive(Default, Zeroize, ZeroizeOnDrop)]
struct HashKey([u8; 32]);

impl Known {
    /// These peers, each with a tag that [`Self::find`] gives back. `hash_key` must be 32 fresh
    /// random bytes. Of several with the same key the last counts.
    #[must_use]
    pub fn new(hash_key: [u8; 32], peers: &[(PublicKey, u32)]) -> Self {
        let count = (peers.len() * BUCKETS_PER_PEER).next_power_of_two();
        let buckets = (0..count).map(|_| Vec::new()).collect();
        let mut known = Self { hash_key: HashKey(hash_key), buckets };
        for (public, tag) in peers {
            let at = known.bucket_of(public);
            if let Some(bucket) = known.buckets.get_mut(at) {
                let (public, tag) = (*public, *tag);
                bucket.push(Acquaintance { public, tag, static_static: OnceLock::new() });
            }
        }
        known
    }

    /// The tag of the peer with this key. Constant time in the key; see the head of this file.
    #[must_use]
    pub fn find(&self, key: &PublicKey) -> Option<u32> {
        let (found, at) = self.search(key);
        bool::from(found).then_some(())?;
        self.buckets.get(self.bucket_of(key))?.get(at as usize).map(|known| known.tag)
    }

    /// The peer itself.
    pub(crate) fn acquaintance(&self, key: &PublicKey) -> Option<&Acquaintance> {
        let (found, at) = self.search(key);
        bool::from(found).then_some(())?;
        self.buckets.get(self.bucket_of(key))?.get(at as usize)
    }

    /// Whether it is there, and where in its bucket. Looks at all of the bucket.
    fn search(&self, key: &PublicKey) -> (Choice, u32) {
        let bucket = self.buckets.get(self.bucket_of(key)).map_or(&[][..], Vec::as_slice);
        let (mut found, mut place) = (Choice::from(0), 0);
        for (at, known) in (0u32..).zip(bucket) {
            let same = known.public.0.ct_eq(&key.0);
            place.conditional_assign(&at, same);
            found |= same;
        }
        (found, place)
    }

    fn bucket_of(&self, key: &PublicKey) -> usize {
        let [a, b, c, d, ..] = mac(&self.hash_key.0, &[&key.0]);
        let mask = self.buckets.len().saturating_sub(1);
        u32::from_le_bytes([a, b, c, d]) as usize & mask
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn key(n: u16) -> PublicKey {
        let mut key = PublicKey([0; 32]);
        key.0[30..].copy_from_slice(&n.to_be_bytes());
        key
    }

    #[test]
    fn nobody_is_known_to_the_default() {
        assert_eq!(Known::default().find(&key(0)), None);
        assert_eq!(Known::new([1; 32], &[]).find(&PublicKey([0; 32])), None);
    }

    #[test]
    fn every_byte_of_a_key_counts() {
        let known = Known::new([1; 32], &[(PublicKey([7; 32]), 3)]);
        assert_eq!(known.find(&PublicKey([7; 32])), Some(3));
        for at in 0..32 {
            let mut other = PublicKey([7; 32]);
            other.0[at] ^= 1;
            assert_eq!(known.find(&other), None, "byte {at}");
        }
    }

    #[test]
    fn buckets_stay_short() {
        let peers: Vec<_> = (0..20_000).map(|n| (key(n), u32::from(n))).collect();
        let known = Known::new([9; 32], &peers);
        let longest = known.buckets.iter().map(Vec::len).max().unwrap();
        assert!(longest <= 8, "{longest} in one of {}", known.buckets.len());
    }

    proptest! {
        /// Twin: a map. Small domains, so that hits, misses and shared buckets all happen.
        #[test]
        fn a_peer_is_found_by_its_key_and_by_no_other(
            peers in prop::collection::btree_map(0u16..64, any::<u32>(), 0..40),
            hash_key: [u8; 32],
        ) {
            let twin: BTreeMap<u16, u32> = peers;
            let all: Vec<_> = twin.iter().map(|(n, tag)| (key(*n), *tag)).collect();
            let known = Known::new(hash_key, &all);
            for n in 0..64 {
                prop_assert_eq!(known.find(&key(n)), twin.get(&n).copied());
            }
        }
    }
}
