//! How many handshake messages are under way to the control process, and whether those are too many.
//!
//! ```text
//!   workers ── handed ──▶ rings, link, queue of bulkheadd ── finished ──▶ link thread
//!             outstanding = handed − finished
//! ```
//!
//! Credit instead of a queue's length: wherever a message waits, in a ring that the link thread does
//! not empty, in a socket that `bulkheadd` does not read, or behind a busy handshake thread, it is
//! outstanding. So a slow or dead control process shows by itself, and nobody asks it.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{HANDSHAKES_MAX, HANDSHAKES_UNDER_LOAD};

/// How long the gateway stays under load once it was, milliseconds: Linux
/// `drivers/net/wireguard/receive.c`, `wg_receive_handshake_packet`. Shorter: a flood that pauses
/// gets its first messages through each time.
pub const HOLD_MS: u64 = 1_000;

/// The load of the whole gateway: workers add, the link thread subtracts. All relaxed: the figures
/// guard no other memory, and one batch more or less does not matter.
#[derive(Debug, Default)]
pub struct Load {
    handed: AtomicU64,
    finished: AtomicU64,
    until_ms: AtomicU64,
}

/// What a worker sees at the start of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether a source must be proven.
    pub under_load: bool,
    /// How many messages may still be handed on.
    pub room: u64,
}

impl Load {
    /// Messages were handed to the link thread.
    pub fn handed(&self, count: u64) {
        self.handed.fetch_add(count, Ordering::Relaxed);
    }

    /// Messages were finished, or will never be. The caller sees to it that none is counted twice.
    pub fn finished(&self, count: u64) {
        self.finished.fetch_add(count, Ordering::Relaxed);
    }

    /// Messages that are under way.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        // In this order what is finished between the two loads makes it larger, not negative.
        let finished = self.finished.load(Ordering::Relaxed);
        self.handed.load(Ordering::Relaxed).saturating_sub(finished)
    }

    /// Looks, and remembers load for everybody. Once per batch that brings a handshake message.
    #[must_use]
    pub fn look(&self, now_ms: u64) -> Look {
        let outstanding = self.outstanding();
        let loaded = outstanding >= HANDSHAKES_UNDER_LOAD;
        if loaded {
            self.until_ms.fetch_max(now_ms + HOLD_MS, Ordering::Relaxed);
        }
        let held = now_ms < self.until_ms.load(Ordering::Relaxed);
        Look { under_load: loaded || held, room: HANDSHAKES_MAX.saturating_sub(outstanding) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_load_from_an_eighth_on_and_for_a_second_after() {
        let load = Load::default();
        load.handed(HANDSHAKES_UNDER_LOAD - 1);
        assert_eq!(load.look(5_000), Look { under_load: false, room: 4_096 - 511 });
        load.handed(1);
        assert_eq!(load.look(5_000), Look { under_load: true, room: 4_096 - 512 });
        load.finished(512);
        assert_eq!(load.outstanding(), 0);
        assert!(load.look(5_999).under_load);
        assert!(!load.look(6_000).under_load);
    }

    #[test]
    fn there_is_no_room_behind_a_process_that_finishes_nothing() {
        let load = Load::default();
        load.handed(HANDSHAKES_MAX + 3);
        assert_eq!(load.look(1), Look { under_load: true, room: 0 });
        load.finished(4);
        assert_eq!(load.look(1).room, 1);
    }

    /// A worker whose clock is a turn behind does not end the hold of the others.
    #[test]
    fn the_hold_is_the_longest_of_all_workers() {
        let load = Load::default();
        load.handed(HANDSHAKES_MAX);
        assert!(load.look(2_000).under_load && load.look(1_990).under_load);
        load.finished(HANDSHAKES_MAX);
        assert!(load.look(2_999).under_load && !load.look(3_000).under_load);
    }
}
