//! What a worker is told once, at start.

use bulkhead_link::{OnRevoke, SessionIndex};
use bulkhead_wire::{Address, Mac};

/// Facts about the box that do not change while it runs.
#[derive(Clone)]
pub struct Setup {
    /// Which of the workers this is, and how many there are.
    pub worker: usize,
    /// See `worker`.
    pub workers: usize,
    /// Frames of packet memory that are at home on each worker: `home = index / frames`.
    pub frames: usize,
    /// The box's own addresses.
    pub addresses: Vec<Address>,
    /// By port index.
    pub ports: Vec<PortFacts>,
    /// Sessions that may exist at once.
    pub sessions: usize,
    /// Live flows of this worker's cache.
    pub flows: usize,
    /// What the ends of a flow are told that is not allowed any more.
    pub on_revoke: OnRevoke,
}

/// Facts about one network port.
#[derive(Clone, Copy, Debug)]
pub struct PortFacts {
    /// Whether plain traffic of a segment may arrive here.
    pub segment: bool,
    /// Its hardware address.
    pub mac: Mac,
    /// Largest IP packet that leaves here, bytes.
    pub mtu: u16,
}

impl Setup {
    /// Whether this is an address of the box.
    #[inline]
    #[must_use]
    pub fn is_own(&self, address: Address) -> bool {
        self.addresses.contains(&address)
    }

    /// Whether a session or a handshake of ours can have this index.
    #[inline]
    #[must_use]
    pub fn gives_out(&self, index: SessionIndex) -> bool {
        index.worker() < self.workers && index.slot() < self.sessions
    }

    /// An address of ours to speak from to `other`: the first of its family.
    #[must_use]
    pub fn address_towards(&self, other: Address) -> Option<Address> {
        self.addresses.iter().copied().find(|own| own.is_ipv4() == other.is_ipv4())
    }
}
