//! ICMP errors about packets that the gateway could not forward: without them path MTU discovery
//! and traceroute fail in silence.
//!
//! Only a sender that the policy has already admitted is told anything, so a stranger learns
//! nothing; and only so many times a second (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).

use bulkhead_link::End;
use bulkhead_wire::icmp;
use bulkhead_xsk::Frame;

use crate::limits::SEAL_HEADROOM;
use crate::packet::{Course, Hop, Transit};
use crate::setup::Setup;

/// How many answers may still be sent in this second.
#[derive(Debug, Default)]
pub struct Allowance {
    second: u32,
    used: u32,
}

impl Allowance {
    /// Takes one of `most` in a second; `false` if none is left.
    pub fn take(&mut self, now_s: u32, most: u32) -> bool {
        if self.second != now_s {
            *self = Self { second: now_s, used: 0 };
        }
        let left = self.used < most;
        self.used += u32::from(left);
        left
    }
}

/// Whether the sender of a packet that ended so wants to know. What became of revoked flows is told
/// as the operator wishes: [`crate::stage::revoke`].
#[must_use]
pub fn deserves(end: Option<End>) -> bool {
    end == Some(End::DropHopLimit) || end == Some(End::DropTooBig)
}

/// The error about `about`, written into `frame`, on its way back to the sender; or the frame if
/// no error is due (RFC 1122 §3.2.2 lists what none may be sent about).
pub fn complain(about: &Transit, frame: Frame, setup: &Setup) -> Result<Transit, Frame> {
    let from = about.inner.as_ref().and_then(|inner| setup.address_towards(inner.source));
    let (Some(kind), Some(from)) = (kind_of(about), from) else { return Err(frame) };
    originate(frame, way_back(about), |room| icmp::write_error(kind, from, about.bytes(), room))
}

/// A packet of our own that goes `hop`; or the frame, if there is no way or nothing is written.
pub fn originate(
    mut frame: Frame,
    hop: Option<Hop>,
    write: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> Result<Transit, Frame> {
    let Some(hop) = hop else { return Err(frame) };
    let written = frame.bytes_mut().get_mut(SEAL_HEADROOM..).and_then(write);
    match (written.map(u16::try_from), u16::try_from(SEAL_HEADROOM)) {
        (Some(Ok(len)), Ok(start)) => Ok(Transit::originated(frame, start, len, hop)),
        _ => Err(frame),
    }
}

/// The way to who sent it.
#[must_use]
pub fn way_back(about: &Transit) -> Option<Hop> {
    match about.course {
        Course::Tunnel { peer, .. } => Some(Hop::Peer(peer?)),
        Course::Plain { vlan, source_mac, .. } => {
            Some(Hop::Segment { port: about.port, vlan, mac: Some(source_mac) })
        }
        Course::Own | Course::Unknown | Course::Handshake | Course::Answer => None,
    }
}

fn kind_of(about: &Transit) -> Option<icmp::ErrorKind> {
    if about.end == Some(End::DropHopLimit) {
        Some(icmp::ErrorKind::TimeExceeded)
    } else if about.end == Some(End::DropTooBig) {
        Some(icmp::ErrorKind::PacketTooBig { mtu: about.fits })
    } else if about.end == Some(End::DropRevoked) {
        Some(icmp::ErrorKind::AdminProhibited)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowance_is_per_second() {
        let mut allowance = Allowance::default();
        let granted = (0..1000).filter(|_| allowance.take(7, 100)).count();
        assert_eq!(granted, 100);
        assert!(allowance.take(8, 100));
    }
}
