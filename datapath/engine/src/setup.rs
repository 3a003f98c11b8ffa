//! What a worker is told once, at start.

use bulkhead_wg::{Mac1Key, PublicKey};
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
    /// The WireGuard listeners: UDP port, and what proves that a sender knows our public key.
    pub listeners: Vec<(u16, Mac1Key)>,
    /// The box's own addresses.
    pub addresses: Vec<Address>,
    /// By port index.
    pub ports: Vec<PortFacts>,
    /// Largest inner packet that goes into a tunnel, bytes.
    pub tunnel_mtu: u16,
    /// How long a packet waits for a session, milliseconds.
    pub session_wait_ms: u64,
    /// Sessions that may exist at once.
    pub sessions: usize,
    /// Live flows of this worker's cache.
    pub flows: usize,
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
    /// The listener of a datagram, if it is addressed to one of ours.
    #[inline]
    #[must_use]
    pub fn listener(&self, destination: Address, port: u16) -> Option<&Mac1Key> {
        let (_, key) = self.listeners.iter().find(|(listening, _)| *listening == port)?;
        self.addresses.contains(&destination).then_some(key)
    }

    /// An address of ours to speak from to `other`: the first of its family.
    #[must_use]
    pub fn address_towards(&self, other: Address) -> Option<Address> {
        self.addresses.iter().copied().find(|own| own.is_ipv4() == other.is_ipv4())
    }

    /// A listener for a public key.
    #[must_use]
    pub fn mac1_key(public_key: &[u8; 32]) -> Mac1Key {
        Mac1Key::of(&PublicKey(*public_key))
    }
}
