//! Packets that wait: for a session with their peer, or for their neighbour's address.
//!
//! The first packet of a connection must not be lost because a handshake or an ARP exchange takes
//! a moment. Bounded in all, per destination and in time; a full queue drops its oldest packet,
//! because the sender has given up on that one first (Linux `drivers/net/wireguard/send.c`,
//! `staged_packet_queue`, does the same).
//!
//! What is released is judged again: the policy may have changed while it waited.

use std::collections::VecDeque;

use bulkhead_link::End;
use bulkhead_table::PeerIndex;
use bulkhead_wire::Address;

use crate::limits::{HELD_MAX, HELD_PER_REASON_MAX};
use crate::packet::Transit;

/// What a packet waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A session with this peer.
    Session(PeerIndex),
    /// The hardware address of this neighbour on this port.
    Neighbour(u8, Address),
}

impl Missing {
    /// How a packet ends that waited in vain.
    #[must_use]
    pub fn end(self) -> End {
        match self {
            Self::Session(_) => End::DropPeerUnreachable,
            Self::Neighbour(..) => End::DropNeighbourUnreachable,
        }
    }
}

struct Held {
    transit: Transit,
    missing: Missing,
    until_ms: u64,
}

/// The queue of one worker, oldest first.
pub struct Hold {
    held: VecDeque<Held>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { held: VecDeque::with_capacity(HELD_MAX) }
    }
}

impl Hold {
    /// How many packets wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Keeps a packet until `until_ms`. Returns the packet that had to make room, ended; and
    /// whether this is the first that waits for `missing`, so that somebody must be asked.
    pub fn keep(
        &mut self,
        transit: Transit,
        missing: Missing,
        until_ms: u64,
    ) -> (Option<Transit>, bool) {
        let same = self.held.iter().filter(|held| held.missing == missing).count();
        let oldest = if same >= HELD_PER_REASON_MAX {
            self.held.iter().position(|held| held.missing == missing)
        } else {
            (self.held.len() >= HELD_MAX).then_some(0)
        };
        let dropped = oldest
            .and_then(|at| self.held.remove(at))
            .map(|held| Transit { end: Some(End::DropWaitingFull), ..held.transit });
        self.held.push_back(Held { transit, missing, until_ms });
        (dropped, same == 0)
    }

    /// Moves what need not wait any longer to `batch`, in order, up to its capacity.
    pub fn release(&mut self, ready: impl Fn(Missing) -> bool, batch: &mut Vec<Transit>) {
        let mut at = 0;
        while let Some(held) = self.held.get(at) {
            if batch.len() < batch.capacity() && ready(held.missing) {
                batch.extend(self.held.remove(at).map(|held| held.transit));
            } else {
                at += 1;
            }
        }
    }

    /// Moves what has waited too long to `batch`, ended.
    pub fn expire(&mut self, now_ms: u64, batch: &mut Vec<Transit>) {
        let mut at = 0;
        while let Some(held) = self.held.get(at) {
            if held.until_ms <= now_ms && batch.len() < batch.capacity() {
                batch.extend(
                    self.held
                        .remove(at)
                        .map(|held| Transit { end: Some(held.missing.end()), ..held.transit }),
                );
            } else {
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_xsk::{Packet, Umem};

    fn transits(count: u32) -> Vec<Transit> {
        let (_umem, frames) = Umem::new(count).unwrap();
        let mut frames: Vec<_> = frames.into_iter().collect();
        frames.sort_by_key(bulkhead_xsk::Frame::index);
        frames
            .into_iter()
            .map(|frame| Transit::received(Packet { frame, start: 0, len: 1 }, 0))
            .collect()
    }

    fn indices(batch: &[Transit]) -> Vec<u32> {
        batch.iter().map(|transit| transit.frame.index()).collect()
    }

    #[test]
    fn one_dead_peer_does_not_take_the_whole_queue() {
        let mut hold = Hold::default();
        let (dead, live) = (Missing::Session(PeerIndex(1)), Missing::Session(PeerIndex(2)));
        let mut asked = 0;
        let mut dropped = vec![];
        for (n, transit) in transits(50).into_iter().enumerate() {
            let missing = if n == 49 { live } else { dead };
            let (out, ask) = hold.keep(transit, missing, 100);
            asked += usize::from(ask);
            dropped.extend(out);
        }
        assert_eq!((hold.len(), asked), (HELD_PER_REASON_MAX + 1, 2));
        assert_eq!(indices(&dropped), (0..17).collect::<Vec<_>>(), "oldest first");
        assert!(dropped.iter().all(|transit| transit.end == Some(End::DropWaitingFull)));
        let mut batch = Vec::with_capacity(64);
        hold.release(|missing| missing == live, &mut batch);
        assert_eq!(indices(&batch), [49]);
    }

    #[test]
    fn packets_leave_in_order_or_expire_with_their_reason() {
        let mut hold = Hold::default();
        let peer = Missing::Session(PeerIndex(1));
        let neighbour = Missing::Neighbour(0, Address::from_bits(9));
        for (n, transit) in transits(4).into_iter().enumerate() {
            let missing = if n % 2 == 0 { peer } else { neighbour };
            hold.keep(transit, missing, 100 + n as u64);
        }
        let mut batch = Vec::with_capacity(64);
        hold.expire(101, &mut batch);
        assert_eq!(indices(&batch), [0, 1]);
        let ends: Vec<_> = batch.iter().map(|transit| transit.end).collect();
        assert_eq!(ends, [Some(End::DropPeerUnreachable), Some(End::DropNeighbourUnreachable)]);
        batch.clear();
        hold.release(|missing| missing == peer, &mut batch);
        hold.release(|missing| missing == neighbour, &mut batch);
        assert_eq!((indices(&batch), hold.is_empty()), (vec![2, 3], true));
        assert!(batch.iter().all(Transit::goes_on));
    }

    #[test]
    fn all_in_all_it_is_bounded() {
        let mut hold = Hold::default();
        for (n, transit) in (0..).zip(transits(200)) {
            hold.keep(transit, Missing::Session(PeerIndex(n)), 100);
        }
        assert_eq!(hold.len(), HELD_MAX);
    }
}
