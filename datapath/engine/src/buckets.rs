//! A token bucket for every source of handshake messages, in fixed memory, shared by all workers.
//!
//! ```text
//!   hash(seed, source) ─▶ set of 8 ways, one cache line
//!   way (u64)             │ tag 24 │ full again at, ms 40 │
//! ```
//!
//! A bucket is one time: when it will be full again. A message costs [`INTERVAL_MS`] of it; what
//! would move it further than [`BURST`] messages ahead of now is refused. This is the token bucket
//! (GCRA, ITU-T I.371), and a bucket that is full again is the same as one that was never there: so
//! a way whose time has passed is free, and the table only has to hold the sources of the last
//! quarter of a second.
//!
//! INVARIANT: a newcomer is never refused for want of room, so a flood from made-up sources locks
//! nobody out. In a set whose ways are all in use the one that is full soonest makes room: the
//! source that has sent the least of late. What it is forgiven is less than what any other in the
//! set has spent, so to be forgiven its own excess a source must have eight others, of a set that
//! it cannot name, send more than itself.
//!
//! Two sources whose tags collide share a bucket: of two that share a set, one pair in 16 million.
//! The seed is secret, so nobody can look for a partner.

use core::sync::atomic::{AtomicU64, Ordering};

use bulkhead_wire::Address;

use crate::flow::Seed;

/// Messages a second from one source, as Linux (`drivers/net/wireguard/ratelimiter.c`,
/// `PACKETS_PER_SECOND`).
pub const PER_SECOND: u64 = 20;

/// Messages from a source that was silent, at once: `PACKETS_BURSTABLE` there.
pub const BURST: u64 = 5;

/// What one message costs, milliseconds.
const INTERVAL_MS: u64 = 1_000 / PER_SECOND;

/// How far ahead of now a bucket may be, milliseconds.
const AHEAD_MAX_MS: u64 = BURST * INTERVAL_MS;

/// Sets of the table: 8,192 of 64 bytes are 512 KiB. A set overflows when nine sources of it speak
/// within 50 ms, on average 1.3 million sources a second over all: beyond what a worker can even
/// look at.
pub const SETS: usize = 8_192;

/// Ways of a set: one cache line.
const WAYS: usize = 8;

const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

const _: () = assert!(INTERVAL_MS * PER_SECOND == 1_000);
const _: () = assert!(SETS.is_power_of_two() && SETS.trailing_zeros() + 24 <= 64);

/// What a bucket is for. Each has its own for the same source, so that what can be sent under a
/// false source address takes nothing from what cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Initiations and responses whose source is not proven.
    Unproven,
    /// Initiations and responses whose MAC2 proves their source.
    Proven,
    /// Cookie replies, whose source is never proven.
    CookieReply,
}

/// The buckets of all sources.
pub struct Buckets {
    sets: Box<[Set]>,
    seed: Seed,
}

#[derive(Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

impl Buckets {
    /// `sets` sets, rounded up to a power of two; all buckets are full. The seed must be secret.
    #[must_use]
    pub fn new(sets: usize, seed: Seed) -> Self {
        Self { sets: (0..sets.next_power_of_two()).map(|_| Set::default()).collect(), seed }
    }

    /// Takes one message of `source` out of its bucket; `false` if it is empty, and then nothing is
    /// taken. `now_ms` is the datapath's clock; the clocks of workers may differ by a turn.
    pub fn take(&self, purpose: Purpose, source: Address, now_ms: u64) -> bool {
        let hash = hash(source_key(source), purpose, self.seed);
        // A power of two of sets; the mask keeps it in `usize` everywhere.
        let at = usize::try_from(hash & (self.sets.len() as u64 - 1)).unwrap_or(0);
        let Some(Set(ways)) = self.sets.get(at) else { return false };
        let tag = hash >> TIME_BITS;
        loop {
            let Some((way, seen)) = choose(ways, tag, now_ms) else { return false };
            // A foreign way is taken over with a full bucket.
            let full_at = if seen >> TIME_BITS == tag { seen & TIME_MASK } else { 0 };
            let then = full_at.max(now_ms) + INTERVAL_MS;
            if then > now_ms + AHEAD_MAX_MS {
                return false;
            }
            let new = tag << TIME_BITS | then & TIME_MASK;
            // Relaxed: a bucket guards no other memory. Whoever loses the race looks again; each
            // time somebody else's message was counted, of which there are a batch per worker.
            if way.compare_exchange(seen, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
    }
}

/// The way of this tag, or else the one that is full soonest, with what it holds.
///
/// Two workers that meet a new source at the same moment may give it two ways, when a third one's
/// message changes the order between; it is then granted one burst more, once.
fn choose(ways: &[AtomicU64; WAYS], tag: u64, now_ms: u64) -> Option<(&AtomicU64, u64)> {
    let rank = |seen: u64| match seen >> TIME_BITS == tag && seen & TIME_MASK > now_ms {
        true => 0,
        false => 1 + (seen & TIME_MASK),
    };
    ways.iter().map(|way| (way, way.load(Ordering::Relaxed))).min_by_key(|(_, seen)| rank(*seen))
}

/// IPv4: the address. IPv6: its first 64 bits, because whoever has one address of a /64 has all.
fn source_key(source: Address) -> u64 {
    let bits = match source.ipv4_bits() {
        Some(bits) => u128::from(bits),
        // The top bit tells the families apart: no IPv6 source has it clear and is below 2^32.
        None => source.bits() >> 64 | 1 << 63,
    };
    u64::try_from(bits).unwrap_or(u64::MAX)
}

/// SipHash-1-3 of the key (Aumasson, Bernstein 2012): an outsider who can see which of his messages
/// are answered must not learn which sources share a set.
fn hash(key: u64, purpose: Purpose, seed: Seed) -> u64 {
    let mut v = [
        seed.0 ^ 0x736f_6d65_7073_6575,
        seed.1 ^ 0x646f_7261_6e64_6f6d,
        seed.0 ^ 0x6c79_6765_6e65_7261,
        seed.1 ^ 0x7465_6462_7974_6573,
    ];
    // The last word holds the length of what is hashed, nine bytes, and the last of them.
    for word in [key, 9 << 56 | purpose as u64] {
        v[3] ^= word;
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    let [a, b, c, d] = *v;
    let (a, c) = (a.wrapping_add(b), c.wrapping_add(d));
    let (b, d) = (b.rotate_left(13) ^ a, d.rotate_left(16) ^ c);
    let (a, c) = (a.rotate_left(32), c);
    let (c, a) = (c.wrapping_add(b), a.wrapping_add(d));
    let (b, d) = (b.rotate_left(17) ^ c, d.rotate_left(21) ^ a);
    *v = [a, b, c.rotate_left(32), d];
}

#[cfg(test)]
mod tests;
