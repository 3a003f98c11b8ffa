//! Receiver indices for sessions to come.
//!
//! ```text
//!   free, oldest first ── take ──▶ in use ── release (retired by the datapath) ──▶ free, last
//! ```
//!
//! INVARIANT: an index in use is not given out again, and two successive users of a slot have
//! different salts, so a late packet of a dead session cannot be taken for one of its successor.
//! Free slots wait in line: a slot rests as long as the others last.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_link::SessionIndex;

/// Salts that the six bits of a [`SessionIndex`] can hold.
const SALTS: u8 = 64;

/// The slots of one datapath.
#[derive(Debug, Default)]
pub struct Slots {
    /// Slots never used so far start here.
    fresh: u32,
    max: u32,
    free: VecDeque<u32>,
    in_use: BTreeMap<u32, SessionIndex>,
    /// Salt of the last user of a slot.
    salts: BTreeMap<u32, u8>,
}

impl Slots {
    /// `max` slots, none in use.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self { max: max.min(SessionIndex::SLOTS), ..Self::default() }
    }

    /// Marks an index as in use: a session that this process did not make. `false` if its slot is
    /// in use already, or beyond the array.
    pub fn reserve(&mut self, index: SessionIndex) -> bool {
        let Ok(slot) = u32::try_from(index.slot()) else { return false };
        if slot >= self.max || self.in_use.contains_key(&slot) {
            return false;
        }
        // Everything below becomes an ordinary free slot; reservations come in one by one at a
        // start only.
        while self.fresh <= slot {
            self.free.push_back(self.fresh);
            self.fresh += 1;
        }
        self.free.retain(|free| *free != slot);
        self.salts.insert(slot, salt_of(index));
        self.in_use.insert(slot, index);
        true
    }

    /// An index that nobody has, owned by `worker`. `None` if all slots are in use.
    pub fn take(&mut self, worker: u8) -> Option<SessionIndex> {
        let slot = if self.fresh < self.max {
            self.fresh += 1;
            self.fresh - 1
        } else {
            self.free.pop_front()?
        };
        let salt = self.salts.get(&slot).map_or(0, |last| (last + 1) % SALTS);
        let index = SessionIndex::new(worker, salt, slot);
        self.salts.insert(slot, salt);
        self.in_use.insert(slot, index);
        Some(index)
    }

    /// The user of an index is gone. `false` if it was not in use: a slot that has a new user
    /// keeps it.
    pub fn release(&mut self, index: SessionIndex) -> bool {
        let Ok(slot) = u32::try_from(index.slot()) else { return false };
        if self.in_use.get(&slot) != Some(&index) {
            return false;
        }
        self.in_use.remove(&slot);
        self.free.push_back(slot);
        true
    }

    /// Whether [`Self::take`] would give one.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.fresh < self.max || !self.free.is_empty()
    }

    /// How many are in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.in_use.len()
    }
}

fn salt_of(index: SessionIndex) -> u8 {
    // Bits 20..26 of the index; see its picture.
    u8::try_from((index.0 / SessionIndex::SLOTS) % u32::from(SALTS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_salt_is_read_where_the_index_keeps_it() {
        for salt in [0, 1, 31, 63] {
            assert_eq!(salt_of(SessionIndex::new(63, salt, SessionIndex::SLOTS - 1)), salt);
        }
    }

    #[test]
    fn a_slot_rests_while_others_are_free() {
        let mut slots = Slots::new(3);
        let first = slots.take(0).unwrap();
        assert!(slots.release(first));
        let next: Vec<_> = (0..3).map(|_| slots.take(0).unwrap().slot()).collect();
        assert_eq!(next, [1, 2, 0]);
        assert_eq!(slots.take(0), None);
    }

    #[test]
    fn the_successor_of_an_adopted_session_has_another_salt() {
        let mut slots = Slots::new(1);
        let adopted = SessionIndex::new(5, 63, 0);
        assert!(slots.reserve(adopted));
        assert!(!slots.reserve(SessionIndex::new(5, 1, 0)), "one user to a slot");
        assert!(!slots.reserve(SessionIndex::new(5, 1, 1)), "beyond the array");
        assert_eq!(slots.take(5), None);
        assert!(slots.release(adopted));
        assert_eq!(slots.take(5), Some(SessionIndex::new(5, 0, 0)));
    }

    proptest! {
        /// Twin: the set of indices out. Whatever happens, none is given twice, a stale release
        /// changes nothing, and a slot's salt changes from user to user.
        #[test]
        fn no_index_has_two_users(ops in prop::collection::vec((0u8..4, 0usize..8), 1..200)) {
            let mut slots = Slots::new(5);
            let (mut out, mut gone) = (BTreeSet::new(), vec![]);
            let mut last = BTreeMap::new();
            for (op, pick) in ops {
                match op {
                    0 | 1 => match slots.take(u8::try_from(pick).unwrap()) {
                        Some(index) => {
                            prop_assert_eq!(index.worker(), pick);
                            prop_assert!(!out.iter().any(|other: &SessionIndex| other.slot() == index.slot()));
                            if let Some(before) = last.insert(index.slot(), salt_of(index)) {
                                prop_assert_ne!(before, salt_of(index));
                            }
                            out.insert(index);
                        }
                        None => prop_assert_eq!(out.len(), 5),
                    },
                    2 => if let Some(index) = out.iter().nth(pick).copied() {
                        prop_assert!(slots.release(index));
                        out.remove(&index);
                        gone.push(index);
                    },
                    _ => if let Some(index) = gone.get(pick)
                        && !out.contains(index)
                    {
                        prop_assert!(!slots.release(*index));
                    },
                }
                prop_assert_eq!(slots.in_use(), out.len());
            }
        }
    }
}
