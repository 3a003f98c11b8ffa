//! The receiver index of a session: where its keys are, told by the packet itself.

use serde::{Deserialize, Serialize};

/// The most workers one datapath may run: what fits the index.
pub const WORKERS_MAX: usize = 1 << WORKER_BITS;

const WORKER_BITS: u32 = 6;
const SALT_BITS: u32 = 6;
const SLOT_BITS: u32 = 32 - WORKER_BITS - SALT_BITS;

/// A WireGuard receiver index that we chose.
///
/// ```text
///  31      26 25    20 19                 0
///  │ worker  │ salt   │ slot              │
/// ```
///
/// The worker owns the replay window, so a data packet finds its only writer without a lookup.
/// The salt differs between successive users of a slot, so that a late packet of a dead session
/// is counted as such instead of as a forgery against its successor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SessionIndex(pub u32);

impl SessionIndex {
    /// Slots that the index can name; the datapath's array may be smaller.
    pub const SLOTS: u32 = 1 << SLOT_BITS;

    /// Packs the three fields; each is cut to its width.
    #[must_use]
    pub fn new(worker: u8, salt: u8, slot: u32) -> Self {
        let worker = u32::from(worker) & ((1 << WORKER_BITS) - 1);
        let salt = u32::from(salt) & ((1 << SALT_BITS) - 1);
        Self(worker << (SALT_BITS + SLOT_BITS) | salt << SLOT_BITS | slot & (Self::SLOTS - 1))
    }

    /// The worker that owns the receiving half.
    #[inline]
    #[must_use]
    pub fn worker(self) -> usize {
        (self.0 >> (SALT_BITS + SLOT_BITS)) as usize
    }

    /// The place in the flat array of sessions.
    #[inline]
    #[must_use]
    pub fn slot(self) -> usize {
        (self.0 & (Self::SLOTS - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_come_back(worker in 0u8..64, salt in 0u8..64, slot in 0..SessionIndex::SLOTS) {
            let index = SessionIndex::new(worker, salt, slot);
            prop_assert_eq!(index.worker(), usize::from(worker));
            prop_assert_eq!(index.slot(), slot as usize);
            // A different salt is a different index for the same slot.
            let other = SessionIndex::new(worker, salt ^ 1, slot);
            prop_assert_ne!(index, other);
            prop_assert_eq!(index.slot(), other.slot());
        }
    }

    #[test]
    fn fields_too_wide_do_not_spill() {
        assert_eq!(SessionIndex::new(64, 0, 0), SessionIndex(0));
        assert_eq!(SessionIndex::new(0, 64, 0), SessionIndex(0));
        assert_eq!(SessionIndex::new(0, 0, SessionIndex::SLOTS), SessionIndex(0));
    }
}
