//! One IP packet of either family, read once.

use crate::{Address, Malformed, Transport, checksum, ipv4, ipv6, plain};

/// Everything the datapath needs to know of a packet.
///
/// INVARIANT: `transport_at <= len`, and `len` is at most the length of the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// From whom.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// IP protocol after the extension headers. Of a later IPv6 fragment, what its fragment header
    /// names, which may be another extension header.
    pub protocol: u8,
    /// Offset of the transport header, bytes from the start of the IP header.
    pub transport_at: u16,
    /// Length of the packet by its IP header, bytes. Padding behind it is not counted.
    pub len: u16,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// Which part of its packet this is.
    pub fragment: Fragment,
    /// The transport header.
    pub transport: Transport,
}

/// Which part of its packet a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it; also an IPv6 atomic fragment (RFC 6946).
    Whole,
    /// The start, with the transport header.
    First(Piece),
    /// Anything behind the start: there is no transport header.
    Later(Piece),
}

/// Which bytes of a datagram a fragment carries, counted behind the IP header (RFC 791) or behind the
/// fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Tells the datagrams of a sender apart.
    pub id: u32,
    /// The first byte.
    pub start: u16,
    /// How many there are; of a quoted fragment those that are there.
    pub len: u16,
    /// Whether others follow.
    pub more: bool,
}

impl IpPacket {
    /// [`Self::parse`] for nearly all packets: TCP or UDP right behind an IP header without options, and
    /// not fragmented. `None` says nothing about a packet; [`Self::parse_any`] decides.
    ///
    /// For the packet path: to write its result where it is to stay costs half of copying it there.
    #[inline]
    #[must_use]
    pub fn parse_plain(bytes: &[u8]) -> Option<Self> {
        plain::read(bytes)
    }

    /// [`Self::parse`] for packets that [`Self::parse_plain`] says nothing about, and its slow twin for the
    /// others.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    #[inline]
    pub fn parse_any(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::read_any(bytes, Extent::Whole)
    }

    /// Reads the packet at the start of `bytes`, which may be longer than the packet.
    ///
    /// # Errors
    ///
    /// The first defect, in the order: IP header, addresses, extension headers, fragmentation,
    /// transport header.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::read(bytes, Extent::Whole)
    }

    #[inline]
    pub(crate) fn read(bytes: &[u8], extent: Extent) -> Result<Self, Malformed> {
        match plain::read(bytes) {
            Some(packet) => Ok(packet),
            None => Self::read_any(bytes, extent),
        }
    }

    /// Reads a packet of any shape. Apart, so that the way of nearly all packets stays short.
    #[inline(never)]
    pub(crate) fn read_any(bytes: &[u8], extent: Extent) -> Result<Self, Malformed> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => ipv4::read(bytes, extent),
            Some(6) => ipv6::read(bytes, extent),
            Some(_) => Err(Malformed::IpVersion),
            None => Err(Malformed::IpTruncated),
        }
    }
}

/// Whether all of a packet is expected to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Yes.
    Whole,
    /// No: a router or host quoted the start of it in an ICMP error, after it may have changed the
    /// hop limit without the checksum.
    Quote,
}

/// Takes one from the hop limit and mends the checksum of an IPv4 header. Does nothing to a packet
/// whose hop limit is 0, and to bytes that are no IP header.
#[inline]
pub fn decrement_hop_limit(packet: &mut [u8]) {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            if let Some([.., ttl, protocol, sum_high, sum_low]) = packet.first_chunk_mut::<12>()
                && *ttl > 0
            {
                let old = u16::from_be_bytes([*ttl, *protocol]);
                *ttl = ttl.saturating_sub(1);
                let new = u16::from_be_bytes([*ttl, *protocol]);
                mend(sum_high, sum_low, old, new);
            }
        }
        Some(6) => {
            if let Some([.., hop_limit]) = packet.first_chunk_mut::<8>() {
                *hop_limit = hop_limit.saturating_sub(1);
            }
        }
        _ => {}
    }
}

/// Replaces the ECN field by the lower two bits of `ecn` and mends the checksum of an IPv4 header.
/// Does nothing to bytes that are no IP header.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: u8) {
    let ecn = ecn & 3;
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            if let Some([first, class, .., sum_high, sum_low]) = packet.first_chunk_mut::<12>() {
                let old = u16::from_be_bytes([*first, *class]);
                *class = *class & !3 | ecn;
                let new = u16::from_be_bytes([*first, *class]);
                mend(sum_high, sum_low, old, new);
            }
        }
        Some(6) => {
            // version 4 bits, class 8, flow label 20: the ECN field is in the second byte.
            if let Some([_, second]) = packet.first_chunk_mut::<2>() {
                *second = *second & !0x30 | ecn << 4;
            }
        }
        _ => {}
    }
}

#[inline]
fn mend(sum_high: &mut u8, sum_low: &mut u8, old: u16, new: u16) {
    let sum = checksum::update(u16::from_be_bytes([*sum_high, *sum_low]), old, new);
    [*sum_high, *sum_low] = sum.to_be_bytes();
}

#[cfg(test)]
pub(crate) mod tests;
