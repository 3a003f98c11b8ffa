//! What a packet costs, measured against what it must cost: two AEAD operations.
//!
//! Absolute figures on a shared machine mean little, so a worker and its rival take turns, batch by
//! batch, in one run, and the figure is the ratio of their medians.
#![forbid(unsafe_code)]

pub mod aead;
pub mod calls;
#[cfg(feature = "compiler")]
pub mod compile_speed;
pub mod flows;
pub mod handshake_cost;
pub mod lookup;
pub mod memory_cost;
pub mod random;
pub mod rte_acl;
pub mod subject;
