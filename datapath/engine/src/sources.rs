//! How many flows each source may open: in a second, and at once.
//!
//! A source is what a packet cannot lie about: the peer whose session authenticated it or, on a
//! plain segment, its address. Peers have a place each; addresses share places by a secret hash,
//! so two of them may share one allowance and nobody can choose with whom.
//!
//! Shared by all workers. Looked at when a flow opens or ends, never for the packets between.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bulkhead_table::PeerIndex;
use bulkhead_wire::Address;

use crate::flow::{FlowKey, Pair, Seed, halves, index_below};

/// Places for the addresses of plain segments: a /16 with every host speaking.
const ADDRESSES: usize = 65_536;

/// The place of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceId(u32);

/// All sources.
pub struct Sources {
    places: Box<[Source]>,
    peers: usize,
    seed: Seed,
    new_per_second: u32,
    live_max: u32,
}

/// What one source has opened.
#[derive(Default)]
struct Source {
    /// The second, in the upper half, and how many flows were opened in it.
    opened: AtomicU64,
    /// Flows that are open.
    live: AtomicU32,
}

impl Sources {
    /// For `peers` peers. Each source may open `new_per_second` flows in a second of the datapath's
    /// clock and have `live_max` open at once.
    #[must_use]
    pub fn new(peers: usize, seed: Seed, new_per_second: u32, live_max: u32) -> Self {
        let places = (0..peers + ADDRESSES).map(|_| Source::default()).collect();
        Self { places, peers, seed, new_per_second, live_max }
    }

    /// The memory for `peers` peers, bytes.
    #[must_use]
    pub fn bytes(peers: usize) -> usize {
        (peers + ADDRESSES) * size_of::<Source>()
    }

    /// The place of a peer.
    #[must_use]
    pub fn of_peer(&self, peer: PeerIndex) -> SourceId {
        SourceId(peer.0)
    }

    /// The place of an address of a plain segment.
    #[must_use]
    pub fn of_address(&self, address: Address) -> SourceId {
        let key = FlowKey { source: address, destination: address, ..FlowKey::default() };
        let (half, _) = halves(Pair::of(&key).0.hash(self.seed));
        SourceId(u32::try_from(self.peers + index_below(half, ADDRESSES)).unwrap_or(u32::MAX))
    }

    /// Counts one more flow of a source. `false`, and nothing is counted, if it may open none now.
    /// A source without a place may open none.
    #[must_use]
    pub fn open(&self, id: SourceId, now_s: u32) -> bool {
        let Some(source) = self.places.get(id.0 as usize) else { return false };
        let live = |live: u32| (live < self.live_max).then(|| live + 1);
        if source.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, live).is_err() {
            return false;
        }
        let second = u64::from(now_s) << 32;
        let opened = |opened: u64| match opened & !u64::from(u32::MAX) == second {
            true if opened - second >= u64::from(self.new_per_second) => None,
            true => Some(opened + 1),
            false if self.new_per_second == 0 => None,
            false => Some(second + 1),
        };
        let granted =
            source.opened.fetch_update(Ordering::Relaxed, Ordering::Relaxed, opened).is_ok();
        if !granted {
            self.close(id);
        }
        granted
    }

    /// A flow of a source is no longer open.
    pub fn close(&self, id: SourceId) {
        if let Some(source) = self.places.get(id.0 as usize) {
            let less = |live: u32| live.checked_sub(1);
            // Nothing is closed that was not opened; should it happen, 0 stays 0.
            let _ = source.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Flows that a source has open, with those that have expired and were not yet swept.
    #[must_use]
    pub fn live(&self, id: SourceId) -> u32 {
        self.places.get(id.0 as usize).map_or(0, |source| source.live.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = Seed(0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9);

    #[test]
    fn per_source_new_flow_limits_in_a_second_and_at_once() {
        let sources = Sources::new(2, SEED, 10, 25);
        let [a, b] = [PeerIndex(0), PeerIndex(1)].map(|peer| sources.of_peer(peer));
        let granted = |id, now_s| (0..100).filter(|_| sources.open(id, now_s)).count();
        assert_eq!([granted(a, 7), granted(b, 7)], [10, 10], "one does not cost the other");
        assert_eq!([granted(a, 8), granted(a, 9)], [10, 5], "then as many are open as may be");
        assert_eq!((sources.live(a), granted(a, 10)), (25, 0));
        sources.close(a);
        assert_eq!(granted(a, 10), 1, "one has ended, and what was refused cost nothing");
        assert_eq!(granted(a, 6), 0, "full");
    }

    #[test]
    fn what_has_no_place_opens_nothing_and_addresses_have_their_own() {
        let sources = Sources::new(2, SEED, 10, 10);
        assert!(!sources.open(SourceId(u32::MAX), 1));
        let one = sources.of_address(Address::from_bits(0xffff_0a00_0001));
        let other = sources.of_address(Address::from_bits(0xffff_0a00_0002));
        assert!(one != other && one.0 >= 2 && other.0 >= 2, "{one:?} {other:?}");
        let none = Sources::new(1, SEED, 0, 10);
        assert!(!none.open(SourceId(0), 1) && !none.open(SourceId(0), 1));
        assert_eq!(none.live(SourceId(0)), 0);
    }
}
