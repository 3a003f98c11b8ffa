//! The Bulkhead control process and its command line
#![forbid(unsafe_code)]
