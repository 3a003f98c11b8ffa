//! Message counters: each is handed out once, to any number of workers, and none beyond the limit.
//!
//! INVARIANT: the ranges that [`SendCounter::reserve`] returns never overlap, and none reaches the
//! limit. A counter is the nonce of a message; two messages under one nonce give away both.
//!
//! This file is compiled twice: here, and in `tests/models`, where `crate::atomic` is loom's and
//! every interleaving of the threads is tried.

use crate::atomic::{AtomicU64, Ordering};
use crate::limits::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES};

/// Hands out the message counters of one `SendKey`, to any number of workers.
#[derive(Debug)]
pub struct SendCounter {
    next: AtomicU64,
    limit: u64,
}

impl Default for SendCounter {
    fn default() -> Self {
        Self::with_limit(REJECT_AFTER_MESSAGES)
    }
}

impl SendCounter {
    /// A counter that stops earlier than the protocol demands, for tests and simulations. A limit
    /// beyond [`REJECT_AFTER_MESSAGES`] is that.
    #[must_use]
    pub fn with_limit(limit: u64) -> Self {
        Self { next: AtomicU64::new(0), limit: limit.min(REJECT_AFTER_MESSAGES) }
    }

    /// Reserves `count` successive counters and returns the first. `None`, for ever after a
    /// session has used up its counters, if fewer are left; then nothing is reserved.
    #[inline]
    #[must_use = "a reserved counter that is not used is lost"]
    pub fn reserve(&self, count: u64) -> Option<u64> {
        // Relaxed: nothing else is published through this counter, and the order of one atomic's
        // changes is total. Compare-and-swap, because a plain addition beyond the limit could be
        // repeated until it wraps.
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                next.checked_add(count).filter(|end| *end <= self.limit)
            })
            .ok()
    }

    /// How many counters were handed out: messages sent, for [`crate::limits`].
    #[inline]
    #[must_use]
    pub fn count(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Whether so many messages were sent that the session wants a successor.
    #[inline]
    #[must_use]
    pub fn wants_rekey(&self) -> bool {
        self.count() >= REKEY_AFTER_MESSAGES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: u64) -> SendCounter {
        SendCounter { next: AtomicU64::new(next), ..SendCounter::default() }
    }

    #[test]
    fn the_counter_stops_hard_at_its_limit() {
        let counter = at(REJECT_AFTER_MESSAGES - 3);
        assert_eq!(counter.reserve(4), None);
        assert_eq!(counter.reserve(u64::MAX), None);
        assert_eq!(counter.reserve(2), Some(REJECT_AFTER_MESSAGES - 3));
        assert_eq!(counter.reserve(2), None);
        assert_eq!(counter.reserve(1), Some(REJECT_AFTER_MESSAGES - 1));
        for _ in 0..10_000 {
            assert_eq!(counter.reserve(64), None, "and never wraps");
        }
        assert_eq!(counter.reserve(1), None);
        assert_eq!(counter.count(), REJECT_AFTER_MESSAGES);
        assert_eq!(SendCounter::with_limit(u64::MAX).limit, REJECT_AFTER_MESSAGES);
    }

    #[test]
    fn the_counter_wants_a_rekey_after_2_to_the_60() {
        assert!(!at(REKEY_AFTER_MESSAGES - 1).wants_rekey());
        assert!(at(REKEY_AFTER_MESSAGES).wants_rekey());
    }

    /// Goal: no counter twice, whoever asks, and none at or beyond the limit. Method: four threads
    /// take batches of changing size until all are refused even a single one.
    #[test]
    fn threads_never_share_a_counter() {
        const LIMIT: u64 = 100_003;
        let counter = SendCounter::with_limit(LIMIT);
        let take = || {
            let (mut taken, mut size) = (vec![], 1);
            loop {
                match counter.reserve(size) {
                    Some(first) => taken.extend(first..first + size),
                    None if size == 1 => return taken,
                    None => {}
                }
                // At the end, sizes fall back to one and use the rest up.
                size = if counter.count() + 64 < LIMIT { size % 64 + 1 } else { 1 };
            }
        };
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert!(all.into_iter().eq(0..LIMIT));
    }
}
