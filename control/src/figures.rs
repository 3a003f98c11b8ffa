//! What is known of every device at one moment: the datapath's figures beside the intent that they
//! belong to. The command line and the userspace API socket both show it, each in its own form.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_link::{Counted, Peer, PeerPast, SessionStatus};
use bulkhead_wg::PublicKey;

use crate::api::{LossAnswer, PeerAnswer, PeersAnswer};
use crate::intent::{Device, Intent};

/// All devices, and what they did.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Whose devices these are.
    pub intent: Arc<Intent>,
    /// One for each of [`Intent::devices`], in the same order.
    pub peers: Vec<PeerFigures>,
}

/// What one device did. The default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFigures {
    /// Where it is, or where it is expected.
    pub endpoint: Option<SocketAddr>,
    /// Since its last handshake, also of a session that has ended.
    pub handshake_age: Option<Duration>,
    /// Since the handshake of the newest session that lives.
    pub session_age: Option<Duration>,
    /// Since its last authenticated packet, of a session that lives.
    pub silent_for: Option<Duration>,
    /// Inner packets and bytes received since the datapath started.
    pub received: Counted,
    /// Inner packets and bytes sent since the datapath started.
    pub sent: Counted,
    /// Messages accepted under the sessions that live.
    pub accepted: u64,
    /// Messages that the peer had sealed for them by the latest that was accepted.
    pub expected: u64,
    /// The worker that opens its packets.
    pub worker: Option<u8>,
    /// Public key of the listener that the newest session that lives was made with.
    pub listener: Option<PublicKey>,
}

impl Figures {
    /// Puts together what the datapath said. `announced` knows the index of every peer that it has.
    #[must_use]
    pub fn new(
        intent: Arc<Intent>,
        announced: &BTreeMap<PublicKey, Peer>,
        sessions: &[SessionStatus],
        past: &[PeerPast],
    ) -> Self {
        let mut of_index: BTreeMap<u32, PeerFigures> = BTreeMap::new();
        for gone in past {
            let figures = of_index.entry(gone.peer).or_default();
            figures.handshake_age = Some(gone.handshake_age);
            figures.received.add(gone.received);
            figures.sent.add(gone.sent);
        }
        for session in sessions {
            of_index.entry(session.peer).or_default().add(session);
        }
        let peer = |device: &Device| {
            let index = announced.get(&device.public_key).map(|peer| peer.index);
            let mut figures = index.and_then(|index| of_index.remove(&index)).unwrap_or_default();
            figures.endpoint = figures.endpoint.or(device.endpoint);
            figures
        };
        let peers = intent.devices.iter().map(peer).collect();
        Self { intent, peers }
    }

    /// In the form of the local API.
    #[must_use]
    pub fn answer(&self) -> PeersAnswer {
        let listeners = self.intent.listeners.iter();
        let names = listeners.map(|one| (one.private.public_key(), one.name.as_str())).collect();
        let peers = self.intent.devices.iter().zip(&self.peers);
        PeersAnswer {
            peers: peers.map(|(device, figures)| figures.answer(device, &names)).collect(),
        }
    }
}

impl PeerFigures {
    fn add(&mut self, session: &SessionStatus) {
        let newer = self.session_age.is_none_or(|age| session.age < age);
        if newer {
            self.session_age = Some(session.age);
            self.listener = Some(PublicKey(session.listener));
            self.worker = u8::try_from(session.index.worker()).ok();
            self.endpoint = session.endpoint.as_ref().map(|place| place.remote).or(self.endpoint);
        }
        self.handshake_age = least(self.handshake_age, Some(session.age));
        self.silent_for = least(self.silent_for, session.silent_for);
        self.received.add(session.received);
        self.sent.add(session.sent);
        self.accepted = self.accepted.saturating_add(session.accepted);
        self.expected = self.expected.saturating_add(session.expected);
    }

    fn answer(&self, device: &Device, names: &BTreeMap<PublicKey, &str>) -> PeerAnswer {
        let listener = self.listener.map(|key| {
            names.get(&key).map_or_else(|| format!("(gone) {key}"), |name| (*name).to_owned())
        });
        PeerAnswer {
            name: device.name.clone(),
            user: device.user.clone(),
            public_key: device.public_key.to_string(),
            addresses: device.addresses.clone(),
            endpoint: self.endpoint.map(|endpoint| endpoint.to_string()),
            handshake_age_ms: self.handshake_age.map(milliseconds),
            session_age_ms: self.session_age.map(milliseconds),
            silent_ms: self.silent_for.map(milliseconds),
            received_bytes: self.received.bytes,
            received_packets: self.received.packets,
            sent_bytes: self.sent.bytes,
            sent_packets: self.sent.packets,
            loss: (self.expected > 0)
                .then_some(LossAnswer { accepted: self.accepted, expected: self.expected }),
            worker: self.worker,
            listener,
            // Whoever knows the table in force fills them in.
            labels: vec![],
        }
    }
}

fn least(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
