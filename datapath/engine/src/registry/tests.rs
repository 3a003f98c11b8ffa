use super::*;
use crate::flow::FlowKey;
use bulkhead_table::PeerIndex;
use bulkhead_wire::Address;
use std::collections::BTreeMap;

const SEED: Seed = Seed(0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9);

const UDP: (u8, Input) = (17, Input::Plain);
const SYN: (u8, Input) = (6, Input::Syn);

fn pair(n: u32) -> (Pair, bool) {
    Pair::of(&FlowKey {
        source: Address::from_bits(u128::from(n) + 100),
        destination: Address::from_bits(7),
        source_port: 9,
        destination_port: 53,
        protocol: 17,
    })
}

fn generous() -> FlowSetup {
    FlowSetup { new_per_second: u32::MAX, live_per_source: u32::MAX, ..FlowSetup::default() }
}

fn registry(flows: usize) -> Registry {
    Registry::new(flows, 4, SEED, &generous())
}

fn open(
    registry: &Registry,
    n: u32,
    what: (u8, Input),
    peer: u32,
    now_s: u32,
) -> Result<State, End> {
    let (pair, from_low) = pair(n);
    let source = registry.sources().of_peer(PeerIndex(peer));
    let opened = registry.open((&pair, from_low), &opening(what, source), now_s, |_| {});
    opened.map(|(state, _)| state)
}

/// Of a flow that is not counted.
fn opening((protocol, input): (u8, Input), source: SourceId) -> Opening {
    let service = Service::udp(53);
    Opening { protocol, input, service, source, tag: RuleTag::NONE, bytes: 100 }
}

/// A packet of the opener, or of the responder.
fn meet(registry: &Registry, n: u32, side: Side, input: Input, now_s: u32) -> Option<State> {
    let (pair, from_low) = pair(n);
    let ends = (&pair, from_low == (side == Side::Opener));
    let met = registry.meet(ends, Spot::default(), (input, None), now_s, |_, _| true)?;
    assert_eq!((met.side, met.service), (side, Service::udp(53)));
    Some(met.state)
}

/// Opens a TCP connection completely.
fn establish(registry: &Registry, n: u32, peer: u32, now_s: u32) -> Result<(), End> {
    open(registry, n, SYN, peer, now_s)?;
    meet(registry, n, Side::Responder, Input::SynAck, now_s).unwrap();
    assert_eq!(meet(registry, n, Side::Opener, Input::Ack, now_s), Some(State::Established));
    Ok(())
}

/// The invariant of [`Shard`].
fn assert_tags_tell_who_is_there(registry: &Registry) {
    for shard in &registry.shards {
        let shard = shard.lock().unwrap();
        let tags = shard.tags.as_flattened().iter();
        for (tag, opened) in tags.zip(shard.buckets.as_flattened()) {
            assert_eq!(*tag == FREE, opened.state == State::Free, "{opened:?}");
        }
    }
}

#[test]
fn a_flow_is_known_from_opening_until_silence_or_removal() {
    let registry = registry(1_024);
    assert_eq!(meet(&registry, 1, Side::Responder, Input::Plain, 10), None);
    assert_eq!(open(&registry, 1, UDP, 0, 10), Ok(State::Udp));
    assert_eq!(meet(&registry, 1, Side::Opener, Input::Plain, 40), Some(State::Udp));
    let (ends, from_low) = pair(1);
    let peek = |now_s| registry.peek(&ends, !from_low, now_s);
    assert_eq!(peek(70), Some((Side::Responder, Service::udp(53))));
    assert_eq!(peek(71), None, "over, and looking did not prolong it");
    assert_eq!(open(&registry, 1, UDP, 0, 80), Ok(State::Udp));
    assert_eq!(meet(&registry, 1, Side::Responder, Input::Plain, 81), Some(State::UdpStream));
    assert_eq!(meet(&registry, 1, Side::Opener, Input::Plain, 201), Some(State::UdpStream));
    assert_eq!(registry.sources().live(registry.sources().of_peer(PeerIndex(0))), 1);
    registry.remove(&ends, |_| {});
    registry.remove(&ends, |_| {});
    assert_tags_tell_who_is_there(&registry);
    assert_eq!(meet(&registry, 1, Side::Opener, Input::Plain, 202), None);
    assert_eq!(registry.sources().live(registry.sources().of_peer(PeerIndex(0))), 0);
}

#[test]
fn a_syn_between_the_ports_of_a_closed_connection_is_a_new_one() {
    for (last, state) in [
        (Input::Rst, State::Close),
        (Input::Ack, State::TimeWait),
        (Input::Fin, State::LastAckOpener),
    ] {
        let registry = registry(1_024);
        establish(&registry, 1, 0, 10).unwrap();
        assert_eq!(meet(&registry, 1, Side::Opener, Input::Syn, 10), Some(State::Established));
        meet(&registry, 1, Side::Opener, Input::Fin, 10).unwrap();
        meet(&registry, 1, Side::Responder, Input::Fin, 10).unwrap();
        assert_eq!(meet(&registry, 1, Side::Opener, last, 10), Some(state));
        assert_eq!(meet(&registry, 1, Side::Responder, Input::Ack, 10), Some(state));
        assert_eq!(meet(&registry, 1, Side::Responder, Input::SynAck, 10), Some(state));
        assert_eq!(meet(&registry, 1, Side::Opener, Input::Syn, 10), None);
        // The former responder opens this one.
        let (ends, from_low) = pair(1);
        let source = registry.sources().of_peer(PeerIndex(1));
        let opening = Opening { service: Service::tcp(1), ..opening(SYN, source) };
        let opened = registry.open((&ends, !from_low), &opening, 10, |_| {});
        assert_eq!(opened.map(|(state, _)| state), Ok(State::SynSent));
        let met = registry
            .meet((&ends, from_low), Spot::default(), (Input::SynAck, None), 10, |_, _| true)
            .unwrap();
        assert_eq!((met.side, met.service), (Side::Responder, Service::tcp(1)));
        let live = |peer| registry.sources().live(registry.sources().of_peer(PeerIndex(peer)));
        assert_eq!([live(0), live(1)], [0, 1]);
    }
}

/// Whatever a worker remembers of where a flow is, the answer is the same, and says where it is.
#[test]
fn where_a_flow_was_is_only_a_hint() {
    // So many that flows share buckets, and so that a hint may lead to another one's place.
    let registry = registry(1);
    let slots = u32::try_from(BUCKETS_MIN * SHARDS * WAYS).unwrap();
    let open: Vec<_> = (0..slots / 2).filter(|n| open(&registry, *n, UDP, 0, 10).is_ok()).collect();
    assert!(open.len() > 1_000);
    let mut seen = [0; 2 * WAYS + 1];
    for n in open {
        let (ends, from_low) = pair(n);
        let ask = |spot| {
            registry.meet((&ends, from_low), spot, (Input::Plain, None), 10, |_, _| true).unwrap()
        };
        let met = ask(Spot::default());
        seen[usize::from(met.spot.0)] += 1;
        assert!((0..=u8::MAX).all(|hint| ask(Spot(hint)) == met), "{n}: {met:?}");
    }
    // In both buckets, and in most of their places.
    assert!(seen[0] == 0 && seen.iter().filter(|count| **count > 0).count() > 12, "{seen:?}");
    // A flow that is gone leaves a place that says nothing.
    let (ends, from_low) = pair(0);
    let spot = registry
        .meet((&ends, from_low), Spot::default(), (Input::Plain, None), 10, |_, _| true)
        .unwrap()
        .spot;
    registry.remove(&ends, |_| {});
    assert_eq!(registry.meet((&ends, from_low), spot, (Input::Plain, None), 10, |_, _| true), None);
}

#[test]
fn a_spot_is_a_place() {
    for buckets in [[3, 9], [9, 3], [5, 5]] {
        let at = At { buckets, tag: 0x80 };
        for place in buckets.into_iter().flat_map(|bucket| (0..WAYS).map(move |way| (bucket, way)))
        {
            assert_eq!(Spot::new(at, place).place(at), Some(place), "{buckets:?}");
        }
        assert_eq!(Spot::default().place(at), None);
        assert_eq!(Spot(u8::MAX).place(at), None);
    }
}

/// The stated rule: new flows displace half-open ones and are refused where there are none;
/// established flows stay, whoever floods.
#[test]
fn established_flows_are_never_evicted_by_new_ones() {
    let registry = registry(1);
    let slots = u32::try_from(BUCKETS_MIN * SHARDS * WAYS).unwrap();
    for n in 0..slots / 2 {
        establish(&registry, n, 0, 10).unwrap();
    }
    // A flood of half-open flows, of closed ones, and of UDP without an answer.
    for n in 10_000..40_000 {
        // Where only established flows stand, even these are refused.
        let _ = open(&registry, n, if n % 3 == 0 { UDP } else { SYN }, 1, 11);
        if n % 3 == 1 {
            meet(&registry, n, Side::Opener, Input::Rst, 11);
        }
    }
    let left =
        (0..slots / 2).filter(|n| meet(&registry, *n, Side::Opener, Input::Ack, 12).is_some());
    assert_eq!(left.count(), slots as usize / 2);
    // And of established ones: they fill what is left, and then they are refused.
    let more = (50_000..80_000).filter(|n| establish(&registry, *n, 2, 13).is_ok()).count();
    assert!(more <= slots as usize / 2, "{more}");
    assert!(more > slots as usize / 4, "{more}");
    let refused = (80_000..81_000).filter(|n| open(&registry, *n, UDP, 3, 14).is_err()).count();
    assert!(refused > 900, "{refused}");
    let left =
        (0..slots / 2).filter(|n| meet(&registry, *n, Side::Opener, Input::Ack, 15).is_some());
    assert_eq!(left.count(), slots as usize / 2);
    let live = |peer| registry.sources().live(registry.sources().of_peer(PeerIndex(peer)));
    assert_eq!(live(0), slots / 2);
    assert_eq!(live(2), u32::try_from(more).unwrap());
    assert!(live(0) + live(1) + live(2) + live(3) <= slots, "what was displaced is not counted");
    assert_tags_tell_who_is_there(&registry);
}

#[test]
fn as_many_established_flows_as_promised_find_room() {
    let registry = registry(50_000);
    let opened = (0..50_000).filter(|n| establish(&registry, *n, 0, 10).is_ok()).count();
    assert!(opened > 49_950, "{opened}");
}

#[test]
fn per_source_new_flow_limits_refuse_and_recover() {
    let setup = FlowSetup { new_per_second: 5, live_per_source: 8, ..FlowSetup::default() };
    let registry = Registry::new(1_024, 4, SEED, &setup);
    let opened = |from: u32, peer, now_s| {
        (from..from + 10).filter(|n| open(&registry, *n, UDP, peer, now_s).is_ok()).count()
    };
    assert_eq!([opened(0, 0, 10), opened(100, 1, 10)], [5, 5]);
    assert_eq!(opened(200, 0, 11), 3, "eight at once");
    assert_eq!(open(&registry, 300, UDP, 0, 12), Err(End::DropNewFlowLimit));
    // Silent flows end, and the sweep notices without anybody in their place.
    for turn in 0..SHARDS as u64 {
        registry.sweep(turn, 41, |_| {});
    }
    assert_eq!(opened(400, 0, 42), 5);
}

#[test]
fn the_sweep_looks_at_everything_and_takes_the_expired_only() {
    let registry = registry(20_000);
    for n in 0..10_000 {
        open(&registry, n, UDP, 0, if n % 2 == 0 { 10 } else { 60 }).unwrap();
    }
    let buckets = Registry::buckets(20_000);
    for turn in 0..(SHARDS * buckets.div_ceil(SWEEP)) as u64 {
        registry.sweep(turn, 60, |_| {});
    }
    assert_tags_tell_who_is_there(&registry);
    assert_eq!(registry.sources().live(registry.sources().of_peer(PeerIndex(0))), 5_000);
    assert!(
        (0..10_000)
            .all(|n| meet(&registry, n, Side::Opener, Input::Plain, 60).is_some() == (n % 2 == 1))
    );
}

#[test]
fn midstream_is_refused_or_adopted_as_configured() {
    let ack = (6, Input::Ack);
    assert_eq!(open(&registry(16), 1, ack, 0, 10), Ok(State::Adopted));
    let setup = FlowSetup { midstream: Midstream::Refuse, ..FlowSetup::default() };
    let refusing = Registry::new(16, 4, SEED, &setup);
    assert_eq!(open(&refusing, 1, ack, 0, 10), Err(End::DropMidstream));
    assert_eq!(refusing.sources().live(refusing.sources().of_peer(PeerIndex(0))), 0);
    assert_eq!(open(&refusing, 1, SYN, 0, 10), Ok(State::SynSent));
}

/// Goal: a flow that is counted is over once, with what passed of it; one that is not never is.
/// Method: a registry that is too small, flows that open, speak, are closed, revoked and forgotten in any
/// order, half of them counted; a twin that keeps the figures.
#[test]
fn what_is_counted_is_over_once_with_its_figures() {
    let registry = registry(1);
    let mut live: BTreeMap<u32, (u64, Counted, Counted)> = BTreeMap::new();
    let (mut opened, mut met, mut now_s) = (0u64, BTreeMap::<FlowEnding, u64>::new(), 100);
    let mut chance = 0x2545_f491_4f6c_dd1du64;
    let mut draw = |below: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance % below
    };
    let name = |n: u32| if n.is_multiple_of(2) { RuleTag(u64::from(n) + 1) } else { RuleTag::NONE };
    let number = |over: &Over| u32::try_from(over.tag.0 - 1).unwrap();
    let mut check = |live: &mut BTreeMap<u32, (u64, Counted, Counted)>, over: Over| {
        let (opened_s, sent, returned) = live.remove(&number(&over)).expect("it was open");
        assert_eq!(Pair::of(&over.key), pair(number(&over)), "in the direction of its opener");
        let Past { reason, sent: s, returned: r, .. } = over.past;
        assert_eq!((u64::from(over.past.opened_s), s, r), (opened_s, sent, returned));
        *met.entry(reason).or_default() += 1;
    };
    for turn in 0..300_000u64 {
        let n = u32::try_from(draw(8_000)).unwrap();
        let (ends, from_low) = pair(n);
        let bytes = u16::try_from(40 + draw(1_000)).unwrap();
        let one = Counted { packets: 1, bytes: u64::from(bytes) };
        let answers = draw(3) == 0;
        let input = [Input::Syn, Input::SynAck, Input::Ack, Input::Fin, Input::Rst]
            [usize::try_from(draw(5)).unwrap()];
        let allowed = draw(50) > 0;
        let sides = (&ends, from_low != answers);
        let found =
            registry.meet(sides, Spot::default(), (input, Some(bytes)), now_s, |_, _| allowed);
        match found {
            Some(met) => {
                assert_eq!(met.counted, name(n) != RuleTag::NONE);
                if !allowed {
                    registry.remove(&ends, |over| check(&mut live, over));
                } else if let Some((_, sent, returned)) = live.get_mut(&n) {
                    (if answers { returned } else { sent }).add(one);
                }
            }
            None => {
                let source = registry.sources().of_peer(PeerIndex(0));
                let opening = Opening { tag: name(n), bytes, ..opening((6, Input::Syn), source) };
                let mut gone = None;
                let done = registry.open((&ends, from_low), &opening, now_s, |over| {
                    gone = Some(over);
                });
                if let Some(over) = gone {
                    check(&mut live, over);
                }
                if done.is_ok() && name(n) != RuleTag::NONE {
                    opened += 1;
                    live.insert(n, (u64::from(now_s), one, Counted::default()));
                }
            }
        }
        if draw(400) == 0 {
            now_s += 1;
        }
        registry.sweep(turn, now_s, |over| check(&mut live, over));
    }
    now_s += 1_000_000;
    for turn in 0..64 * 8 {
        registry.sweep(turn, now_s, |over| check(&mut live, over));
    }
    assert!(live.is_empty(), "{} have no end", live.len());
    assert_eq!(met.values().sum::<u64>(), opened);
    assert!(met.len() == 5 && met.values().all(|count| *count > 100), "{met:?}");
}
