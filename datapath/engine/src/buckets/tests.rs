use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

const SEED: Seed = Seed(0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9);

fn v4(host: u32) -> Address {
    Address::from(std::net::Ipv4Addr::from(0xc000_0200 + host))
}

fn v6(text: &str) -> Address {
    Address::from(text.parse::<std::net::Ipv6Addr>().unwrap())
}

/// The twin: tokens in thousandths, one bucket for every source, never forgotten. Written as the
/// issue says it: 20 a second, burst 5.
#[derive(Default)]
struct Twin(BTreeMap<u32, (u64, u64)>);

impl Twin {
    fn take(&mut self, source: u32, now_ms: u64) -> bool {
        let full = BURST * 1_000;
        let (tokens, at) = self.0.get(&source).copied().unwrap_or((full, now_ms));
        let tokens = (tokens + (now_ms - at) * PER_SECOND).min(full);
        let granted = tokens >= 1_000;
        self.0.insert(source, (tokens - if granted { 1_000 } else { 0 }, now_ms));
        granted
    }
}

/// An end to a run of operations: time that passes, and who speaks then.
fn speech(sources: u32) -> impl Strategy<Value = Vec<(u64, u32)>> {
    // Pauses around the interval and the burst, and sources few enough to meet again.
    let pause = prop_oneof![Just(0), Just(1), 1u64..60, Just(49), Just(50), Just(250), Just(2_000)];
    prop::collection::vec((pause, 0..sources), 1..400)
}

proptest! {
    /// As long as no set is full, the table grants exactly what the naive twin grants.
    #[test]
    fn twenty_a_second_and_five_at_once_for_each_source(
        speech in speech(6),
        start in 1_000u64..1 << 38,
    ) {
        let (buckets, mut twin) = (Buckets::new(64, SEED), Twin::default());
        let mut now = start;
        for (pause, source) in speech {
            now += pause;
            let granted = buckets.take(Purpose::Unproven, v4(source), now);
            prop_assert_eq!(granted, twin.take(source, now), "source {} at {}", source, now);
        }
    }

    /// Goal: a table that overflows grants more than the twin only by what it forgets.
    /// Method: 40 sources share one set of eight ways. Every grant to a source that had none of the
    /// ways, while all of them were in use, forgives one other at most a burst. Nobody gets less.
    #[test]
    fn a_full_set_forgives_at_most_a_burst_for_each_newcomer_and_refuses_no_newcomer(
        speech in speech(40),
    ) {
        let (buckets, mut twin) = (Buckets::new(1, SEED), Twin::default());
        let (mut now, mut granted, mut owed, mut newcomers) = (1_000, 0u64, 0u64, 0u64);
        for (pause, source) in speech {
            now += pause;
            let known = holds(&buckets, source, now);
            let full = in_use(&buckets, now) == WAYS;
            let got = buckets.take(Purpose::Unproven, v4(source), now);
            let exact = twin.take(source, now);
            if !known {
                prop_assert!(got, "a newcomer is refused at {}", now);
                newcomers += u64::from(full);
            }
            prop_assert!(got || !exact, "source {} gets less than it may at {}", source, now);
            granted += u64::from(got);
            owed += u64::from(exact);
        }
        prop_assert!(granted <= owed + newcomers * BURST, "{granted} {owed} {newcomers}");
    }
}

fn tag_of(source: u32) -> u64 {
    hash(source_key(v4(source)), Purpose::Unproven, SEED) >> TIME_BITS
}

fn holds(buckets: &Buckets, source: u32, now: u64) -> bool {
    values(buckets).any(|way| way >> TIME_BITS == tag_of(source) && way & TIME_MASK > now)
}

fn in_use(buckets: &Buckets, now: u64) -> usize {
    values(buckets).filter(|way| way & TIME_MASK > now).count()
}

fn values(buckets: &Buckets) -> impl Iterator<Item = u64> {
    buckets.sets[0].0.iter().map(|way| way.load(Ordering::Relaxed))
}

/// The outcomes that the properties above are about do occur.
#[test]
fn a_burst_is_granted_then_one_per_fifty_milliseconds() {
    let buckets = Buckets::new(SETS, SEED);
    let take = |now| buckets.take(Purpose::Unproven, v4(1), now);
    assert_eq!((0..9).filter(|_| take(1_000)).count(), 5);
    assert!(!take(1_049) && take(1_050) && !take(1_050));
    // Two seconds at ten times the rate: 40 and what has been saved.
    assert_eq!((0..400).filter(|n| take(2_000 + n * 5)).count(), 40 + 4);
}

#[test]
fn each_purpose_has_its_own_bucket() {
    let buckets = Buckets::new(SETS, SEED);
    for purpose in [Purpose::Unproven, Purpose::Proven, Purpose::CookieReply] {
        assert_eq!((0..9).filter(|_| buckets.take(purpose, v4(1), 7)).count(), 5, "{purpose:?}");
    }
}

#[test]
fn an_ipv4_source_is_an_address_and_an_ipv6_source_a_64() {
    let buckets = Buckets::new(SETS, SEED);
    let spent = |source| {
        let mut granted = 0;
        while buckets.take(Purpose::Unproven, source, 5_000) {
            granted += 1;
        }
        granted
    };
    assert_eq!((spent(v4(1)), spent(v4(2)), spent(v4(1))), (5, 5, 0));
    assert_eq!(spent(v6("2001:db8:0:1::1")), 5);
    assert_eq!(spent(v6("2001:db8:0:1:ffff::2")), 0, "the same /64");
    assert_eq!(spent(v6("2001:db8:0:2::1")), 5, "another /64");
    // The /64 whose bits read like an IPv4 address's is not that address.
    assert_eq!(spent(v6("0:0:c000:203::1")), 5);
    assert_eq!(spent(v4(3)), 5);
}

/// Goal: made-up sources can neither lock out nor set free.
/// Method: 200,000 messages a second, each from a source of its own, around one that sends far more
/// than its bucket holds; and the worst case, where all of them fall into its set.
#[test]
fn a_flood_of_made_up_sources_neither_locks_out_nor_sets_free() {
    let flood = |sets, per_ms| {
        let buckets = Buckets::new(sets, SEED);
        let (mut granted, mut made_up) = (0, 0);
        for now in 1_000..2_000 {
            for _ in 0..per_ms {
                made_up += 1;
                assert!(buckets.take(Purpose::Unproven, v4(made_up), now), "a newcomer at {now}");
            }
            granted += u32::from(buckets.take(Purpose::Unproven, v4(1_000_000), now));
        }
        (granted, made_up)
    };
    // Five at once and one for each fifty milliseconds, the last of them at 1,950.
    assert_eq!(flood(SETS, 200).0, 5 + 19);
    let (granted, made_up) = flood(1, 8);
    assert!((24..=24 + made_up / 8).contains(&granted), "granted {granted} beside {made_up}");
    assert_eq!(flood(1, 1).0, 24, "who sends more than the others is not forgotten for them");
}

/// Several threads on one source: together they are granted what one would be.
#[test]
fn workers_share_one_bucket() {
    for round in 0..50 {
        let buckets = Arc::new(Buckets::new(SETS, Seed(round, 1)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let buckets = Arc::clone(&buckets);
                std::thread::spawn(move || {
                    (0..100).filter(|_| buckets.take(Purpose::Unproven, v4(1), 1_000)).count()
                })
            })
            .collect();
        let granted: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(granted, 5);
    }
}

/// Twin of the hash: the standard library's, which is SipHash-1-3 with a key of zeros.
#[test]
fn the_hash_is_siphash() {
    for key in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
        for purpose in [Purpose::Unproven, Purpose::CookieReply] {
            let mut standard = std::hash::DefaultHasher::new();
            key.to_le_bytes()
                .iter()
                .chain([&(purpose as u8)])
                .for_each(|byte| byte.hash(&mut standard));
            assert_eq!(hash(key, purpose, Seed(0, 0)), standard.finish());
        }
    }
}
