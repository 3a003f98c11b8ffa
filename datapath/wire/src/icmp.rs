//! ICMP errors: reading the packet that one quotes, and writing one.

use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32, U128};

use crate::ip::Extent;
use crate::transport::{ICMP, ICMPV6};
use crate::udp::pseudo_header;
use crate::{Address, Fragment, IpPacket, Malformed, Transport, checksum, ipv4, ipv6};

/// Length of the header of an error; the quoted packet follows.
pub const HEADER_LEN: usize = 8;

/// Longest IPv4 error, with its IP header (RFC 1812 §4.3.2.3).
const ERROR_LEN_MAX_V4: usize = 576;
/// Longest IPv6 error, with its IP header: the minimum MTU (RFC 4443 §2.4 (c)).
const ERROR_LEN_MAX_V6: usize = 1280;
/// Hop limit of errors: what Linux uses for all it sends.
const HOP_LIMIT: u8 = 64;
/// Internetwork control, as RFC 1812 §4.3.2.5 recommends for errors.
const TRAFFIC_CLASS: u8 = 0xc0;

/// Reads the packet that an ICMP or ICMPv6 error quotes: all behind the [`HEADER_LEN`] bytes.
///
/// A quote may end 8 bytes after the IP header, its hop limit and checksum may be whatever the last
/// router left, and so neither is looked at. The `len` of the result is the part that is there.
///
/// # Errors
///
/// As [`IpPacket::parse`]; [`Malformed::TransportTruncated`] if fewer than 8 bytes of the transport
/// header were quoted.
pub fn quoted(quote: &[u8]) -> Result<IpPacket, Malformed> {
    IpPacket::read(quote, Extent::Quote)
}

/// Whether an ICMP type is an error message (RFC 792, RFC 1122 §3.2.2): unreachable, source quench,
/// redirect, time exceeded, parameter problem.
#[inline]
#[must_use]
pub const fn is_error_v4(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// Whether an ICMPv6 type is an error message (RFC 4443 §2.1). A redirect is none by number, but
/// is treated like one where errors must not answer errors (§2.4 (e)).
#[inline]
#[must_use]
pub const fn is_error_v6(kind: u8) -> bool {
    kind < 128
}

/// What went wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The hop limit ran out on the way.
    TimeExceeded,
    /// Longer than the next hop carries.
    PacketTooBig {
        /// What the next hop carries, bytes of IP packet.
        mtu: u16,
    },
    /// Forbidden by policy.
    AdminProhibited,
    /// Nobody knows the destination.
    NoRoute,
}

impl ErrorKind {
    /// Type and code (RFC 792, RFC 1191, RFC 1812 §5.2.7.1).
    const fn v4(self) -> (u8, u8) {
        match self {
            Self::TimeExceeded => (11, 0),
            Self::PacketTooBig { .. } => (3, 4),
            Self::AdminProhibited => (3, 13),
            Self::NoRoute => (3, 0),
        }
    }

    /// Type and code (RFC 4443 §3).
    const fn v6(self) -> (u8, u8) {
        match self {
            Self::TimeExceeded => (3, 0),
            Self::PacketTooBig { .. } => (2, 0),
            Self::AdminProhibited => (1, 1),
            Self::NoRoute => (1, 0),
        }
    }

    /// The second word of the ICMP header. Both families have the MTU in its lower half: RFC 1191
    /// §4, RFC 4443 §3.2.
    const fn word(self) -> u32 {
        match self {
            Self::PacketTooBig { mtu } => mtu as u32,
            Self::TimeExceeded | Self::AdminProhibited | Self::NoRoute => 0,
        }
    }
}

/// Writes an ICMP error about the IP packet `offending`, from our address `from` to its sender, as
/// an IP packet at the start of `out`; returns its length.
///
/// `None` if none may be sent (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)): `offending` is itself an error
/// or a redirect, a later fragment, malformed (which covers senders and receivers that are groups),
/// or `from` is of the other family; and if `out` is too short. Whoever calls limits the rate.
pub fn write_error(
    kind: ErrorKind,
    from: Address,
    offending: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    let packet = IpPacket::parse(offending).ok()?;
    if matches!(packet.fragment, Fragment::Later(_)) || is_error_or_redirect(packet.transport) {
        return None;
    }
    let about = offending.get(..usize::from(packet.len))?;
    match (from.ipv4_bits(), packet.source.ipv4_bits()) {
        (Some(from), Some(to)) => write_v4(kind, from, to, about, out),
        (None, None) => write_v6(kind, from, packet.source, about, out),
        (Some(_), None) | (None, Some(_)) => None,
    }
}

fn is_error_or_redirect(transport: Transport) -> bool {
    const REDIRECT_V6: u8 = 137;
    match transport {
        Transport::Icmp { kind, .. } => is_error_v4(kind),
        Transport::Icmpv6 { kind, .. } => is_error_v6(kind) || kind == REDIRECT_V6,
        Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Other => false,
    }
}

fn write_v4(kind: ErrorKind, from: u32, to: u32, about: &[u8], out: &mut [u8]) -> Option<usize> {
    const ROOM: usize = ERROR_LEN_MAX_V4 - ipv4::HEADER_LEN - HEADER_LEN;
    let quote = about.get(..about.len().min(ROOM))?;
    let message_len = HEADER_LEN.saturating_add(quote.len());
    let total_len = ipv4::HEADER_LEN.saturating_add(message_len);
    let (ip, message) = out.get_mut(..total_len)?.split_at_mut_checked(ipv4::HEADER_LEN)?;

    let (kind_byte, code) = kind.v4();
    write_message(kind_byte, code, kind.word(), quote, checksum::Sum::default(), message)?;
    let mut header = ipv4::Header {
        version_and_len: 0x45,
        traffic_class: TRAFFIC_CLASS,
        total_len: U16::new(ipv4::narrow(total_len)),
        id: U16::ZERO,
        flags_and_offset: U16::new(ipv4::DONT_FRAGMENT),
        hop_limit: HOP_LIMIT,
        protocol: ICMP,
        checksum: U16::ZERO,
        source: U32::new(from),
        destination: U32::new(to),
    };
    header.checksum = U16::new(checksum::of(header.as_bytes()));
    header.write_to(ip).ok()?;
    Some(total_len)
}

fn write_v6(
    kind: ErrorKind,
    from: Address,
    to: Address,
    about: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    const ROOM: usize = ERROR_LEN_MAX_V6 - ipv6::HEADER_LEN - HEADER_LEN;
    let quote = about.get(..about.len().min(ROOM))?;
    let message_len = HEADER_LEN.saturating_add(quote.len());
    let total_len = ipv6::HEADER_LEN.saturating_add(message_len);
    let (ip, message) = out.get_mut(..total_len)?.split_at_mut_checked(ipv6::HEADER_LEN)?;

    let (kind_byte, code) = kind.v6();
    let pseudo = pseudo_header(from, to, ICMPV6, u32::try_from(message_len).ok()?);
    write_message(kind_byte, code, kind.word(), quote, pseudo, message)?;
    let header = ipv6::Header {
        version_class_flow: U32::new(6 << 28 | u32::from(TRAFFIC_CLASS) << 20),
        payload_len: U16::new(ipv4::narrow(message_len)),
        next_header: ICMPV6,
        hop_limit: HOP_LIMIT,
        source: U128::new(from.bits()),
        destination: U128::new(to.bits()),
    };
    header.write_to(ip).ok()?;
    Some(total_len)
}

/// The ICMP header and the quote, with a checksum that starts from `pseudo`.
fn write_message(
    kind: u8,
    code: u8,
    word: u32,
    quote: &[u8],
    pseudo: checksum::Sum,
    message: &mut [u8],
) -> Option<()> {
    let [w0, w1, w2, w3] = word.to_be_bytes();
    let (header, body) = message.split_first_chunk_mut::<HEADER_LEN>()?;
    *header = [kind, code, 0, 0, w0, w1, w2, w3];
    if body.len() != quote.len() {
        return None;
    }
    body.copy_from_slice(quote);
    let [c0, c1] = pseudo.with(&*header).with(body).finish().to_be_bytes();
    *header = [kind, code, c0, c1, w0, w1, w2, w3];
    Some(())
}

#[cfg(test)]
mod tests;
