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
        generation: n,
        seen_s: now_s,
        state,
        low_opened: at.from_low,
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
fn a_full_bucket_gives_up_embryonic_flows_first_and_then_the_longest_silent() {
    let mut cache = cache(1);
    for n in 0..8 {
        let state = if n == 5 || n == 6 { State::SynSent } else { State::Established };
        put(&mut cache, n, state, 100 + n);
    }
    let left = |cache: &FlowCache| (0..20).filter(|n| there(cache, *n, 110)).collect::<Vec<_>>();
    put(&mut cache, 8, State::Established, 110);
    assert_eq!(left(&cache), [0, 1, 2, 3, 4, 6, 7, 8], "the older of the two");
    put(&mut cache, 9, State::Established, 110);
    assert_eq!(left(&cache), [0, 1, 2, 3, 4, 7, 8, 9]);
    put(&mut cache, 10, State::SynSent, 110);
    assert_eq!(left(&cache), [1, 2, 3, 4, 7, 8, 9, 10], "costs a judgement, not a connection");
    assert_eq!(cache.len(), 8);
    // An expired one goes before any.
    let at = cache.find(&cache.hash(pair(7)), 110).unwrap();
    (cache.get_mut(at).unwrap().state, cache.get_mut(at).unwrap().seen_s) = (State::Close, 50);
    put(&mut cache, 11, State::SynSent, 110);
    assert_eq!(left(&cache), [1, 2, 3, 4, 8, 9, 10, 11]);
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
    let entries = cache.flows.len() * WAYS * size_of::<Flow>() + cache.tags.len() * WAYS;
    assert_eq!(entries, FlowCache::bytes(10_000));
}

#[test]
fn as_many_flows_as_promised_find_room() {
    let mut cache = cache(50_000);
    for n in 0..50_000 {
        put(&mut cache, n, State::Established, 100);
    }
    let there = (0..50_000).filter(|n| there(&cache, *n, 100)).count();
    assert!(there > 46_000, "{there} of 50,000");
}

proptest! {
    /// Against a map that forgets nothing: what the cache knows is true, `warm` changes nothing,
    /// and the count is right.
    #[test]
    fn the_cache_never_invents_a_flow(
        steps in proptest::collection::vec((0u32..40, 0u8..3, 0u32..9000), 1..200)
    ) {
        let mut cache = cache(16);
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        let mut now = 0;
        for (n, what, pause) in steps {
            now += pause / 100;
            let at = cache.hash(pair(n));
            cache.warm(&[at]);
            match (what, cache.find(&at, now)) {
                (0, _) => {
                    put(&mut cache, n, State::Udp, now);
                    model.insert(n, now);
                }
                (1, Some(known)) => {
                    cache.remove(known);
                    prop_assert!(cache.find(&at, now).is_none());
                    model.remove(&n);
                }
                (_, Some(known)) => {
                    let flow = *cache.get_mut(known).unwrap();
                    prop_assert!(now - model[&n] <= 30);
                    prop_assert_eq!((flow.pair, flow.generation), (at.pair, n));
                }
                (_, None) => {}
            }
            let tags: usize = cache.tags.iter().flatten().filter(|tag| **tag != 0).count();
            let flows = cache.flows.iter().flatten();
            prop_assert_eq!(tags, flows.filter(|flow| flow.state != State::Free).count());
            prop_assert_eq!(cache.len(), tags as u64);
        }
    }
}

proptest! {
    /// The twin: one tag after the other. What is found besides is harmless, and stands above.
    #[test]
    fn equal_tags_are_all_found(tags: [u8; WAYS], tag: u8, equal: [bool; WAYS]) {
        let mut tags = tags;
        for (place, _) in tags.iter_mut().zip(equal).filter(|(_, equal)| *equal) {
            *place = tag;
        }
        let found: Vec<usize> = Candidates::of(tags, tag).collect();
        let want: Vec<usize> = (0..WAYS).filter(|way| tags[*way] == tag).collect();
        prop_assert!(want.iter().all(|way| found.contains(way)), "{:?} of {:?}", found, want);
        prop_assert_eq!(found.first(), want.first());
        prop_assert!(found.is_sorted() && found.iter().all(|way| *way < WAYS));
    }
}
