//! The files in which threads meet, compiled a second time with the atomics of loom.
//!
//! ```text
//!   datapath/wg/src/send_counter.rs   ─┐                 ┌─▶ their crates, std's atomics
//!   datapath/engine/src/sequence.rs   ─┼─ crate::atomic ─┤
//!   datapath/engine/src/session.rs    ─┘                 └─▶ this crate, loom's atomics
//! ```
//!
//! INVARIANT: what is modelled is the text that ships, not a copy of it. Only the atomics differ,
//! and the number of tries of a reader, so that the models end.
//!
//! loom runs a model once for each order in which its threads may meet, and lets a relaxed load see
//! every value that the memory model allows.
#![forbid(unsafe_code)]

#[path = "../../../datapath/engine/src/place.rs"]
pub mod place;
#[path = "../../../datapath/wg/src/send_counter.rs"]
pub mod send_counter;
#[path = "../../../datapath/engine/src/sequence.rs"]
pub mod sequence;
#[path = "../../../datapath/engine/src/session.rs"]
pub mod session;

mod atomic {
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
}

mod limits {
    pub(crate) use bulkhead_wg::limits::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES};

    pub(crate) const READ_TRIES: u32 = 2;
}
