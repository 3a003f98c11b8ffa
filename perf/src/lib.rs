//! The operators' performance suite
#![forbid(unsafe_code)]
