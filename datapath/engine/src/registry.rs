//! Flows that were opened, known to every worker: what makes a reply a reply.
//!
//! A reply usually arrives on another worker than the packet that opened its flow. The registry is
//! asked when the policy denies a packet that no cache knows, and told of a flow when it opens and
//! at most once a second after. So its locks are off the packet path; a shard is held for one
//! bucket of `WAYS` entries.
//!
//! The registry never allows anything by itself. It says only "this flow was opened"; whether the
//! policy still allows the opening packet is judged again at every admission and, through the
//! generation in the caches, after every change.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_table::Service;

use crate::flow::{FlowKey, Seed};

const WAYS: usize = 8;
const SHARDS: usize = 64;

/// Opened flows, sharded by hash.
pub struct Registry {
    shards: Box<[Mutex<Shard>]>,
    seed: Seed,
}

type Shard = Box<[[Opened; WAYS]]>;

/// One opened flow.
#[derive(Clone, Copy, Debug, Default)]
struct Opened {
    key: FlowKey,
    service: Service,
    seen_s: u32,
    idle_s: u16,
    live: bool,
}

impl Registry {
    /// Room for at least `flows` flows.
    #[must_use]
    pub fn new(flows: usize, seed: Seed) -> Self {
        let buckets = flows.div_ceil(WAYS * SHARDS).next_power_of_two();
        let shard = || Mutex::new(vec![[Opened::default(); WAYS]; buckets].into_boxed_slice());
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), seed }
    }

    /// A packet of the flow that `key` opened has passed: remembers it for `idle_s` seconds more.
    pub fn touch(&self, key: &FlowKey, service: Service, idle_s: u16, now_s: u32) {
        self.with_bucket(key, |bucket| {
            let rank = |opened: &Opened| match () {
                () if opened.live && opened.key == *key => (0, 0),
                () if !opened.live || opened.expired(now_s) => (1, 0),
                () => (2, opened.seen_s),
            };
            if let Some(place) = bucket.iter_mut().min_by_key(|opened| rank(opened)) {
                *place = Opened { key: *key, service, seen_s: now_s, idle_s, live: true };
            }
        });
    }

    /// What the opening packet of the flow asked for, if the flow was opened and is not over.
    #[must_use]
    pub fn find(&self, key: &FlowKey, now_s: u32) -> Option<Service> {
        self.with_bucket(key, |bucket| {
            bucket
                .iter()
                .find(|opened| opened.live && opened.key == *key && !opened.expired(now_s))
                .map(|opened| opened.service)
        })
        .flatten()
    }

    /// The flow is no longer allowed.
    pub fn remove(&self, key: &FlowKey) {
        self.with_bucket(key, |bucket| {
            for opened in bucket.iter_mut().filter(|opened| opened.key == *key) {
                *opened = Opened::default();
            }
        });
    }

    fn with_bucket<R>(&self, key: &FlowKey, f: impl FnOnce(&mut [Opened; WAYS]) -> R) -> Option<R> {
        let hash = key.hash(self.seed);
        let shard = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        // A poisoned shard is whole: entries are plain values, replaced in one assignment.
        let mut shard: MutexGuard<'_, _> =
            self.shards.get(shard)?.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = usize::try_from((hash / SHARDS as u64) & (shard.len() as u64 - 1)).ok()?;
        shard.get_mut(bucket).map(f)
    }
}

impl Opened {
    fn expired(&self, now_s: u32) -> bool {
        now_s.saturating_sub(self.seen_s) > u32::from(self.idle_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_wire::Address;

    fn key(n: u16) -> FlowKey {
        FlowKey {
            source: Address::from_bits(u128::from(n)),
            destination: Address::from_bits(7),
            source_port: n,
            destination_port: 53,
            protocol: 17,
        }
    }

    #[test]
    fn a_flow_is_known_from_opening_until_silence_or_removal() {
        let registry = Registry::new(1024, Seed(3, 5));
        assert_eq!(registry.find(&key(1), 10), None);
        registry.touch(&key(1), Service::udp(53), 300, 10);
        assert_eq!(registry.find(&key(1), 310), Some(Service::udp(53)));
        assert_eq!(registry.find(&key(1), 311), None, "over");
        registry.touch(&key(1), Service::udp(53), 300, 400);
        assert_eq!(registry.find(&key(1), 401), Some(Service::udp(53)));
        assert_eq!(registry.find(&key(1).reversed(), 401), None, "only the opener's direction");
        registry.remove(&key(1));
        assert_eq!(registry.find(&key(1), 401), None);
    }

    #[test]
    fn it_is_bounded_and_keeps_the_flows_that_live() {
        let registry = Registry::new(1, Seed(3, 5));
        registry.touch(&key(0), Service::udp(53), 300, 1);
        for n in 1..10_000 {
            registry.touch(&key(n), Service::udp(53), 300, u32::from(n));
            registry.touch(&key(0), Service::udp(53), 300, u32::from(n));
        }
        assert!(registry.find(&key(0), 9_999).is_some(), "a flow that speaks stays");
        let left = (0..10_000).filter(|n| registry.find(&key(*n), 10_000).is_some()).count();
        assert!(left <= WAYS * SHARDS, "{left}");
    }
}
