//! One AF_XDP socket: a queue of a network port, with its four rings.
//!
//! The order of set-up is the kernel's (net/xdp/xsk.c): register the memory (first socket only),
//! size the rings, map them, bind. No call of the data path blocks, allocates or locks; the system
//! calls are in [`Socket::flush`] (one per turn at most and direction) and [`Socket::wait`].

mod setup;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::xdp::{
    XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING,
    XdpOptionsFlags, XdpRingOffset,
};
use rustix::net::{RecvFlags, SendFlags};

use crate::ring::{Consumer, Descriptor, Producer, Shape};
use crate::stats::{Faults, Statistics, Watcher};
use crate::umem::{FRAME_SIZE, Frame, Holder, Packet, Umem};
use setup::{bind_to, invalid, map_ring, open, register, step};

/// The shortest frame that the kernel may be given: an Ethernet header.
const SHORTEST: usize = 14;

/// How packets get from the device to the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindMode {
    /// Zero-copy if the driver can, otherwise copy.
    #[default]
    Auto,
    /// The kernel copies. Works with every driver.
    Copy,
    /// The device writes into the memory itself, or bind fails.
    ZeroCopy,
}

/// How to set a socket up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// Entries of each of the four rings: a power of two from 2 to 2^20.
    pub ring_entries: u32,
    /// Ignored for a socket that shares: the kernel makes it inherit from the first.
    pub mode: BindMode,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self { ring_entries: 2048, mode: BindMode::Auto }
    }
}

/// A queue of a network port. See the crate's documentation for who owns a frame when.
#[derive(Debug)]
pub struct Socket {
    // Declared, and so closed, before the rings.
    link: Link,
    umem: Umem,
    fill: Producer,
    rx: Consumer,
    tx: Producer,
    completion: Consumer,
    receive_side: Holder,
    send_side: Holder,
    /// Frames of packets that could not be sent as they were; they leave by `reclaim`.
    refused: Vec<Frame>,
    faults: Faults,
    misfits: u64,
    zerocopy: bool,
}

impl Socket {
    /// Binds to queue `queue` of the network interface `ifindex`.
    ///
    /// `first` is any socket that is bound to the same memory already; give it for all but the
    /// first. All of them then have the mode of the first: if another port cannot do zero-copy,
    /// its bind fails, and the first must be bound with [`BindMode::Copy`].
    ///
    /// Blocks for up to 2 s if the queue is busy, as it is for a moment after its last socket was
    /// closed.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if `ring_entries` is out of range or `first` has other
    /// memory; EPERM without CAP_NET_RAW; EBUSY if another socket has the queue; EOPNOTSUPP if the
    /// driver cannot do zero-copy and it was asked for; ENODEV, EINVAL (no such queue), ENETDOWN and
    /// ENOMEM as the kernel says. The message names the step; the
    /// kind tells the error (`raw_os_error` is empty).
    pub fn bind(
        umem: &Umem,
        ifindex: u32,
        queue: u32,
        config: &SocketConfig,
        first: Option<&Self>,
    ) -> io::Result<Self> {
        let entries = config.ring_entries;
        if !entries.is_power_of_two() || !(2..=1 << 20).contains(&entries) {
            return Err(invalid("ring_entries: want a power of two from 2 to 2^20"));
        }
        let shared = match first.map(|first| (first.umem.is(umem), &first.link)) {
            None => None,
            Some((true, Link::Kernel(fd))) => Some(fd.as_fd()),
            Some((true, Link::Fake(_))) => return Err(invalid("first: a fake shares no queue")),
            Some((false, _)) => return Err(invalid("first: a socket of other packet memory")),
        };

        let fd = open()?;
        if shared.is_none() {
            register(&fd, umem)?;
        }
        sockopt::set_xdp_umem_fill_ring_size(&fd, entries).map_err(step("fill ring"))?;
        sockopt::set_xdp_umem_completion_ring_size(&fd, entries)
            .map_err(step("completion ring"))?;
        sockopt::set_xdp_rx_ring_size(&fd, entries).map_err(step("rx ring"))?;
        sockopt::set_xdp_tx_ring_size(&fd, entries).map_err(step("tx ring"))?;
        let at = sockopt::xdp_mmap_offsets(&fd).map_err(step("ring offsets"))?;
        let map = |offsets: &XdpRingOffset, page: u64, shape: Shape| {
            map_ring(fd.as_fd(), offsets, page, entries, shape)
        };
        let fill = Producer::new(map(&at.fr, XDP_UMEM_PGOFF_FILL_RING, Shape::Address)?);
        let rx = Consumer::new(map(&at.rx, XDP_PGOFF_RX_RING, Shape::Packet)?);
        let tx = Producer::new(map(&at.tx, XDP_PGOFF_TX_RING, Shape::Packet)?);
        let completion = map(&at.cr, XDP_UMEM_PGOFF_COMPLETION_RING, Shape::Address)?;
        bind_to(&fd, ifindex, queue, config.mode, shared).map_err(step("bind"))?;
        let options = sockopt::xdp_options(&fd).map_err(step("options"))?;

        let completion = Consumer::new(completion);
        let mut socket = Self::assemble(Link::Kernel(fd), umem, fill, rx, tx, completion)?;
        socket.zerocopy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(socket)
    }

    /// Calls `take` with each of up to `max` received packets; returns how many.
    #[inline]
    pub fn receive(&mut self, max: usize, mut take: impl FnMut(Packet)) -> usize {
        let turn = self.link.turn();
        let Ok(count) = self.rx.available(max) else {
            self.faults.add_one();
            return 0;
        };
        let mut taken = 0;
        for _ in 0..count {
            let descriptor = self.rx.pop();
            // SAFETY: read from the rx ring, which returns what `fill` gave to `receive_side`.
            match unsafe { packet(&self.umem, descriptor, &mut self.receive_side) } {
                Some(packet) => {
                    take(packet);
                    taken += 1;
                }
                None => self.faults.add_one(),
            }
        }
        self.rx.release();
        if let (Some(turn), Ok(0)) = (turn, self.rx.available(1)) {
            turn.silence();
        }
        taken
    }

    /// Takes up to `max` empty frames from the end of `pool` to receive into, as many as the fill ring has
    /// room for, and leaves the rest; returns how many.
    #[inline]
    pub fn fill(&mut self, pool: &mut Vec<Frame>, max: usize) -> usize {
        let _turn = self.link.turn();
        let Ok(count) = self.fill.room(pool.len().min(max)) else {
            self.faults.add_one();
            return 0;
        };
        for frame in pool.drain(pool.len() - count..) {
            match self.umem.give(frame, &self.receive_side) {
                Ok(address) => self.fill.push(Descriptor { address, ..Descriptor::default() }),
                Err(foreign) => {
                    self.misfits += 1;
                    self.refused.push(foreign);
                }
            }
        }
        self.fill.publish();
        count
    }

    /// Takes packets from the front of `packets`, in order, as many as the tx ring has room for;
    /// returns how many. They leave at the next [`Self::flush`] at the latest.
    ///
    /// A packet that is shorter than 14 bytes or not inside its frame, or whose frame is of other
    /// memory, is taken and not sent: [`Self::misfits`] counts it, [`Self::reclaim`] returns its
    /// frame.
    #[inline]
    pub fn transmit(&mut self, packets: &mut Vec<Packet>) -> usize {
        let _turn = self.link.turn();
        let Ok(count) = self.tx.room(packets.len()) else {
            self.faults.add_one();
            return 0;
        };
        for Packet { frame, start, len } in packets.drain(..count) {
            let fits =
                usize::from(start) + usize::from(len) <= FRAME_SIZE && usize::from(len) >= SHORTEST;
            let given = if fits { self.umem.give(frame, &self.send_side) } else { Err(frame) };
            match given {
                Ok(base) => self.tx.push(Descriptor {
                    address: base + u64::from(start),
                    len: u32::from(len),
                    options: 0,
                }),
                Err(frame) => {
                    self.misfits += 1;
                    self.refused.push(frame);
                }
            }
        }
        self.tx.publish();
        count
    }

    /// Appends the frames whose transmission is over to `pool`; returns how many.
    #[inline]
    pub fn reclaim(&mut self, pool: &mut Vec<Frame>) -> usize {
        let _turn = self.link.turn();
        let before = pool.len();
        pool.append(&mut self.refused);
        let Ok(count) = self.completion.available(usize::MAX) else {
            self.faults.add_one();
            return pool.len() - before;
        };
        for _ in 0..count {
            let address = self.completion.pop().address;
            // SAFETY: read from the completion ring, which returns what `transmit` gave to
            // `send_side`.
            match unsafe { self.umem.take(address, &mut self.send_side) } {
                Some((frame, _)) => pool.push(frame),
                None => self.faults.add_one(),
            }
        }
        self.completion.release();
        pool.len() - before
    }

    /// Tells the kernel about descriptors that it has not taken yet, if it wants to be told. Call
    /// it in each turn, also when nothing was transmitted in it: the kernel stops early (after 32
    /// packets, or when the send buffer is full) and does not go on by itself.
    ///
    /// # Errors
    ///
    /// ENETDOWN or ENXIO if the interface is down or gone. That the kernel is busy or wants
    /// another call is no error.
    #[inline]
    pub fn flush(&mut self) -> io::Result<()> {
        let Link::Kernel(fd) = &self.link else { return Ok(()) };
        if self.tx.pending() > 0 && self.tx.needs_wakeup() {
            soften(rustix::net::send(fd, &[], SendFlags::DONTWAIT).map(drop))?;
        }
        if self.fill.needs_wakeup() {
            let mut nothing = [0_u8; 0];
            soften(rustix::net::recv(fd, &mut nothing, RecvFlags::DONTWAIT).map(drop))?;
        }
        Ok(())
    }

    /// Whether the port is still there; for housekeeping. An idle socket does not notice by
    /// [`Self::flush`] that its interface went away.
    ///
    /// # Errors
    ///
    /// ENETDOWN, once, after the interface was removed; what getsockopt(2) says.
    pub fn check(&self) -> io::Result<()> {
        match &self.link {
            Link::Kernel(fd) => Ok(sockopt::socket_error(fd)??),
            Link::Fake(_) => Ok(()),
        }
    }

    /// The kernel's counters; all 0 for a fake.
    ///
    /// # Errors
    ///
    /// What getsockopt(2) says.
    pub fn statistics(&self) -> io::Result<Statistics> {
        match &self.link {
            Link::Kernel(fd) => Ok(sockopt::xdp_statistics(fd)?.into()),
            Link::Fake(_) => Ok(Statistics::default()),
        }
    }

    /// A watcher of this socket for another thread than the one that uses it.
    ///
    /// # Errors
    ///
    /// EMFILE; or the socket is a fake, which has nothing to watch.
    pub fn watcher(&self) -> io::Result<Watcher> {
        match &self.link {
            Link::Kernel(fd) => Ok(Watcher::new(fd.try_clone()?, self.faults.clone())),
            Link::Fake(_) => Err(invalid("a fake has no kernel counters")),
        }
    }

    /// Whether the device uses the memory directly.
    #[must_use]
    pub fn is_zerocopy(&self) -> bool {
        self.zerocopy
    }

    /// Descriptors from the kernel that named no frame that it had from this ring, or no packet
    /// inside one, and looks at a ring index that was impossible. Expect 0; anything else is a
    /// bug of the kernel or here. The frames of such descriptors stay where they were.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.count()
    }

    /// Packets and frames from the caller that could not be used: see [`Self::transmit`]. Expect 0;
    /// anything else is a bug of the caller.
    #[must_use]
    pub fn misfits(&self) -> u64 {
        self.misfits
    }

    /// The packet memory.
    #[must_use]
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Sleeps until one of `sockets` has a packet to receive, or `timeout` has passed. Returns whether
    /// there is one. A signal ends the sleep early.
    ///
    /// # Errors
    ///
    /// What poll(2) says: EINVAL for more sockets than the process may have open.
    pub fn wait(sockets: &[&Self], timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec {
            // A wait of more than 2^63 seconds may as well be one of 2^63.
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut fds: Vec<_> =
            sockets.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)).collect();
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(fds.iter().any(|fd| fd.revents().contains(PollFlags::IN))),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is no kernel behind it.
    pub(crate) fn is_fake(&self) -> bool {
        matches!(self.link, Link::Fake(_))
    }

    /// The ids of the holders for the receive and the send side; for the fake kernel.
    pub(crate) fn sides(&self) -> (u16, u16) {
        (self.receive_side.id(), self.send_side.id())
    }

    pub(crate) fn assemble(
        link: Link,
        umem: &Umem,
        fill: Producer,
        rx: Consumer,
        tx: Producer,
        completion: Consumer,
    ) -> io::Result<Self> {
        Ok(Self {
            link,
            fill,
            rx,
            tx,
            completion,
            receive_side: umem.new_holder()?,
            send_side: umem.new_holder()?,
            umem: umem.clone(),
            refused: Vec::new(),
            faults: Faults::default(),
            misfits: 0,
            zerocopy: false,
        })
    }
}

impl AsFd for Socket {
    /// For poll(2) and epoll(7): readable when a packet is there to be received.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.link {
            Link::Kernel(fd) => fd.as_fd(),
            Link::Fake(wire) => wire.bell.as_fd(),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _turn = self.link.turn();
        self.umem.abandon(&mut self.receive_side);
        self.umem.abandon(&mut self.send_side);
    }
}

/// What is at the other end.
#[derive(Debug)]
pub(crate) enum Link {
    Kernel(OwnedFd),
    Fake(Wire),
}

impl Link {
    /// The fake's lock; nothing for the kernel.
    #[inline]
    fn turn(&self) -> Option<Turn<'_>> {
        match self {
            Self::Kernel(_) => None,
            Self::Fake(wire) => Some(wire.turn()),
        }
    }
}

/// What a fake and its socket share beside the rings.
///
/// The lock makes either's turn atomic for the other. So the fake may be told to forge descriptors
/// and still touches only bytes of frames that the socket does not own meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    lock: Arc<Mutex<()>>,
    /// An eventfd that is readable while there is something to receive.
    bell: Arc<OwnedFd>,
}

impl Wire {
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { lock: Arc::default(), bell: Arc::new(bell) })
    }

    pub(crate) fn turn(&self) -> Turn<'_> {
        // There is no data behind the lock that a panic could have left half done.
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        Turn { bell: &self.bell, _guard: guard }
    }
}

/// The lock of a [`Wire`], held.
pub(crate) struct Turn<'a> {
    bell: &'a OwnedFd,
    _guard: MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// There is something to receive.
    pub(crate) fn ring(&self) {
        // Fails only when it has rung 2^64 times without being heard; then it is readable anyway.
        let _ = rustix::io::write(self.bell, &1_u64.to_ne_bytes());
    }

    /// There is nothing more to receive.
    fn silence(&self) {
        // Fails if it did not ring; then it is silent anyway.
        let _ = rustix::io::read(self.bell, &mut [0_u8; 8]);
    }
}

/// The packet that a descriptor from the rx ring names. `None`, and nothing changed, if it is not
/// in one frame or the frame is not with `side`.
///
/// # Safety
///
/// As [`Umem::take`]: read from the ring that returns what was given to `side`.
#[inline]
unsafe fn packet(umem: &Umem, descriptor: Descriptor, side: &mut Holder) -> Option<Packet> {
    let len = usize::try_from(descriptor.len).ok()?;
    let start = usize::try_from(descriptor.address).ok()? % FRAME_SIZE;
    // Sockets are bound without XDP_USE_SG, so a packet is never continued in a second frame.
    if len > FRAME_SIZE - start || descriptor.options & libc::XDP_PKT_CONTD != 0 {
        return None;
    }
    let (start, len) = (u16::try_from(start).ok()?, u16::try_from(len).ok()?);
    // SAFETY: passed on to the caller.
    let (frame, _) = unsafe { umem.take(descriptor.address, side) }?;
    Some(Packet { frame, start, len })
}

/// The kernel being busy is no error: descriptors stay pending, and the next turn tells it again.
#[inline]
fn soften(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
