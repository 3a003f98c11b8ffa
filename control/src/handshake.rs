//! All handshakes of the gateway: the static key, one [`Peer`] machine for each peer, the indices
//! of sessions to come. Sans-IO: messages, time and randomness are arguments, what to do are
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
//! peer's first data packet finds them. An initiation is answered only if its timestamp is greater
//! than any that this process, or one before it, has accepted of the peer.
//!
//! Strangers are counted and get no answer: MAC1 was right, which anyone who knows our public key
//! can do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::slots::Slots;
use bulkhead_link::{Endpoint, Session, SessionIndex, SessionKeys, SessionStatus};
use bulkhead_wg::peer::{Action, Fresh, Message};
use bulkhead_wg::{
    HandshakeError, Limits, Peer, PresharedKey, PrivateKey, PublicKey, Responder, Role, Tai64n,
    Time, TransportKeys,
};

mod counters;
mod outcome;
mod outside;

pub use counters::HandshakeCounters;
pub use outcome::{Datagram, Outcome};
pub use outside::Outside;

/// How long a peer waits for a free session slot before it asks again.
const NO_SLOT_PAUSE: Duration = Duration::from_secs(1);

/// A peer as the configuration describes it, with its index in the datapath.
#[derive(Clone, Debug)]
pub struct PeerSetup {
    /// Its identity.
    pub public_key: PublicKey,
    /// Its index.
    pub index: u32,
    /// All zero: none.
    pub preshared_key: PresharedKey,
    /// Where to find it before it has spoken.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive: the peer is kept connected even without traffic.
    pub keepalive: Option<Duration>,
}

/// All peers' handshakes.
pub struct Handshakes {
    identity: Option<(PrivateKey, Responder)>,
    limits: Limits,
    peers: BTreeMap<PublicKey, Entry>,
    by_index: BTreeMap<u32, PublicKey>,
    slots: Slots,
    workers: u8,
    sessions: BTreeMap<SessionIndex, PublicKey>,
    pending: BTreeMap<u32, PublicKey>,
    greatest: BTreeMap<PublicKey, Tai64n>,
    timers: BTreeSet<(Time, PublicKey)>,
    counters: HandshakeCounters,
    outcomes: VecDeque<Outcome>,
}

struct Entry {
    machine: Peer,
    setup: PeerSetup,
    /// How it was reached last.
    route: Option<(SocketAddr, SocketAddr)>,
    /// The worker of its last session.
    worker: u8,
    /// Sessions with it that the datapath has.
    sessions: u32,
    /// When a peer that is kept connected is tried again.
    wanted_at: Option<Time>,
    /// Its place in `timers`.
    due: Option<Time>,
}

impl Handshakes {
    /// No key, no peers. `greatest` are the timestamps that earlier processes accepted.
    #[must_use]
    pub fn new(greatest: BTreeMap<PublicKey, Tai64n>) -> Self {
        Self {
            identity: None,
            limits: Limits::default(),
            peers: BTreeMap::new(),
            by_index: BTreeMap::new(),
            slots: Slots::default(),
            workers: 1,
            sessions: BTreeMap::new(),
            pending: BTreeMap::new(),
            greatest,
            timers: BTreeSet::new(),
            counters: HandshakeCounters::default(),
            outcomes: VecDeque::new(),
        }
    }

    /// Takes the gateway's key, and the peers instead of those before. What is known about a peer
    /// that stays, stays.
    pub fn set_peers(
        &mut self,
        private: &PrivateKey,
        limits: Limits,
        peers: Vec<PeerSetup>,
        now: Time,
        outside: &mut impl Outside,
    ) {
        let same_key = self.identity.as_ref().is_some_and(|(known, _)| known == private);
        let same = same_key && self.limits == limits;
        if !same {
            self.identity = Some((private.clone(), Responder::new(private)));
            self.limits = limits;
        }
        let mut before = std::mem::take(&mut self.peers);
        self.timers.clear();
        self.by_index.clear();
        for setup in peers {
            let public = setup.public_key;
            let psk = setup.preshared_key.clone();
            let entry = match before.remove(&public) {
                Some(mut entry) if same => {
                    entry.machine.set_preshared_key(psk);
                    entry.due = None;
                    Entry { setup, ..entry }
                }
                other => {
                    // Machines of another key or other timers cannot go on; routes can.
                    let known = other.as_ref();
                    let fresh = Entry {
                        machine: Peer::new(public, psk, limits),
                        setup,
                        route: known.and_then(|entry| entry.route),
                        worker: known.map_or(0, |entry| entry.worker),
                        sessions: known.map_or(0, |entry| entry.sessions),
                        wanted_at: None,
                        due: None,
                    };
                    self.forget_pending(other.as_ref());
                    fresh
                }
            };
            self.by_index.insert(entry.setup.index, public);
            self.peers.insert(public, entry);
        }
        for gone in before.into_values() {
            self.forget_pending(Some(&gone));
        }
        let all: Vec<PublicKey> = self.peers.keys().copied().collect();
        for public in all {
            self.connect_if_kept(public, now, outside);
        }
    }

    /// A datapath is there, with these sessions. What was known of sessions before is void; a peer
    /// that had one and has none now is asked for a new one at once, because it does not know yet
    /// that its packets go nowhere.
    pub fn adopt(
        &mut self,
        sessions_max: u32,
        workers: u8,
        adopted: &[SessionStatus],
        now: Time,
        outside: &mut impl Outside,
    ) {
        self.slots = Slots::new(sessions_max);
        self.workers = workers.max(1);
        self.sessions.clear();
        self.pending.clear();
        let mut had = BTreeSet::new();
        for (public, entry) in &mut self.peers {
            if std::mem::take(&mut entry.sessions) > 0 {
                had.insert(*public);
            }
            entry.machine.confirmed();
        }
        for session in adopted {
            // A session of a peer that is not ours any more keeps its slot until it is retired.
            self.slots.reserve(session.index);
            let Some(public) = self.by_index.get(&session.peer) else { continue };
            let Some(entry) = self.peers.get_mut(public) else { continue };
            entry.sessions += 1;
            entry.worker = u8::try_from(session.index.worker()).unwrap_or(0);
            if let Some(endpoint) = &session.endpoint {
                entry.route = Some((endpoint.remote, endpoint.local));
            }
            self.sessions.insert(session.index, *public);
        }
        let all: Vec<PublicKey> = self.peers.keys().copied().collect();
        for public in all {
            // Takes what `confirmed` left: the index of an initiation under the old datapath, which
            // means nothing to the new one.
            self.discard_retired(public, now);
            let alone = self.peers.get(&public).is_some_and(|entry| entry.sessions == 0);
            if alone && had.contains(&public) {
                self.want(public, now, outside);
            } else {
                self.connect_if_kept(public, now, outside);
            }
        }
    }

    /// A handshake message from the datapath.
    pub fn datagram(
        &mut self,
        worker: u8,
        from: &Endpoint,
        message: &[u8],
        now: Time,
        outside: &mut impl Outside,
    ) {
        self.counters.messages += 1;
        let result = match message.first() {
            Some(1) => self.initiation(worker, from, message, now, outside),
            Some(2) => self.response(from, message, now, outside),
            Some(3) => self.cookie_reply(message, now),
            Some(_) | None => Err(HandshakeError::Malformed),
        };
        if let Err(error) = result {
            self.counters.refused(error);
        }
    }

    /// The datapath wants a session with a peer.
    pub fn session_wanted(&mut self, peer: u32, now: Time, outside: &mut impl Outside) {
        if let Some(public) = self.by_index.get(&peer).copied() {
            self.want(public, now, outside);
        }
    }

    /// A session of the datapath ended.
    pub fn session_retired(&mut self, index: SessionIndex, now: Time, outside: &mut impl Outside) {
        self.slots.release(index);
        let Some(public) = self.sessions.remove(&index) else { return };
        if let Some(entry) = self.peers.get_mut(&public) {
            entry.sessions = entry.sessions.saturating_sub(1);
            self.connect_if_kept(public, now, outside);
        }
    }

    /// Time has passed. Calling early, late or twice is harmless.
    pub fn timeout(&mut self, now: Time, outside: &mut impl Outside) {
        while let Some((due, public)) = self.timers.first().copied()
            && due <= now
        {
            self.timers.pop_first();
            let jitter = outside.jitter(self.limits.jitter_max);
            let Some(entry) = self.peers.get_mut(&public) else { continue };
            entry.due = None;
            let spare = Self::spare(&mut self.slots, entry.worker, outside);
            let Some((index, entropy)) = spare else {
                self.counters.no_slot += 1;
                self.set_timer(public, Some(now.plus(NO_SLOT_PAUSE)));
                continue;
            };
            if entry.wanted_at.is_some_and(|at| at <= now) {
                entry.wanted_at = None;
                entry.machine.want_session(now, jitter);
            }
            entry.machine.timeout(now, jitter);
            let wall_clock = outside.wall_clock();
            self.carry_out(public, None, index, entropy, wall_clock, now);
            self.give_back(index);
            self.connect_if_kept(public, now, outside);
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
        from: &Endpoint,
        message: &[u8],
        now: Time,
        outside: &mut impl Outside,
    ) -> Result<(), HandshakeError> {
        let (_, responder) = self.identity.as_ref().ok_or(HandshakeError::WrongPeer)?;
        let initiation = responder.consume(message)?;
        let (public, timestamp) = (initiation.peer, initiation.timestamp);
        let entry = self.peers.get_mut(&public).ok_or(HandshakeError::WrongPeer)?;
        if self.greatest.get(&public).is_some_and(|greatest| timestamp <= *greatest) {
            return Err(HandshakeError::Replayed);
        }
        // A worker that the datapath does not have would make an index that it refuses.
        let worker = worker.min(self.workers - 1);
        let Some((index, entropy)) = Self::spare(&mut self.slots, worker, outside) else {
            self.counters.no_slot += 1;
            return Ok(());
        };
        if let Err(refused) = entry.machine.initiation(initiation, index.0, &entropy, now) {
            self.slots.release(index);
            return Err(refused);
        }
        entry.route = Some((from.remote, from.local));
        entry.worker = worker;
        self.greatest.insert(public, timestamp);
        self.outcomes.push_back(Outcome::Accepted(public, timestamp));
        let wall_clock = outside.wall_clock();
        self.carry_out(public, Some(from), index, entropy, wall_clock, now);
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
        let (public, entry) = self.awaiting(receiver)?;
        entry.machine.response(message)?;
        entry.route = Some((from.remote, from.local));
        // Not used: nothing of what a response leads to is an initiation.
        let entropy = outside.entropy().unwrap_or_default();
        let wall_clock = outside.wall_clock();
        self.carry_out(public, Some(from), SessionIndex(receiver), entropy, wall_clock, now);
        Ok(())
    }

    fn cookie_reply(&mut self, message: &[u8], now: Time) -> Result<(), HandshakeError> {
        let receiver = word_at(message, 4).ok_or(HandshakeError::Malformed)?;
        self.awaiting(receiver)?.1.machine.cookie_reply(message, now)
    }

    fn awaiting(&mut self, receiver: u32) -> Result<(PublicKey, &mut Entry), HandshakeError> {
        let unknown = HandshakeError::UnknownReceiver;
        let public = *self.pending.get(&receiver).ok_or(unknown)?;
        Ok((public, self.peers.get_mut(&public).ok_or(unknown)?))
    }

    fn want(&mut self, public: PublicKey, now: Time, outside: &mut impl Outside) {
        let Some(entry) = self.peers.get_mut(&public) else { return };
        if entry.target().is_none() {
            self.counters.no_endpoint += 1;
            return;
        }
        let Some((index, entropy)) = Self::spare(&mut self.slots, entry.worker, outside) else {
            self.counters.no_slot += 1;
            return;
        };
        entry.machine.want_session(now, outside.jitter(self.limits.jitter_max));
        let wall_clock = outside.wall_clock();
        self.carry_out(public, None, index, entropy, wall_clock, now);
        self.give_back(index);
    }

    /// A peer with a persistent keepalive and a known endpoint has a session, or asks for one.
    fn connect_if_kept(&mut self, public: PublicKey, now: Time, outside: &mut impl Outside) {
        let Some(entry) = self.peers.get_mut(&public) else { return };
        let kept = entry.setup.keepalive.is_some() && entry.target().is_some();
        let idle = entry.sessions == 0 && entry.machine.deadline().is_none();
        if kept && idle && entry.wanted_at.is_none() && self.slots.has_room() {
            // Spread: a gateway that starts must not greet all its peers in one millisecond.
            entry.wanted_at = Some(now.plus(outside.jitter(self.limits.jitter_max)));
        }
        self.set_timer(public, None);
    }

    /// Drains the machine of one peer. `index` and `entropy` are for the one initiation that a
    /// want or a timeout may lead to; a received message leads to none.
    fn carry_out(
        &mut self,
        public: PublicKey,
        from: Option<&Endpoint>,
        index: SessionIndex,
        entropy: [u8; 32],
        wall_clock: Duration,
        now: Time,
    ) {
        let Some((private, _)) = &self.identity else { return };
        let Some(entry) = self.peers.get_mut(&public) else { return };
        let fresh =
            || Fresh { local_index: index.0, timestamp: Tai64n::from_unix(wall_clock), entropy };
        while let Some(action) = entry.machine.poll(private, now, fresh) {
            match action {
                Action::Session(keys) => {
                    self.pending.remove(&keys.local_index);
                    let Some(from) = from else { continue };
                    match keys.role {
                        Role::Initiator => self.counters.sessions_initiator += 1,
                        Role::Responder => self.counters.sessions_responder += 1,
                    }
                    entry.sessions += 1;
                    self.sessions.insert(SessionIndex(keys.local_index), public);
                    let session = session(entry.setup.index, &keys, *from);
                    self.outcomes.push_back(Outcome::Session(public, session));
                }
                Action::Send(message) => {
                    if matches!(message, Message::Initiation(_)) {
                        self.counters.initiations_sent += 1;
                        self.pending.insert(index.0, public);
                    }
                    let route = from.map(|from| (from.remote, Some(from.local)));
                    if let Some((remote, local)) = route.or_else(|| entry.target()) {
                        let bytes = message.as_bytes().to_vec();
                        let datagram = Datagram { remote, local, bytes };
                        self.outcomes.push_back(Outcome::Datagram(datagram));
                    }
                }
                Action::Retired(index) => {
                    self.pending.remove(&index);
                    self.slots.release(SessionIndex(index));
                }
                Action::GiveUp => {
                    self.counters.given_up += 1;
                    entry.wanted_at = entry.setup.keepalive.map(|pause| now.plus(pause));
                }
            }
        }
        self.set_timer(public, None);
    }

    /// After [`Peer::confirmed`]: takes the retired index out of the machine and drops it.
    fn discard_retired(&mut self, public: PublicKey, now: Time) {
        let Some((private, _)) = &self.identity else { return };
        let Some(entry) = self.peers.get_mut(&public) else { return };
        let nothing = || Fresh { local_index: 0, timestamp: Tai64n::default(), entropy: [0; 32] };
        // `confirmed` has emptied the schedule, so no initiation is built here.
        while entry.machine.poll(private, now, nothing).is_some() {}
        self.set_timer(public, None);
    }

    fn forget_pending(&mut self, entry: Option<&Entry>) {
        if let Some(index) = entry.and_then(|entry| entry.machine.pending_index()) {
            self.pending.remove(&index);
            self.slots.release(SessionIndex(index));
        }
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

    /// Puts the peer into the line of timers: at `at`, or when its machine says.
    fn set_timer(&mut self, public: PublicKey, at: Option<Time>) {
        let Some(entry) = self.peers.get_mut(&public) else { return };
        if let Some(due) = entry.due.take() {
            self.timers.remove(&(due, public));
        }
        let own = [entry.machine.deadline(), entry.wanted_at].into_iter().flatten().min();
        entry.due = at.or(own);
        self.timers.extend(entry.due.map(|due| (due, public)));
    }
}

impl Entry {
    /// Where an initiation would go.
    fn target(&self) -> Option<(SocketAddr, Option<SocketAddr>)> {
        let known = self.route.map(|(remote, local)| (remote, Some(local)));
        known.or_else(|| self.setup.endpoint.map(|remote| (remote, None)))
    }
}

fn session(peer: u32, keys: &TransportKeys, endpoint: Endpoint) -> Session {
    Session {
        peer,
        index: SessionIndex(keys.local_index),
        remote_index: keys.remote_index,
        initiator: keys.role == Role::Initiator,
        endpoint,
        keys: SessionKeys { send: keys.send, receive: keys.receive },
    }
}

fn word_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
