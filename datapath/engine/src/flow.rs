//! Flows: who spoke first, and the verdict that a worker remembers.
//!
//! ```text
//!   key of the packet ─▶ FlowCache (this worker) ─ hit, same generation ─▶ go
//!                            │ hit, older generation ─▶ judge again
//!                            └ miss ─▶ judge; a denied packet may still be a reply: Registry
//! ```
//!
//! The cache is a set-associative array of 64-byte entries: bounded, allocated once, a bucket is
//! four entries side by side. What is evicted costs a second judgement, never a connection: the
//! registry is what makes a reply a reply.

use bulkhead_table::Service;
use bulkhead_wire::{Address, IpPacket, Transport};

const WAYS: usize = 4;

/// Idle times, seconds. A flow that was silent for so long is over.
pub mod idle {
    /// RFC 5382 §5 asks a NAT for at least 2 hours and 4 minutes for established TCP.
    pub const TCP: u16 = 7_440;
    /// After FIN or RST: time for what is still on its way.
    pub const TCP_CLOSING: u16 = 30;
    /// RFC 4787 §4.3 recommends five minutes or more.
    pub const UDP: u16 = 300;
    /// RFC 5508 §3.2 asks for at least 60 seconds for ICMP queries.
    pub const ICMP: u16 = 60;
    /// Other protocols.
    pub const OTHER: u16 = 300;
}

/// What tells one flow from another, in the direction of the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Sender's port. Of an ICMP query its identifier, of the answer the query's type and code.
    pub source_port: u16,
    /// Receiver's port. Of an ICMP query its type and code, of the answer the identifier.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
}

impl FlowKey {
    /// The key of a whole packet.
    #[inline]
    #[must_use]
    pub fn of(packet: &IpPacket) -> Self {
        let (source_port, destination_port) = match packet.transport {
            Transport::Tcp { source, destination, .. } | Transport::Udp { source, destination } => {
                (source, destination)
            }
            // An answer is the reverse of its query, and a query in the other direction is not.
            Transport::Icmp { kind: 0, code, id } => (u16::from_be_bytes([8, code]), id),
            Transport::Icmpv6 { kind: 129, code, id } => (u16::from_be_bytes([128, code]), id),
            Transport::Icmp { kind, code, id } | Transport::Icmpv6 { kind, code, id } => {
                (id, u16::from_be_bytes([kind, code]))
            }
            Transport::Other => (0, 0),
        };
        Self {
            source: packet.source,
            destination: packet.destination,
            source_port,
            destination_port,
            protocol: packet.protocol,
        }
    }

    /// The key of the answers.
    #[inline]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }

    /// How long the flow may be silent, seconds.
    #[must_use]
    pub fn idle_seconds(&self) -> u16 {
        match self.protocol {
            6 => idle::TCP,
            17 => idle::UDP,
            1 | 58 => idle::ICMP,
            _ => idle::OTHER,
        }
    }

    /// A hash that an outsider cannot aim: two folded multiplications under a secret seed.
    #[inline]
    #[must_use]
    pub fn hash(&self, seed: Seed) -> u64 {
        let [a, b] = words(self.source);
        let [c, d] = words(self.destination);
        let ports = u64::from(self.source_port) << 32
            | u64::from(self.destination_port) << 8
            | u64::from(self.protocol);
        let first = fold(a ^ seed.0, b ^ seed.1);
        let second = fold(c ^ seed.1, d ^ first);
        fold(second ^ ports, seed.0 | 1)
    }
}

/// What a rule is asked about this packet: protocol and port, or ICMP type and code.
#[inline]
#[must_use]
pub fn service_of(packet: &IpPacket) -> Service {
    match packet.transport {
        Transport::Tcp { destination, .. } | Transport::Udp { destination, .. } => {
            Service::new(packet.protocol, destination)
        }
        Transport::Icmp { kind, code, .. } => Service::icmp(kind, code),
        Transport::Icmpv6 { kind, code, .. } => Service::icmpv6(kind, code),
        Transport::Other => Service::other(packet.protocol),
    }
}

/// The secret of a hash, drawn once at start.
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub u64, pub u64);

fn words(address: Address) -> [u64; 2] {
    let bits = address.bits();
    let low = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    let high = u64::try_from(bits >> 64).unwrap_or(0);
    [high, low]
}

fn fold(a: u64, b: u64) -> u64 {
    let [high, low] = words(Address::from_bits(u128::from(a) * u128::from(b)));
    high ^ low
}

/// One flow as a worker remembers it, in the direction of its packets.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub struct Flow {
    key: FlowKey,
    /// What the policy was asked: about the packet itself, or, for a reply, about the opening
    /// packet in the other direction.
    pub service: Service,
    /// Low half of the generation that allowed it.
    pub generation: u32,
    /// When the last packet passed, seconds of the datapath's clock; the granularity of timeouts.
    seen_s: u32,
    idle_s: u16,
    /// Whether the other side opened the flow.
    pub reply: bool,
    live: bool,
}

const _: () = assert!(size_of::<Flow>() == 64, "a bucket is four cache lines");

/// A worker's flows.
pub struct FlowCache {
    buckets: Box<[[Flow; WAYS]]>,
    seed: Seed,
    live: u64,
}

/// What the cache knows about a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    bucket: usize,
    way: usize,
}

impl FlowCache {
    /// Room for about `flows` flows: rounded up to a power of two, one bucket at least.
    #[must_use]
    pub fn new(flows: usize, seed: Seed) -> Self {
        let buckets = flows.div_ceil(WAYS).next_power_of_two();
        Self { buckets: vec![[Flow::default(); WAYS]; buckets].into_boxed_slice(), seed, live: 0 }
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

    #[inline]
    fn bucket_of(&self, key: &FlowKey) -> usize {
        // A power of two of buckets; the mask keeps it in `usize` everywhere.
        usize::try_from(key.hash(self.seed) & (self.buckets.len() as u64 - 1)).unwrap_or(0)
    }

    /// Finds a flow that has not expired.
    #[inline]
    #[must_use]
    pub fn find(&self, key: &FlowKey, now_s: u32) -> Option<Known> {
        let bucket = self.bucket_of(key);
        let ways = self.buckets.get(bucket)?;
        let way = ways.iter().position(|flow| flow.live && flow.key == *key)?;
        let flow = ways.get(way)?;
        (!flow.expired(now_s)).then_some(Known { bucket, way })
    }

    /// The flow at a place that [`Self::find`] gave.
    #[inline]
    pub fn get_mut(&mut self, known: Known) -> Option<&mut Flow> {
        self.buckets.get_mut(known.bucket)?.get_mut(known.way)
    }

    /// Remembers an allowed flow; the longest silent one of a full bucket makes room.
    pub fn insert(
        &mut self,
        key: FlowKey,
        reply: bool,
        service: Service,
        generation: u32,
        now_s: u32,
    ) -> Option<Known> {
        let bucket = self.bucket_of(&key);
        let ways = self.buckets.get_mut(bucket)?;
        // The same flow first (it may have expired), then a free or expired place, then the oldest.
        let rank = |flow: &Flow| match () {
            () if flow.live && flow.key == key => (0, 0),
            () if !flow.live || flow.expired(now_s) => (1, 0),
            () => (2, flow.seen_s),
        };
        let way = (0..WAYS).min_by_key(|way| ways.get(*way).map(rank))?;
        let place = ways.get_mut(way)?;
        self.live += u64::from(!place.live);
        let idle_s = key.idle_seconds();
        *place = Flow { key, service, generation, seen_s: now_s, idle_s, reply, live: true };
        Some(Known { bucket, way })
    }

    /// Forgets a flow.
    pub fn remove(&mut self, known: Known) {
        if let Some(flow) = self.get_mut(known)
            && core::mem::take(flow).live
        {
            self.live -= 1;
        }
    }
}

impl Flow {
    fn expired(&self, now_s: u32) -> bool {
        now_s.saturating_sub(self.seen_s) > u32::from(self.idle_s)
    }

    /// A packet of the flow passed. Returns whether it is the first of this second, which is when
    /// the registry wants to hear of it.
    #[inline]
    pub fn touch(&mut self, closing: bool, now_s: u32) -> bool {
        if closing {
            self.idle_s = idle::TCP_CLOSING;
        }
        let first = self.seen_s != now_s || closing;
        self.seen_s = now_s;
        first
    }

    /// The key of the packet that opened the flow, and how long it may be silent, seconds.
    #[must_use]
    pub fn opening(&self) -> (FlowKey, u16) {
        (if self.reply { self.key.reversed() } else { self.key }, self.idle_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SEED: Seed = Seed(0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9);

    fn key(n: u16) -> FlowKey {
        FlowKey {
            source: Address::from_bits(0xffff_0a00_0000 + u128::from(n)),
            destination: Address::from_bits(0xffff_0a01_0000),
            source_port: n,
            destination_port: 443,
            protocol: 6,
        }
    }

    #[test]
    fn reversing_twice_is_the_same_flow() {
        assert_eq!(key(9).reversed().reversed(), key(9));
        assert_ne!(key(9).reversed(), key(9));
    }

    #[test]
    fn a_flow_expires_when_silent_and_sooner_when_closed() {
        let mut cache = FlowCache::new(16, SEED);
        let at = cache.insert(key(1), false, Service::tcp(443), 1, 100).unwrap();
        let end = 100 + u32::from(idle::TCP);
        assert!(cache.find(&key(1), end).is_some());
        assert!(cache.find(&key(1), end + 1).is_none());
        assert!(cache.get_mut(at).unwrap().touch(true, 200));
        assert!(cache.find(&key(1), 200 + u32::from(idle::TCP_CLOSING)).is_some());
        assert!(cache.find(&key(1), 201 + u32::from(idle::TCP_CLOSING)).is_none());
    }

    #[test]
    fn the_registry_hears_of_a_flow_once_a_second() {
        let mut cache = FlowCache::new(16, SEED);
        let at = cache.insert(key(1), false, Service::tcp(443), 1, 100).unwrap();
        let flow = cache.get_mut(at).unwrap();
        assert_eq!(
            [100, 100, 101, 101].map(|now| flow.touch(false, now)),
            [false, false, true, false]
        );
    }

    #[test]
    fn a_full_bucket_gives_up_its_longest_silent_flow() {
        let mut cache = FlowCache::new(1, SEED);
        for n in 0..4 {
            cache.insert(key(n), false, Service::tcp(443), 1, 100 + u32::from(n)).unwrap();
        }
        let at = cache.find(&key(0), 104).unwrap();
        cache.get_mut(at).unwrap().touch(false, 104);
        cache.insert(key(9), false, Service::tcp(443), 1, 105).unwrap();
        let there: Vec<_> = (0..10).filter(|n| cache.find(&key(*n), 105).is_some()).collect();
        assert_eq!((there, cache.len()), (vec![0, 2, 3, 9], 4));
    }

    proptest! {
        /// Against a map that forgets nothing: what the cache knows is true, and a cache with room
        /// knows everything.
        #[test]
        fn the_cache_never_invents_a_flow(
            steps in proptest::collection::vec((0u16..40, 0u8..3, 0u32..9000), 1..200)
        ) {
            let mut cache = FlowCache::new(16, SEED);
            let mut model: BTreeMap<FlowKey, (u32, u32)> = BTreeMap::new();
            let mut now = 0;
            for (n, what, pause) in steps {
                now += pause / 100;
                let key = key(n);
                match what {
                    0 => {
                        cache.insert(key, false, Service::tcp(n), u32::from(n), now);
                        model.insert(key, (now, u32::from(n)));
                    }
                    1 => if let Some(at) = cache.find(&key, now) {
                        cache.remove(at);
                        model.remove(&key);
                    },
                    _ => if let Some(at) = cache.find(&key, now) {
                        let flow = cache.get_mut(at).unwrap();
                        let (seen, generation) = model[&key];
                        prop_assert!(now - seen <= u32::from(idle::TCP));
                        prop_assert_eq!(flow.generation, generation);
                        flow.touch(false, now);
                        model.insert(key, (now, generation));
                    },
                }
                prop_assert!(cache.len() <= 16);
            }
        }
    }
}
