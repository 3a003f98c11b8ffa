//! Vectors in the manner of Wycheproof, for every implementation that this repository has or gets:
//! edges that random bytes do not meet, forgeries, and random cases against a second library.
//!
//! ```text
//!   generate.rs ──(RustCrypto, orion)──▶ data/*.json ──▶ check ──▶ seal, open, agree: yours
//!                                                        differ ──▶ the second library, at random
//! ```
//!
//! INVARIANT: nothing of what is tested takes part in making a vector. The committed files are
//! those that the generator makes: a test compares them, and writes them anew when asked to.
//!
//! For tests only: a wrong answer is a panic that names the case.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests only"
)]

pub mod aead;
pub mod generate;
mod hex;
mod poly1305;
mod random;
pub mod x25519;

pub use aead::AeadVector;
pub use random::Random;
pub use x25519::X25519Vector;
