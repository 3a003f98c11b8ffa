//! The flows that one worker has seen: the verdict of a live flow without asking anybody.
//!
//! ```text
//!   hash ─▶ line ─▶ two buckets ─▶ 16 tags of a byte ─▶ the entry whose tag is equal: 64 bytes, one cache line
//! ```
//!
//! Bounded and allocated once. What is evicted costs a second judgement, never a connection: the
//! registry is what makes a reply a reply. The tags make a hit cost two cache lines and a miss one;
//! [`FlowCache::warm_tags`] and [`FlowCache::warm_flows`] let the lines of a whole batch come in side by
//! side.
//!
//! INVARIANT: a tag is [`FREE`] if and only if its entry is free.

use bulkhead_table::{EndpointId, LabelId, RuleIndex};
use bulkhead_xsk::{huge, prefetch};

use crate::flow::{OpenedBy, Pair, Party, Seed, halves, index_below};
use crate::registry::Spot;
use crate::state::{Input, Side, State, Timeouts};
use crate::steady::Steady;
use crate::tags::{self, Candidates, FREE, Tags, WAYS, tag_of};

/// One flow as a worker remembers it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub struct Flow {
    /// Its ends.
    pub pair: Pair,
    /// The rule that allows it.
    pub rule: RuleIndex,
    /// The number of the edition that allowed it.
    pub edition: u32,
    /// When a packet last passed and was told to the registry, seconds of the datapath's clock.
    pub seen_s: u32,
    /// The endpoints of opener and responder in the table of that edition.
    pub endpoints: (EndpointId, EndpointId),
    /// The labels of both that it was allowed under.
    pub labels: (LabelId, LabelId),
    /// How far it has come, as far as this worker knows.
    pub state: State,
    /// Where the registry had it last.
    pub spot: Spot,
    /// Who opened it.
    pub opened: OpenedBy,
}

const _: () = assert!(size_of::<Flow>() == 64, "an entry is a cache line");

impl Flow {
    /// Which side sends the packets that come from the low end, or from the high one.
    #[inline]
    #[must_use]
    pub fn side(&self, from_low: bool) -> Side {
        if self.opened.is_low() == from_low { Side::Opener } else { Side::Responder }
    }
}

/// Buckets whose tags are in one cache line.
const LINE: usize = 64 / WAYS;

/// The tags of some neighbouring buckets.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct TagLine([Tags; LINE]);

/// A worker's flows.
pub struct FlowCache {
    tags: Box<[TagLine]>,
    /// [`WAYS`] for each bucket.
    flows: Box<[Flow]>,
    seed: Seed,
    timeouts: Timeouts,
    steady: Steady,
    live: u64,
}

/// Where a flow stands in the cache: which of all entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known(usize);

impl Known {
    const NOWHERE: Self = Self(usize::MAX);
}

impl Default for Known {
    fn default() -> Self {
        Self::NOWHERE
    }
}

/// A pair with its hash, worked out once per packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hashed {
    /// The ends.
    pub pair: Pair,
    /// Whether the packet comes from the low end.
    pub from_low: bool,
    buckets: [usize; 2],
    tag: u8,
    /// The first place that may be its, when [`FlowCache::warm_flows`] looked.
    likely: Known,
}

impl FlowCache {
    /// Room for `flows` flows, and a quarter more, because hashing fills buckets unevenly.
    #[must_use]
    pub fn new(flows: usize, seed: Seed, timeouts: Timeouts) -> Self {
        let buckets = Self::buckets(flows);
        Self {
            tags: huge::table(buckets / LINE, TagLine([[FREE; WAYS]; LINE])),
            flows: huge::table(buckets * WAYS, Flow::default()),
            seed,
            steady: Steady::new(&timeouts),
            timeouts,
            live: 0,
        }
    }

    fn buckets(flows: usize) -> usize {
        (flows + flows / 4).div_ceil(WAYS).next_multiple_of(LINE).max(LINE)
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
        // The second one is another of the same line of tags, and as good as any: 64 entries fill nearly
        // evenly.
        let (line, at) = (index_below(high, self.tags.len()) * LINE, low as usize / 256);
        let first = at % LINE;
        let second = (first + 1 + at / LINE % (LINE - 1)) % LINE;
        let buckets = [line + first, line + second];
        Hashed { pair, from_low, buckets, tag: tag_of(last), likely: Known::default() }
    }

    /// Asks for the tags of a pair: the first of two lines that [`Self::find`] reads. So the cache misses
    /// of a batch overlap, with each other and with whatever is done before [`Self::warm_flows`].
    #[inline]
    pub fn warm_tags(&self, hashed: &Hashed) {
        let [bucket, _] = hashed.buckets;
        self.tags.get(bucket / LINE).into_iter().for_each(prefetch);
    }

    /// Reads the flows themselves, as far as the tags tell which they are. Returns a bit for each, the first the
    /// lowest: whether what stands there was judged by this edition, so that [`Self::settled`] is worth
    /// asking.
    ///
    /// Each is asked for as soon as its place is known, and then read: a core takes only so many requests, and
    /// waits for a read.
    #[inline]
    pub fn warm_flows(&self, batch: &mut [Hashed], edition: u32) -> u64 {
        for hashed in &mut *batch {
            hashed.likely = self.candidates(hashed).next().unwrap_or_default();
            self.get(hashed.likely).into_iter().for_each(prefetch);
        }
        // Nothing but the reads, so that a core has as many of them under way as it can.
        batch.iter().rev().fold(0, |all, hashed| {
            let judged = self.get(hashed.likely).map_or(0, |flow| flow.edition);
            all << 1 | u64::from(judged == edition)
        })
    }

    #[inline]
    fn tags_of(&self, hashed: &Hashed) -> [Tags; 2] {
        let [first, _] = hashed.buckets;
        match self.tags.get(first / LINE) {
            Some(TagLine(tags)) => {
                hashed.buckets.map(|bucket| tags.get(bucket % LINE).copied().unwrap_or_default())
            }
            None => [[FREE; WAYS]; 2],
        }
    }

    /// The places that may be the flow's.
    #[inline]
    fn candidates(&self, hashed: &Hashed) -> impl Iterator<Item = Known> + use<> {
        let [first, second] = hashed.buckets.map(|bucket| bucket * WAYS);
        Candidates::of(self.tags_of(hashed), hashed.tag)
            .map(move |(which, way)| Known(if which == 0 { first } else { second } + way))
    }

    /// The rule of a flow that goes on as it is, and who its sender and its receiver were when it was judged: it
    /// stands where [`Self::warm_flows`] looked, was judged by this edition, and the packet changes nothing of
    /// it. `None` says nothing: [`Self::find`] and whoever asks it decide.
    #[inline]
    #[must_use]
    pub fn settled(
        &self,
        hashed: &Hashed,
        input: Input,
        edition: u32,
        now_s: u32,
    ) -> Option<(RuleIndex, (Party, Party))> {
        let flow = self.get(hashed.likely)?;
        let side = flow.side(hashed.from_low);
        let settled = flow.pair == hashed.pair
            && flow.edition == edition
            && self.steady.holds((flow.state, flow.seen_s), side, input, now_s);
        let (endpoints, labels) = (flow.endpoints, flow.labels);
        let parties = ((endpoints.0, labels.0), (endpoints.1, labels.1));
        settled.then(|| (flow.rule, side.order(parties)))
    }

    /// Finds a flow that has not expired.
    #[inline]
    #[must_use]
    pub fn find(&self, hashed: &Hashed, now_s: u32) -> Option<Known> {
        let known = self.position(hashed)?;
        let flow = self.get(known)?;
        (!self.timeouts.expired(flow.state, flow.seen_s, now_s)).then_some(known)
    }

    #[inline]
    fn position(&self, hashed: &Hashed) -> Option<Known> {
        let is_it = |known: &Known| {
            self.get(*known)
                .is_some_and(|flow| flow.pair == hashed.pair && flow.state != State::Free)
        };
        Some(hashed.likely).filter(is_it).or_else(|| self.candidates(hashed).find(is_it))
    }

    #[inline]
    fn get(&self, known: Known) -> Option<&Flow> {
        self.flows.get(known.0)
    }

    /// The flow at a place that [`Self::find`] gave.
    #[inline]
    pub fn get_mut(&mut self, known: Known) -> Option<&mut Flow> {
        self.flows.get_mut(known.0)
    }

    /// Remembers an allowed flow, which must not be [`State::Free`]. Where there is no free place, the
    /// longest silent flow of those that are over or yield makes room, and only without such the longest
    /// silent.
    pub fn insert(&mut self, hashed: &Hashed, flow: Flow, now_s: u32) -> Option<Known> {
        let free =
            |(which, way): (usize, usize)| Some(Known(hashed.buckets.get(which)? * WAYS + way));
        let known = self
            .position(hashed)
            .or_else(|| tags::free(self.tags_of(hashed)).and_then(free))
            .or_else(|| self.oldest(hashed, now_s))?;
        let place = self.get_mut(known)?;
        let was_free = core::mem::replace(place, flow).state == State::Free;
        self.live += u64::from(was_free);
        *self.tag_mut(known)? = hashed.tag;
        Some(known)
    }

    /// The place whose flow is missed least.
    fn oldest(&self, hashed: &Hashed, now_s: u32) -> Option<Known> {
        let rank = |known: &Known| {
            self.get(*known).map(|found| match () {
                () if self.timeouts.expired(found.state, found.seen_s, now_s) => (1, 0),
                () if found.state.yields() => (2, found.seen_s),
                () => (3, found.seen_s),
            })
        };
        let places = hashed
            .buckets
            .into_iter()
            .flat_map(|bucket| (0..WAYS).map(move |way| Known(bucket * WAYS + way)));
        places.min_by_key(rank)
    }

    /// Forgets a flow.
    pub fn remove(&mut self, known: Known) {
        if let Some(flow) = self.get_mut(known)
            && core::mem::take(flow).state != State::Free
        {
            self.live -= 1;
        }
        if let Some(tag) = self.tag_mut(known) {
            *tag = FREE;
        }
    }

    fn tag_mut(&mut self, known: Known) -> Option<&mut u8> {
        let (bucket, way) = (known.0 / WAYS, known.0 % WAYS);
        self.tags.get_mut(bucket / LINE)?.0.get_mut(bucket % LINE)?.get_mut(way)
    }
}

#[cfg(test)]
mod tests;
