//! Sessions and peers as the workers see them.
//!
//! ```text
//!   receiver index ─▶ slots[slot] ─┬─ Arc<Session>   keys, send counter, activity: shared by all
//!                                  └─ ReplayWindow   only on the worker that the index names
//!   PeerIndex ─▶ peers[index] ─┬─ sending: newest session that may be used
//!                              └─ endpoint: where the last authenticated packet came from
//! ```
//!
//! INVARIANT: a replay window exists once, on one worker, so a counter is accepted at most once.
//! A send counter is one atomic shared by all workers, so a nonce is used at most once.
//!
//! A worker seals with a removed session until it has read its `Command::Remove`, which is
//! before its next batch, and never after, whatever the peer's cell says. This file is compiled
//! twice: here, and in `tests/models` with the atomics of loom, where that is proved.

use std::sync::Arc;

use bulkhead_link::{Counted, Dscp, SessionIndex};
use bulkhead_table::PeerIndex;
use bulkhead_wg::{ReceiveKey, ReplayWindow, SendCounter, SendKey};

use crate::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::place::{Origin, Place};
use crate::sequence::Sequenced;

/// The keys of one finished handshake, and what happened under them.
pub struct Session {
    /// Our receiver index.
    pub index: SessionIndex,
    /// The peer's.
    pub remote_index: u32,
    /// Whose session it is.
    pub peer: PeerIndex,
    /// Whether we initiated it.
    pub initiator: bool,
    /// Grows with every session that the datapath is given: tells the newer of two.
    pub sequence: u32,
    /// When it was installed, milliseconds of the datapath's clock.
    pub created_ms: u64,
    /// Largest inner packet that it carries, bytes.
    pub tunnel_mtu: u16,
    /// The DSCP of its datagrams.
    pub dscp: Dscp,
    /// When it must no longer be used, in either direction (REJECT_AFTER_TIME).
    pub reject_at_ms: u64,
    /// Opens what the peer sends.
    pub receive: ReceiveKey,
    /// Seals what we send.
    pub send: SendKey,
    /// The next message counter.
    pub counter: SendCounter,
    /// What happened.
    pub activity: Activity,
}

/// When something last happened in a session, for the timers, and how much.
///
/// Written with relaxed stores at most once per run of packets; read by the link thread.
/// Milliseconds of the datapath's clock, 0: never.
#[derive(Debug, Default)]
pub struct Activity {
    /// The peer has proved that it holds the keys.
    pub confirmed: AtomicBool,
    /// Last packet with content sent.
    pub data_sent_ms: AtomicU64,
    /// Last packet with content received.
    pub data_received_ms: AtomicU64,
    /// Last packet of any kind sent.
    pub sent_ms: AtomicU64,
    /// Last authenticated packet of any kind received.
    pub received_ms: AtomicU64,
    sent_packets: AtomicU64,
    sent_bytes: AtomicU64,
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    accepted: AtomicU64,
    expected: AtomicU64,
}

impl Activity {
    /// `count.packets` inner packets with content were sealed at `now_ms`. Any worker may call it.
    pub fn sent(&self, count: Counted, now_ms: u64) {
        self.sent_ms.store(now_ms, Ordering::Relaxed);
        if count.bytes > 0 {
            self.data_sent_ms.store(now_ms, Ordering::Relaxed);
            self.sent_packets.fetch_add(count.packets, Ordering::Relaxed);
            self.sent_bytes.fetch_add(count.bytes, Ordering::Relaxed);
        }
    }

    /// These messages were accepted at `now_ms`. Only the owner calls it.
    pub fn received(&self, run: &Accepted, now_ms: u64) {
        if !run.any() {
            return;
        }
        let add = |sum: &AtomicU64, more: u64| {
            sum.store(sum.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        };
        self.received_ms.store(now_ms, Ordering::Relaxed);
        add(&self.accepted, run.messages);
        if run.expected > self.expected.load(Ordering::Relaxed) {
            self.expected.store(run.expected, Ordering::Relaxed);
        }
        if run.content.packets > 0 {
            self.data_received_ms.store(now_ms, Ordering::Relaxed);
            add(&self.received_packets, run.content.packets);
            add(&self.received_bytes, run.content.bytes);
        }
    }

    /// Inner packets and bytes received.
    #[must_use]
    pub fn received_count(&self) -> Counted {
        Counted {
            packets: self.received_packets.load(Ordering::Relaxed),
            bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }

    /// Messages accepted, with and without content, and messages that the peer had sealed by the
    /// latest of them. Read one after the other while the owner writes: never more accepted than
    /// sealed.
    #[must_use]
    pub fn accepted_of_expected(&self) -> (u64, u64) {
        let expected = self.expected.load(Ordering::Relaxed);
        (self.accepted.load(Ordering::Relaxed).min(expected), expected)
    }

    /// Inner packets and bytes sent.
    #[must_use]
    pub fn sent_count(&self) -> Counted {
        Counted {
            packets: self.sent_packets.load(Ordering::Relaxed),
            bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Messages of one session that were accepted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accepted {
    messages: u64,
    /// One more than the greatest counter.
    expected: u64,
    /// Those with content, and their inner bytes.
    content: Counted,
}

impl Accepted {
    /// One more: the message `counter` with `bytes` inner bytes.
    #[inline]
    pub fn add(&mut self, counter: u64, bytes: u64) {
        self.messages += 1;
        // An accepted counter is below REJECT_AFTER_MESSAGES.
        self.expected = self.expected.max(counter + 1);
        self.content.packets += u64::from(bytes > 0);
        self.content.bytes += bytes;
    }

    /// Whether there is one.
    #[inline]
    #[must_use]
    pub fn any(&self) -> bool {
        self.messages > 0
    }
}

/// What all workers and the link thread know about one peer.
#[derive(Debug, Default)]
pub struct PeerCell {
    /// `sequence << 32 | slot + 1` of the newest session that we may send with; 0: none.
    sending: AtomicU64,
    endpoint: Sequenced<7>,
}

impl PeerCell {
    /// From now on packets to this peer may be sealed with `session`, unless a newer one may.
    ///
    /// The responder of a handshake calls it when the peer's first packet has authenticated, the
    /// initiator at once (whitepaper §5.1, §5.4.3).
    pub fn allow_sending(&self, session: &Session) {
        let slot = u64::from(session.index.0 & (SessionIndex::SLOTS - 1)) + 1;
        self.sending.fetch_max(u64::from(session.sequence) << 32 | slot, Ordering::Relaxed);
    }

    /// No session may be used: the peer is gone.
    pub fn forbid_sending(&self) {
        // An exchange and not a store, so that every change of the cell is one of a chain: loom
        // tells the order only of those.
        self.sending.swap(0, Ordering::Relaxed);
    }

    /// Slot and sequence of the session to send with.
    #[inline]
    #[must_use]
    pub fn sending(&self) -> Option<(usize, u32)> {
        let packed = self.sending.load(Ordering::Relaxed);
        let slot = usize::try_from(packed & u64::from(u32::MAX)).ok()?.checked_sub(1)?;
        let sequence = u32::try_from(packed >> 32).ok()?;
        Some((slot, sequence))
    }

    /// The peer was heard from `place`. A concurrent writer wins; the next packet tries again.
    pub fn roam(&self, place: &Place) -> bool {
        self.endpoint.write(&place.pack())
    }

    /// Where the peer's datagrams go.
    #[inline]
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.endpoint.read().map(|words| Place::unpack(&words))
    }
}

/// One place in a worker's array of sessions.
#[derive(Default)]
pub struct Slot {
    /// The session, shared with the other workers.
    pub session: Option<Arc<Session>>,
    /// Its replay window, if this worker owns it.
    pub window: Option<Box<ReplayWindow>>,
    /// Where its last packet came from: only a change is written to the shared cell.
    pub heard_at: Origin,
}

impl Slot {
    fn holds(&self, index: SessionIndex) -> bool {
        self.session.as_ref().is_some_and(|session| session.index == index)
    }
}

/// A worker's flat array of sessions, by slot of the receiver index.
pub struct Sessions {
    slots: Box<[Slot]>,
}

impl Sessions {
    /// Room for `count` sessions, allocated once.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { slots: (0..count).map(|_| Slot::default()).collect() }
    }

    /// The place of the session that a peer addressed, if it holds that session exactly.
    #[inline]
    pub fn addressed(&mut self, index: SessionIndex) -> Option<&mut Slot> {
        self.slots.get_mut(index.slot()).filter(|slot| slot.holds(index))
    }

    /// The same, to read.
    #[inline]
    #[must_use]
    pub fn at(&self, index: SessionIndex) -> Option<&Slot> {
        self.slots.get(index.slot()).filter(|slot| slot.holds(index))
    }

    /// The session to send with, if this worker knows it already.
    #[inline]
    #[must_use]
    pub fn sending(&self, cell: &PeerCell) -> Option<&Arc<Session>> {
        let (slot, sequence) = cell.sending()?;
        self.slots.get(slot)?.session.as_ref().filter(|session| session.sequence == sequence)
    }

    /// Puts a session in its place and returns what was there.
    pub fn install(&mut self, session: Arc<Session>, window: Option<Box<ReplayWindow>>) -> Slot {
        let new = Slot { window, heard_at: Origin::default(), session: None };
        match self.slots.get_mut(session.index.slot()) {
            Some(slot) => core::mem::replace(slot, Slot { session: Some(session), ..new }),
            // No such place: nothing of it is kept, and its packets find no session.
            None => Slot { session: Some(session), ..new },
        }
    }

    /// Takes a session out, if it is that one exactly.
    pub fn remove(&mut self, index: SessionIndex) -> Slot {
        self.addressed(index).map(core::mem::take).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(slot: u32, salt: u8, sequence: u32) -> Arc<Session> {
        Arc::new(Session {
            index: SessionIndex::new(0, salt, slot),
            remote_index: 1,
            peer: PeerIndex(0),
            initiator: false,
            sequence,
            created_ms: 1,
            tunnel_mtu: 1_420,
            dscp: Dscp::Clear,
            reject_at_ms: 180_001,
            receive: ReceiveKey::new(&[1; 32]),
            send: SendKey::new(&[2; 32]),
            counter: SendCounter::default(),
            activity: Activity::default(),
        })
    }

    /// The twin: a set of counters.
    #[test]
    fn loss_is_what_is_missing_below_the_greatest_counter() {
        let (activity, mut seen) = (Activity::default(), std::collections::BTreeSet::new());
        assert_eq!(activity.accepted_of_expected(), (0, 0));
        for counter in [3, 1, 9, 8, 0, 10] {
            let mut run = Accepted::default();
            run.add(counter, 0);
            activity.received(&run, 5);
            seen.insert(counter);
            let expected = seen.last().unwrap() + 1;
            assert_eq!(activity.accepted_of_expected(), (seen.len() as u64, expected));
        }
        assert_eq!(activity.accepted_of_expected(), (6, 11), "five of eleven are missing");
    }

    #[test]
    fn a_late_packet_of_a_slots_former_session_finds_nothing() {
        let mut sessions = Sessions::new(4);
        sessions.install(session(2, 0, 1), None);
        let before = sessions.install(session(2, 1, 2), None);
        assert_eq!(before.session.unwrap().sequence, 1);
        assert!(sessions.addressed(SessionIndex::new(0, 0, 2)).is_none());
        assert!(sessions.addressed(SessionIndex::new(0, 1, 2)).is_some());
        assert!(sessions.remove(SessionIndex::new(0, 0, 2)).session.is_none(), "not that one");
        assert!(sessions.remove(SessionIndex::new(0, 1, 2)).session.is_some());
        assert!(sessions.addressed(SessionIndex::new(0, 1, 2)).is_none());
        assert!(sessions.addressed(SessionIndex::new(0, 0, 9)).is_none(), "outside the array");
    }

    #[test]
    fn the_newest_session_is_sent_with_whatever_the_order_of_confirmation() {
        let (cell, mut sessions) = (PeerCell::default(), Sessions::new(4));
        let (old, new) = (session(0, 0, 7), session(3, 0, 8));
        assert!(sessions.sending(&cell).is_none());
        cell.allow_sending(&new);
        cell.allow_sending(&old);
        assert!(sessions.sending(&cell).is_none(), "not installed on this worker yet");
        sessions.install(Arc::clone(&old), None);
        sessions.install(Arc::clone(&new), None);
        assert_eq!(sessions.sending(&cell).unwrap().sequence, 8);
        // Its slot reused by a session of another peer: not ours to send with.
        sessions.install(session(3, 1, 9), None);
        assert!(sessions.sending(&cell).is_none());
        cell.forbid_sending();
        assert_eq!(cell.sending(), None);
    }

    #[test]
    fn a_place_survives_the_cell() {
        let place = Place { remote_port: 7, vlan: 9, local_mac: [3; 6], ..Place::default() };
        let cell = PeerCell::default();
        assert_eq!(cell.place(), None);
        assert!(cell.roam(&place));
        assert_eq!(cell.place(), Some(place));
    }
}
