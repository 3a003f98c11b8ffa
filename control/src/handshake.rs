//! All handshakes of the gateway: its static keys, a [`Peer`] machine for each peer at each listener,
//! the indices of sessions to come. Sans-IO: messages, time and randomness are arguments, what to do are
//! results. [`crate::handshake_thread`] is the shell around it.
//!
//! ```text
//!   set_peers, adopt ──┐                      ┌──▶ Accepted   a timestamp to remember
//!   datagram ──────────┤   ┌────────────┐     ├──▶ Session    keys for the datapath
//!   session_wanted ────┼──▶│ Handshakes │ ──▶ ┤
//!   session_retired ───┤   └────────────┘     └──▶ Datagram   a message for the peer
//!   timeout ───────────┘
//! ```
//!
//! INVARIANT: the keys of a session come out before the response that belongs to it, so that the
//! peer's first data packet finds them. An initiation is answered only if its timestamp is one that
//! neither this process nor one before it has accepted of the peer ([`Freshness`]).
//!
//! INVARIANT: an initiation changes where the peer is only once a packet under its session has
//! authenticated. So one that is replayed after a crash, with a timestamp that was not kept, has no
//! effect but a response that is of no use to who gets it (ADR 9).
//!
//! Strangers are counted and get no answer: MAC1 was right, which anyone who knows our public key
//! can do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::consumers::{Consumed, Responders};
use crate::slots::Slots;
use bulkhead_link::{Endpoint, SessionIndex, SessionStatus, Terms};
use bulkhead_wg::peer::{Action, Fresh, Message};
use bulkhead_wg::{
    Freshness, HandshakeError, Initiation, Limits, Peer, PresharedKey, PrivateKey, PublicKey, Role,
    Tai64n, Time,
};

mod counters;
mod entry;
mod outcome;
mod outside;
mod setup;

pub use counters::HandshakeCounters;
use outcome::session;
pub use outcome::{Datagram, Outcome};
pub use outside::Outside;
pub use setup::{ListenerSetup, PeerSetup};

use entry::{Entry, Listening};

/// How long a peer waits for a free session slot before it asks again.
const NO_SLOT_PAUSE: Duration = Duration::from_secs(1);

/// All peers' handshakes.
pub struct Handshakes {
    /// In the order of the configuration.
    listeners: Vec<Listening>,
    /// By their index in the datapath.
    peers: BTreeMap<u32, Entry>,
    slots: Slots,
    workers: u8,
    /// Sessions that the datapath has.
    sessions: BTreeMap<SessionIndex, Held>,
    /// Who is to answer our initiation of this index, and to which of our keys.
    pending: BTreeMap<u32, (u32, PublicKey)>,
    /// Timestamps of peers that are not there now.
    accepted: BTreeMap<PublicKey, Freshness>,
    timers: BTreeSet<(Time, u32)>,
    counters: HandshakeCounters,
    outcomes: VecDeque<Outcome>,
}

/// A session of the datapath.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// With whom.
    peer: u32,
    /// Where its handshake came from, and which address of ours it went to.
    heard: Option<(SocketAddr, SocketAddr)>,
    /// The listener; `None`: made by an earlier process.
    listener: Option<PublicKey>,
}

impl Handshakes {
    /// No listeners, no peers. `accepted` are the timestamps that earlier processes accepted.
    #[must_use]
    pub fn new(accepted: BTreeMap<PublicKey, Freshness>) -> Self {
        Self {
            listeners: vec![],
            peers: BTreeMap::new(),
            slots: Slots::default(),
            workers: 1,
            sessions: BTreeMap::new(),
            pending: BTreeMap::new(),
            accepted,
            timers: BTreeSet::new(),
            counters: HandshakeCounters::default(),
            outcomes: VecDeque::new(),
        }
    }

    /// A handshake message from the datapath, which found that its MAC1 was made with the public
    /// key `listener` of ours.
    pub fn datagram(
        &mut self,
        worker: u8,
        listener: Option<PublicKey>,
        from: &Endpoint,
        message: &[u8],
        now: Time,
        outside: &mut impl Outside,
    ) {
        self.counters.messages += 1;
        let result = match message.first() {
            Some(1) => self.initiation(worker, listener, from, message, now, outside),
            Some(2) => self.response(from, message, now, outside),
            Some(3) => self.cookie_reply(message, now),
            Some(_) | None => Err(HandshakeError::Malformed),
        };
        if let Err(error) = result {
            self.counters.refused(error);
        }
    }

    /// What reads initiations now; it changes with [`Self::set_peers`] only.
    #[must_use]
    pub fn responders(&self) -> Responders {
        let each = |listener: &Listening| (listener.public, Arc::clone(&listener.responder));
        self.listeners.iter().map(each).collect()
    }

    /// An initiation from the datapath that was read elsewhere, perhaps by [`Self::responders`] of a
    /// moment ago.
    pub fn consumed(&mut self, consumed: Consumed, now: Time, outside: &mut impl Outside) {
        self.counters.messages += 1;
        let Consumed { worker, listener, from, result } = consumed;
        let result = result.and_then(|initiation| {
            self.authenticated(worker, listener, &from, initiation, now, outside)
        });
        if let Err(error) = result {
            self.counters.refused(error);
        }
    }

    /// The datapath wants a session with a peer.
    pub fn session_wanted(&mut self, peer: u32, now: Time, outside: &mut impl Outside) {
        self.want(peer, now, outside);
    }

    /// The peer has sent its first packet under a session that it initiated. Only now is it where it
    /// seemed to be, and nothing is asked of it any more.
    pub fn session_confirmed(&mut self, index: SessionIndex) {
        let Some(held) = self.sessions.get(&index).copied() else { return };
        let Some(entry) = self.peers.get_mut(&held.peer) else { return };
        entry.route = held.heard.or(entry.route);
        entry.speaks_at = held.listener.or(entry.speaks_at);
        let free = entry.settle(None);
        self.forget_pending(free);
        self.set_timer(held.peer, None);
    }

    /// A session of the datapath ended.
    pub fn session_retired(&mut self, index: SessionIndex, now: Time, outside: &mut impl Outside) {
        self.slots.release(index);
        let Some(held) = self.sessions.remove(&index) else { return };
        if let Some(entry) = self.peers.get_mut(&held.peer) {
            entry.sessions = entry.sessions.saturating_sub(1);
            self.connect_if_kept(held.peer, now, outside);
        }
    }

    /// Time has passed. Calling early, late or twice is harmless.
    pub fn timeout(&mut self, now: Time, outside: &mut impl Outside) {
        while let Some((due, peer)) = self.timers.first().copied()
            && due <= now
        {
            self.timers.pop_first();
            let Some(entry) = self.peers.get_mut(&peer) else { continue };
            entry.due = None;
            let mut listeners = entry.due_machines(now);
            if entry.wanted_at.is_some_and(|at| at <= now)
                && let Some(at) = entry.initiates_at(&self.listeners)
                && let Some(limits) = self.limits_of(&at)
                && let Some(entry) = self.peers.get_mut(&peer)
            {
                entry.wanted_at = None;
                entry.machine(at, limits).want_session(now, outside.jitter(limits.jitter_max));
                if !listeners.contains(&at) {
                    listeners.push(at);
                }
            }
            let mut waits = None;
            for listener in listeners {
                if !self.attend(peer, listener, now, outside) {
                    waits = Some(now.plus(NO_SLOT_PAUSE));
                }
            }
            match waits {
                Some(_) => self.set_timer(peer, waits),
                None => self.connect_if_kept(peer, now, outside),
            }
        }
    }

    /// When to call [`Self::timeout`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The next thing to do, if any.
    pub fn poll(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// The figures so far.
    #[must_use]
    pub fn counters(&self) -> HandshakeCounters {
        self.counters
    }

    fn initiation(
        &mut self,
        worker: u8,
        listener: Option<PublicKey>,
        from: &Endpoint,
        message: &[u8],
        now: Time,
        outside: &mut impl Outside,
    ) -> Result<(), HandshakeError> {
        let key = listener.ok_or(HandshakeError::Malformed)?;
        let found = self.listeners.iter().find(|listener| listener.public == key);
        // A key that was taken out of use while the message was under way.
        let listener = found.ok_or(HandshakeError::BadMac1)?;
        let initiation = listener.responder.consume(message)?;
        self.authenticated(worker, key, from, initiation, now, outside)
    }

    /// An initiation to `listener` authenticated.
    fn authenticated(
        &mut self,
        worker: u8,
        listener: PublicKey,
        from: &Endpoint,
        initiation: Initiation,
        now: Time,
        outside: &mut impl Outside,
    ) -> Result<(), HandshakeError> {
        let limits = self.limits_of(&listener).ok_or(HandshakeError::BadMac1)?;
        let (public, timestamp) = (initiation.peer, initiation.timestamp);
        let peer = initiation.tag.ok_or(HandshakeError::WrongPeer)?;
        let entry = self.peers.get_mut(&peer).ok_or(HandshakeError::WrongPeer)?;
        if !entry.accepted_at(&listener) {
            return Err(HandshakeError::WrongPeer);
        }
        let wall_clock = outside.wall_clock();
        entry.freshness.judge(timestamp, wall_clock)?;
        // A worker that the datapath does not have would make an index that it refuses.
        let worker = worker.min(self.workers - 1);
        let Some((index, entropy)) = Self::spare(&mut self.slots, worker, outside) else {
            self.counters.no_slot += 1;
            return Ok(());
        };
        let machine = entry.machine(listener, limits);
        if let Err(refused) = machine.fresh_initiation(initiation, index.0, &entropy, now) {
            self.slots.release(index);
            return Err(refused);
        }
        entry.heard = Some((from.remote, from.local));
        entry.worker = worker;
        entry.freshness.accept(timestamp, wall_clock);
        self.outcomes.push_back(Outcome::Accepted(public, entry.freshness.clone()));
        self.carry_out((peer, listener), Some(from), index, entropy, wall_clock, now);
        Ok(())
    }

    fn response(
        &mut self,
        from: &Endpoint,
        message: &[u8],
        now: Time,
        outside: &mut impl Outside,
    ) -> Result<(), HandshakeError> {
        let receiver = word_at(message, 8).ok_or(HandshakeError::Malformed)?;
        let (machine, whose) = self.awaiting(receiver)?;
        machine.response(message)?;
        if let Some(entry) = self.peers.get_mut(&whose.0) {
            entry.route = Some((from.remote, from.local));
            entry.speaks_at = Some(whose.1);
        }
        // Not used: nothing of what a response leads to is an initiation.
        let entropy = outside.entropy().unwrap_or_default();
        let wall_clock = outside.wall_clock();
        self.carry_out(whose, Some(from), SessionIndex(receiver), entropy, wall_clock, now);
        Ok(())
    }

    fn cookie_reply(&mut self, message: &[u8], now: Time) -> Result<(), HandshakeError> {
        let receiver = word_at(message, 4).ok_or(HandshakeError::Malformed)?;
        self.awaiting(receiver)?.0.cookie_reply(message, now)
    }

    /// The machine whose initiation of this index waits, with its peer and its listener.
    fn awaiting(&mut self, receiver: u32) -> Result<(&mut Peer, (u32, PublicKey)), HandshakeError> {
        let unknown = HandshakeError::UnknownReceiver;
        let whose = *self.pending.get(&receiver).ok_or(unknown)?;
        let entry = self.peers.get_mut(&whose.0).ok_or(unknown)?;
        Ok((entry.known_machine(&whose.1).ok_or(unknown)?, whose))
    }

    fn want(&mut self, peer: u32, now: Time, outside: &mut impl Outside) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let Some(listener) = entry.initiates_at(&self.listeners) else { return };
        let Some(limits) = self.limits_of(&listener) else { return };
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.target(0).is_none() {
            self.counters.no_endpoint += 1;
            return;
        }
        if !self.slots.has_room() {
            self.counters.no_slot += 1;
            return;
        }
        entry.machine(listener, limits).want_session(now, outside.jitter(limits.jitter_max));
        self.attend(peer, listener, now, outside);
    }

    /// Lets one machine do what is due, with an index for the initiation that this may be. `false`
    /// if there was no index.
    fn attend(
        &mut self,
        peer: u32,
        listener: PublicKey,
        now: Time,
        outside: &mut impl Outside,
    ) -> bool {
        let Some(limits) = self.limits_of(&listener) else { return true };
        let Some(entry) = self.peers.get_mut(&peer) else { return true };
        let Some((index, entropy)) = Self::spare(&mut self.slots, entry.worker, outside) else {
            self.counters.no_slot += 1;
            return false;
        };
        let jitter = outside.jitter(limits.jitter_max);
        entry.machine(listener, limits).timeout(now, jitter);
        let wall_clock = outside.wall_clock();
        self.carry_out((peer, listener), None, index, entropy, wall_clock, now);
        self.give_back(index);
        true
    }

    /// A peer with a persistent keepalive and a known endpoint has a session, or asks for one.
    fn connect_if_kept(&mut self, peer: u32, now: Time, outside: &mut impl Outside) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let at = entry.initiates_at(&self.listeners);
        let listener = self.listeners.iter().find(|listener| Some(listener.public) == at);
        let kept = entry.setup.keepalive.is_some() && entry.target(0).is_some();
        let idle = entry.sessions == 0 && entry.deadline().is_none();
        if let Some(listener) = listener
            && kept
            && idle
            && entry.wanted_at.is_none()
            && self.slots.has_room()
        {
            // Spread: a gateway that starts must not greet all its peers in one millisecond.
            let jitter = outside.jitter(listener.setup.limits.jitter_max);
            entry.wanted_at = Some(now.plus(jitter));
        }
        self.set_timer(peer, None);
    }

    /// Drains the machine of one peer at one listener. `index` and `entropy` are for the one
    /// initiation that a want or a timeout may lead to; a received message leads to none.
    fn carry_out(
        &mut self,
        (peer, at): (u32, PublicKey),
        from: Option<&Endpoint>,
        index: SessionIndex,
        entropy: [u8; 32],
        wall_clock: Duration,
        now: Time,
    ) {
        let listener = self.listeners.iter().find(|listener| listener.public == at);
        let Some(ListenerSetup { private, udp_port, terms, .. }) =
            listener.map(|listener| &listener.setup)
        else {
            return;
        };
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let target = entry.target(*udp_port);
        let (public, keepalive) = (entry.setup.public_key, entry.setup.keepalive);
        let mut initiated = false;
        while let Some(machine) = entry.known_machine(&at) {
            let label = Tai64n::from_unix(wall_clock);
            let fresh = || Fresh { local_index: index.0, timestamp: label, entropy };
            let Some(action) = machine.poll(private, now, fresh) else { break };
            match action {
                Action::Session(keys) => {
                    self.pending.remove(&keys.local_index);
                    let Some(from) = from else { continue };
                    initiated = keys.role == Role::Initiator;
                    match keys.role {
                        Role::Initiator => self.counters.sessions_initiator += 1,
                        Role::Responder => self.counters.sessions_responder += 1,
                    }
                    entry.sessions += 1;
                    let heard = Some((from.remote, from.local));
                    let held = Held { peer, heard, listener: Some(at) };
                    self.sessions.insert(SessionIndex(keys.local_index), held);
                    let session = session((peer, at), &keys, *from, *terms);
                    self.outcomes.push_back(Outcome::Session(public, session));
                }
                Action::Send(message) => {
                    if matches!(message, Message::Initiation(_)) {
                        self.counters.initiations_sent += 1;
                        self.pending.insert(index.0, (peer, at));
                    }
                    let route = from.map(|from| (from.remote, Some(from.local)));
                    if let Some((remote, local)) = route.or(target) {
                        let (bytes, udp_port) = (message.as_bytes().to_vec(), *udp_port);
                        let datagram = Datagram { remote, local, udp_port, bytes };
                        self.outcomes.push_back(Outcome::Datagram(datagram));
                    }
                }
                Action::Retired(index) => {
                    self.pending.remove(&index);
                    self.slots.release(SessionIndex(index));
                }
                Action::GiveUp => {
                    self.counters.given_up += 1;
                    self.outcomes.push_back(Outcome::Unanswered(public));
                    entry.wanted_at = keepalive.map(|pause| now.plus(pause));
                }
            }
        }
        // Whoever answers one of our keys has a session: the others need not be tried any more.
        let free = if initiated { entry.settle(Some(&at)) } else { vec![] };
        self.forget_pending(free);
        self.set_timer(peer, None);
    }

    /// Nobody waits for these any more.
    fn forget_pending(&mut self, indices: Vec<u32>) {
        for index in indices {
            self.pending.remove(&index);
            self.slots.release(SessionIndex(index));
        }
    }

    fn limits_of(&self, listener: &PublicKey) -> Option<Limits> {
        let found = self.listeners.iter().find(|known| known.public == *listener);
        found.map(|listener| listener.setup.limits)
    }

    /// An index and the randomness of a handshake; neither without the other.
    fn spare(
        slots: &mut Slots,
        worker: u8,
        outside: &mut impl Outside,
    ) -> Option<(SessionIndex, [u8; 32])> {
        let entropy = outside.entropy()?;
        Some((slots.take(worker)?, entropy))
    }

    /// Releases an index that no initiation has used.
    fn give_back(&mut self, index: SessionIndex) {
        if !self.pending.contains_key(&index.0) {
            self.slots.release(index);
        }
    }

    /// Puts the peer into the line of timers: at `at`, or when one of its machines says.
    fn set_timer(&mut self, peer: u32, at: Option<Time>) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if let Some(due) = entry.due.take() {
            self.timers.remove(&(due, peer));
        }
        let own = [entry.deadline(), entry.wanted_at].into_iter().flatten().min();
        entry.due = at.or(own);
        self.timers.extend(entry.due.map(|due| (due, peer)));
    }
}

fn word_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
