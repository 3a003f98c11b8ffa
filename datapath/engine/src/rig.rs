//! A gateway in memory, and peers that speak WireGuard to it: for tests and benches.
//!
//! ```text
//!   peer n, 10.44.0.n+1, fd44::n+1 ──▶ port 0 ┐          ┌ port 1 ──▶ segment 10.20.1.0/24,
//!                                             workers 0..n            fd20::/64
//! ```
//!
//! The peers seal and open with their own keys, so what they read was really encrypted for them.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::indexing_slicing)]

mod packets;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_link::{Dscp, End, FlowSetup, Listener, SessionIndex, Status, Terms, Timers};
use bulkhead_table::{
    Draft, Endpoint, EndpointId, LabelId, NextHop, PeerIndex, PortIndex, RuleIndex, RuleTag, Run,
    Segment, SegmentId, Service, Stage, Table,
};
use bulkhead_wg::{ReceiveKey, ReplayWindow, SendCounter, SendKey};
use bulkhead_wire::{Address, Ethernet, Mac, wg};
use bulkhead_xsk::Umem;

use crate::edition::Edition;
use crate::flow::Seed;
use crate::flow_log::Record;
use crate::handoff::{Command, Handshake, LinkRings, Report, rings};
use crate::listeners::Listeners;
use crate::place::Place;
use crate::port::MemoryPort;
use crate::registry::Registry;
use crate::session::{Activity, PeerCell, Session};
use crate::setup::{PortFacts, Setup};
use crate::stage::guard::Defences;
use crate::worker::{Attached, Shared, Worker};
use crate::{Counters, limits};
pub use packets::{datagram, echo, framed, from_host, tcp, transport, udp};

/// The port that peers come through.
pub const OUTSIDE: u8 = 0;
/// The port of the plain segment.
pub const INSIDE: u8 = 1;
/// Our UDP port.
pub const LISTEN: u16 = 51_820;
/// Our hardware address, on both ports.
pub const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The hardware address of the legacy host.
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x55];
/// The public key that strangers would have to know.
pub const PUBLIC_KEY: [u8; 32] = [7; 32];

/// Largest packet in a tunnel.
pub const TUNNEL_MTU: u16 = 1_420;

const SESSION_WAIT: Duration = Duration::from_secs(5);
const FRAMES: usize = 1_024;
const RING: usize = 256;

/// A gateway in memory.
pub struct Rig {
    /// The workers, driven by [`Rig::run`].
    pub workers: Vec<Worker<MemoryPort>>,
    /// The link thread's ends of the rings.
    pub links: Vec<LinkRings>,
    /// By peer index.
    pub cells: Arc<[PeerCell]>,
    /// The DSCP of sessions made from now on.
    pub dscp: Dscp,
    /// The clock, milliseconds.
    pub now_ms: u64,
    /// What the workers reported that is of interest to a test.
    pub reports: Vec<String>,
    /// Handshakes that were passed on.
    pub handshakes: Vec<Handshake>,
    /// Whether the control process finishes each handshake as soon as it gets it.
    pub control_works: bool,
    /// What the workers have logged.
    pub records: Vec<Record>,
    /// Whether the link thread reads what they log.
    pub reads_log: bool,
    /// What the workers defend with.
    pub defences: Arc<Defences>,
    /// The edition that was published last.
    pub edition: Option<Arc<Edition>>,
    counters: Vec<Arc<Counters>>,
    sequence: u32,
    peers: usize,
}

/// Our outer address that peers of this family talk to.
#[must_use]
pub fn own_address(v6: bool) -> Address {
    match v6 {
        false => Address::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        true => Address::from(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
    }
}

/// The address of peer `n` inside the tunnel.
#[must_use]
pub fn peer_address(n: u32, v6: bool) -> Address {
    let host = u16::try_from(n + 1).unwrap();
    let [high, low] = host.to_be_bytes();
    match v6 {
        false => Address::from(IpAddr::V4(Ipv4Addr::new(10, 44, high, low))),
        true => Address::from(IpAddr::V6(Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0, host))),
    }
}

/// An address on the plain segment.
#[must_use]
pub fn host_address(n: u8, v6: bool) -> Address {
    match v6 {
        false => Address::from(IpAddr::V4(Ipv4Addr::new(10, 20, 1, n))),
        true => Address::from(IpAddr::V6(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, n.into()))),
    }
}

/// A policy over `peers` peers and the segment: peer n has label n + 1, the segment the last one.
/// `rules` are (from label, to label, run).
#[must_use]
pub fn draft(generation: u64, peers: u32, rules: &[(u16, u16, Service, Service)]) -> Draft {
    let mut endpoints = vec![Endpoint { label: LabelId(0), next_hop: NextHop::Peer(PeerIndex(0)) }];
    let mut prefixes = vec![];
    for n in 0..peers {
        let id = EndpointId(n + 1);
        let label = LabelId(u16::try_from(n + 1).unwrap());
        endpoints.push(Endpoint { label, next_hop: NextHop::Peer(PeerIndex(n)) });
        for v6 in [false, true] {
            prefixes.push((ipnet::IpNet::from(peer_address(n, v6).to_ip()), id));
        }
    }
    let segment = EndpointId(peers + 1);
    let label = LabelId(u16::try_from(peers + 1).unwrap());
    endpoints.push(Endpoint { label, next_hop: NextHop::Segment(SegmentId(0)) });
    prefixes.push(("10.20.1.0/24".parse().unwrap(), segment));
    prefixes.push(("fd20::/64".parse().unwrap(), segment));
    let mut cells: BTreeMap<(LabelId, LabelId), Vec<Run>> = BTreeMap::new();
    for (at, (from, to, first, last)) in rules.iter().enumerate() {
        let rule = RuleIndex(u32::try_from(at).unwrap());
        let run = Run { first: *first, last: *last, rule };
        cells.entry((LabelId(*from), LabelId(*to))).or_default().push(run);
    }
    Draft {
        generation,
        labels: u16::try_from(peers + 2).unwrap(),
        endpoints,
        prefixes,
        segments: vec![Segment { port: PortIndex(INSIDE), vlan: None, stage: Stage::Enforce }],
        cells: cells.into_iter().map(|(pair, runs)| (pair, runs.into())).collect(),
        remarks: BTreeMap::new(),
        rules: u32::try_from(rules.len()).unwrap(),
        tags: (1..=rules.len() as u64).map(RuleTag).collect(),
        logs: vec![],
        logs_denied: false,
        peers,
    }
}

impl Rig {
    /// `workers` workers with one queue on each of the two ports, and no table.
    #[must_use]
    pub fn new(workers: usize, peers: u32) -> Self {
        Self::with_flows(workers, peers, 1 << 15, &FlowSetup::default())
    }

    /// The same with room for `flows` flows, treated as `setup` says.
    #[must_use]
    pub fn with_flows(workers: usize, peers: u32, flows: usize, setup: &FlowSetup) -> Self {
        let cells: Arc<[PeerCell]> = (0..peers.max(1)).map(|_| PeerCell::default()).collect();
        let seed = Seed(0x9e37_79b9_7f4a_7c15, 0x94d0_49bb_1331_11eb);
        let registry = Arc::new(Registry::new(flows, peers as usize, seed, setup));
        let defences = Arc::new(Defences::new([0x51; 32], [0x52; 32], seed));
        let shared =
            Shared { peers: Arc::clone(&cells), registry, seed, defences: Arc::clone(&defences) };
        let (worker_rings, links) = rings(workers, FRAMES);
        let (_umem, mut frames) = Umem::new(u32::try_from(FRAMES * workers).unwrap()).unwrap();
        frames.sort_by_key(bulkhead_xsk::Frame::index);
        let mut rig = Self {
            workers: vec![],
            links,
            cells,
            dscp: Dscp::Clear,
            now_ms: 1_000,
            reports: vec![],
            handshakes: vec![],
            control_works: true,
            records: vec![],
            reads_log: true,
            defences,
            edition: None,
            counters: vec![],
            sequence: 0,
            peers: peers as usize,
        };
        for (worker, rings) in worker_rings.into_iter().enumerate() {
            let facts = Setup {
                worker,
                workers,
                frames: FRAMES,
                addresses: vec![own_address(false), own_address(true)],
                ports: [false, true]
                    .map(|segment| PortFacts { segment, mac: Mac(OWN_MAC), mtu: 1500 })
                    .to_vec(),
                sessions: 4_096,
                flows,
                on_revoke: setup.on_revoke,
            };
            let sockets = [OUTSIDE, INSIDE].map(|port| Attached::new(port, MemoryPort::new(RING)));
            let rest = frames.split_off(FRAMES);
            let mine = std::mem::replace(&mut frames, rest);
            let counters = Arc::new(Counters::default());
            rig.counters.push(Arc::clone(&counters));
            let sockets = sockets.into_iter().collect();
            rig.workers.push(Worker::new(facts, sockets, shared.clone(), rings, mine, counters));
        }
        // The fill rings are stocked before anything arrives.
        rig.run();
        rig.listen(&[(LISTEN, PUBLIC_KEY)]);
        rig
    }

    /// Listens on these UDP ports with these public keys, and nowhere else.
    pub fn listen(&mut self, listeners: &[(u16, [u8; 32])]) {
        self.listen_as(listeners, false);
    }

    /// The same, and says whether the listeners are dark.
    pub fn listen_as(&mut self, listeners: &[(u16, [u8; 32])], dark: bool) {
        let timers = Timers { rekey_attempt: SESSION_WAIT, ..Timers::default() };
        let terms = Terms { tunnel_mtu: TUNNEL_MTU, timers, dscp: Dscp::Clear };
        let all: Vec<_> = listeners
            .iter()
            .map(|(port, public_key)| Listener {
                port: *port,
                public_key: *public_key,
                dark,
                terms,
            })
            .collect();
        let all = Listeners::new(&all);
        self.tell_all(|_| Command::Listeners(Arc::clone(&all)));
    }

    /// Puts a policy in force on every worker.
    pub fn publish(&mut self, draft: &Draft) {
        let bytes: Vec<u8> = draft.emit().unwrap();
        let table = Table::new(Arc::new(bytes)).unwrap();
        let edition = Arc::new(Edition::new(table, self.workers.len()));
        self.edition = Some(Arc::clone(&edition));
        self.tell_all(|_| Command::Table(Arc::clone(&edition)));
    }

    /// Gives every worker a command.
    pub fn tell_all(&mut self, command: impl Fn(usize) -> Command) {
        for (worker, link) in self.links.iter_mut().enumerate() {
            link.commands.push(command(worker)).ok().unwrap();
        }
        self.run();
    }

    /// Makes the legacy host `n` a known neighbour.
    pub fn neighbour(&mut self, n: u8) {
        for v6 in [false, true] {
            self.tell_all(|_| Command::Neighbour(INSIDE, host_address(n, v6), Some(HOST_MAC)));
        }
    }

    /// Installs a session for peer `n`, owned by `worker`, that the peer initiated unless
    /// `we_initiated`; returns the peer's side.
    pub fn session(&mut self, n: u32, worker: usize, v6: bool, we_initiated: bool) -> RigPeer {
        let salt = u8::try_from(self.sequence % 64).unwrap();
        let slot = n + u32::try_from(self.peers).unwrap() * (self.sequence % 2);
        let index = SessionIndex::new(u8::try_from(worker).unwrap(), salt, slot);
        self.sequence += 1;
        let mut keys = [[1; 32], [2; 32]];
        for key in &mut keys {
            key[..4].copy_from_slice(&n.to_be_bytes());
            key[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        }
        let place = outer_place(n, v6);
        let session = Arc::new(Session {
            index,
            remote_index: n + 1_000,
            peer: PeerIndex(n),
            initiator: we_initiated,
            sequence: self.sequence,
            created_ms: self.now_ms,
            tunnel_mtu: TUNNEL_MTU,
            dscp: self.dscp,
            reject_at_ms: self.now_ms + 180_000,
            receive: ReceiveKey::new(&keys[0]),
            send: SendKey::new(&keys[1]),
            counter: SendCounter::default(),
            activity: Activity::default(),
        });
        self.cells[n as usize].roam(&place);
        if we_initiated {
            self.cells[n as usize].allow_sending(&session);
        }
        self.tell_all(|to| {
            let window = (to == worker).then(|| Box::new(ReplayWindow::default()));
            Command::Install(Arc::clone(&session), window)
        });
        RigPeer {
            n,
            index,
            place,
            send: SendKey::new(&keys[0]),
            receive: ReceiveKey::new(&keys[1]),
            counter: 0,
        }
    }

    /// One frame on the wire of a worker's queue. Returns whether the port took it.
    pub fn deliver(&mut self, worker: usize, port: u8, frame: &[u8]) -> bool {
        self.workers[worker].sockets_mut()[usize::from(port)].socket.deliver(frame)
    }

    /// Lets the workers take turns until none has anything to do.
    pub fn run(&mut self) {
        for _ in 0..1_000 {
            let mut busy = false;
            for worker in &mut self.workers {
                busy |= worker.turn(self.now_ms);
            }
            for link in &mut self.links {
                while let Ok(report) = link.reports.pop() {
                    match report {
                        Report::Confirmed(generation, _) => {
                            self.reports.push(format!("confirmed {generation}"));
                        }
                        Report::SessionWanted(peer) => {
                            self.reports.push(format!("session {}", peer.0));
                        }
                        Report::NeighbourWanted(port, address) => {
                            self.reports.push(format!("neighbour {port} {address}"));
                        }
                        Report::Passed(fence) => self.reports.push(format!("passed {fence}")),
                        Report::Relistened(_) | Report::Forgotten(_) | Report::Installed(_) => {}
                    }
                }
                while self.reads_log
                    && let Ok(record) = link.records.pop()
                {
                    self.records.push(record);
                }
                while let Ok(handshake) = link.handshakes.pop() {
                    self.handshakes.push(handshake);
                    self.defences.load.finished(u64::from(self.control_works));
                }
            }
            if !busy {
                return;
            }
        }
        unreachable!("the workers never come to rest");
    }

    /// Time passes, and is noticed.
    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.run();
    }

    /// What was transmitted on a port by all workers since the last call.
    pub fn sent(&mut self, port: u8) -> Vec<Vec<u8>> {
        let mut sent = vec![];
        for worker in &mut self.workers {
            let attached = &mut worker.sockets_mut()[usize::from(port)];
            attached.socket.collect(|frame| sent.push(frame.to_vec()));
        }
        self.run();
        sent
    }

    /// The figures, and the conservation laws: every packet has one end, every frame is somewhere.
    pub fn status(&mut self) -> Status {
        let workers = self.counters.iter().map(|counters| counters.read()).collect();
        let status = Status { workers, ..Status::default() };
        assert!(status.conserved(), "packets are not conserved: {status:#?}");
        let frames: usize = self
            .workers
            .iter()
            .map(|worker| {
                let ports = worker.sockets().iter().map(|at| at.socket.frames()).sum::<usize>();
                worker.frames() + ports
            })
            .sum();
        assert_eq!(frames, FRAMES * self.workers.len(), "frames are not conserved");
        status
    }

    /// How many packets ended so.
    pub fn ended(&mut self, end: End) -> u64 {
        self.status().ends().get(end)
    }
}

/// The outer address of peer `n`.
#[must_use]
pub fn outer_place(n: u32, v6: bool) -> Place {
    let host = u16::try_from(n + 2).unwrap();
    let [high, low] = host.to_be_bytes();
    let remote = match v6 {
        false => IpAddr::V4(Ipv4Addr::new(198, 51, high, low)),
        true => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host)),
    };
    Place {
        remote: Address::from(remote),
        local: own_address(v6),
        remote_port: 40_000,
        local_port: LISTEN,
        port: OUTSIDE,
        vlan: 0,
        remote_mac: [2, 0, 0, 1, high, low],
        local_mac: OWN_MAC,
    }
}

/// A peer with a session.
pub struct RigPeer {
    /// Its index.
    pub n: u32,
    /// The index under which the gateway receives from it.
    pub index: SessionIndex,
    /// Where it is.
    pub place: Place,
    /// Its next message counter.
    pub counter: u64,
    send: SendKey,
    receive: ReceiveKey,
}

impl RigPeer {
    /// An Ethernet frame with `inner` sealed for the gateway.
    pub fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        self.counter += 1;
        self.seal_as(inner, self.counter - 1, 0)
    }

    /// The same with a chosen counter and ECN bits on the outer header.
    #[must_use]
    pub fn seal_as(&self, inner: &[u8], counter: u64, ecn: u8) -> Vec<u8> {
        let mut content = inner.to_vec();
        content.resize(inner.len().next_multiple_of(16), 0);
        let tag = self.send.seal(counter, &mut content);
        let mut message = vec![0; wg::DATA_HEADER_LEN];
        wg::Data { receiver: self.index.0, counter }.write(&mut message);
        message.extend(content);
        message.extend(tag);
        self.datagram(&message, ecn)
    }

    /// An Ethernet frame with `payload` as a UDP datagram from the peer to the gateway.
    #[must_use]
    pub fn datagram(&self, payload: &[u8], ecn: u8) -> Vec<u8> {
        datagram(&self.place, payload, ecn)
    }

    /// The inner packet of a frame, if it is for this peer and authenticates; padding included.
    #[must_use]
    pub fn open(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let (header, message) = self.message(frame)?;
        let mut content = message.get(wg::DATA_HEADER_LEN..)?.to_vec();
        let tag = *content.last_chunk::<16>()?;
        content.truncate(content.len() - 16);
        self.receive.open(header.counter, &mut content, &tag).ok()?;
        Some(content)
    }

    /// The data message of a frame, if it is addressed to this peer.
    #[must_use]
    pub fn message<'a>(&self, frame: &'a [u8]) -> Option<(wg::Data, &'a [u8])> {
        let ethernet = Ethernet::parse(frame).ok()?;
        let ip = bulkhead_wire::IpPacket::parse(frame.get(ethernet.len..)?).ok()?;
        let udp = ethernet.len + usize::from(ip.transport_at);
        let message = frame.get(udp + 8..ethernet.len + usize::from(ip.len))?;
        let header = wg::Data::parse(message)?;
        (ip.destination == self.place.remote && header.receiver == self.n + 1_000)
            .then_some((header, message))
    }
}

const _: () = assert!(2 * RING + limits::FRAME_RESERVE + RING <= FRAMES);
