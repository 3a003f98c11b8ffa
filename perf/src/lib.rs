//! The operators' performance suite: profiles, the gateways they compare, what was measured.
//!
//! A profile (`profiles/*.toml`) says what is loaded how, and which gateways take turns. Figures are
//! meant to be compared within one run; a run prints them side by side.
#![forbid(unsafe_code)]

pub mod flood;
pub mod hub;
pub mod measure;
pub mod profile;
pub mod revocation;
