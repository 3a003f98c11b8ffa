//! The XDP program: which frames go to the socket of their queue. All else is the kernel's.
//!
//! ```text
//!   group MAC ─────────────────────────────────────────────────────────▶ pass
//!   [one 802.1Q tag]
//!   IPv4, IPv6 ── destination is our own ── whole UDP to a listener ───▶ redirect
//!        │                               └─ else ──────────────────────▶ pass
//!        └─────── another's ── segment port, routable unicast ─────────▶ redirect
//!                           └─ else ───────────────────────────────────▶ pass
//!   anything else (ARP, second tag, cut short, wrong version) ─────────▶ pass
//! ```
//!
//! * A redirect without a socket on the queue passes: a dead datapath leaves management reachable.
//! * WireGuard is seen without IPv4 options and without IPv6 extension headers only, which is how its
//!   clients send; a fragment for us passes. What a segment sends is redirected with or without.
//! * Not routable: IPv4 0/8, 127/8, 169.254/16, 224/3 (multicast, reserved, broadcast); IPv6 ::/64
//!   (unspecified, loopback, v4-mapped: never valid on a wire, also not as our own), fe80::/10, ff00::/8.
//! * Deliberately absent: whether the destination MAC is ours. A port that floods or mirrors hands us
//!   others' frames; the network card drops them unless it is promiscuous, which it must not be.
//! * Deliberately absent: VLAN tags that the card took out of the frame (`ethtool -K PORT rxvlan
//!   off`, and `txvlan off` at the other end of a veth pair).
//!
//! The twin in `steer/twin.rs` says the same without sharing any code; the tests hold both equal.

mod program;
mod twin;

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use crate::bpf::{DriverMode, Map, MapKind, Program, number};
use crate::socket::Socket;
use program::{Maps, Miss, assemble};

pub use twin::twin;

/// Most queues of a port.
pub const QUEUES_MAX: u32 = 256;

/// Most UDP ports that WireGuard listens on; the program compares them one by one.
pub const LISTENERS_MAX: usize = 64;

/// Most addresses of our own.
pub const ADDRESSES_MAX: u32 = 4096;

/// What the program of one port looks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SteerConfig {
    /// UDP ports of WireGuard, at most [`LISTENERS_MAX`].
    pub listeners: Vec<u16>,
    /// Our own addresses on this box, at most [`ADDRESSES_MAX`]. Whatever is for them is WireGuard
    /// or the kernel's.
    pub addresses: Vec<IpAddr>,
    /// Whether plain packets for others are to be judged (a segment port) or left alone.
    pub segment: bool,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the kernel's stack.
    #[default]
    Pass,
    /// It goes to the socket of its queue.
    Redirect,
}

/// The program of one port, loaded, with its maps.
#[derive(Debug)]
pub struct Steering {
    program: Program,
    sockets: Map<4>,
    addresses: Map<16>,
}

impl Steering {
    /// Assembles the program, has it verified, and fills its address map.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if there are too many listeners or addresses; EPERM without
    /// CAP_BPF and CAP_NET_ADMIN; what the kernel says, with the verifier's account.
    pub fn load(config: &SteerConfig) -> io::Result<Self> {
        Self::load_with(config, Miss::Pass, c"bulkhead_steer")
    }

    /// The same, but [`Self::test_run`] answers [`Verdict::Redirect`] also for a queue that has no
    /// socket. For tests of the program's judgement; attach the other one.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_for_trial(config: &SteerConfig) -> io::Result<Self> {
        Self::load_with(config, Miss::Show, c"bulkhead_trial")
    }

    fn load_with(config: &SteerConfig, miss: Miss, name: &CStr) -> io::Result<Self> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidInput, message);
        if config.listeners.len() > LISTENERS_MAX {
            return Err(invalid(format!("more than {LISTENERS_MAX} listeners")));
        }
        if config.addresses.len() > ADDRESSES_MAX as usize {
            return Err(invalid(format!("more than {ADDRESSES_MAX} own addresses")));
        }
        let sockets = Map::new(MapKind::Xsk, QUEUES_MAX, c"bulkhead_xsk")?;
        let addresses = Map::new(MapKind::Hash, ADDRESSES_MAX, c"bulkhead_own")?;
        let maps = Maps { sockets: sockets.as_fd(), addresses: addresses.as_fd() };
        let code = assemble(config, maps, miss).map_err(io::Error::other)?;
        let steering = Self { program: Program::load(&code, name)?, sockets, addresses };
        for address in &config.addresses {
            steering.insert_address(*address)?;
        }
        Ok(steering)
    }

    /// From the next frame on, `address` is our own.
    ///
    /// # Errors
    ///
    /// E2BIG if there are [`ADDRESSES_MAX`] already.
    pub fn insert_address(&self, address: IpAddr) -> io::Result<()> {
        self.addresses.set(&key(address), 1)
    }

    /// From the next frame on, `address` is another's.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if it was not ours.
    pub fn remove_address(&self, address: IpAddr) -> io::Result<()> {
        self.addresses.remove(&key(address))
    }

    /// Frames that arrive on `queue` are redirected to `socket`, which must be bound to that queue
    /// of the interface that this is attached to: others get nothing. The entry goes away with the
    /// socket.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if `socket` is a fake; E2BIG if `queue` is not below
    /// [`QUEUES_MAX`].
    pub fn set_socket(&self, queue: u32, socket: &Socket) -> io::Result<()> {
        if socket.is_fake() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a fake socket has no queue"));
        }
        self.sockets.set(&queue.to_ne_bytes(), number(socket.as_fd()))
    }

    /// Attaches the program to the interface.
    ///
    /// # Errors
    ///
    /// EBUSY if another program is attached by link; ENODEV; for [`AttachMode::Native`], EOPNOTSUPP
    /// if the driver has no XDP, ENOSPC or ERANGE if its queues or MTU do not suit. With
    /// [`AttachMode::Auto`], these three lead to the generic mode.
    pub fn attach(&self, ifindex: u32, mode: AttachMode) -> io::Result<Attachment> {
        let attach = |driver| {
            let link = self.program.attach(ifindex, driver)?;
            Ok(Attachment { _link: link, native: driver == DriverMode::Native })
        };
        match mode {
            AttachMode::Native => attach(DriverMode::Native),
            AttachMode::Generic => attach(DriverMode::Generic),
            AttachMode::Auto => {
                attach(DriverMode::Native).or_else(|error: io::Error| match error.raw_os_error() {
                    Some(libc::EOPNOTSUPP | libc::ENOSPC | libc::ERANGE | libc::EINVAL) => {
                        attach(DriverMode::Generic)
                    }
                    Some(_) | None => Err(error),
                })
            }
        }
    }

    /// What the program decides about `frame`, as if it arrived on queue 0.
    ///
    /// # Errors
    ///
    /// EINVAL for fewer than 14 bytes or more than a page; a verdict that the program should not
    /// give is an error too.
    pub fn test_run(&self, frame: &[u8]) -> io::Result<Verdict> {
        match self.program.run(frame)? {
            XDP_PASS => Ok(Verdict::Pass),
            XDP_REDIRECT => Ok(Verdict::Redirect),
            shown if shown == Miss::Show as u32 => Ok(Verdict::Redirect),
            other => Err(io::Error::other(format!("XDP program returned {other}"))),
        }
    }
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver if it can, otherwise in the kernel's stack.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's stack, at the price of a socket buffer for each frame.
    Generic,
}

/// A program at work on an interface. It is detached when this is dropped, or when the process
/// ends in whatever way, because the kernel closes the descriptor.
#[derive(Debug)]
pub struct Attachment {
    _link: OwnedFd,
    native: bool,
}

impl Attachment {
    /// Whether the program runs in the driver.
    #[must_use]
    pub fn native(&self) -> bool {
        self.native
    }
}

/// `enum xdp_action` of include/uapi/linux/bpf.h.
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The map's key: the address in 16 bytes, IPv4 as ::ffff:a.b.c.d.
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4).octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests;
