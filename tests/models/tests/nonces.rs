//! No nonce is used twice, in any order in which workers may meet.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use bulkhead_models::send_counter::SendCounter;
use loom::sync::Arc;
use loom::thread;

/// Goal: whatever the order, the counters that the workers got are all different and below the
/// limit, and room is refused to nobody. `plans` are the batches that each worker reserves;
/// `refused` is how many counters they want more than there are.
fn reserve_in_every_order(plans: &'static [&'static [u64]], limit: u64, refused: u64) {
    loom::model(move || {
        let counter = Arc::new(SendCounter::with_limit(limit));
        let worker = |sizes: &'static [u64]| {
            let counter = Arc::clone(&counter);
            move || {
                let reserve =
                    |size: &u64| counter.reserve(*size).map_or(0..0, |first| first..first + *size);
                sizes.iter().flat_map(reserve).collect::<Vec<u64>>()
            }
        };
        let (own, others) = plans.split_first().unwrap();
        let others: Vec<_> = others.iter().map(|plan| thread::spawn(worker(plan))).collect();
        let mut all = worker(own)();
        for other in others {
            all.extend(other.join().unwrap());
        }
        all.sort_unstable();
        let wanted: u64 = plans.iter().copied().flatten().sum();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "twice: {all:?}");
        assert!(all.iter().all(|counter| *counter < limit), "beyond the limit: {all:?}");
        assert_eq!(all.len() as u64, wanted - refused);
        assert_eq!(counter.count(), all.len() as u64, "none is lost");
    });
}

#[test]
fn no_nonce_is_used_twice() {
    reserve_in_every_order(&[&[2, 1], &[1]], 100, 0);
    reserve_in_every_order(&[&[1], &[2], &[1]], 100, 0);
}

#[test]
fn no_nonce_beyond_the_limit_is_used() {
    reserve_in_every_order(&[&[1, 1], &[1]], 2, 1);
    reserve_in_every_order(&[&[2], &[2]], 3, 2);
}

/// At the limit nothing is handed out any more, however often and by however many it is asked.
#[test]
fn an_exhausted_counter_stays_exhausted() {
    loom::model(|| {
        let counter = Arc::new(SendCounter::with_limit(1));
        let ask = |counter: &SendCounter| {
            [counter.reserve(2), counter.reserve(1), counter.reserve(u64::MAX)]
        };
        let other = {
            let counter = Arc::clone(&counter);
            thread::spawn(move || ask(&counter))
        };
        let answers = [ask(&counter), other.join().unwrap()];
        let given: Vec<u64> = answers.into_iter().flatten().flatten().collect();
        assert_eq!(given, [0]);
        assert_eq!(counter.count(), 1);
    });
}
