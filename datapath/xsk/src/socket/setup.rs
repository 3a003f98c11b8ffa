//! The steps that make an AF_XDP socket: open, register the memory, map the rings, bind.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XdpRingOffset, XdpUmemReg,
    XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::BindMode;
use crate::mmap::{Mapping, RingMemory};
use crate::ring::{Offsets, Ring, Shape};
use crate::umem::{FRAME_SIZE, Umem};

/// Copy mode makes a socket buffer of each packet in flight and charges it to the socket; the
/// default of 208 KiB is about 90 full-size packets, and sending stops early beyond it. 16 MiB is
/// two full rings of 2048 with the kernel's own overhead of some 3 KiB each.
const SEND_BUFFER: usize = 16 << 20;

/// A queue is busy for 6 to 20 ms after its previous socket was closed (measured): the kernel
/// releases it in a work queue. So 100 times the longest seen, in steps of a short one.
const BIND_ATTEMPTS: u32 = 200;
const BIND_PAUSE: Duration = Duration::from_millis(10);

pub(super) fn open() -> io::Result<OwnedFd> {
    let kind = SocketType::RAW;
    let fd = rustix::net::socket_with(AddressFamily::XDP, kind, SocketFlags::CLOEXEC, None)
        .map_err(step("socket"))?;
    // Without CAP_NET_ADMIN the ordinary limit has to do: slower, not wrong.
    if sockopt::set_socket_send_buffer_size_force(&fd, SEND_BUFFER).is_err() {
        sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER).map_err(step("send buffer"))?;
    }
    Ok(fd)
}

/// Shows the kernel the packet memory.
///
/// From here on the kernel may write to frames whose addresses it finds in a fill ring, and to no
/// others (net/xdp/xsk_buff_pool.c); only [`Umem::give`] makes such addresses.
pub(super) fn register(fd: &OwnedFd, umem: &Umem) -> io::Result<()> {
    let (base, len) = umem.range();
    let registration = XdpUmemReg {
        addr: base.as_ptr().expose_provenance() as u64,
        len: len as u64,
        // A small constant.
        chunk_size: u32::try_from(FRAME_SIZE).map_err(io::Error::other)?,
        headroom: 0,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    sockopt::set_xdp_umem_reg(fd, registration).map_err(step("packet memory"))
}

pub(super) fn map_ring(
    fd: BorrowedFd<'_>,
    at: &XdpRingOffset,
    page: u64,
    entries: u32,
    shape: Shape,
) -> io::Result<Ring> {
    let flags = at.flags.ok_or_else(|| invalid("a kernel before 5.4 has no wake-up flags"))?;
    let bytes = u64::from(entries) * (shape.words() * size_of::<u64>()) as u64;
    let len = usize::try_from(at.desc + bytes).map_err(io::Error::other)?;
    let memory = Arc::new(RingMemory::new(Mapping::shared(fd, page, len).map_err(named("map"))?));
    let offsets =
        Offsets { producer: at.producer, consumer: at.consumer, flags, descriptors: at.desc };
    Ring::new(&memory, offsets, entries, shape)
        .ok_or_else(|| invalid("the kernel's ring offsets are not inside the ring"))
}

/// Binds, in the modes that are allowed in turn, and waits while the queue is still busy.
pub(super) fn bind_to(
    fd: &OwnedFd,
    ifindex: u32,
    queue: u32,
    mode: BindMode,
    shared: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let flags = |mode| mode | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
    let (copy, zerocopy) =
        (flags(SocketAddrXdpFlags::XDP_COPY), flags(SocketAddrXdpFlags::XDP_ZEROCOPY));
    let plain = |flags| SocketAddrXdp::new(flags, ifindex, queue);
    patiently(|| match (shared, mode) {
        // All other flags must be absent: the kernel takes them from the first socket.
        (Some(first), _) => {
            let address = plain(SocketAddrXdpFlags::XDP_SHARED_UMEM);
            rustix::net::bind(
                fd,
                &SocketAddrXdpWithSharedUmem { addr: address, shared_umem_fd: first },
            )
        }
        (None, BindMode::Copy) => rustix::net::bind(fd, &plain(copy)),
        (None, BindMode::ZeroCopy) => rustix::net::bind(fd, &plain(zerocopy)),
        (None, BindMode::Auto) => match rustix::net::bind(fd, &plain(zerocopy)) {
            Err(Errno::OPNOTSUPP | Errno::INVAL) => rustix::net::bind(fd, &plain(copy)),
            other => other,
        },
    })
}

fn patiently(mut bind: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    for _ in 1..BIND_ATTEMPTS {
        match bind() {
            Err(Errno::BUSY) => std::thread::sleep(BIND_PAUSE),
            other => return other,
        }
    }
    bind()
}

pub(super) fn step(what: &'static str) -> impl Fn(Errno) -> io::Error {
    move |errno| named(what)(errno.into())
}

fn named(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("AF_XDP {what}: {error}"))
}

pub(super) fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
