//! The numbers of the protocol, as formulas, with their relations checked by the compiler.
//!
//! Sources: whitepaper §6.1 (table of constants) and Linux `drivers/net/wireguard/messages.h`.

use std::time::Duration;

/// Counters that the replay window remembers, counted in bits of its ring. Linux
/// `COUNTER_BITS_TOTAL`. Lower: a multi-queue path that reorders more than this loses packets.
/// Higher: more memory per session, 1 KiB now.
pub const WINDOW_BITS: u64 = 8192;

/// A session wants a successor once it sent this many messages (whitepaper §6.1).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// No message counter reaches this value: 2^64 − 2^13 − 1 (whitepaper §6.1). The distance to the
/// overflow keeps arithmetic on counters within the window from wrapping.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - WINDOW_BITS;

/// The initiator of a session wants a successor when it sends and the session is this old.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);

/// A session older than this neither sends nor receives.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

/// Unanswered initiations are repeated for this long, then the peer is given up.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);

/// No two initiations to one peer are closer than this.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whoever received data and had nothing to say for this long says so with an empty packet.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Upper bound of the random delay added to [`REKEY_TIMEOUT`], so that two peers that initiate at
/// the same moment do not do so again. Linux `REKEY_TIMEOUT_JITTER_MAX_JIFFIES`: a third of a
/// second, rounded up.
pub const JITTER_MAX: Duration = Duration::from_millis(334);

/// Keys are erased once no session was made for this long (whitepaper §6.3).
pub const ERASE_AFTER_TIME: Duration = REJECT_AFTER_TIME.saturating_mul(3);

/// Initiations accepted of one peer per second. Linux `INITIATIONS_PER_SECOND`.
pub const INITIATIONS_PER_SECOND: u32 = 50;

/// The shortest time between two accepted initiations of one peer: 20 ms.
pub const INITIATION_INTERVAL: Duration =
    Duration::from_nanos(1_000_000_000 / INITIATIONS_PER_SECOND as u64);

/// The secret behind the cookies lives this long (whitepaper §5.4.7).
pub const COOKIE_SECRET_TIME: Duration = Duration::from_secs(120);

/// A received cookie is used this much shorter than its maker honours it, for the time that it
/// was under way. Linux `COOKIE_SECRET_LATENCY`.
pub const COOKIE_LATENCY: Duration = Duration::from_secs(5);

const _: () = assert!(REKEY_AFTER_MESSAGES < REJECT_AFTER_MESSAGES);
const _: () = assert!(REJECT_AFTER_MESSAGES.checked_add(WINDOW_BITS).is_some());
const _: () = assert!(WINDOW_BITS.is_power_of_two() && WINDOW_BITS.is_multiple_of(64));
const _: () = assert!(REKEY_AFTER_TIME.as_nanos() < REJECT_AFTER_TIME.as_nanos());
const _: () = assert!(REKEY_TIMEOUT.as_nanos() < REKEY_ATTEMPT_TIME.as_nanos());
const _: () = assert!(JITTER_MAX.as_nanos() < REKEY_TIMEOUT.as_nanos());
// The successor that a receiver asks for must have time to be made before the session ends.
const _: () =
    assert!(KEEPALIVE_TIMEOUT.as_nanos() + REKEY_TIMEOUT.as_nanos() < REJECT_AFTER_TIME.as_nanos());
const _: () = assert!(INITIATION_INTERVAL.as_millis() == 20);
const _: () = assert!(COOKIE_LATENCY.as_nanos() < COOKIE_SECRET_TIME.as_nanos());

/// The times that the state machines go by. [`Default`] is the protocol; tests compress them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`REKEY_AFTER_MESSAGES`].
    pub rekey_after_messages: u64,
    /// See [`REJECT_AFTER_MESSAGES`].
    pub reject_after_messages: u64,
    /// See [`REKEY_AFTER_TIME`].
    pub rekey_after: Duration,
    /// See [`REJECT_AFTER_TIME`].
    pub reject_after: Duration,
    /// See [`REKEY_ATTEMPT_TIME`].
    pub rekey_attempt: Duration,
    /// See [`REKEY_TIMEOUT`].
    pub rekey_timeout: Duration,
    /// See [`KEEPALIVE_TIMEOUT`].
    pub keepalive: Duration,
    /// See [`JITTER_MAX`].
    pub jitter_max: Duration,
    /// See [`ERASE_AFTER_TIME`].
    pub erase_after: Duration,
    /// See [`INITIATION_INTERVAL`].
    pub initiation_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rekey_after_messages: REKEY_AFTER_MESSAGES,
            reject_after_messages: REJECT_AFTER_MESSAGES,
            rekey_after: REKEY_AFTER_TIME,
            reject_after: REJECT_AFTER_TIME,
            rekey_attempt: REKEY_ATTEMPT_TIME,
            rekey_timeout: REKEY_TIMEOUT,
            keepalive: KEEPALIVE_TIMEOUT,
            jitter_max: JITTER_MAX,
            erase_after: ERASE_AFTER_TIME,
            initiation_interval: INITIATION_INTERVAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of whitepaper §6.1, the erasure of §6.3, the cookie of §5.4.7, and what Linux
    /// `messages.h` adds, written out as numbers.
    #[test]
    fn the_constants_are_those_of_the_whitepaper() {
        let seconds = Duration::from_secs;
        let limits = Limits::default();
        assert_eq!(limits.rekey_after_messages, 1_152_921_504_606_846_976, "2^60");
        assert_eq!(limits.reject_after_messages, 18_446_744_073_709_543_423, "2^64 - 2^13 - 1");
        assert_eq!(limits.rekey_after, seconds(120));
        assert_eq!(limits.reject_after, seconds(180));
        assert_eq!(limits.rekey_attempt, seconds(90));
        assert_eq!(limits.rekey_timeout, seconds(5));
        assert_eq!(limits.keepalive, seconds(10));
        assert_eq!(limits.erase_after, seconds(540));
        assert_eq!(COOKIE_SECRET_TIME, seconds(120));
        assert_eq!(COOKIE_LATENCY, seconds(5));
        assert_eq!(limits.initiation_interval, Duration::from_millis(20));
        assert_eq!(limits.jitter_max, Duration::from_millis(334));
        assert_eq!(WINDOW_BITS, 8192);
    }
}
