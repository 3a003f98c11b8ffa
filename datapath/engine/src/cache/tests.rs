use super::*;
use crate::flow::FlowKey;
use bulkhead_link::FlowTimeouts;
use bulkhead_wire::Address;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SEED: Seed = Seed(0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9);

fn cache(flows: usize) -> FlowCache {
    FlowCache::new(flows, SEED, Timeouts::from(&FlowTimeouts::default()))
}

fn pair(n: u32) -> (Pair, bool) {
    Pair::of(&FlowKey {
        source: Address::from_bits(0xffff_0a00_0000 + u128::from(n)),
        destination: Address::from_bits(0xffff_0b00_0000),
        source_port: 7,
        destination_port: 443,
        protocol: 6,
    })
}

fn put(cache: &mut FlowCache, n: u32, state: State, now_s: u32) -> Known {
    let at = cache.hash(pair(n));
    let flow = Flow {
        pair: at.pair,
        edition: n,
        seen_s: now_s,
        state,
        spot: Spot::default(),
        opened: if at.from_low { OpenedBy::Low } else { OpenedBy::High },
        ..Flow::default()
    };
    cache.insert(&at, flow, now_s).unwrap()
}

fn there(cache: &FlowCache, n: u32, now_s: u32) -> bool {
    cache.find(&cache.hash(pair(n)), now_s).is_some()
}

#[test]
fn a_flow_expires_when_silent_for_as_long_as_its_state_says() {
    let mut cache = cache(16);
    let known = put(&mut cache, 1, State::Established, 100);
    assert!(there(&cache, 1, 432_100) && !there(&cache, 1, 432_101));
    cache.get_mut(known).unwrap().state = State::Close;
    assert!(there(&cache, 1, 110) && !there(&cache, 1, 111));
}

/// A bit for each of a batch, the first the lowest: is it there, and of this edition?
#[test]
fn a_batch_is_told_which_of_its_flows_this_edition_has_judged() {
    let mut cache = cache(64);
    for n in [1, 2, 3] {
        let known = put(&mut cache, n, State::Established, 100);
        cache.get_mut(known).unwrap().edition = if n == 2 { 8 } else { 7 };
    }
    let mut batch = [9, 3, 2, 1, 3].map(|n| cache.hash(pair(n)));
    assert_eq!(cache.warm_flows(&mut batch, 7), 0b1_1010);
    assert_eq!(cache.warm_flows(&mut batch, 8), 0b0_0100);
    assert_eq!(cache.warm_flows(&mut batch[..0], 7), 0);
}

#[test]
fn both_directions_find_the_same_flow_and_know_their_side() {
    let mut cache = cache(16);
    let known = put(&mut cache, 1, State::Established, 100);
    let (ends, from_low) = pair(1);
    assert_eq!(cache.find(&cache.hash((ends, !from_low)), 100), Some(known));
    let flow = *cache.get_mut(known).unwrap();
    assert_eq!((flow.side(from_low), flow.side(!from_low)), (Side::Opener, Side::Responder));
}

#[test]
fn full_buckets_give_up_embryonic_flows_first_and_then_the_longest_silent() {
    let mut cache = cache(1);
    // Flows that have the same two buckets to be in.
    let of = |cache: &FlowCache, n| {
        let mut buckets = cache.hash(pair(n)).buckets;
        buckets.sort_unstable();
        buckets
    };
    let here = of(&cache, 0);
    let flows: Vec<u32> = (0..).filter(|n| of(&cache, *n) == here).take(20).collect();
    for (n, age) in flows.iter().zip(0..16) {
        let state = if age == 5 || age == 6 { State::SynSent } else { State::Established };
        put(&mut cache, *n, state, 100 + age);
    }
    let gone =
        |cache: &FlowCache| (0..20).filter(|n| !there(cache, flows[*n], 120)).collect::<Vec<_>>();
    assert_eq!(gone(&cache), [16, 17, 18, 19], "sixteen have room");
    put(&mut cache, flows[16], State::Established, 120);
    assert_eq!(gone(&cache), [5, 17, 18, 19], "the older of the two");
    put(&mut cache, flows[17], State::Established, 120);
    assert_eq!(gone(&cache), [5, 6, 18, 19]);
    put(&mut cache, flows[18], State::SynSent, 120);
    assert_eq!(gone(&cache), [0, 5, 6, 19], "costs a judgement, not a connection");
    assert_eq!(cache.len(), 16);
    // An expired one goes before any.
    let at = cache.find(&cache.hash(pair(flows[7])), 120).unwrap();
    (cache.get_mut(at).unwrap().state, cache.get_mut(at).unwrap().seen_s) = (State::Close, 50);
    put(&mut cache, flows[19], State::SynSent, 120);
    assert_eq!(gone(&cache), [0, 5, 6, 7]);
}

/// 64-byte flow entries; 1,000,000 flows in at most 200 MB, with cache, registry and the sources
/// of 100,000 peers.
#[test]
fn a_million_flows_take_at_most_200_mb() {
    let flows = 1_000_000;
    let bytes = FlowCache::bytes(flows) + crate::registry::Registry::bytes(flows, 100_000);
    assert!(bytes <= 200_000_000, "{bytes}");
    assert_eq!(size_of::<Flow>(), 64);
    // The computation is about what is allocated.
    let cache = cache(10_000);
    let entries = cache.flows.len() * size_of::<Flow>() + cache.tags.len() * size_of::<TagLine>();
    assert_eq!(entries, FlowCache::bytes(10_000));
}

#[test]
fn as_many_flows_as_promised_find_room() {
    let mut cache = cache(50_000);
    for n in 0..50_000 {
        put(&mut cache, n, State::Established, 100);
    }
    let there = (0..50_000).filter(|n| there(&cache, *n, 100)).count();
    assert!(there > 49_500, "{there} of 50,000");
}

proptest! {
    /// Against a map that forgets nothing: what the cache knows is true, warming changes nothing,
    /// and the count is right.
    #[test]
    fn the_cache_never_invents_a_flow(
        steps in proptest::collection::vec((0u32..200, 0u8..4, 0u32..9000), 1..600)
    ) {
        let mut cache = cache(16);
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        let mut now = 0;
        for (n, what, pause) in steps {
            now += pause / 100;
            let mut batch = [cache.hash(pair(n)); 2];
            let [at, warmed] = &mut batch;
            let warmed_one = core::slice::from_mut(warmed);
            warmed_one.iter().for_each(|place| cache.warm_tags(place));
            cache.warm_flows(warmed_one, 0);
            prop_assert_eq!(cache.find(at, now), cache.find(warmed, now));
            match (what, cache.find(warmed, now)) {
                (0 | 3, _) => {
                    put(&mut cache, n, State::Udp, now);
                    model.insert(n, now);
                }
                (1, Some(known)) => {
                    cache.remove(known);
                    prop_assert!(cache.find(warmed, now).is_none());
                    model.remove(&n);
                }
                (_, Some(known)) => {
                    let flow = *cache.get_mut(known).unwrap();
                    prop_assert!(now - model[&n] <= 30);
                    prop_assert_eq!((flow.pair, flow.edition), (at.pair, n));
                }
                (_, None) => {}
            }
            let tags: usize = cache.tags.iter().flat_map(|line| line.0.as_flattened()).filter(|tag| **tag != FREE).count();
            let flows = cache.flows.iter();
            prop_assert_eq!(tags, flows.filter(|flow| flow.state != State::Free).count());
            prop_assert_eq!(cache.len(), tags as u64);
        }
    }
}

/// The second bucket is another of the same line, and each of the seven about as often.
#[test]
fn both_buckets_of_a_pair_share_a_line_of_tags() {
    let cache = cache(100_000);
    let mut apart = [0; LINE];
    for n in 0..7_000 {
        let [first, second] = cache.hash(pair(n)).buckets;
        assert!(first < cache.flows.len() && second < cache.flows.len());
        assert_eq!(first / LINE, second / LINE);
        apart[(second + LINE - first) % LINE] += 1;
    }
    let [same, others @ ..] = apart;
    assert_eq!(same, 0);
    assert!(others.iter().all(|count| (850..1_150).contains(count)), "{others:?}");
}
