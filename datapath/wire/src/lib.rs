//! Packet headers as views over bytes
#![forbid(unsafe_code)]
