//! One core's packet loop: rx, steer, open, judge, route, seal, tx.
//!
//! A [`Worker`] runs to completion: it takes a batch from a queue, drives it through the stages
//! ([`stage`]), sends it, and looks at commands, clocks and counters only between batches. It
//! never allocates after its first batch, never locks per packet, never logs, never waits for
//! another thread, and reads no clock: `now` is an argument of [`Worker::turn`].
//!
//! It holds session keys and no long-term secret; it starts without a table, and without a table
//! everything is denied.
#![forbid(unsafe_code)]

/// What threads meet in, by a name that `tests/models` gives another meaning.
mod atomic {
    pub(crate) use core::hint::spin_loop;
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
}
pub mod cache;

pub mod allowance;
pub mod buckets;
pub mod counters;
pub mod edition;
pub mod flow;
pub mod flow_log;
pub mod fragments;
pub mod handoff;
pub mod hits;
pub mod hold;
pub mod limits;
pub mod listeners;
pub mod load;
pub mod neighbour;
pub mod packet;
pub mod place;
pub mod port;
pub mod registry;
#[cfg(any(test, feature = "rig"))]
pub mod rig;
pub mod sequence;
pub mod session;
pub mod setup;
pub mod sources;
pub mod stage;
pub mod state;
pub mod steady;
mod tags;
pub mod worker;

pub use counters::Counters;
pub use edition::Edition;
pub use flow_log::{Event, FlowLog, Past, Record};
pub use handoff::{Command, Handshake, LinkRings, Report, WorkerRings, rings};
pub use hits::{Hit, Hits};
pub use listeners::Listeners;
pub use place::Place;
pub use port::{MemoryPort, Port};
pub use registry::{Over, Registry};
pub use session::{Accepted, Activity, PeerCell, Session};
pub use setup::{PortFacts, Setup};
pub use stage::guard::Defences;
pub use worker::{Attached, Shared, Worker};
