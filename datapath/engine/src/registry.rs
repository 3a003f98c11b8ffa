//! Flows that were opened, known to every worker: what makes a reply a reply.
//!
//! A reply usually arrives on another worker than the packet that opened its flow. The registry is
//! asked about packets that no cache knows, and told of a flow when it opens, when a SYN, FIN or
//! RST passes, and otherwise once in a sixteenth of the flow's timeout by each worker. So its locks are off the path
//! of the packets between; a shard is held for two buckets of `WAYS` entries.
//!
//! The registry never allows anything by itself. It says only "this flow was opened"; whether the
//! policy still allows the opening packet is judged again at every admission and, through
//! generation and labels in the caches, after every change.
//!
//! A flow that is to be logged when it is over is COUNTED here, and nowhere else: no worker keeps it in its
//! cache, so each of its packets is asked about ([`Met::counted`]) and the figures are exact, whichever
//! workers saw them. It is counted under the name that it was opened with, whatever rule lets it go on.
//!
//! MEMORY is bounded, and a new flow takes the first of: a free or expired place of its two
//! buckets; that of the longest silent flow that [yields](State::yields), which an established one
//! never does. If there is none the flow is refused. So a flood of half-open flows displaces half-open
//! flows, and what one source may open is limited before that ([`Sources`]).

use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_link::{Counted, End, FlowEnding, FlowSetup, Midstream};
use bulkhead_table::{RuleTag, Service};

use crate::flow::{FlowKey, Pair, Seed, halves, index_below};
use crate::flow_log::{Event, Past, Record};
use crate::sources::{SourceId, Sources};
use crate::state::{Input, Side, State, Timeouts};
use crate::tags::{Candidates, FREE, Tags, WAYS, tag_of};

const SHARDS: usize = 64;

/// Buckets of a shard at least: with fewer, chance alone would fill some.
const BUCKETS_MIN: usize = 8;

/// Buckets that one call of [`Registry::sweep`] looks at.
const SWEEP: usize = 16;

/// Opened flows, sharded by hash.
pub struct Registry {
    shards: Box<[Mutex<Shard>]>,
    seed: Seed,
    timeouts: Timeouts,
    midstream: Midstream,
    sources: Sources,
}

/// A share of the flows, and where the sweep of it goes on.
///
/// INVARIANT: a tag is [`FREE`] if and only if the state of its entry is [`State::Free`].
struct Shard {
    tags: Box<[Tags]>,
    buckets: Box<[[Opened; WAYS]]>,
    /// By place, of flows that are counted. Memory that none of them has touched is not there yet.
    counts: Box<[[Counts; WAYS]]>,
    swept: usize,
}

/// One opened flow.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Opened {
    pair: Pair,
    service: Service,
    source: SourceId,
    seen_s: u32,
    state: State,
    low_opened: bool,
    /// The name that its end is logged under; [`RuleTag::NONE`]: it is not, and not counted.
    tag: RuleTag,
}

/// Of one flow: when it was opened, packets and bytes of the opener, and of the responder. Plain numbers,
/// because the allocator has zeros of those for nothing.
type Counts = [u64; 5];

const _: () = assert!(size_of::<Opened>() == 64, "an entry is a cache line");

/// What the registry knows of a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Which side sent the packet.
    pub side: Side,
    /// What the opening packet asked for.
    pub service: Service,
    /// How far the flow has come, with this packet.
    pub state: State,
    /// Where the registry has the flow.
    pub spot: Spot,
    /// Whether its packets are counted here, so that it must be asked about each.
    pub counted: bool,
}

/// A packet that wants to open a flow, and that a rule allows.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Its IP protocol.
    pub protocol: u8,
    /// What it means to a state.
    pub input: Input,
    /// What it asks for.
    pub service: Service,
    /// Whose allowance it costs.
    pub source: SourceId,
    /// The name that the end of the flow is to be logged under; [`RuleTag::NONE`]: it is not.
    pub tag: RuleTag,
    /// Its length from the IP header on.
    pub bytes: u16,
}

/// A flow that was counted and is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// The flow, in the direction of who opened it.
    pub key: FlowKey,
    /// What it was opened for.
    pub service: Service,
    /// The name that it was opened with.
    pub tag: RuleTag,
    /// How it was.
    pub past: Past,
}

/// Which of the sixteen places of its two buckets a flow has, as a worker last heard; the default is
/// none. A flow that is where it was is found without a look at the tags, which is a line less to wait
/// for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot(u8);

impl Spot {
    fn new(at: At, (bucket, way): Place) -> Self {
        let [first, _] = at.buckets;
        let before = if bucket == first { 0 } else { WAYS };
        Self(u8::try_from(before + way + 1).unwrap_or(0))
    }

    fn place(self, at: At) -> Option<Place> {
        let number = usize::from(self.0).checked_sub(1)?;
        Some((*at.buckets.get(number / WAYS)?, number % WAYS))
    }
}

impl Over {
    /// What the flow log says of it.
    #[must_use]
    pub fn record(self, at_s: u32, generation: u64) -> Record {
        let Self { key, service, tag, past } = self;
        Record { event: Event::Closed(past), at_s, tag, key, service, generation }
    }
}

impl Registry {
    /// Room for `flows` flows, and half as many more: hashing fills buckets unevenly, and of the last
    /// flows that were promised room hardly one in a thousand is refused. For `peers` peers.
    #[must_use]
    pub fn new(flows: usize, peers: usize, seed: Seed, setup: &FlowSetup) -> Self {
        let buckets = Self::buckets(flows);
        let shard = || {
            let tags = vec![[FREE; WAYS]; buckets].into_boxed_slice();
            let counts = vec![[[0u64; 5]; WAYS]; buckets].into_boxed_slice();
            let buckets = vec![[Opened::default(); WAYS]; buckets].into_boxed_slice();
            Mutex::new(Shard { tags, buckets, counts, swept: 0 })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            seed,
            timeouts: Timeouts::from(&setup.timeouts),
            midstream: setup.midstream,
            sources: Sources::new(peers, seed, setup.new_per_second, setup.live_per_source),
        }
    }

    fn buckets(flows: usize) -> usize {
        (flows + flows / 2).div_ceil(WAYS * SHARDS).max(BUCKETS_MIN)
    }

    /// The memory of a registry with room for `flows` flows of `peers` peers, bytes, as long as none of them
    /// is counted. Each that is takes 40 more, and if there are few each takes a page.
    #[must_use]
    pub fn bytes(flows: usize, peers: usize) -> usize {
        Self::buckets(flows) * SHARDS * WAYS * (size_of::<Opened>() + 1) + Sources::bytes(peers)
    }

    /// How long flows may be silent.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// What every source has opened.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// A packet between the ends of `pair` has arrived: tells of its flow, if there is one, which
    /// thereby lives on. A SYN between the ports of a connection that is over belongs to none.
    ///
    /// Where it is not allowed any more, as `allows` says of the packet's side and of what the opener asked
    /// for, the packet changes nothing.
    ///
    /// It is looked for at `spot` first. `bytes` is the length of the packet from the IP header on, unless
    /// it was counted before.
    #[must_use]
    pub fn meet(
        &self,
        (pair, from_low): (&Pair, bool),
        spot: Spot,
        (input, bytes): (Input, Option<u16>),
        now_s: u32,
        allows: impl FnOnce(Side, Service) -> bool,
    ) -> Option<Met> {
        self.with(pair, |shard, at| {
            let (opened, spot) = shard.find(pair, at, spot, (&self.timeouts, now_s))?;
            if opened.state.is_over() && input == Input::Syn {
                return None;
            }
            let side = opened.side(from_low);
            let allowed = allows(side, opened.service);
            if allowed {
                opened.state = opened.state.after(side, input);
                opened.seen_s = now_s;
            }
            let Opened { service, state, tag, .. } = *opened;
            let counted = tag != RuleTag::NONE;
            if counted
                && allowed
                && let Some(bytes) = bytes
            {
                shard.count(spot.place(at), side, bytes);
            }
            Some(Met { side, service, state, spot, counted })
        })
    }

    /// What a flow was opened for, and which side the sender is, without a packet of it.
    #[must_use]
    pub fn peek(&self, pair: &Pair, from_low: bool, now_s: u32) -> Option<(Side, Service)> {
        self.with(pair, |shard, at| {
            let (opened, _) = shard.find(pair, at, Spot::default(), (&self.timeouts, now_s))?;
            Some((opened.side(from_low), opened.service))
        })
    }

    /// A packet that a rule allows wants to open a flow. `over` hears of the one whose place it takes, if
    /// that was counted.
    ///
    /// # Errors
    ///
    /// [`End::DropMidstream`], [`End::DropNewFlowLimit`] or [`End::DropFlowTableFull`]; then nothing
    /// is remembered.
    pub fn open(
        &self,
        (pair, from_low): (&Pair, bool),
        opening: &Opening,
        now_s: u32,
        over: impl FnOnce(Over),
    ) -> Result<(State, Spot), End> {
        let Opening { protocol, input, service, source, tag, bytes } = *opening;
        let state = State::opening(protocol, input, self.midstream).ok_or(End::DropMidstream)?;
        if !self.sources.open(source, now_s) {
            return Err(End::DropNewFlowLimit);
        }
        let flow = Opened {
            pair: *pair,
            service,
            source,
            seen_s: now_s,
            state,
            low_opened: from_low,
            tag,
        };
        let before = self.with(pair, |shard, at| {
            let place = shard.room(pair, at, &self.timeouts, now_s)?;
            let before = shard.replace(place, at.tag, flow)?;
            if before.tag != RuleTag::NONE || tag != RuleTag::NONE {
                let first = [u64::from(now_s), 1, u64::from(bytes), 0, 0];
                let counts = shard.recount(place, first);
                let expired = self.timeouts.expired(before.state, before.seen_s, now_s);
                let why = if expired { FlowEnding::Timeout } else { FlowEnding::Displaced };
                if let Some(gone) = before.over(&counts, why) {
                    over(gone);
                }
            }
            Some((before, Spot::new(at, place)))
        });
        match before {
            None => {
                self.sources.close(source);
                Err(End::DropFlowTableFull)
            }
            Some((before, spot)) => {
                if before.state != State::Free {
                    self.sources.close(before.source);
                }
                Ok((state, spot))
            }
        }
    }

    /// The flow is no longer allowed; `over` hears of it if it was counted.
    pub fn remove(&self, pair: &Pair, over: impl FnOnce(Over)) {
        let removed = self.with(pair, |shard, at| {
            let place = shard.position(pair, at, Spot::default())?;
            let removed = shard.replace(place, FREE, Opened::default())?;
            if removed.tag != RuleTag::NONE {
                let counts = shard.recount(place, Counts::default());
                if let Some(gone) = removed.over(&counts, FlowEnding::Revoked) {
                    over(gone);
                }
            }
            Some(removed)
        });
        if let Some(removed) = removed {
            self.sources.close(removed.source);
        }
    }

    /// Frees expired flows of a few buckets, which ones `turn` says: whoever calls this with every
    /// number in turn has looked at everything. `over` hears of those that were counted.
    pub fn sweep(&self, turn: u64, now_s: u32, mut over: impl FnMut(Over)) {
        let at = usize::try_from(turn % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.shards.get(at) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Shard { tags, buckets, counts, swept } = &mut *shard;
        let from = if *swept < buckets.len() { *swept } else { 0 };
        *swept = from + SWEEP;
        let entries = tags.iter_mut().flatten().zip(buckets.iter_mut().flatten());
        let entries = entries.zip(counts.iter().flatten());
        for ((tag, opened), counts) in entries.skip(from * WAYS).take(SWEEP * WAYS) {
            if *tag != FREE && self.timeouts.expired(opened.state, opened.seen_s, now_s) {
                *tag = FREE;
                let opened = core::mem::take(opened);
                self.sources.close(opened.source);
                opened.over(counts, FlowEnding::Timeout).into_iter().for_each(&mut over);
            }
        }
    }

    /// Every flow that was opened, for tests that want to see that none was.
    #[cfg(test)]
    pub(crate) fn live(&self) -> Vec<String> {
        let mut live = vec![];
        for shard in &self.shards {
            let shard = shard.lock().unwrap();
            let used = shard.buckets.iter().flatten().filter(|opened| opened.state != State::Free);
            live.extend(used.map(|opened| format!("{opened:?}")));
        }
        live
    }

    /// The two buckets of a pair, in its shard, which is locked meanwhile.
    fn with<R>(&self, pair: &Pair, ask: impl FnOnce(&mut Shard, At) -> Option<R>) -> Option<R> {
        // The cache of every worker uses the same seed; another fold keeps the two apart.
        let hash = pair.hash(Seed(self.seed.1, self.seed.0));
        let (high, low) = halves(hash);
        let shard = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        // A poisoned shard is whole: entries are plain values, replaced in one assignment.
        let mut shard: MutexGuard<'_, Shard> =
            self.shards.get(shard)?.lock().unwrap_or_else(PoisonError::into_inner);
        let len = shard.buckets.len();
        // The low half names the shard with its last bits and has the tag before those. At both
        // `index_below` hardly looks.
        let [_, _, byte, _] = low.to_be_bytes();
        let buckets = [index_below(high, len), index_below(low, len)];
        ask(&mut shard, At { buckets, tag: tag_of(byte) })
    }
}

impl Shard {
    fn entry(&self, (bucket, way): Place) -> Option<&Opened> {
        self.buckets.get(bucket)?.get(way)
    }

    fn position(&self, pair: &Pair, at: At, spot: Spot) -> Option<Place> {
        let is_it = |place: &Place| self.entry(*place).is_some_and(|opened| opened.is(pair));
        spot.place(at).filter(is_it).or_else(|| self.candidates(at).find(is_it))
    }

    /// The places with the tag.
    fn candidates(&self, at: At) -> impl Iterator<Item = Place> + use<> {
        let tags = at.buckets.map(|bucket| self.tags.get(bucket).copied().unwrap_or_default());
        let [first, second] = at.buckets;
        Candidates::of(tags, at.tag)
            .map(move |(which, way)| (if which == 0 { first } else { second }, way))
    }

    /// Puts a flow, or none, in the place of what was there.
    fn replace(&mut self, place: Place, tag: u8, opened: Opened) -> Option<Opened> {
        let (bucket, way) = place;
        *self.tags.get_mut(bucket)?.get_mut(way)? = tag;
        Some(core::mem::replace(self.entry_mut(place)?, opened))
    }

    /// A packet of a flow that is counted.
    fn count(&mut self, place: Option<Place>, side: Side, bytes: u16) {
        let counts = place.and_then(|(bucket, way)| self.counts.get_mut(bucket)?.get_mut(way));
        let Some([_, sent, sent_bytes, returned, returned_bytes]) = counts else { return };
        let (packets, all) = match side {
            Side::Opener => (sent, sent_bytes),
            Side::Responder => (returned, returned_bytes),
        };
        *packets += 1;
        *all += u64::from(bytes);
    }

    /// Begins to count anew at a place; what was counted there.
    fn recount(&mut self, (bucket, way): Place, first: Counts) -> Counts {
        let counts = self.counts.get_mut(bucket).and_then(|ways| ways.get_mut(way));
        counts.map_or(Counts::default(), |counts| core::mem::replace(counts, first))
    }

    fn entry_mut(&mut self, (bucket, way): Place) -> Option<&mut Opened> {
        self.buckets.get_mut(bucket)?.get_mut(way)
    }

    fn find(
        &mut self,
        pair: &Pair,
        at: At,
        spot: Spot,
        (timeouts, now_s): (&Timeouts, u32),
    ) -> Option<(&mut Opened, Spot)> {
        let place = self.position(pair, at, spot)?;
        let opened = self.entry_mut(place)?;
        let live = !timeouts.expired(opened.state, opened.seen_s, now_s);
        live.then_some((opened, Spot::new(at, place)))
    }

    /// The place of a new flow. `None`: every place is taken by a flow that does not yield.
    fn room(&self, pair: &Pair, at: At, timeouts: &Timeouts, now_s: u32) -> Option<Place> {
        let over = |opened: &Opened| timeouts.expired(opened.state, opened.seen_s, now_s);
        // Of two buckets with room the emptier one: then hardly any ever fills up before all do
        // (Azar et al., Balanced Allocations, 1994).
        let [first, second] = at.buckets.map(|bucket| {
            let all = self.buckets.get(bucket).into_iter().flatten();
            u32::try_from(all.filter(|opened| !over(opened)).count()).unwrap_or(u32::MAX)
        });
        let [first_bucket, _] = at.buckets;
        let taken = |(bucket, _): Place| if bucket == first_bucket { first } else { second };
        let rank = |place: Place| match self.entry(place) {
            Some(opened) if opened.is(pair) => (0, 0),
            Some(opened) if over(opened) => (1, taken(place)),
            Some(opened) if opened.state.yields() => (2, opened.seen_s),
            Some(_) | None => (3, 0),
        };
        let places =
            at.buckets.into_iter().flat_map(|bucket| (0..WAYS).map(move |way| (bucket, way)));
        places.min_by_key(|place| rank(*place)).filter(|best| rank(*best).0 < 3)
    }
}

/// A bucket, and a way of it.
type Place = (usize, usize);

/// Where a pair may be: in two buckets, under a tag.
#[derive(Clone, Copy)]
struct At {
    buckets: [usize; 2],
    tag: u8,
}

impl Opened {
    fn is(&self, pair: &Pair) -> bool {
        self.state != State::Free && self.pair == *pair
    }

    /// What is to be said of the flow once it is over, if it was counted. A connection that has ended as its
    /// state says did so before anything else happened to it.
    fn over(&self, counts: &Counts, why: FlowEnding) -> Option<Over> {
        // Before the counts, which nobody else has touched if there are none.
        if self.tag == RuleTag::NONE {
            return None;
        }
        let [opened_s, sent, sent_bytes, returned, returned_bytes] = *counts;
        let reason = match self.state.is_over() {
            true if self.state == State::Close => FlowEnding::Reset,
            true => FlowEnding::Fin,
            false => why,
        };
        let past = Past {
            reason,
            opened_s: u32::try_from(opened_s).unwrap_or(u32::MAX),
            last_s: self.seen_s,
            sent: Counted { packets: sent, bytes: sent_bytes },
            returned: Counted { packets: returned, bytes: returned_bytes },
        };
        let key = self.pair.key(self.low_opened);
        Some(Over { key, service: self.service, tag: self.tag, past })
    }

    fn side(&self, from_low: bool) -> Side {
        if self.low_opened == from_low { Side::Opener } else { Side::Responder }
    }
}

#[cfg(test)]
mod tests;
