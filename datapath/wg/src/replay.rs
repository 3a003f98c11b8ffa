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
