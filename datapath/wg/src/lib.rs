//! Sans-IO WireGuard: handshake, cookies, timers, keypairs, replay window, seal and open in place
#![forbid(unsafe_code)]
