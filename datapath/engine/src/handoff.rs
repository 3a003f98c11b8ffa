//! The rings between workers, and between a worker and the link thread.
//!
//! ```text
//!   worker a ── Transit (its session lives on b) ──▶ worker b
//!            ◀─────────── Frame (home is a) ────────
//!   link thread ── Command ──▶ worker ── Report, Handshake, Record ──▶ link thread
//! ```
//!
//! Every ring is a bounded SPSC ring (`rtrb`); nobody waits on one. A frame's home is the worker
//! that it was dealt to at start; a frame that ended elsewhere goes home, so no worker can drain
//! another's packet memory.

use std::sync::Arc;

use bulkhead_link::SessionIndex;
use bulkhead_table::PeerIndex;
use bulkhead_wg::{CookieSecrets, ReplayWindow};
use bulkhead_wire::Address;
use bulkhead_xsk::Frame;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::edition::Edition;
use crate::flow_log::{FlowLog, Record};
use crate::limits::{COMMAND_RING, FLOW_LOG_RING, HANDOFF_RING, HANDSHAKE_RING};
use crate::listeners::Listeners;
use crate::packet::Transit;
use crate::place::Place;
use crate::session::{Session, Slot};

/// What the link thread tells a worker; taken between two batches.
pub enum Command {
    /// Judge by this edition of the policy from now on.
    Table(Arc<Edition>),
    /// Report that the batches before this are finished.
    Fence(u64),
    /// Listen here from now on, and nowhere else.
    Listeners(Arc<Listeners>),
    /// Make cookies with these secrets from now on. The link thread keeps them as well, so that a
    /// worker never frees the last of them.
    Cookies(Arc<CookieSecrets>),
    /// Keys to use; the window only for the worker that the index names.
    Install(Arc<Session>, Option<Box<ReplayWindow>>),
    /// Keys to forget.
    Remove(SessionIndex),
    /// A neighbour, or that it is gone.
    Neighbour(u8, Address, Option<[u8; 6]>),
    /// Send an empty packet to this peer.
    Keepalive(PeerIndex),
}

/// What a worker tells the link thread.
pub enum Report {
    /// It judges by this generation. The edition before it comes along, to be freed elsewhere.
    Confirmed(u64, Option<Arc<Edition>>),
    /// It has come to [`Command::Fence`].
    Passed(u64),
    /// It listens elsewhere now. The listeners before come along, to be freed elsewhere.
    Relistened(Arc<Listeners>),
    /// It has forgotten a session, or what stood in the place of a new one; freed elsewhere.
    Forgotten(Slot),
    /// The keys of this session are in force here, where its packets are opened.
    Installed(SessionIndex),
    /// A packet waits for a session with this peer.
    SessionWanted(PeerIndex),
    /// A packet waits for this neighbour.
    NeighbourWanted(u8, Address),
}

/// A handshake message whose MAC1 is right, on its way to the control process.
#[derive(Clone, Copy)]
pub struct Handshake {
    /// Where it came from.
    pub place: Place,
    /// The public key of ours that MAC1 was made with; `None` for a cookie reply.
    pub listener: Option<[u8; 32]>,
    /// The bytes, the longest message's worth.
    pub message: [u8; HANDSHAKE_MAX],
    /// How many of them count.
    pub len: u8,
}

/// The longest handshake message: an initiation (whitepaper §5.4.2).
pub const HANDSHAKE_MAX: usize = bulkhead_wg::INITIATION_LEN;

const _: () = assert!(HANDSHAKE_MAX <= u8::MAX as usize);

impl Handshake {
    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.message.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

/// A worker's ends of its rings with the others.
pub struct WorkerRings {
    /// To each worker, packets of its sessions; `None` at its own place.
    pub to: Vec<Option<Producer<Transit>>>,
    /// From each worker, packets of my sessions.
    pub from: Vec<Option<Consumer<Transit>>>,
    /// To each worker, frames that are at home there.
    pub home_to: Vec<Option<Producer<Frame>>>,
    /// From each worker, my frames.
    pub home_from: Vec<Option<Consumer<Frame>>>,
    /// From the link thread.
    pub commands: Consumer<Command>,
    /// To the link thread.
    pub reports: Producer<Report>,
    /// To the link thread.
    pub handshakes: Producer<Handshake>,
    /// To the link thread.
    pub log: FlowLog,
}

/// The link thread's ends of its rings with one worker.
pub struct LinkRings {
    /// To the worker.
    pub commands: Producer<Command>,
    /// From the worker.
    pub reports: Consumer<Report>,
    /// From the worker.
    pub handshakes: Consumer<Handshake>,
    /// From the worker.
    pub records: Consumer<Record>,
}

/// All rings of `workers` workers with `frames` frames each.
#[must_use]
pub fn rings(workers: usize, frames: usize) -> (Vec<WorkerRings>, Vec<LinkRings>) {
    let mut ours = Vec::with_capacity(workers);
    let mut links = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (commands, from_link) = RingBuffer::new(COMMAND_RING);
        let (to_link, reports) = RingBuffer::new(COMMAND_RING);
        let (handshake_in, handshakes) = RingBuffer::new(HANDSHAKE_RING);
        let (record_in, records) = RingBuffer::new(FLOW_LOG_RING);
        ours.push(WorkerRings {
            to: (0..workers).map(|_| None).collect(),
            from: (0..workers).map(|_| None).collect(),
            home_to: (0..workers).map(|_| None).collect(),
            home_from: (0..workers).map(|_| None).collect(),
            commands: from_link,
            reports: to_link,
            handshakes: handshake_in,
            log: FlowLog::new(record_in),
        });
        links.push(LinkRings { commands, reports, handshakes, records });
    }
    for giver in 0..workers {
        for taker in (0..workers).filter(|taker| *taker != giver) {
            let (to, from) = RingBuffer::new(HANDOFF_RING);
            // Room for every frame of the taker: a frame on its way home is never refused.
            let (home_to, home_from) = RingBuffer::new(frames);
            if let Some(rings) = ours.get_mut(giver) {
                put(&mut rings.to, taker, to);
                put(&mut rings.home_to, taker, home_to);
            }
            if let Some(rings) = ours.get_mut(taker) {
                put(&mut rings.from, giver, from);
                put(&mut rings.home_from, giver, home_from);
            }
        }
    }
    (ours, links)
}

fn put<T>(places: &mut [Option<T>], at: usize, end: T) {
    if let Some(place) = places.get_mut(at) {
        *place = Some(end);
    }
}
