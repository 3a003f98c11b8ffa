//! AF_XDP: packet memory, rings, sockets, and the XDP program that steers to them.
//!
//! The only crate of the workspace with unsafe code, beside the vector code of `aead`. Who owns a frame at any moment:
//!
//! ```text
//!             fill                  receive
//!   Frame ──────────▶ fill ring ═▶ KERNEL ═▶ rx ring ──────────────▶ Packet
//!     ▲               └────── holder = receive side of the socket ──┘   │ user space
//!     │ reclaim                                                transmit │ works on it
//!     └──────── completion ring ◀═ KERNEL ◀═ tx ring ◀──────────────────┘
//!               └────── holder = send side of the socket ─┘
//! ```
//!
//! # Why it is sound
//!
//! * A [`Frame`] is exclusive ownership of [`FRAME_SIZE`] bytes. It is not `Clone`, and [`Umem::new`]
//!   makes one for each index. To give a frame to a ring consumes the token.
//! * Each frame has a **holder** in a table that all sockets of the [`Umem`] share: 0 while a token
//!   exists, otherwise the ring pair (socket and direction) that it was given to. A descriptor that
//!   the kernel returns buys a token back only if the holder is the very ring pair that it was read
//!   from, and buying sets the holder to 0. So at most one token exists, whatever the rings say. The
//!   check is made in release builds; what fails it is counted in [`Socket::faults`] and not believed.
//! * Ring memory is shared with another party: it is only ever read and written through atomics
//!   (indices, flags and descriptors), and no index from it is used without being masked or bounded.
//! * Packet memory lives until the last token, socket and [`Umem`] are gone. A frame at the kernel
//!   keeps the reference of its consumed token.
//!
//! What is trusted: that the kernel writes into no frame outside of its turn. No check in user space
//! could tell. What is not trusted: everything that is read from a ring.
//!
//! Frames that a socket held when it was dropped are abandoned: the device may not be done with
//! them, and nothing tells when it is. [`Umem::abandoned`] counts them.

mod assembler;
mod bpf;
pub mod fake;
pub mod huge;
mod interface;
mod mmap;
mod prefetch;
mod ring;
mod sealed;
mod socket;
mod stats;
pub mod steer;
mod umem;

pub use interface::Interface;
pub use prefetch::prefetch;
pub use sealed::SealedMap;
pub use socket::{BindMode, Socket, SocketConfig};
pub use stats::{Statistics, Watcher};
pub use steer::{AttachMode, Attachment, SteerConfig, Steering};
pub use umem::{FRAME_SIZE, FRAMES_MAX, Frame, HEADROOM, Packet, Umem};

// Descriptors are read as two 64-bit words (see ring.rs), whose halves are in this order.
const _: () = assert!(cfg!(target_endian = "little"), "bulkhead_xsk is for little-endian machines");
