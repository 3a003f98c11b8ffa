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

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bulkhead_link::{Counted, Dscp, Endpoint, SessionIndex};
use bulkhead_table::PeerIndex;
use bulkhead_wg::{ReceiveKey, ReplayWindow, SendCounter, SendKey};
use bulkhead_wire::{Address, Ethernet, Mac, OuterUdp, ethernet};

use crate::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sequence::Sequenced;

/// Hop limit of our datagrams: that of every stock WireGuard.
const OUTER_HOP_LIMIT: u8 = 64;

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

    /// The message `counter` with `bytes` inner bytes was accepted at `now_ms`. Only the owner calls
    /// it.
    pub fn received(&self, counter: u64, bytes: u64, now_ms: u64) {
        self.received_ms.store(now_ms, Ordering::Relaxed);
        let accepted = self.accepted.load(Ordering::Relaxed);
        self.accepted.store(accepted + 1, Ordering::Relaxed);
        // An accepted counter is below REJECT_AFTER_MESSAGES.
        if counter >= self.expected.load(Ordering::Relaxed) {
            self.expected.store(counter + 1, Ordering::Relaxed);
        }
        if bytes > 0 {
            self.data_received_ms.store(now_ms, Ordering::Relaxed);
            let packets = self.received_packets.load(Ordering::Relaxed);
            self.received_packets.store(packets + 1, Ordering::Relaxed);
            let sum = self.received_bytes.load(Ordering::Relaxed);
            self.received_bytes.store(sum + bytes, Ordering::Relaxed);
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

/// A peer's place on the outside, down to the Ethernet header. [`Endpoint`] as the datapath
/// keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The peer's outer address.
    pub remote: Address,
    /// Our outer address.
    pub local: Address,
    /// The peer's UDP port.
    pub remote_port: u16,
    /// Our UDP port.
    pub local_port: u16,
    /// The network port that it is reached through.
    pub port: u8,
    /// The VLAN there, 0 if untagged.
    pub vlan: u16,
    /// The neighbour.
    pub remote_mac: [u8; 6],
    /// Ourselves.
    pub local_mac: [u8; 6],
}

impl Place {
    fn pack(&self) -> [u64; 7] {
        let [remote_high, remote_low] = halves(self.remote);
        let [local_high, local_low] = halves(self.local);
        let ports = u64::from(self.remote_port) << 48
            | u64::from(self.local_port) << 32
            | u64::from(self.vlan) << 16
            | u64::from(self.port);
        [
            remote_high,
            remote_low,
            local_high,
            local_low,
            ports,
            mac_bits(self.remote_mac),
            mac_bits(self.local_mac),
        ]
    }

    fn unpack(words: &[u64; 7]) -> Self {
        let [remote_high, remote_low, local_high, local_low, ports, remote_mac, local_mac] = *words;
        let [r0, r1, l0, l1, v0, v1, _, port] = ports.to_be_bytes();
        Self {
            remote: joined(remote_high, remote_low),
            local: joined(local_high, local_low),
            remote_port: u16::from_be_bytes([r0, r1]),
            local_port: u16::from_be_bytes([l0, l1]),
            port,
            vlan: u16::from_be_bytes([v0, v1]),
            remote_mac: mac(remote_mac),
            local_mac: mac(local_mac),
        }
    }
}

fn halves(address: Address) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.bits().to_be_bytes();
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
}

fn joined(high: u64, low: u64) -> Address {
    Address::from_bits(u128::from(high) << 64 | u128::from(low))
}

fn mac_bits(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn mac(bits: u64) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
    [a, b, c, d, e, f]
}

impl Place {
    /// The Ethernet header of what we send there.
    #[inline]
    #[must_use]
    pub fn ethernet(&self) -> Ethernet {
        let v4 = self.remote.is_ipv4();
        Ethernet {
            destination: Mac(self.remote_mac),
            source: Mac(self.local_mac),
            vlan: (self.vlan != 0).then_some(self.vlan),
            ether_type: if v4 { ethernet::ETHERTYPE_IPV4 } else { ethernet::ETHERTYPE_IPV6 },
            len: if self.vlan == 0 { 14 } else { 18 },
        }
    }

    /// The IP and UDP headers of what we send there.
    #[inline]
    #[must_use]
    pub fn datagram(&self, traffic_class: u8) -> OuterUdp {
        OuterUdp {
            source: self.local,
            destination: self.remote,
            source_port: self.local_port,
            destination_port: self.remote_port,
            traffic_class,
            hop_limit: OUTER_HOP_LIMIT,
        }
    }
}

impl From<&Endpoint> for Place {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            remote: Address::from(endpoint.remote.ip()),
            local: Address::from(endpoint.local.ip()),
            remote_port: endpoint.remote.port(),
            local_port: endpoint.local.port(),
            port: endpoint.port,
            vlan: endpoint.vlan.unwrap_or(0),
            remote_mac: endpoint.remote_mac,
            local_mac: endpoint.local_mac,
        }
    }
}

impl From<&Place> for Endpoint {
    fn from(place: &Place) -> Self {
        let socket = |address: Address, port| -> SocketAddr {
            let ip: IpAddr = address.to_ip();
            SocketAddr::new(ip, port)
        };
        Self {
            remote: socket(place.remote, place.remote_port),
            local: socket(place.local, place.local_port),
            port: place.port,
            vlan: (place.vlan != 0).then_some(place.vlan),
            remote_mac: place.remote_mac,
            local_mac: place.local_mac,
        }
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
    pub heard_at: Place,
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
        let new = Slot { window, heard_at: Place::default(), session: None };
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
    use proptest::prelude::*;

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
            activity.received(counter, 0, 5);
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

    proptest! {
        #[test]
        fn a_place_survives_the_cell(
            remote: u128, local: u128, ports: (u16, u16, u8, u16), macs: ([u8; 6], [u8; 6]),
        ) {
            let place = Place {
                remote: Address::from_bits(remote),
                local: Address::from_bits(local),
                remote_port: ports.0,
                local_port: ports.1,
                port: ports.2,
                vlan: ports.3,
                remote_mac: macs.0,
                local_mac: macs.1,
            };
            let cell = PeerCell::default();
            prop_assert_eq!(cell.place(), None);
            prop_assert!(cell.roam(&place));
            prop_assert_eq!(cell.place(), Some(place));
        }
    }
}
