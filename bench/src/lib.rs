//! Benches of single stages and of a whole worker
#![forbid(unsafe_code)]
