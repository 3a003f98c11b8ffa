//! The datapath's figures, as a message carries them.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::{PeerPast, STATUS_PART_MAX, SessionStatus};
use crate::{End, Ends};

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The datapath's figures since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The generation that every worker has confirmed.
    pub generation: u64,
    /// Since the datapath started.
    pub uptime: Duration,
    /// By worker.
    pub workers: Vec<WorkerStatus>,
    /// By port.
    pub ports: Vec<PortStatus>,
    /// All sessions, in the order of their slots, less those of the parts before.
    pub sessions: Vec<SessionStatus>,
    /// All peers that had a session that ended, less those of the parts before.
    pub past: Vec<PeerPast>,
}

/// One worker's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Frames received from sockets.
    pub received: Counted,
    /// Frames given to sockets, with what the gateway itself originated.
    pub transmitted: Counted,
    /// Keepalives and ICMP errors that the gateway itself made.
    pub originated: u64,
    /// How the received frames ended.
    pub ends: Ends,
    /// Packets that wait for a session or a neighbour now.
    pub held: u64,
    /// Packets given to, and taken from, other workers.
    pub handed_out: u64,
    /// See `handed_out`.
    pub handed_in: u64,
    /// Live flows in the cache.
    pub flows: u64,
    /// Frames of packet memory that the worker holds itself: free, in flight or held.
    pub frames: u64,
    /// Records of the flow log that it has written.
    pub logged: u64,
    /// Records that are lost, because there were too many.
    pub log_lost: u64,
}

/// One port's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The configuration's name.
    pub name: String,
    /// The network device.
    pub device: String,
    /// Whether the XDP program runs in the driver.
    pub native: bool,
    /// Whether every socket is zero-copy.
    pub zero_copy: bool,
    /// Frames that the kernel dropped because a ring was full or empty.
    pub kernel_dropped: u64,
    /// Descriptors from the kernel that named no frame of ours.
    pub faults: u64,
}

impl Counted {
    /// Adds another count, and stays at the limit where it would pass it.
    pub fn add(&mut self, more: Self) {
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

impl Status {
    /// Takes as many sessions and peers out as a message in front of this one may carry; `None`
    /// when the rest fits this one.
    #[must_use]
    pub fn take_part(&mut self) -> Option<(Vec<SessionStatus>, Vec<PeerPast>)> {
        if self.sessions.len() <= STATUS_PART_MAX && self.past.len() <= STATUS_PART_MAX {
            return None;
        }
        let sessions = self.sessions.len().saturating_sub(STATUS_PART_MAX);
        let past = self.past.len().saturating_sub(STATUS_PART_MAX);
        Some((self.sessions.split_off(sessions), self.past.split_off(past)))
    }

    /// The ends of all workers together.
    #[must_use]
    pub fn ends(&self) -> Ends {
        let mut sum = Ends::default();
        for worker in &self.workers {
            for end in End::ALL {
                sum.add(end, worker.ends.get(end));
            }
        }
        sum
    }

    /// Frames received by all workers.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.workers.iter().map(|worker| worker.received.packets).sum()
    }

    /// Packets that wait, on all workers.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.workers.iter().map(|worker| worker.held).sum()
    }

    /// Whether the conservation law holds, worker by worker: what came in, from sockets and from
    /// other workers, has ended, waits, or was given to another worker.
    ///
    /// Each worker publishes its figures between two batches as one, so this holds whenever it is
    /// asked; the sums over all workers may differ by what is on its way between two of them.
    #[must_use]
    pub fn conserved(&self) -> bool {
        self.workers.iter().all(WorkerStatus::conserved)
    }
}

impl WorkerStatus {
    /// The conservation law for one worker.
    #[must_use]
    pub fn conserved(&self) -> bool {
        self.received.packets + self.handed_in == self.ends.total() + self.held + self.handed_out
    }
}
