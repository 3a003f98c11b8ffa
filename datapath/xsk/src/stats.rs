//! What the kernel counts for one socket, what we count against the kernel, and who may look on.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::sockopt;
use rustix::net::xdp::XdpStatistics;

/// The kernel's counters of one socket since it was made (XDP_STATISTICS,
/// Documentation/networking/af_xdp.rst). Counters that an old kernel does not have are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Received packets dropped for another reason than a full ring.
    pub rx_dropped: u64,
    /// Descriptors in the fill ring that the kernel refused. Ours are always valid: expect 0.
    pub rx_invalid: u64,
    /// Descriptors in the tx ring that the kernel refused. Ours are always valid: expect 0.
    pub tx_invalid: u64,
    /// Received packets dropped because the rx ring was full: the worker is too slow.
    pub rx_ring_full: u64,
    /// Times the kernel wanted a frame and the fill ring was empty: the pool is too small.
    pub fill_ring_empty: u64,
    /// Times the kernel looked for something to send and found nothing. Normal.
    pub tx_ring_empty: u64,
}

impl From<XdpStatistics> for Statistics {
    fn from(kernel: XdpStatistics) -> Self {
        Self {
            rx_dropped: kernel.rx_dropped,
            rx_invalid: kernel.rx_invalid_descs,
            tx_invalid: kernel.tx_invalid_descs,
            rx_ring_full: kernel.rx_ring_full.unwrap_or(0),
            fill_ring_empty: kernel.rx_fill_ring_empty_descs.unwrap_or(0),
            tx_ring_empty: kernel.tx_ring_empty_descs.unwrap_or(0),
        }
    }
}

/// Descriptors that were not believed: one thread counts, others may read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<AtomicU64>);

impl Faults {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Reads the figures of a socket that another thread uses. It keeps the kernel's side of the socket
/// open: drop it with the socket.
#[derive(Debug)]
pub struct Watcher {
    fd: OwnedFd,
    faults: Faults,
}

impl Watcher {
    pub(crate) fn new(fd: OwnedFd, faults: Faults) -> Self {
        Self { fd, faults }
    }

    /// Packets that the kernel could not deliver to the socket since it was made: for want of room
    /// or of frames, or because they did not fit one. 0 if the kernel does not say.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        sockopt::xdp_statistics(&self.fd)
            .map(Statistics::from)
            .map_or(0, |kernel| kernel.rx_dropped + kernel.rx_ring_full + kernel.fill_ring_empty)
    }

    /// As [`crate::Socket::faults`].
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.count()
    }
}
