//! One peer with its machines: one for each listener that it has been met at.
//!
//! ```text
//!   Entry ─┬─ machines[key of today]      each with its own initiation under way
//!          ├─ machines[key of tomorrow]
//!          └─ speaks_at ─▶ one of them    where it authenticated last: there we initiate
//! ```
//!
//! INVARIANT: timestamps are the peer's, not the listener's: an initiation is accepted once, at one
//! of them, and all that the peer made before are refused at every one.

use super::*;
use bulkhead_wg::{Known, Responder};

/// A listener with what reads initiations that are addressed to it.
pub(super) struct Listening {
    pub(super) public: PublicKey,
    pub(super) setup: ListenerSetup,
    pub(super) responder: Arc<Responder>,
}

impl Listening {
    /// `hash_key` is fresh and random; `peers` are those that it accepts, with their indices.
    pub(super) fn new(
        setup: ListenerSetup,
        public: PublicKey,
        hash_key: [u8; 32],
        peers: &[(PublicKey, u32)],
    ) -> Self {
        let responder = Responder::knowing(&setup.private, Known::new(hash_key, peers));
        Self { public, setup, responder: Arc::new(responder) }
    }
}

/// A peer.
pub(super) struct Entry {
    pub(super) setup: PeerSetup,
    /// By the listener's public key; made when first needed.
    machines: BTreeMap<PublicKey, Peer>,
    /// The listener of its last authenticated handshake.
    pub(super) speaks_at: Option<PublicKey>,
    /// Where it was proven to be last: its address, and ours.
    pub(super) route: Option<(SocketAddr, SocketAddr)>,
    /// Where its last initiation came from, of which nothing is proven yet: whoever recorded it can
    /// send it from anywhere.
    pub(super) heard: Option<(SocketAddr, SocketAddr)>,
    /// The worker of its last session.
    pub(super) worker: u8,
    /// Sessions with it that the datapath has.
    pub(super) sessions: u32,
    /// When a peer that is kept connected is tried again.
    pub(super) wanted_at: Option<Time>,
    /// Its place in the line of timers.
    pub(super) due: Option<Time>,
    /// Which timestamps were accepted of it.
    pub(super) freshness: Freshness,
}

impl Entry {
    pub(super) fn new(setup: PeerSetup, freshness: Freshness) -> Self {
        Self {
            setup,
            machines: BTreeMap::new(),
            speaks_at: None,
            route: None,
            heard: None,
            worker: 0,
            sessions: 0,
            wanted_at: None,
            due: None,
            freshness,
        }
    }

    /// Takes another description of the same peer, under these listeners. Returns the indices of
    /// initiations that are given up because their listener is gone or has other timers.
    pub(super) fn renew(&mut self, setup: PeerSetup, listeners: &[Listening]) -> Vec<u32> {
        self.setup = setup;
        self.due = None;
        let (mut kept, mut forgotten) = (BTreeMap::new(), vec![]);
        for (public, mut machine) in std::mem::take(&mut self.machines) {
            let listener = listeners.iter().find(|listener| listener.public == public);
            match listener.filter(|_| self.accepted_at(&public)) {
                Some(listener) => {
                    machine.set_preshared_key(self.setup.preshared_key.clone());
                    forgotten.extend(machine.set_limits(listener.setup.limits));
                    kept.insert(public, machine);
                }
                None => forgotten.extend(machine.pending_index()),
            }
        }
        self.machines = kept;
        let there = |public: &PublicKey| listeners.iter().any(|other| other.public == *public);
        self.speaks_at = self.speaks_at.filter(|public| there(public) && self.accepted_at(public));
        forgotten
    }

    /// Whether the listener with this key accepts the peer.
    pub(super) fn accepted_at(&self, listener: &PublicKey) -> bool {
        self.setup.listener.is_none_or(|only| only == *listener)
    }

    /// The listener that we initiate from: where the peer spoke last, else its own, else the first.
    pub(super) fn initiates_at(&self, listeners: &[Listening]) -> Option<PublicKey> {
        let first = || listeners.first().map(|listener| listener.public);
        self.speaks_at.or(self.setup.listener).or_else(first)
    }

    /// The machine of a listener.
    pub(super) fn machine(&mut self, listener: PublicKey, limits: Limits) -> &mut Peer {
        let setup = &self.setup;
        self.machines
            .entry(listener)
            .or_insert_with(|| Peer::new(setup.public_key, setup.preshared_key.clone(), limits))
    }

    /// The machine of a listener, if it is there.
    pub(super) fn known_machine(&mut self, listener: &PublicKey) -> Option<&mut Peer> {
        self.machines.get_mut(listener)
    }

    /// Listeners whose machines have something to do at `now`.
    pub(super) fn due_machines(&self, now: Time) -> Vec<PublicKey> {
        let due = |machine: &Peer| machine.deadline().is_some_and(|deadline| deadline <= now);
        self.machines.iter().filter(|(_, machine)| due(machine)).map(|(key, _)| *key).collect()
    }

    /// When the first machine has something to do.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.machines.values().filter_map(Peer::deadline).min()
    }

    /// Indices of initiations that wait for their response.
    pub(super) fn pending_indices(&self) -> Vec<u32> {
        self.machines.values().filter_map(Peer::pending_index).collect()
    }

    /// A session is there: nothing is asked for any more, except by the machine of `except`, which
    /// knows it already. Returns the indices that are free again.
    pub(super) fn settle(&mut self, except: Option<&PublicKey>) -> Vec<u32> {
        let mut free = vec![];
        for (_, machine) in self.machines.iter_mut().filter(|(key, _)| Some(*key) != except) {
            free.extend(machine.pending_index());
            machine.confirmed();
            machine.discard();
        }
        free
    }

    /// Where an initiation of this listener would go, and from where.
    pub(super) fn target(&self, udp_port: u16) -> Option<(SocketAddr, Option<SocketAddr>)> {
        // An address of ours is kept as it is: the peer's firewall knows it. Not its port, if the
        // listener has another.
        let ours = |local: SocketAddr| Some(local).filter(|local| local.port() == udp_port);
        let seen = |(remote, local)| (remote, ours(local));
        let configured = || self.setup.endpoint.map(|remote| (remote, None));
        self.route.map(seen).or_else(configured).or_else(|| self.heard.map(seen))
    }
}
