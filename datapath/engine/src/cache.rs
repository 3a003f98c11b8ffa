//! The flows that one worker has seen: the verdict of a live flow without asking anybody.
//!
//! ```text
//!   hash ─▶ bucket ─▶ 8 tags of a byte ─▶ the entries whose tag is equal: 64 bytes, one cache line
//! ```
//!
//! Bounded and allocated once. What is evicted costs a second judgement, never a connection: the
//! registry is what makes a reply a reply. The tags make a hit cost two cache lines and a miss one;
//! [`FlowCache::warm`] lets the lines of a whole batch come in side by side.
//!
//! INVARIANT: a tag is 0 if and only if its entry is free.

use bulkhead_table::{LabelId, RuleIndex, Service};
use bulkhead_xsk::huge;

use crate::flow::{Pair, Seed, halves, index_below};
use crate::state::{Side, State, Timeouts};

const WAYS: usize = 8;

/// One flow as a worker remembers it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub struct Flow {
    /// Its ends.
    pub pair: Pair,
    /// What the policy was asked about the packet that opened it.
    pub service: Service,
    /// The rule that allows it.
    pub rule: RuleIndex,
    /// Low half of the generation that allowed it.
    pub generation: u32,
    /// When a packet last passed and was told to the registry, seconds of the datapath's clock.
    pub seen_s: u32,
    /// The labels of opener and responder that it was allowed under.
    pub labels: (LabelId, LabelId),
    /// How far it has come, as far as this worker knows.
    pub state: State,
    /// Whether its low end opened it.
    pub low_opened: bool,
}

const _: () = assert!(size_of::<Flow>() == 64, "an entry is a cache line");

impl Flow {
    /// Which side sends the packets that come from the low end, or from the high one.
    #[inline]
    #[must_use]
    pub fn side(&self, from_low: bool) -> Side {
        if self.low_opened == from_low { Side::Opener } else { Side::Responder }
    }
}

/// A worker's flows.
pub struct FlowCache {
    tags: Box<[[u8; WAYS]]>,
    flows: Box<[[Flow; WAYS]]>,
    seed: Seed,
    timeouts: Timeouts,
    live: u64,
}

/// Where a flow stands in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    bucket: usize,
    way: usize,
}

/// A pair with its hash, worked out once per packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hashed {
    /// The ends.
    pub pair: Pair,
    /// Whether the packet comes from the low end.
    pub from_low: bool,
    bucket: usize,
    tag: u8,
}

/// The ways of a bucket whose tag is equal, found in all eight at once: the top bit of the byte of each.
#[derive(Clone, Copy)]
struct Candidates(u64);

impl Candidates {
    /// A byte of the difference is zero where the tags are equal. Taking 1 from each byte borrows
    /// through such a byte, so one above it may be taken for equal as well; that costs a comparison
    /// of the flows, and nothing else.
    #[inline]
    fn of(tags: [u8; WAYS], tag: u8) -> Self {
        const ONES: u64 = 0x0101_0101_0101_0101;
        let difference = u64::from_le_bytes(tags) ^ (ONES * u64::from(tag));
        Self(difference.wrapping_sub(ONES) & !difference & (ONES << 7))
    }
}

impl Iterator for Candidates {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let way = (self.0 != 0).then_some(self.0.trailing_zeros() as usize / 8)?;
        self.0 &= self.0 - 1;
        Some(way)
    }
}

impl FlowCache {
    /// Room for `flows` flows, and a quarter more, because hashing fills buckets unevenly.
    #[must_use]
    pub fn new(flows: usize, seed: Seed, timeouts: Timeouts) -> Self {
        let buckets = Self::buckets(flows);
        Self {
            tags: huge::table(buckets, [0; WAYS]),
            flows: huge::table(buckets, [Flow::default(); WAYS]),
            seed,
            timeouts,
            live: 0,
        }
    }

    fn buckets(flows: usize) -> usize {
        (flows + flows / 4).div_ceil(WAYS).max(1)
    }

    /// The memory of a cache with room for `flows` flows, bytes.
    #[must_use]
    pub fn bytes(flows: usize) -> usize {
        Self::buckets(flows) * WAYS * (size_of::<Flow>() + 1)
    }

    /// Flows in the cache, with those that have expired and were not yet replaced.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.live
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Works out where a pair would stand.
    #[inline]
    #[must_use]
    pub fn hash(&self, (pair, from_low): (Pair, bool)) -> Hashed {
        let (high, low) = halves(pair.hash(self.seed));
        let [.., last] = low.to_be_bytes();
        Hashed { pair, from_low, bucket: index_below(high, self.tags.len()), tag: last | 0x80 }
    }

    /// Touches the memory that [`Self::find`] will read for these, all of it before any is used, so
    /// that the cache misses of a batch overlap. Safe code has no prefetch; a read does as well.
    #[inline]
    pub fn warm(&self, batch: &[Hashed]) {
        let mut read = 0;
        for hashed in batch {
            read ^= self.tags.get(hashed.bucket).map_or(0, |tags| tags[0]);
        }
        core::hint::black_box(read);
        let mut read = 0;
        for hashed in batch {
            if let Some(way) = self.candidates(hashed).next()
                && let Some(flow) = self.flows.get(hashed.bucket).and_then(|ways| ways.get(way))
            {
                read ^= flow.seen_s;
            }
        }
        core::hint::black_box(read);
    }

    /// The entries of a bucket that may be the flow.
    #[inline]
    fn candidates(&self, hashed: &Hashed) -> Candidates {
        let tags = self.tags.get(hashed.bucket).copied().unwrap_or_default();
        Candidates::of(tags, hashed.tag)
    }

    /// Finds a flow that has not expired.
    #[inline]
    #[must_use]
    pub fn find(&self, hashed: &Hashed, now_s: u32) -> Option<Known> {
        let ways = self.flows.get(hashed.bucket)?;
        for way in self.candidates(hashed) {
            let flow = ways.get(way)?;
            if flow.pair == hashed.pair {
                let over = self.timeouts.expired(flow.state, flow.seen_s, now_s);
                return (!over).then_some(Known { bucket: hashed.bucket, way });
            }
        }
        None
    }

    /// The flow at a place that [`Self::find`] gave.
    #[inline]
    pub fn get_mut(&mut self, known: Known) -> Option<&mut Flow> {
        self.flows.get_mut(known.bucket)?.get_mut(known.way)
    }

    /// Remembers an allowed flow, which must not be [`State::Free`]. In a full bucket the longest
    /// silent flow of those that yield makes room, and only without such the longest silent.
    pub fn insert(&mut self, hashed: &Hashed, flow: Flow, now_s: u32) -> Option<Known> {
        let ways = self.flows.get_mut(hashed.bucket)?;
        let rank = |found: &Flow| match () {
            () if found.pair == flow.pair && found.state != State::Free => (0, 0),
            () if self.timeouts.expired(found.state, found.seen_s, now_s) => (1, 0),
            () if found.state.yields() => (2, found.seen_s),
            () => (3, found.seen_s),
        };
        let way = (0..WAYS).min_by_key(|way| ways.get(*way).map(rank))?;
        let place = ways.get_mut(way)?;
        self.live += u64::from(place.state == State::Free);
        *place = flow;
        *self.tags.get_mut(hashed.bucket)?.get_mut(way)? = hashed.tag;
        Some(Known { bucket: hashed.bucket, way })
    }

    /// Forgets a flow.
    pub fn remove(&mut self, known: Known) {
        if let Some(flow) = self.get_mut(known)
            && core::mem::take(flow).state != State::Free
        {
            self.live -= 1;
        }
        if let Some(tag) = self.tags.get_mut(known.bucket).and_then(|tags| tags.get_mut(known.way))
        {
            *tag = 0;
        }
    }
}

#[cfg(test)]
mod tests;
