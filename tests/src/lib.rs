//! Worlds in network namespaces, and the scenarios that are played in them.
//!
//! ```text
//!   World
//!   ├─ Namespace "laptop"    Process wireguard-go, probes
//!   │      │ veth, N queues
//!   ├─ Namespace "gateway"   Gateway: bulkheadd, bulkhead-datapath
//!   │      │ veth
//!   └─ Namespace "legacy"    Process bulkhead-probe http-serve
//! ```
//!
//! INVARIANT: what a world makes is named after the process that made it (`owner.rs`) and lives in
//! one of its namespaces or its folder, and nowhere else. So one sweep (`sweep.rs`) removes all of
//! it, whether the world is dropped, its test panics, somebody presses Ctrl-C, or the process was
//! killed and the next one finds the remains.
//!
//! Nothing here touches the namespace of the machine itself.

#![forbid(unsafe_code)]

mod counters;
pub mod crowd;
mod failure;
pub mod flood;
pub mod gateway;
mod guest;
mod implementation;
pub mod inner;
mod interrupt;
mod key;
mod link;
mod namespace;
pub mod office;
mod owner;
mod place;
mod privilege;
pub mod probe;
mod process;
mod program;
mod random;
mod raw;
mod relay;
mod sweep;
mod traffic;
mod tunnel;
mod wait;
mod wire_peer;
mod world;

pub use counters::Counters;
pub use failure::{During, Failure};
pub use gateway::Gateway;
pub use guest::{Guest, GuestProcess};
pub use implementation::Implementation;
pub use interrupt::remove_worlds_on_signal;
pub use key::{KeyPair, preshared_key};
pub use link::{End, Link};
pub use namespace::{Namespace, Output};
pub use office::{Office, Outer};
pub use place::Probe;
pub use process::Process;
pub use program::{program, tool};
pub use random::Random;
pub use raw::RawPort;
pub use relay::{Account, Plan, Relay};
pub use tunnel::{Engine, PeerSettings, PeerState, Tunnel, TunnelSettings};
pub use wait::{Deadline, Look, monotonic_ns, now, until};
pub use wire_peer::WirePeer;
pub use world::World;
