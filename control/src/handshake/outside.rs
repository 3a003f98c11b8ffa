//! What handshakes need that cannot be computed.

use std::time::Duration;

/// Randomness and the wall clock.
pub trait Outside {
    /// 32 random bytes, never used before; `None` if the system has none, and then nothing is sent.
    fn entropy(&mut self) -> Option<[u8; 32]>;
    /// A random time of at most `max`.
    fn jitter(&mut self, max: Duration) -> Duration;
    /// Since the Unix epoch.
    fn wall_clock(&mut self) -> Duration;
}
