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
        Self { known: HashMap::with_capacity(NEIGHBOURS_MAX) }
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
        assert_eq!(neighbours.known.capacity(), room, "nothing was allocated");
    }
}
