//! The stages of a packet's way, in their order, and nothing else.
//!
//! ```text
//!  frame ─▶ steer ─▶ open ─▶ judge ─▶ route ─▶ seal ─▶ emit ─▶ frame
//!             │        │                 │
//!             │        └ another worker  └ hold (no session, no neighbour yet)
//!             └ guard: handshakes to the link       complain, revoke: answers to what was dropped
//! ```
//!
//! A stage is a function over a batch. It skips transits that have ended, fills in its part of the
//! others, and ends those that may not go on. Those beside the way of nearly every packet are called only if a
//! stage before says that there is something for them. No stage allocates, locks, logs or reads a clock.

pub mod complain;
pub mod emit;
pub mod guard;
pub mod judge;
pub mod open;
pub mod revoke;
pub mod route;
pub mod seal;
pub mod steer;
