//! Worlds in network namespaces, and the scenarios played in them
#![forbid(unsafe_code)]
