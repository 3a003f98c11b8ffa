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
//! MEMORY is bounded, and a new flow takes the first of: a free or expired place of its two
//! buckets; that of the longest silent flow that [yields](State::yields), which an established one
//! never does. If there is none the flow is refused. So a flood of half-open flows displaces half-open
//! flows, and what one source may open is limited before that ([`Sources`]).

use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_link::{End, FlowSetup, Midstream};
use bulkhead_table::Service;

use crate::flow::{Pair, Seed, halves, index_below};
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
}

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

impl Registry {
    /// Room for `flows` flows, and half as many more: hashing fills buckets unevenly, and of the last
    /// flows that were promised room hardly one in a thousand is refused. For `peers` peers.
    #[must_use]
    pub fn new(flows: usize, peers: usize, seed: Seed, setup: &FlowSetup) -> Self {
        let buckets = Self::buckets(flows);
        let shard = || {
            let tags = vec![[FREE; WAYS]; buckets].into_boxed_slice();
            let buckets = vec![[Opened::default(); WAYS]; buckets].into_boxed_slice();
            Mutex::new(Shard { tags, buckets, swept: 0 })
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

    /// The memory of a registry with room for `flows` flows of `peers` peers, bytes.
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
    /// It is looked for at `spot` first.
    #[must_use]
    pub fn meet(
        &self,
        (pair, from_low): (&Pair, bool),
        spot: Spot,
        input: Input,
        now_s: u32,
    ) -> Option<Met> {
        self.with(pair, |shard, at| {
            let (opened, spot) = shard.find(pair, at, spot, (&self.timeouts, now_s))?;
            if opened.state.is_over() && input == Input::Syn {
                return None;
            }
            let side = opened.side(from_low);
            opened.state = opened.state.after(side, input);
            opened.seen_s = now_s;
            Some(Met { side, service: opened.service, state: opened.state, spot })
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

    /// A packet that a rule allows wants to open a flow.
    ///
    /// # Errors
    ///
    /// [`End::DropMidstream`], [`End::DropNewFlowLimit`] or [`End::DropFlowTableFull`]; then nothing
    /// is remembered.
    pub fn open(
        &self,
        pair: &Pair,
        from_low: bool,
        protocol_and_input: (u8, Input),
        service: Service,
        source: SourceId,
        now_s: u32,
    ) -> Result<(State, Spot), End> {
        let (protocol, input) = protocol_and_input;
        let state = State::opening(protocol, input, self.midstream).ok_or(End::DropMidstream)?;
        if !self.sources.open(source, now_s) {
            return Err(End::DropNewFlowLimit);
        }
        let flow =
            Opened { pair: *pair, service, source, seen_s: now_s, state, low_opened: from_low };
        let before = self.with(pair, |shard, at| {
            let place = shard.room(pair, at, &self.timeouts, now_s)?;
            Some((shard.replace(place, at.tag, flow)?, Spot::new(at, place)))
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

    /// The flow is no longer allowed.
    pub fn remove(&self, pair: &Pair) {
        let removed = self.with(pair, |shard, at| {
            let place = shard.position(pair, at, Spot::default())?;
            shard.replace(place, FREE, Opened::default())
        });
        if let Some(removed) = removed {
            self.sources.close(removed.source);
        }
    }

    /// Frees expired flows of a few buckets, which ones `turn` says: whoever calls this with every
    /// number in turn has looked at everything.
    pub fn sweep(&self, turn: u64, now_s: u32) {
        let at = usize::try_from(turn % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.shards.get(at) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Shard { tags, buckets, swept } = &mut *shard;
        let from = if *swept < buckets.len() { *swept } else { 0 };
        *swept = from + SWEEP;
        let entries = tags.iter_mut().flatten().zip(buckets.iter_mut().flatten());
        for (tag, opened) in entries.skip(from * WAYS).take(SWEEP * WAYS) {
            if *tag != FREE && self.timeouts.expired(opened.state, opened.seen_s, now_s) {
                *tag = FREE;
                self.sources.close(core::mem::take(opened).source);
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

    fn side(&self, from_low: bool) -> Side {
        if self.low_opened == from_low { Side::Opener } else { Side::Responder }
    }
}

#[cfg(test)]
mod tests;
