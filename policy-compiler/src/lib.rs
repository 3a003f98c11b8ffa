//! From named identities and rules to the flat table, and questions about them
#![forbid(unsafe_code)]
