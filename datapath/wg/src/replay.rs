//! Each message counter is accepted once (RFC 6479; Linux `receive.c::counter_validate`).
//!
//! A ring of words, one bit for each counter. The window never shifts bits: when the greatest
//! counter enters a new word, the words between are cleared.
//!
//! ```text
//!      oldest word kept                      word of the greatest counter
//!            ▼                                          ▼
//!   … │ 64 bits │ 64 bits │ …  126 more words   … │ 64 bits │      ring index = word mod 128
//!         ◀────────── REACH = 127 × 64 ──────────▶ greatest
//! ```
//!
//! INVARIANT: for every counter within [`REACH`] of the greatest, its bit says whether it was
//! accepted. One word of the ring is not counted, because the greatest counter may stand anywhere
//! in its word.
//!
//! One writer: whoever opens a session's packets holds its window.

use crate::limits::{REJECT_AFTER_MESSAGES, WINDOW_BITS};

/// How far behind the greatest accepted counter one is still accepted: 8128, as in Linux.
pub const REACH: u64 = WINDOW_BITS - WORD_BITS;

const WORD_BITS: u64 = u64::BITS as u64;
const WORDS: u64 = WINDOW_BITS / WORD_BITS;

/// The counters that one session has received.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    greatest: u64,
    ring: [u64; 128],
}

const _: () = assert!(WORDS == 128, "the ring has one word for each 64 bits of the window");

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { greatest: 0, ring: [0; 128] }
    }
}

impl ReplayWindow {
    /// Accepts the counter of a message that authenticated; `false` if it was accepted before, is
    /// too old to know, or is beyond [`REJECT_AFTER_MESSAGES`].
    ///
    /// Never call this before the message authenticated: a forger could close the window.
    #[inline]
    #[must_use = "a message whose counter is not accepted must be dropped"]
    pub fn accept(&mut self, counter: u64) -> bool {
        if !self.is_fresh(counter) {
            return false;
        }
        if counter > self.greatest {
            self.advance(counter);
        }
        let (index, bit) = place(counter);
        if let Some(word) = self.ring.get_mut(index) {
            *word |= bit;
        }
        true
    }

    /// Whether [`Self::accept`] would accept the counter. Spares the decryption of a replay.
    #[inline]
    #[must_use]
    pub fn is_fresh(&self, counter: u64) -> bool {
        if counter >= REJECT_AFTER_MESSAGES {
            return false;
        }
        if counter > self.greatest {
            return true;
        }
        let (index, bit) = place(counter);
        self.greatest - counter <= REACH && self.ring.get(index).is_some_and(|word| word & bit == 0)
    }

    /// Clears the words that the window enters, at most the whole ring.
    #[inline]
    fn advance(&mut self, counter: u64) {
        let (from, to) = (self.greatest / WORD_BITS, counter / WORD_BITS);
        let entered = (to - from).min(WORDS);
        for word in to - entered..to {
            let (index, _) = place((word + 1) * WORD_BITS);
            if let Some(word) = self.ring.get_mut(index) {
                *word = 0;
            }
        }
        self.greatest = counter;
    }
}

/// Where the bit of a counter is.
#[inline]
fn place(counter: u64) -> (usize, u64) {
    let index = usize::try_from(counter / WORD_BITS % WORDS).unwrap_or_default();
    (index, 1 << (counter % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use std::cell::Cell;
    use std::collections::BTreeSet;

    /// The specification: remember everything.
    #[derive(Default)]
    struct Twin(BTreeSet<u64>);

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Outcome {
        Accepted,
        Replayed,
        TooOld,
        BeyondLimit,
    }

    impl Twin {
        fn accept(&mut self, counter: u64) -> Outcome {
            let greatest = self.0.last().copied().unwrap_or(0);
            if counter >= REJECT_AFTER_MESSAGES {
                Outcome::BeyondLimit
            } else if counter < greatest.saturating_sub(REACH) {
                Outcome::TooOld
            } else if self.0.insert(counter) {
                Outcome::Accepted
            } else {
                Outcome::Replayed
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// From the greatest so far, forwards or backwards.
        Forward(u64),
        Backward(u64),
        Absolute(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u64..3).prop_map(Step::Forward),
            2 => (0u64..200).prop_map(Step::Forward),
            1 => (REACH - 70..REACH + 200).prop_map(Step::Forward),
            1 => (0..3 * WINDOW_BITS).prop_map(Step::Forward),
            8 => (0u64..200).prop_map(Step::Backward),
            2 => (REACH - 130..REACH + 130).prop_map(Step::Backward),
            1 => (0..u64::MAX).prop_map(Step::Absolute),
        ]
    }

    /// Goal: the ring says what a set that forgets nothing says. Near zero, anywhere, and below
    /// the limit; each outcome must have been met, or the test proves nothing.
    #[test]
    fn the_window_of_8192_agrees_with_a_set_of_seen_counters() {
        let start = prop_oneof![
            Just(0),
            0..REJECT_AFTER_MESSAGES,
            REJECT_AFTER_MESSAGES - 3 * WINDOW_BITS..REJECT_AFTER_MESSAGES
        ];
        let met = [const { Cell::new(0u32) }; 4];
        let steps = proptest::collection::vec(step(), 1..400);
        TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(300)
        })
        .run(&(start, steps), |(start, steps)| {
            let (mut window, mut twin) = (ReplayWindow::default(), Twin::default());
            let steps = std::iter::once(Step::Absolute(start)).chain(steps);
            for step in steps {
                let greatest = twin.0.last().copied().unwrap_or(0);
                let counter = match step {
                    Step::Forward(n) => greatest.saturating_add(n),
                    Step::Backward(n) => greatest.saturating_sub(n),
                    // Rare, or the window would sit at a huge counter for good.
                    Step::Absolute(n) if n % 4 == 0 || greatest == 0 => n,
                    Step::Absolute(n) => n % 100_000,
                };
                let want = twin.accept(counter);
                met[want as usize].update(|n| n + 1);
                prop_assert_eq!(window.is_fresh(counter), want == Outcome::Accepted);
                prop_assert_eq!(window.accept(counter), want == Outcome::Accepted, "{}", counter);
                prop_assert!(!window.is_fresh(counter));
            }
            Ok(())
        })
        .unwrap();
        assert!(met.iter().all(|count| count.get() > 100), "outcomes met: {met:?}");
    }

    /// Feeds counters to one window, each with the answer that it must get.
    fn check(counters: &[(u64, bool)]) {
        let mut window = ReplayWindow::default();
        for (step, (counter, want)) in counters.iter().enumerate() {
            assert_eq!(window.accept(*counter), *want, "step {step}: counter {counter}");
        }
    }

    #[test]
    fn the_first_counters() {
        check(&[(0, true), (0, false), (1, true), (1, false), (9, true), (8, true), (7, true)]);
        check(&[(9, true), (0, true), (0, false), (9, false)]);
        check(&[(63, true), (64, true), (63, false), (64, false), (62, true), (65, true)]);
    }

    #[test]
    fn the_edge_of_the_window() {
        check(&[(REACH, true), (0, true), (0, false)]);
        for greatest in [REACH + 1, REACH + 63, REACH + 64, 1 << 40, (1 << 40) + 63] {
            let oldest = greatest - REACH;
            check(&[(greatest, true), (oldest, true), (oldest, false), (oldest - 1, false)]);
        }
    }

    #[test]
    fn a_jump_over_the_whole_window_forgets_it() {
        for jump in [REACH + 1, WINDOW_BITS - 1, WINDOW_BITS, WINDOW_BITS + 1, 1 << 50] {
            let to = 100 + jump;
            // What aliases the old bits in the ring must be fresh.
            let alias = (to - REACH..to).find(|n| n % WINDOW_BITS == 100 % WINDOW_BITS);
            let mut steps = vec![(100, true), (to, true), (100, false), (to, false)];
            steps.extend(alias.map(|alias| (alias, true)));
            check(&steps);
        }
    }

    #[test]
    fn a_jump_leaves_no_old_bit_within_reach() {
        for jump in [1, 63, 64, REACH, WINDOW_BITS, WINDOW_BITS + 64, 1 << 50] {
            let mut window = ReplayWindow::default();
            assert!((0..WINDOW_BITS).all(|counter| window.accept(counter)));
            let to = WINDOW_BITS - 1 + jump;
            assert!(window.accept(to));
            for counter in (to - REACH).max(WINDOW_BITS)..to {
                assert!(window.is_fresh(counter), "jump {jump}: {counter}");
            }
        }
    }

    #[test]
    fn reordering_within_the_window_loses_nothing() {
        let mut window = ReplayWindow::default();
        for block in 0..4 {
            for counter in (block * REACH..(block + 1) * REACH).rev() {
                assert!(window.accept(counter), "{counter}");
            }
        }
        assert!((0..4 * REACH).all(|counter| !window.accept(counter)));
    }

    /// The rules of the whitepaper (§5.4.6) and of RFC 6479 for a counter, as a table: 34
    /// assertions. One row is one window; a counter stands beside the answer that it must get.
    #[test]
    fn the_34_assertions_of_the_counter_table() {
        const LIMIT: u64 = REJECT_AFTER_MESSAGES;
        const FAR: u64 = 1 << 40;
        const YES: bool = true;
        const NO: bool = false;
        type Row = (&'static str, &'static [(u64, bool)]);
        let table: &[Row] = &[
            ("each counter once, from the first", &[(0, YES), (0, NO), (1, YES), (1, NO)]),
            ("in the window the order is free", &[(9, YES), (7, YES), (8, YES), (7, NO)]),
            ("no edge at a word", &[(63, YES), (64, YES), (63, NO)]),
            ("the oldest in the window", &[(REACH, YES), (0, YES), (0, NO)]),
            ("one older", &[(REACH + 1, YES), (0, NO), (1, YES), (1, NO)]),
            ("a jump of the ring's size", &[(5, YES), (5 + WINDOW_BITS, YES), (5, NO)]),
            (
                "one less, and one more",
                &[(0, YES), (WINDOW_BITS - 1, YES), (2 * WINDOW_BITS, YES), (WINDOW_BITS - 1, NO)],
            ),
            ("a far jump, and back", &[(FAR, YES), (0, NO), (FAR - REACH - 1, NO)]),
            (
                "the last counter, and beyond",
                &[
                    (LIMIT - 1, YES),
                    (LIMIT - 1, NO),
                    (LIMIT, NO),
                    (u64::MAX, NO),
                    (LIMIT - 1 - REACH, YES),
                    (LIMIT - 2 - REACH, NO),
                ],
            ),
        ];
        assert_eq!(table.iter().map(|(_, row)| row.len()).sum::<usize>(), 34);
        for (rule, row) in table {
            let mut window = ReplayWindow::default();
            for (counter, want) in *row {
                assert_eq!(window.accept(*counter), *want, "{rule}: {counter}");
            }
        }
    }

    #[test]
    fn counters_end_at_the_limit() {
        let last = REJECT_AFTER_MESSAGES - 1;
        check(&[
            (u64::MAX, false),
            (REJECT_AFTER_MESSAGES, false),
            (0, true),
            (last, true),
            (last, false),
            (REJECT_AFTER_MESSAGES, false),
            (u64::MAX, false),
            (last - 1, true),
            (last - REACH, true),
            (last - REACH - 1, false),
            (0, false),
        ]);
    }
}
