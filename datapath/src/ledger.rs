//! The peers and sessions of the datapath, and what time asks of them. Sans-IO: `now` is an
//! argument, commands and messages are results.
//!
//! ```text
//!   peer initiated:  next ── its first packet ──▶ current ──▶ previous ──▶ retired
//!   we initiated:    ───────────────────────────▶ current
//! ```
//!
//! INVARIANT: what is not proven costs nothing that is. A handshake that the peer started makes a
//! `next`, which takes the place of an older `next` and of nothing else, and moves nothing: an
//! initiation that is replayed after a crash of control leads to no more than that. Only when the
//! first packet under it has authenticated is it current, and its predecessor previous (Linux
//! `noise.c`, `add_new_keypair`, `wg_noise_received_with_keypair`).
//!
//! INVARIANT: a session is known here as long as any worker may use it, so that a worker never
//! frees one; and a slot is given to one session at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_engine::{Activity, Command, PeerCell, Place, Session};
use bulkhead_link as link;
use bulkhead_link::{Endpoint, FromDatapath, SessionIndex, SessionStatus};
use bulkhead_table::PeerIndex;
use bulkhead_wg::timers::Activity as TimedActivity;
use bulkhead_wg::{Limits, ReceiveKey, ReplayWindow, Role, SendCounter, SendKey, Timers};

use crate::clock::time;

/// Sessions of one peer that may be sent with and are kept: the newest, and its predecessor for what
/// is still on its way.
const USABLE_PER_PEER: usize = 2;

/// Something that the ledger wants done.
pub(crate) enum Order {
    /// For one worker.
    Worker(usize, Command),
    /// For the control process.
    Tell(FromDatapath),
}

/// All peers and sessions.
pub(crate) struct Ledger {
    workers: usize,
    slots: usize,
    cells: Arc<[PeerCell]>,
    peers: BTreeMap<u32, link::Peer>,
    sessions: BTreeMap<SessionIndex, Entry>,
    /// The same by peer, so that a handshake does not look at everybody's.
    by_peer: BTreeSet<(u32, SessionIndex)>,
    /// The same by slot, which has one tenant.
    by_slot: BTreeMap<usize, SessionIndex>,
    /// By peer, what happened under sessions that are gone.
    past: BTreeMap<u32, Past>,
    sequence: u32,
}

#[derive(Clone, Copy, Default)]
struct Past {
    handshake_ms: u64,
    received: link::Counted,
    sent: link::Counted,
}

struct Entry {
    session: Arc<Session>,
    /// Only told on: which of our keys it was made with.
    listener: [u8; 32],
    timers: Timers,
    limits: Limits,
    /// Control has been told that it is confirmed.
    told: bool,
}

impl Entry {
    /// Whether we may send under it: as initiator at once, as responder once the peer has.
    fn is_usable(&self) -> bool {
        self.session.initiator || self.session.activity.confirmed.load(Ordering::Relaxed)
    }
}

/// Why something that control asked for was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LedgerError {
    /// No such peer.
    #[error("peer {0} is not known; announce it first")]
    UnknownPeer(u32),
    /// Beyond the arrays that were laid out at start.
    #[error("peer index {index} is not below the {max} of gateway.peers_max")]
    PeerIndex {
        /// As asked.
        index: u32,
        /// The limit.
        max: usize,
    },
    /// Beyond the arrays, or no such worker.
    #[error("session index {0:?} names no slot or no worker of this datapath")]
    SessionIndex(SessionIndex),
    /// Another key under the same index: the old one must be removed first.
    #[error("peer {0} has another public key; remove it first")]
    OtherKey(u32),
}

impl Ledger {
    /// An empty ledger for `workers` workers and the sizes of a configuration.
    #[must_use]
    pub(crate) fn new(configuration: &link::Configuration, cells: Arc<[PeerCell]>) -> Self {
        Self {
            workers: usize::from(configuration.workers.max(1)),
            slots: configuration.sessions_max as usize,
            cells,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_peer: BTreeSet::new(),
            by_slot: BTreeMap::new(),
            past: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Learns or updates a peer.
    ///
    /// # Errors
    ///
    /// If its index is out of range or stands for another key.
    pub(crate) fn peer(&mut self, peer: link::Peer) -> Result<(), LedgerError> {
        if peer.index as usize >= self.cells.len() {
            return Err(LedgerError::PeerIndex { index: peer.index, max: self.cells.len() });
        }
        match self.peers.get(&peer.index) {
            Some(known) if known.public_key != peer.public_key => {
                Err(LedgerError::OtherKey(peer.index))
            }
            Some(_) | None => {
                self.peers.insert(peer.index, peer);
                Ok(())
            }
        }
    }

    /// Forgets a peer with all its keys.
    pub(crate) fn remove_peer(&mut self, peer: u32) -> Vec<Order> {
        self.peers.remove(&peer);
        if let Some(cell) = self.cells.get(peer as usize) {
            cell.forbid_sending();
        }
        let gone: Vec<_> = self.of_peer(peer).map(|entry| entry.session.index).collect();
        let orders = gone.into_iter().flat_map(|index| self.retire(index)).collect();
        // The next with its index begins at nothing.
        self.past.remove(&peer);
        orders
    }

    /// Takes the keys of a finished handshake into use.
    ///
    /// # Errors
    ///
    /// If its peer is unknown, or its index names no place; nothing is changed then.
    pub(crate) fn install(
        &mut self,
        new: &link::Session,
        now_ms: u64,
    ) -> Result<Vec<Order>, LedgerError> {
        if !self.peers.contains_key(&new.peer) {
            return Err(LedgerError::UnknownPeer(new.peer));
        }
        if new.index.worker() >= self.workers || new.index.slot() >= self.slots {
            return Err(LedgerError::SessionIndex(new.index));
        }
        // A slot has one tenant.
        let mut going: Vec<SessionIndex> =
            self.by_slot.get(&new.index.slot()).copied().into_iter().collect();
        if new.initiator {
            going.extend(self.surplus(new.peer, USABLE_PER_PEER - 1));
        } else {
            let next = self.of_peer(new.peer).filter(|entry| !entry.is_usable());
            going.extend(next.map(|entry| entry.session.index));
        }
        going.sort_unstable();
        going.dedup();
        let mut orders: Vec<Order> =
            going.into_iter().flat_map(|index| self.retire(index)).collect();

        self.sequence = self.sequence.wrapping_add(1);
        let limits = limits_of(&new.terms.timers);
        let reject_after = u64::try_from(limits.reject_after.as_millis()).unwrap_or(u64::MAX);
        let session = Arc::new(Session {
            index: new.index,
            remote_index: new.remote_index,
            peer: PeerIndex(new.peer),
            initiator: new.initiator,
            sequence: self.sequence,
            created_ms: now_ms,
            tunnel_mtu: new.terms.tunnel_mtu,
            dscp: new.terms.dscp,
            reject_at_ms: now_ms.saturating_add(reject_after),
            receive: ReceiveKey::new(&new.keys.receive),
            send: SendKey::new(&new.keys.send),
            counter: SendCounter::default(),
            activity: Activity::default(),
        });
        for worker in 0..self.workers {
            let owns = worker == new.index.worker();
            let window = owns.then(|| Box::new(ReplayWindow::default()));
            orders.push(Order::Worker(worker, Command::Install(Arc::clone(&session), window)));
        }
        if let Some(cell) = self.cells.get(new.peer as usize) {
            // Whoever answered our initiation is there. Whoever made one may be somebody who recorded
            // it: the peer is where its first packet under the session comes from.
            if new.initiator {
                cell.roam(&Place::from(&new.endpoint));
                // A worker that has not read its command yet holds the packet until it has.
                cell.allow_sending(&session);
            }
        }
        let timers = Timers::default();
        let (listener, told) = (new.listener, new.initiator);
        self.by_peer.insert((new.peer, new.index));
        self.by_slot.insert(new.index.slot(), new.index);
        self.sessions.insert(new.index, Entry { session, listener, timers, limits, told });
        Ok(orders)
    }

    /// A packet waits for a session with `peer`. `None` if one is there already.
    #[must_use]
    pub(crate) fn wanted(&self, peer: PeerIndex, now_ms: u64) -> Option<FromDatapath> {
        let usable = self
            .of_peer(peer.0)
            .any(|entry| entry.is_usable() && now_ms < entry.session.reject_at_ms);
        (!usable).then_some(FromDatapath::SessionWanted { peer: peer.0 })
    }

    /// What time asks for; call it every 100 ms or so.
    pub(crate) fn tick(&mut self, now_ms: u64) -> Vec<Order> {
        let mut orders = self.confirm();
        let mut newest: BTreeMap<u32, u32> = BTreeMap::new();
        // What is not confirmed is no successor: the one before speaks for the peer until then.
        for entry in self.sessions.values().filter(|entry| entry.is_usable()) {
            let sequence = newest.entry(entry.session.peer.0).or_default();
            *sequence = (*sequence).max(entry.session.sequence);
        }
        let mut expired = vec![];
        for (index, entry) in &mut self.sessions {
            let session = &entry.session;
            let peer = session.peer.0;
            let keepalive = self.peers.get(&peer).and_then(|peer| peer.keepalive);
            let activity = timed(session);
            let due = entry.timers.due(time(now_ms), &activity, &entry.limits, keepalive);
            if due.expired {
                expired.push(*index);
                continue;
            }
            // A superseded session only runs out: its successor speaks for the peer.
            if newest.get(&peer) != Some(&session.sequence) {
                continue;
            }
            if due.send_keepalive {
                orders.push(Order::Worker(index.worker(), Command::Keepalive(session.peer)));
            }
            if due.want_handshake {
                orders.push(Order::Tell(FromDatapath::SessionWanted { peer }));
            }
        }
        orders.extend(expired.into_iter().flat_map(|index| self.retire(index)));
        orders
    }

    /// Sessions that were confirmed since the last time: control is told, and what they supersede is
    /// retired.
    fn confirm(&mut self) -> Vec<Order> {
        let (mut orders, mut peers) = (vec![], vec![]);
        for (index, entry) in &mut self.sessions {
            if !entry.told && entry.is_usable() {
                entry.told = true;
                peers.push(entry.session.peer.0);
                orders.push(Order::Tell(FromDatapath::SessionConfirmed { index: *index }));
            }
        }
        peers.dedup();
        for peer in peers {
            let going = self.surplus(peer, USABLE_PER_PEER);
            orders.extend(going.into_iter().flat_map(|index| self.retire(index)));
        }
        orders
    }

    /// The usable sessions of a peer but the newest `kept`.
    fn surplus(&self, peer: u32, kept: usize) -> Vec<SessionIndex> {
        let mut usable: Vec<_> = self
            .of_peer(peer)
            .filter(|entry| entry.is_usable())
            .map(|entry| (entry.session.sequence, entry.session.index))
            .collect();
        usable.sort_unstable();
        let surplus = usable.len().saturating_sub(kept);
        usable.into_iter().take(surplus).map(|(_, index)| index).collect()
    }

    /// What a control process that is new must know: peers first.
    pub(crate) fn greeting(&self, now_ms: u64) -> impl Iterator<Item = FromDatapath> + '_ {
        let peers = self.peers.values().cloned().map(FromDatapath::Peer);
        peers.chain(self.status(now_ms).map(FromDatapath::Session))
    }

    /// Every session, in the order of worker and slot.
    pub(crate) fn status(&self, now_ms: u64) -> impl Iterator<Item = SessionStatus> + '_ {
        self.sessions.values().map(move |entry| {
            let session = &entry.session;
            let heard_ms = session.activity.received_ms.load(Ordering::Relaxed);
            let since = |ms: u64| Duration::from_millis(now_ms.saturating_sub(ms));
            let place = self.cells.get(session.peer.0 as usize).and_then(PeerCell::place);
            let (accepted, expected) = session.activity.accepted_of_expected();
            SessionStatus {
                peer: session.peer.0,
                index: session.index,
                listener: entry.listener,
                age: since(session.created_ms),
                initiator: session.initiator,
                confirmed: session.activity.confirmed.load(Ordering::Relaxed),
                endpoint: place.as_ref().map(Endpoint::from),
                received: session.activity.received_count(),
                sent: session.activity.sent_count(),
                silent_for: (heard_ms != 0).then(|| since(heard_ms)),
                accepted,
                expected,
            }
        })
    }

    /// Every peer that had a session that is gone, in the order of their indices.
    pub(crate) fn past(&self, now_ms: u64) -> impl Iterator<Item = link::PeerPast> + '_ {
        self.past.iter().map(move |(peer, past)| link::PeerPast {
            peer: *peer,
            handshake_age: Duration::from_millis(now_ms.saturating_sub(past.handshake_ms)),
            received: past.received,
            sent: past.sent,
        })
    }

    fn of_peer(&self, peer: u32) -> impl Iterator<Item = &Entry> {
        let range = (peer, SessionIndex(0))..=(peer, SessionIndex(u32::MAX));
        self.by_peer.range(range).filter_map(|(_, index)| self.sessions.get(index))
    }

    fn retire(&mut self, index: SessionIndex) -> Vec<Order> {
        let Some(Entry { session, .. }) = self.sessions.remove(&index) else { return vec![] };
        self.by_peer.remove(&(session.peer.0, index));
        self.by_slot.remove(&index.slot());
        // What a worker still counts before it has read its command is not in the sum.
        let past = self.past.entry(session.peer.0).or_default();
        past.handshake_ms = past.handshake_ms.max(session.created_ms);
        past.received.add(session.activity.received_count());
        past.sent.add(session.activity.sent_count());
        (0..self.workers)
            .map(|worker| Order::Worker(worker, Command::Remove(index)))
            .chain([Order::Tell(FromDatapath::SessionRetired { index })])
            .collect()
    }
}

fn limits_of(timers: &link::Timers) -> Limits {
    Limits {
        rekey_after: timers.rekey_after,
        reject_after: timers.reject_after,
        rekey_attempt: timers.rekey_attempt,
        rekey_timeout: timers.rekey_timeout,
        keepalive: timers.keepalive,
        ..Limits::default()
    }
}

/// A session's activity in the terms of the timers.
fn timed(session: &Session) -> TimedActivity {
    let activity = &session.activity;
    let at = |ms: u64| (ms != 0).then(|| time(ms));
    TimedActivity {
        created: time(session.created_ms),
        role: if session.initiator { Role::Initiator } else { Role::Responder },
        messages_sent: session.counter.count(),
        data_sent: at(activity.data_sent_ms.load(Ordering::Relaxed)),
        data_received: at(activity.data_received_ms.load(Ordering::Relaxed)),
        sent: at(activity.sent_ms.load(Ordering::Relaxed)),
        received: at(activity.received_ms.load(Ordering::Relaxed)),
    }
}

#[cfg(test)]
mod tests;
