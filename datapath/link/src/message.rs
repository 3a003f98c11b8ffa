//! The messages themselves, and the facts that they carry.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Counted, FlowRecord, FlowSetup, RuleHits, SessionIndex, Status, Terms};

/// Sessions, and peers, that one message about them carries at most: with everything in them at its
/// longest some 300 KB, well below [`crate::MESSAGE_MAX`].
pub const STATUS_PART_MAX: usize = 1_000;

/// What control tells the datapath.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToDatapath {
    /// First message of every connection.
    Hello {
        /// [`crate::VERSION`] of the sender.
        version: u16,
    },
    /// Ports, workers and the first listeners. Accepted once in the life of a datapath; a second,
    /// different one is refused, because queues and pinned threads do not change under way.
    /// Listeners do: see [`Self::Listeners`].
    Configure(Configuration),
    /// The listeners instead of those before; at once, also under traffic. Sessions stay, whatever
    /// key they were made with. What follows on the link is done after it, on every worker.
    Listeners(Vec<Listener>),
    /// A new policy table; the sealed memfd travels with the message.
    Table {
        /// The generation written in the table's header.
        generation: u64,
    },
    /// Gives endpoints of a table other labels, from their next packet on: what conditions such as
    /// posture and time have come to. Answered by [`FromDatapath::Relabelled`] or
    /// [`FromDatapath::RelabelRefused`].
    Relabel {
        /// Comes back in the answer.
        token: u64,
        /// The table that the numbers are of; only the newest is accepted.
        generation: u64,
        /// Endpoint and label, by their numbers in the table.
        labels: Vec<(u32, u16)>,
    },
    /// A peer that may have sessions. Repeating it updates keepalive and, if given, endpoint.
    Peer(Peer),
    /// A peer that is gone: its sessions and keys go with it.
    RemovePeer {
        /// Its index in the table.
        peer: u32,
    },
    /// The keys of a finished handshake.
    Session(Session),
    /// What the kernel knows about a neighbour; `None`: it is gone.
    Neighbour {
        /// Index into [`Configuration::ports`].
        port: u8,
        /// Its address.
        address: IpAddr,
        /// Its hardware address.
        mac: Option<[u8; 6]>,
    },
    /// So many of the handshake messages of this connection are finished: answered, refused or
    /// dropped. What is not finished is the load by which the datapath decides to ask for cookies.
    HandshakesFinished {
        /// Since the last such message.
        count: u32,
    },
    /// Asks for [`FromDatapath::Hits`].
    AskHits {
        /// Comes back in the answer.
        token: u64,
    },
    /// Asks for [`FromDatapath::Status`].
    AskStatus {
        /// Comes back in the answer.
        token: u64,
    },
}

/// What the datapath tells control.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromDatapath {
    /// First message of every connection.
    Hello {
        /// [`crate::VERSION`] of the sender.
        version: u16,
        /// Its process id.
        pid: u32,
        /// The configuration it runs, if it has one.
        configuration: Option<Configuration>,
        /// The generation that every worker has confirmed; 0: none, everything is denied.
        generation: u64,
    },
    /// Part of the greeting: a peer that it has.
    Peer(Peer),
    /// Part of the greeting: a session that it has. Keys stay where they are.
    Session(SessionStatus),
    /// End of the greeting.
    Adopted,
    /// The configuration is in force: sockets are bound, workers run.
    Configured,
    /// The configuration could not be put in force; the reason is for the operator.
    ConfigurationRefused {
        /// What failed, with the name of the port.
        reason: String,
    },
    /// Every worker judges by this generation.
    Confirmed {
        /// Of the table's header.
        generation: u64,
    },
    /// The table was refused; the one before stays in force.
    TableRefused {
        /// As announced.
        generation: u64,
        /// The defect.
        reason: String,
    },
    /// Every packet is judged by the new labels: no worker is still in a batch that it began before.
    Relabelled {
        /// From the question.
        token: u64,
    },
    /// Not all labels could be given. Those that could were; an endpoint whose label the table does not
    /// have may nothing now.
    RelabelRefused {
        /// From the question.
        token: u64,
        /// The first mistake.
        reason: String,
    },
    /// A handshake message (type 1, 2 or 3) whose MAC1 is right.
    Handshake {
        /// The worker that received it: the natural owner of the session to come.
        worker: u8,
        /// [`Listener::public_key`] of the listener whose key MAC1 was made with; `None` for a
        /// cookie reply, which has none. The key and not a position: positions change with
        /// [`ToDatapath::Listeners`], and what is under way must not change its meaning.
        listener: Option<[u8; 32]>,
        /// Where it came from.
        from: Endpoint,
        /// The bytes of the UDP payload.
        message: Vec<u8>,
    },
    /// A packet waits for a session with this peer, or its session is due for renewal.
    SessionWanted {
        /// Its index in the table.
        peer: u32,
    },
    /// A packet waits for this neighbour.
    NeighbourWanted {
        /// Index into [`Configuration::ports`].
        port: u8,
        /// The address to resolve.
        address: IpAddr,
    },
    /// The first packet of a session that the peer initiated has authenticated: the peer holds its
    /// keys, and is where that packet came from.
    SessionConfirmed {
        /// As given in [`Session`].
        index: SessionIndex,
    },
    /// The owning worker has the keys of a session: what is sealed with them from now on is opened.
    SessionInstalled {
        /// As given in [`Session`].
        index: SessionIndex,
    },
    /// A session ended; its index is free.
    SessionRetired {
        /// As given in [`Session`].
        index: SessionIndex,
    },
    /// Answer to [`ToDatapath::AskHits`]: what was counted of each rule that was ever hit.
    Hits {
        /// From the question.
        token: u64,
        /// The datapath's clock: seconds since it started.
        now_s: u32,
        /// Whether another message with the rest follows.
        more: bool,
        /// At most [`crate::HITS_PART_MAX`].
        hits: Vec<RuleHits>,
    },
    /// What became of flows whose rules are logged. Never waited for: what control is too slow for is
    /// lost in the datapath, which counts it; but not what is on its way when control ends.
    Flows {
        /// The datapath's clock, milliseconds: what the times of the records are told by.
        now_ms: u64,
        /// The wall clock at the same moment, milliseconds since 1970.
        wall_ms: u64,
        /// At most [`crate::FLOW_RECORDS_MAX`].
        records: Vec<FlowRecord>,
    },
    /// In front of [`FromDatapath::Status`], as often as needed: sessions and peers that did not
    /// fit one message.
    StatusPart {
        /// From the question.
        token: u64,
        /// At most [`crate::STATUS_PART_MAX`].
        sessions: Vec<SessionStatus>,
        /// At most [`crate::STATUS_PART_MAX`].
        past: Vec<PeerPast>,
    },
    /// Answer to [`ToDatapath::AskStatus`], after its parts.
    Status {
        /// From the question.
        token: u64,
        /// The figures.
        status: Box<Status>,
    },
}

/// How the datapath is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The ports, at most 255. The position is the `PortIndex` of the table.
    pub ports: Vec<PortSetup>,
    /// Workers; each serves every `workers`-th queue of every port. At least one.
    pub workers: u8,
    /// CPUs to pin the workers to, one each; empty: not pinned.
    pub cpus: Vec<u16>,
    /// The WireGuard listeners.
    pub listeners: Vec<Listener>,
    /// The box's own addresses: traffic to them is WireGuard or the kernel's.
    pub addresses: Vec<IpAddr>,
    /// Frames of packet memory for each worker.
    pub frames_per_worker: u32,
    /// Entries of each ring, a power of two.
    pub ring_entries: u32,
    /// Sessions that may exist at once, on all workers together.
    pub sessions_max: u32,
    /// Peers that may exist at once.
    pub peers_max: u32,
    /// Live flows for each worker's cache; the shared registry holds as many per worker.
    pub flows_per_worker: u32,
    /// How flows are treated.
    pub flows: FlowSetup,
}

/// One network port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSetup {
    /// The configuration's name for it.
    pub name: String,
    /// The network device.
    pub device: String,
    /// Queues to serve, `0..queues`.
    pub queues: u16,
    /// Whether plain traffic of a segment arrives here.
    pub segment: bool,
    /// How the XDP program is attached.
    pub attach: AttachMode,
    /// How the sockets are bound.
    pub bind: BindMode,
}

/// How the XDP program is attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachMode {
    /// In the driver if it can, else in the stack.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack: slow, works everywhere.
    Generic,
}

/// How an AF_XDP socket is bound to its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindMode {
    /// Zero-copy if the driver can, else copy.
    Auto,
    /// Zero-copy, or not at all.
    ZeroCopy,
    /// Copy.
    Copy,
}

/// One WireGuard listener. The datapath learns the public key only. Several may share a UDP port;
/// no two have the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// UDP port.
    pub port: u16,
    /// The public key whose MAC1 a stranger would have to know.
    pub public_key: [u8; 32],
    /// Whether nothing is answered by the datapath itself: no cookie replies under load.
    pub dark: bool,
    /// How sessions that are made here are run.
    pub terms: Terms,
}

/// Where a peer's datagrams come from and go to, down to the Ethernet header: answers go back the
/// way that the last authenticated packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The peer's outer address and UDP port.
    pub remote: SocketAddr,
    /// Our outer address and UDP port.
    pub local: SocketAddr,
    /// Index into [`Configuration::ports`].
    pub port: u8,
    /// VLAN of the frame, if tagged.
    pub vlan: Option<u16>,
    /// The neighbour's hardware address.
    pub remote_mac: [u8; 6],
    /// Ours.
    pub local_mac: [u8; 6],
}

/// A peer as the datapath knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its index in the table, and in the datapath's arrays: below `peers_max`.
    pub index: u32,
    /// Its static public key: what the index means.
    pub public_key: [u8; 32],
    /// Persistent keepalive.
    pub keepalive: Option<Duration>,
}

/// The keys of a finished handshake.
#[derive(Debug, Serialize, Deserialize)]
pub struct Session {
    /// The peer that authenticated.
    pub peer: u32,
    /// Our receiver index; names the owning worker.
    pub index: SessionIndex,
    /// The peer's receiver index.
    pub remote_index: u32,
    /// Whether we initiated: only then may we send before we have received (§5.1 of the paper).
    pub initiator: bool,
    /// Where the handshake message came from.
    pub endpoint: Endpoint,
    /// [`Listener::public_key`] of the listener that it was made with.
    pub listener: [u8; 32],
    /// Those of the listener that it was made with.
    pub terms: Terms,
    /// The keys.
    pub keys: SessionKeys,
}

/// Two transport keys, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SessionKeys {
    /// Seals what we send.
    pub send: [u8; 32],
    /// Opens what we receive.
    pub receive: [u8; 32],
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(..)")
    }
}

/// A session, told to a control process that did not make it, or to an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The peer's index.
    pub peer: u32,
    /// Our receiver index.
    pub index: SessionIndex,
    /// [`Listener::public_key`] of the listener that it was made with, which may be gone.
    pub listener: [u8; 32],
    /// Since the handshake.
    pub age: Duration,
    /// Whether we initiated it.
    pub initiator: bool,
    /// Whether the peer has proved that it holds the keys.
    pub confirmed: bool,
    /// Where the peer is now; `None` until it is known.
    pub endpoint: Option<Endpoint>,
    /// Inner packets and bytes received under it.
    pub received: Counted,
    /// Inner packets and bytes sent under it.
    pub sent: Counted,
    /// Since the last authenticated packet; `None`: none yet.
    pub silent_for: Option<Duration>,
    /// Messages received and accepted under it, also those without content.
    pub accepted: u64,
    /// Messages that the peer had sealed when it sealed the latest that was accepted: the greatest
    /// counter and one. What is missing from `accepted` was lost, or is late.
    pub expected: u64,
}

/// What a peer did under sessions that ended since the datapath started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPast {
    /// The peer's index.
    pub peer: u32,
    /// Since the newest handshake of those sessions.
    pub handshake_age: Duration,
    /// Inner packets and bytes received under them.
    pub received: Counted,
    /// Inner packets and bytes sent under them.
    pub sent: Counted,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MESSAGE_MAX;

    /// Everything at its longest in the encoding.
    fn session(index: u32) -> SessionStatus {
        let most = Counted { packets: u64::MAX, bytes: u64::MAX };
        SessionStatus {
            peer: u32::MAX,
            index: SessionIndex(index),
            listener: [255; 32],
            age: Duration::MAX,
            initiator: true,
            confirmed: true,
            endpoint: Some(Endpoint {
                remote: "[ffff::ffff]:65535".parse().unwrap(),
                local: "[ffff::ffff]:65535".parse().unwrap(),
                port: 255,
                vlan: Some(4_095),
                remote_mac: [255; 6],
                local_mac: [255; 6],
            }),
            received: most,
            sent: most,
            silent_for: Some(Duration::MAX),
            accepted: u64::MAX,
            expected: u64::MAX,
        }
    }

    #[test]
    fn a_status_of_20_000_sessions_fits_its_messages_and_loses_none() {
        let most = Counted { packets: u64::MAX, bytes: u64::MAX };
        let gone =
            |peer| PeerPast { peer, handshake_age: Duration::MAX, received: most, sent: most };
        let mut status = Status {
            sessions: (0..20_000).map(session).collect(),
            past: (0..7_000).map(gone).collect(),
            ..Status::default()
        };
        let (mut indices, mut peers, mut longest) = (vec![], vec![], 0);
        while let Some((sessions, past)) = status.take_part() {
            indices.extend(sessions.iter().map(|session| session.index.0));
            peers.extend(past.iter().map(|past| past.peer));
            let part = FromDatapath::StatusPart { token: u64::MAX, sessions, past };
            longest = longest.max(postcard::to_stdvec(&part).unwrap().len());
        }
        indices.extend(status.sessions.iter().map(|session| session.index.0));
        peers.extend(status.past.iter().map(|past| past.peer));
        let last = FromDatapath::Status { token: u64::MAX, status: Box::new(status) };
        longest = longest.max(postcard::to_stdvec(&last).unwrap().len());
        indices.sort_unstable();
        peers.sort_unstable();
        assert!(indices.into_iter().eq(0..20_000) && peers.into_iter().eq(0..7_000));
        // The last part also carries the workers and ports.
        assert!(longest < MESSAGE_MAX / 2, "{longest} bytes");
    }
}
