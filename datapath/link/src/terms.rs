//! How the sessions of a listener are run.

use core::time::Duration;

use serde::{Deserialize, Serialize};

/// How the sessions of a listener are run. They travel with each session, which keeps them when
/// the listener changes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Largest inner packet that goes into the tunnel, bytes.
    pub tunnel_mtu: u16,
    /// Protocol timers; shorter than the protocol's only in tests.
    pub timers: Timers,
    /// The DSCP of the datagrams.
    pub dscp: Dscp,
}

/// The DSCP of a tunnel's datagrams (RFC 2474). ECN is not its business: see RFC 6040.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dscp {
    /// Zero, so that an observer learns nothing of what is inside. What Linux does
    /// (`drivers/net/wireguard/send.c`, `wg_packet_send_staged_packets`: only ECN is carried over).
    #[default]
    Clear,
    /// That of the packet inside (RFC 2983 §3, the uniform model).
    Copy,
    /// Always this, 0..=63 (RFC 2983 §3, the pipe model).
    Fixed(u8),
}

impl Dscp {
    /// The traffic class of a datagram for a packet with this traffic class, ECN left out.
    #[inline]
    #[must_use]
    pub const fn outer(self, inner: u8) -> u8 {
        match self {
            Self::Clear => 0,
            Self::Copy => inner & 0xfc,
            Self::Fixed(dscp) => dscp << 2,
        }
    }
}

/// The protocol's timers (WireGuard whitepaper §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// REKEY_AFTER_TIME.
    pub rekey_after: Duration,
    /// REJECT_AFTER_TIME.
    pub reject_after: Duration,
    /// REKEY_ATTEMPT_TIME: how long a packet waits for a session at most.
    pub rekey_attempt: Duration,
    /// REKEY_TIMEOUT.
    pub rekey_timeout: Duration,
    /// KEEPALIVE_TIMEOUT.
    pub keepalive: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            rekey_after: Duration::from_secs(120),
            reject_after: Duration::from_secs(180),
            rekey_attempt: Duration::from_secs(90),
            rekey_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dscp_is_cleared_copied_or_fixed_and_ecn_is_left_alone() {
        for inner in [0x00, 0x03, 0xb8, 0xbb, 0xff] {
            assert_eq!(Dscp::default().outer(inner), 0);
            assert_eq!(Dscp::Copy.outer(inner), inner / 4 * 4);
            assert_eq!(Dscp::Fixed(46).outer(inner), 0xb8);
        }
    }
}
