//! A packet on its way through the stages of one worker.

use bulkhead_link::{End, SessionIndex};
use bulkhead_table::{PeerIndex, RuleIndex};
use bulkhead_wire::{IpPacket, Malformed};
use bulkhead_xsk::{Frame, Packet};

use crate::flow::Party;
use crate::hold::Missing;

/// A frame, what is known about it so far, and how it ends once that is known.
///
/// Each stage fills in its part and looks only at transits that have not ended. The frame is owned
/// by the transit from the receive ring to the transmit ring or back to the pool.
pub struct Transit {
    /// The packet memory.
    pub frame: Frame,
    /// Where the bytes that matter begin in the frame: first the Ethernet header, after `open` the
    /// inner IP header, after `seal` the Ethernet header again.
    pub start: u16,
    /// How many bytes matter.
    pub len: u16,
    /// Where its Ethernet header began when it came. All headers in front of what matters stand there until
    /// `guard`, `seal` or `emit` writes others.
    pub outer: u16,
    /// The network port that it came in through.
    pub port: u8,
    /// What it came as.
    pub course: Course,
    /// The inner IP header; set by `steer` (plain) or `open` (tunnel).
    pub inner: Option<IpPacket>,
    /// The endpoint that sent it, and its label; set by `judge`.
    pub source: Party,
    /// The endpoint that it goes to, and its label; set by `judge`.
    pub destination: Party,
    /// The rule that lets it pass; set by `judge`.
    pub rule: RuleIndex,
    /// The way out; set by `route`.
    pub hop: Option<Hop>,
    /// The network port that it leaves through; set by `seal` and `emit`.
    pub leaves: Option<u8>,
    /// The largest IP packet that goes this way, bytes; set by `route`.
    pub fits: u16,
    /// Whether something of that way is missing, for which it must wait; set by `route`.
    pub waits: bool,
    /// How it ended, once it has.
    pub end: Option<End>,
}

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug)]
pub enum Course {
    /// Not looked at yet.
    Unknown,
    /// A WireGuard data message.
    Tunnel {
        /// The session that it is addressed to.
        index: SessionIndex,
        /// Its message counter.
        counter: u64,
        /// The ECN bits of the outer header.
        ecn: u8,
        /// The peer, once the packet has authenticated.
        peer: Option<PeerIndex>,
    },
    /// A handshake message for one of our listeners; `guard` ends it or makes it an answer.
    Handshake,
    /// What was a handshake message and is now the cookie reply to it.
    Answer,
    /// A plain IP packet of a segment.
    Plain {
        /// Its VLAN.
        vlan: Option<u16>,
        /// Who sent it on the wire, for answers.
        source_mac: [u8; 6],
        /// Our own address there.
        local_mac: [u8; 6],
    },
    /// Made by the gateway itself: no policy applies, and it is not counted as received.
    Own,
}

/// The way out.
#[derive(Clone, Copy, Debug)]
pub enum Hop {
    /// Sealed, to a peer.
    Peer(PeerIndex),
    /// Plain, to a neighbour on a segment.
    Segment {
        /// The network port.
        port: u8,
        /// The VLAN there.
        vlan: Option<u16>,
        /// The neighbour; `None` until it is resolved.
        mac: Option<[u8; 6]>,
    },
}

impl Transit {
    /// A frame that has just arrived.
    #[inline]
    #[must_use]
    pub fn received(packet: Packet, port: u8) -> Self {
        Self {
            frame: packet.frame,
            start: packet.start,
            len: packet.len,
            outer: packet.start,
            port,
            course: Course::Unknown,
            inner: None,
            source: Default::default(),
            destination: Default::default(),
            rule: RuleIndex::default(),
            hop: None,
            leaves: None,
            fits: 0,
            waits: false,
            end: None,
        }
    }

    /// A packet that the gateway made: `start` and `len` are those of its inner IP packet.
    #[must_use]
    pub fn originated(frame: Frame, start: u16, len: u16, hop: Hop) -> Self {
        let packet = Packet { frame, start, len };
        Self { course: Course::Own, hop: Some(hop), ..Self::received(packet, 0) }
    }

    /// The bytes that matter now; empty if the range is not inside the frame.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let start = usize::from(self.start);
        self.frame.bytes().get(start..start + usize::from(self.len)).unwrap_or(&[])
    }

    /// The bytes that matter now, to change them in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let start = usize::from(self.start);
        let end = start + usize::from(self.len);
        self.frame.bytes_mut().get_mut(start..end).unwrap_or(&mut [])
    }

    /// Narrows the bytes that matter to `len` bytes, `skip` further in. Returns whether they exist.
    #[inline]
    pub fn narrow(&mut self, skip: usize, len: usize) -> bool {
        let inside = skip.checked_add(len).is_some_and(|end| end <= usize::from(self.len));
        // Both are at most `self.len`, which is a u16.
        if let (true, Ok(skip), Ok(len)) = (inside, u16::try_from(skip), u16::try_from(len)) {
            self.start += skip;
            self.len = len;
        }
        inside
    }

    /// Reads the IP packet that the bytes begin with into `inner`.
    ///
    /// # Errors
    ///
    /// Those of [`IpPacket::parse`].
    #[inline]
    pub fn read_inner(&mut self) -> Result<&mut IpPacket, Malformed> {
        let start = usize::from(self.start);
        let bytes = self.frame.bytes().get(start..start + usize::from(self.len)).unwrap_or(&[]);
        match IpPacket::parse_plain(bytes) {
            Some(packet) => Ok(self.inner.insert(packet)),
            None => Ok(self.inner.insert(IpPacket::parse_any(bytes)?)),
        }
    }

    /// The session that it is addressed to, if it came through a tunnel.
    #[inline]
    #[must_use]
    pub fn session(&self) -> Option<SessionIndex> {
        match self.course {
            Course::Tunnel { index, .. } => Some(index),
            Course::Unknown
            | Course::Handshake
            | Course::Answer
            | Course::Plain { .. }
            | Course::Own => None,
        }
    }

    /// The frame as it came, and what is behind it, as far as nothing else was written there since.
    #[inline]
    #[must_use]
    pub fn outer(&self) -> &[u8] {
        self.frame.bytes().get(usize::from(self.outer)..).unwrap_or(&[])
    }

    /// What it waits for: the one thing that is not there of its way.
    #[must_use]
    pub fn missing(&self) -> Option<Missing> {
        match self.hop.filter(|_| self.waits)? {
            Hop::Peer(peer) => Some(Missing::Session(peer)),
            Hop::Segment { port, .. } => Some(Missing::Neighbour(port, self.inner?.destination)),
        }
    }

    /// Whether a stage has still to look at it.
    #[inline]
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.end.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_xsk::Umem;

    #[test]
    fn narrowing_stays_inside() {
        let (_umem, mut frames) = Umem::new(1).unwrap();
        let packet = Packet { frame: frames.pop().unwrap(), start: 100, len: 50 };
        let mut transit = Transit::received(packet, 0);
        assert!(
            !transit.narrow(10, 41) && !transit.narrow(51, 0) && !transit.narrow(usize::MAX, 2)
        );
        assert_eq!((transit.start, transit.len), (100, 50), "a refusal changes nothing");
        assert!(transit.narrow(10, 40));
        assert_eq!((transit.start, transit.len, transit.bytes().len()), (110, 40, 40));
        transit.start = u16::MAX;
        assert!(transit.bytes().is_empty() && transit.bytes_mut().is_empty());
    }
}
