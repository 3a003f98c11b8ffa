//! What handshakes are told from outside: the gateway's keys, who may connect, what the datapath has.

use super::entry::{Entry, Listening};
use super::*;

/// A listener as the configuration describes it.
#[derive(Clone, Debug)]
pub struct ListenerSetup {
    /// The key of the gateway's there; no other listener has it.
    pub private: PrivateKey,
    /// The UDP port.
    pub udp_port: u16,
    /// The protocol's limits.
    pub limits: Limits,
    /// What its sessions are run by; travels with them.
    pub terms: Terms,
}

/// A peer as the configuration describes it, with its index in the datapath.
#[derive(Clone, Debug)]
pub struct PeerSetup {
    /// Its identity.
    pub public_key: PublicKey,
    /// Its index; no other peer has it.
    pub index: u32,
    /// All zero: none.
    pub preshared_key: PresharedKey,
    /// Public key of the only listener that accepts it; `None`: all do.
    pub listener: Option<PublicKey>,
    /// Where to find it before it has spoken.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive: the peer is kept connected even without traffic.
    pub keepalive: Option<Duration>,
}

impl Handshakes {
    /// Takes these listeners and peers instead of those before. What is known about a peer or a
    /// listener that stays, stays: a gateway's key can be changed under handshakes with the others.
    pub fn set_peers(
        &mut self,
        listeners: Vec<ListenerSetup>,
        peers: Vec<PeerSetup>,
        now: Time,
        outside: &mut impl Outside,
    ) {
        let old = std::mem::take(&mut self.peers).into_values();
        let mut before: BTreeMap<PublicKey, Entry> =
            old.map(|entry| (entry.setup.public_key, entry)).collect();
        let mut moved = BTreeSet::new();
        self.timers.clear();
        self.listen(listeners, &peers, outside);
        for setup in peers {
            let index = setup.index;
            let entry = match before.remove(&setup.public_key) {
                Some(mut entry) => {
                    // Under another index, what the datapath says of it is about somebody else.
                    if entry.setup.index != index {
                        moved.insert(entry.setup.index);
                        entry.sessions = 0;
                    }
                    let forgotten = entry.renew(setup, &self.listeners);
                    self.forget_pending(forgotten);
                    entry
                }
                None => {
                    let accepted = self.accepted.remove(&setup.public_key).unwrap_or_default();
                    Entry::new(setup, accepted)
                }
            };
            self.peers.insert(index, entry);
        }
        for gone in before.into_values() {
            self.forget_pending(gone.pending_indices());
            moved.insert(gone.setup.index);
            self.accepted.insert(gone.setup.public_key, gone.freshness);
        }
        // Their indices may be others' by now.
        self.sessions.retain(|_, held| !moved.contains(&held.peer));
        let all: Vec<u32> = self.peers.keys().copied().collect();
        for peer in all {
            self.connect_if_kept(peer, now, outside);
        }
    }

    /// The name of this peer's endpoint stands for another address than before. A peer without a
    /// session is looked for there, wherever it was last.
    pub fn endpoint_found(
        &mut self,
        public: &PublicKey,
        endpoint: SocketAddr,
        now: Time,
        outside: &mut impl Outside,
    ) {
        let found = self.peers.iter_mut().find(|(_, entry)| entry.setup.public_key == *public);
        let Some((peer, entry)) = found else { return };
        let peer = *peer;
        entry.setup.endpoint = Some(endpoint);
        if entry.sessions == 0 {
            entry.route = None;
        }
        self.connect_if_kept(peer, now, outside);
    }

    fn listen(
        &mut self,
        listeners: Vec<ListenerSetup>,
        peers: &[PeerSetup],
        outside: &mut impl Outside,
    ) {
        self.listeners = listeners
            .into_iter()
            .filter_map(|setup| {
                let public = setup.private.public_key();
                let accepted: Vec<_> = peers
                    .iter()
                    .filter(|peer| peer.listener.is_none_or(|only| only == public))
                    .map(|peer| (peer.public_key, peer.index))
                    .collect();
                // Without randomness nothing is listened to: closed, and asked again by the next apply.
                let hash_key = outside.entropy()?;
                Some(Listening::new(setup, public, hash_key, &accepted))
            })
            .collect();
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
        for (peer, entry) in &mut self.peers {
            if std::mem::take(&mut entry.sessions) > 0 {
                had.insert(*peer);
            }
            // The index of an initiation under the old datapath means nothing to the new one.
            drop(entry.settle(None));
        }
        for session in adopted {
            // A session of a peer that is not ours any more keeps its slot until it is retired.
            self.slots.reserve(session.index);
            let Some(entry) = self.peers.get_mut(&session.peer) else { continue };
            entry.sessions += 1;
            entry.worker = u8::try_from(session.index.worker()).unwrap_or(0);
            if let Some(endpoint) = &session.endpoint {
                entry.route = Some((endpoint.remote, endpoint.local));
            }
            let heard = session.endpoint.map(|place| (place.remote, place.local));
            let held = Held { peer: session.peer, heard, listener: None };
            self.sessions.insert(session.index, held);
        }
        let all: Vec<u32> = self.peers.keys().copied().collect();
        for peer in all {
            self.set_timer(peer, None);
            let alone = self.peers.get(&peer).is_some_and(|entry| entry.sessions == 0);
            if alone && had.contains(&peer) {
                self.want(peer, now, outside);
            } else {
                self.connect_if_kept(peer, now, outside);
            }
        }
    }
}
