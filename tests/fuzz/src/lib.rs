//! What a fuzzer calls: one function for each kind of bytes that somebody else chooses.
//!
//! ```text
//!   corpus/TARGET/* ──▶ tests/replay.rs ──▶ TARGETS[…](bytes) ◀── libfuzzer/ (discovery)
//! ```
//!
//! INVARIANT: a target is a plain function of bytes. It returns if all is well and panics if not,
//! so the same function is a test in CI and a target for hours of search. What it demands is not
//! only that nothing panics: a refusal must leave no trace, and nobody gets an answer that the
//! protocol does not owe.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests only"
)]

mod handshake;
mod input;
pub mod policy;
pub mod seeds;
mod session;

pub use handshake::{cookie_reply, initiation, response};
pub use session::{data, session};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets by name, which is that of their folder in the corpus.
pub const TARGETS: [(&str, Target); 9] = [
    ("config", config),
    ("cookie_reply", cookie_reply),
    ("data", data),
    ("initiation", initiation),
    ("link", link),
    ("policy", policy::policy),
    ("response", response),
    ("session", session),
    ("table", table),
];

/// A configuration file. Refused with places, or accepted.
pub fn config(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Err(errors) = bulkhead_config::Config::parse("fuzz.toml", text) {
        assert!(!errors.to_string().is_empty(), "refused without a reason");
    }
}

/// A table. Refused, or every lookup has an answer.
pub fn table(bytes: &[u8]) {
    let Ok(table) = bulkhead_table::Table::new(std::sync::Arc::new(bytes.to_vec())) else { return };
    let view = table.view();
    for first in [0u128, 1 << 32, u128::MAX, 0xfd44 << 112, 0xffff_0a2c_0001] {
        let id = view.endpoint_at(bulkhead_wire::Address::from_bits(first));
        assert!((id.0 as usize) < table.endpoint_count().max(1), "an endpoint that is not there");
        let _ = view.endpoint(id);
    }
}

/// A message between the two processes, in either direction.
pub fn link(bytes: &[u8]) {
    let _ = postcard::from_bytes::<bulkhead_link::ToDatapath>(bytes);
    let _ = postcard::from_bytes::<bulkhead_link::FromDatapath>(bytes);
}
