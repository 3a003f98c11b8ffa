//! Neighbours on the segments: a mirror of what the kernel knows.

use std::collections::HashMap;

use bulkhead_wire::Address;

use crate::limits::NEIGHBOURS_MAX;

/// A worker's copy of the neighbour table. Bounded; allocated once.
pub struct Neighbours {
    known: HashMap<(u8, Address), [u8; 6]>,
}

impl Default for Neighbours {
    fn default() -> Self {
        // Twice the room: a place that was left stays taken until the table is put in order, which it
        // does where it stands if it is at most half full, and else by growing.
        Self { known: HashMap::with_capacity(2 * NEIGHBOURS_MAX) }
    }
}

impl Neighbours {
    /// Learns or, with `None`, forgets a neighbour. At the limit a new one is not learnt, and its
    /// packets end as unreachable: the kernel's own table has a limit of the same order.
    pub fn set(&mut self, port: u8, address: Address, mac: Option<[u8; 6]>) {
        match mac {
            Some(mac) => {
                let key = (port, address);
                if self.known.len() < NEIGHBOURS_MAX || self.known.contains_key(&key) {
                    self.known.insert(key, mac);
                }
            }
            None => {
                self.known.remove(&(port, address));
            }
        }
    }

    /// The hardware address of a neighbour.
    #[inline]
    #[must_use]
    pub fn get(&self, port: u8, address: Address) -> Option<[u8; 6]> {
        self.known.get(&(port, address)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_forgets_and_stays_bounded() {
        let mut neighbours = Neighbours::default();
        let room = neighbours.known.capacity();
        let address = |n: usize| Address::from_bits(n as u128);
        for n in 0..NEIGHBOURS_MAX + 10 {
            neighbours.set(1, address(n), Some([1; 6]));
        }
        assert_eq!(neighbours.get(1, address(NEIGHBOURS_MAX)), None);
        neighbours.set(1, address(0), Some([2; 6]));
        assert_eq!(neighbours.get(1, address(0)), Some([2; 6]), "an update needs no room");
        assert_eq!(neighbours.get(0, address(0)), None, "another port is another neighbour");
        neighbours.set(1, address(0), None);
        assert_eq!(neighbours.get(1, address(0)), None);
        assert!(neighbours.known.capacity() <= room, "nothing was allocated");
    }

    #[test]
    fn it_does_not_grow_however_often_hosts_come_and_go() {
        let mut neighbours = Neighbours::default();
        let room = neighbours.known.capacity();
        let address = |n: usize| Address::from_bits(n as u128);
        for n in 0..20 * NEIGHBOURS_MAX {
            neighbours.set(1, address(n), Some([1; 6]));
            if n >= NEIGHBOURS_MAX - 1 {
                assert_eq!(neighbours.known.len(), NEIGHBOURS_MAX);
                neighbours.set(1, address(n + 1 - NEIGHBOURS_MAX), None);
            }
            // What was removed may take a place until the next time that the table is put in order.
            assert!(neighbours.known.capacity() <= room, "grown after {n}");
        }
    }
}
