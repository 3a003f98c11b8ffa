//! A small value that one thread replaces while others read it: a sequence lock over atomics.
//!
//! This file is compiled twice: here, and in `tests/models` with the atomics of loom.

use crate::atomic::{AtomicU32, AtomicU64, Ordering, fence, spin_loop};
use crate::limits::READ_TRIES;

/// `N` words that are always read as they were written together.
///
/// Writers exclude each other by the odd sequence number; one that finds another at work gives up
/// and says so, because nobody may wait on a worker's core. A reader that meets a writer tries
/// again, at most [`READ_TRIES`] times, then reports that there is no value: its packet is held
/// or dropped, never sent with half an address.
#[derive(Debug)]
pub struct Sequenced<const N: usize> {
    sequence: AtomicU32,
    words: [AtomicU64; N],
}

impl<const N: usize> Default for Sequenced<N> {
    fn default() -> Self {
        Self { sequence: AtomicU32::new(0), words: core::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl<const N: usize> Sequenced<N> {
    /// Replaces the value. Returns whether it was replaced: `false` if another thread was at it.
    pub fn write(&self, value: &[u64; N]) -> bool {
        let before = self.sequence.load(Ordering::Relaxed);
        let odd = before.wrapping_add(1);
        if before % 2 == 1
            || self
                .sequence
                .compare_exchange(before, odd, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return false;
        }
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(value) {
            word.store(*value, Ordering::Relaxed);
        }
        self.sequence.store(odd.wrapping_add(1), Ordering::Release);
        true
    }

    /// The value, or `None` if it was never written or is being written for too long.
    #[must_use]
    pub fn read(&self) -> Option<[u64; N]> {
        for _ in 0..READ_TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            if before == 0 {
                return None;
            }
            let mut value = [0; N];
            for (value, word) in value.iter_mut().zip(&self.words) {
                *value = word.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.sequence.load(Ordering::Relaxed) {
                return Some(value);
            }
            spin_loop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nothing_is_read_before_something_was_written() {
        let cell = Sequenced::<2>::default();
        assert_eq!(cell.read(), None);
        assert!(cell.write(&[1, 2]));
        assert_eq!(cell.read(), Some([1, 2]));
    }

    /// Two writers and a reader: every value read was written as a whole. A writer that loses its
    /// core in the middle makes the other give up for so long, so nothing is said about how many
    /// writes succeed.
    #[test]
    fn values_are_never_torn() {
        let cell = Arc::new(Sequenced::<7>::default());
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                let cell = Arc::clone(&cell);
                std::thread::spawn(move || {
                    (0..300_000).filter(|n| cell.write(&[n * 2 + writer; 7])).count()
                })
            })
            .collect();
        let whole =
            |value: [u64; 7]| assert!(value.iter().all(|word| *word == value[0]), "{value:?}");
        while writers.iter().any(|writer| !writer.is_finished()) {
            cell.read().into_iter().for_each(whole);
        }
        let written: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        assert!(written > 0);
        whole(cell.read().expect("nobody writes any more"));
    }
}
