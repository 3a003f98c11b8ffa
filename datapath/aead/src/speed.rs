//! Whether a back end is worth its lanes on this processor.
//!
//! The same instructions are worth little where vectors are cut in halves: AMD's first Zen runs AVX2 as
//! two times 128 bits, and there `ring` is faster. Rather than keep a list of processors, both do
//! the same work once at start.

use core::time::Duration;
use std::time::Instant;

use crate::{BATCH_MAX, Backend, Key, Open, Seal, TAG_LEN};

/// Rounds. The fastest one counts, so that an interrupted round does not.
const ROUNDS: usize = 15;

/// Whether `backend` is slower than the library at a full batch of mixed lengths.
pub(crate) fn is_slower_than_the_library(backend: Backend) -> bool {
    let mut work = Work::new();
    let (mut ours, mut library) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        ours = ours.min(work.round(backend));
        library = library.min(work.round(Backend::Library));
    }
    ours > library
}

/// A batch of small, middle and full packets, 7 to 4 to 1.
struct Work {
    messages: Vec<(Key, Vec<u8>, [u8; TAG_LEN])>,
}

impl Work {
    fn new() -> Self {
        let len = |n: usize| match n * 5 % 12 {
            0..7 => 64,
            7..11 => 576,
            _ => 1_424,
        };
        let message = |n| (Key::new(&[1; 32]), vec![0; len(n)], [0; TAG_LEN]);
        Self { messages: (0..BATCH_MAX).map(message).collect() }
    }

    /// Seals and opens the batch.
    fn round(&mut self, backend: Backend) -> Duration {
        let start = now();
        let sealed = self.messages.iter_mut();
        let sealed = sealed.map(|(key, text, tag)| Seal::new(key, [0; 12], text, tag));
        backend.seal(&mut sealed.collect::<Vec<_>>());
        let opened = self.messages.iter_mut();
        let opened = opened.map(|(key, text, tag)| Open::new(key, [0; 12], text, tag));
        backend.open(&mut opened.collect::<Vec<_>>());
        start.elapsed()
    }
}

#[expect(clippy::disallowed_methods, reason = "once, at start")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The portable kernel takes several times as long as the library wherever that has assembly.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn aead_start_finds_a_back_end_that_is_slower_than_the_library() {
        assert!(is_slower_than_the_library(Backend::Portable));
    }
}
