//! The part of the transport header that a policy looks at.

use crate::ip::Extent;
use crate::{Fragment, Malformed};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// Length of a TCP header without options.
pub(crate) const TCP_LEN_MIN: usize = 20;
/// Length of a UDP header.
pub(crate) const UDP_LEN: usize = 8;

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// The control bits. None are set in a quote that ends before them.
        flags: TcpFlags,
    },
    /// UDP (RFC 768).
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP (RFC 792).
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo request or reply, otherwise 0.
        id: u16,
    },
    /// ICMPv6 (RFC 4443).
    Icmpv6 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo request or reply, otherwise 0.
        id: u16,
    },
    /// Anything else, nothing at all, or a later fragment.
    Other,
}

/// The eight control bits of a TCP header, as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender has finished.
    pub const FIN: u8 = 1;
    /// The connection opens.
    pub const SYN: u8 = 2;
    /// The connection is gone.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;

    /// The first packet of a connection: SYN without ACK.
    #[inline]
    #[must_use]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// FIN or RST.
    #[inline]
    #[must_use]
    pub const fn closes(self) -> bool {
        self.0 & (Self::FIN | Self::RST) != 0
    }
}

/// Reads the transport header at the start of `payload`, the whole rest of the packet.
#[inline]
pub(crate) fn read(
    protocol: u8,
    ipv4: bool,
    payload: &[u8],
    fragment: Fragment,
    extent: Extent,
) -> Result<Transport, Malformed> {
    let read = match (protocol, ipv4) {
        (TCP, _) => tcp(payload, extent),
        (UDP, _) => udp(payload, fragment, extent),
        (ICMP, true) => {
            icmp(payload, [8, 0]).map(|(kind, code, id)| Transport::Icmp { kind, code, id })
        }
        (ICMPV6, false) => {
            icmp(payload, [128, 129]).map(|(kind, code, id)| Transport::Icmpv6 { kind, code, id })
        }
        (ICMP, false) | (ICMPV6, true) => Err(Malformed::IcmpFamily),
        _ => Ok(Transport::Other),
    };
    match (read, fragment, extent) {
        (Err(Malformed::TransportTruncated), Fragment::First(_), Extent::Whole) => {
            Err(Malformed::FragmentTiny)
        }
        (read, ..) => read,
    }
}

#[inline]
fn tcp(payload: &[u8], extent: Extent) -> Result<Transport, Malformed> {
    // A quote need not have more than 8 bytes (RFC 792).
    let &[s0, s1, d0, d1, ..] = payload.first_chunk::<8>().ok_or(Malformed::TransportTruncated)?;
    let flags = match (payload.first_chunk::<TCP_LEN_MIN>(), extent) {
        (Some(&[_, _, _, _, _, _, _, _, _, _, _, _, offset, flags, ..]), _) => {
            let len = usize::from(offset >> 4) << 2;
            if len < TCP_LEN_MIN {
                return Err(Malformed::TcpHeaderLength);
            }
            if len > payload.len() && extent == Extent::Whole {
                return Err(Malformed::TransportTruncated);
            }
            TcpFlags(flags)
        }
        (None, Extent::Quote) => TcpFlags::default(),
        (None, Extent::Whole) => return Err(Malformed::TransportTruncated),
    };
    let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    Ok(Transport::Tcp { source, destination, flags })
}

#[inline]
fn udp(payload: &[u8], fragment: Fragment, extent: Extent) -> Result<Transport, Malformed> {
    let &[s0, s1, d0, d1, l0, l1, _, _] =
        payload.first_chunk::<UDP_LEN>().ok_or(Malformed::TransportTruncated)?;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let all_here = fragment == Fragment::Whole && extent == Extent::Whole;
    if len < UDP_LEN || all_here && len > payload.len() {
        return Err(Malformed::UdpLength);
    }
    let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    Ok(Transport::Udp { source, destination })
}

/// Type, code, and the identifier if the type is one of `echo`.
#[inline]
fn icmp(payload: &[u8], echo: [u8; 2]) -> Result<(u8, u8, u16), Malformed> {
    let &[kind, code, _, _, i0, i1, _, _] =
        payload.first_chunk::<8>().ok_or(Malformed::TransportTruncated)?;
    let id = if echo.contains(&kind) { u16::from_be_bytes([i0, i1]) } else { 0 };
    Ok((kind, code, id))
}
