//! The shape of nearly every packet, read in one pass: TCP or UDP right behind an IP header without
//! options, and not fragmented.
//!
//! [`ipv4::read`] and [`ipv6::read`] are its slow twins: what is read here they read equally. `None`
//! says nothing about a packet; they decide.
//!
//! [`ipv4::read`]: crate::ipv4::read
//! [`ipv6::read`]: crate::ipv6::read

use crate::ethernet::{ETHERTYPE_IPV4, UNTAGGED_LEN};
use crate::transport::{TCP, TCP_LEN_MIN, TcpFlags, UDP, UDP_LEN};
use crate::{Address, Fragment, IpPacket, Mac, Transport, checksum, ipv4, ipv6};

/// Version 4, and a header of five words.
const V4_WITHOUT_OPTIONS: u8 = 0x45;

/// Flags and offset of IPv4 but for do-not-fragment and the bit that means nothing.
const ANY_FRAGMENT: u16 = 0x3fff;

/// Reads the packet at the start of `bytes`, if all of it is there and it has that shape.
///
/// Always inlined, and so made where it is to stay: to copy what was written in small pieces just before is
/// to wait for all of them.
#[inline(always)]
pub(crate) fn read(bytes: &[u8]) -> Option<IpPacket> {
    match bytes.first()? {
        &V4_WITHOUT_OPTIONS => v4(bytes),
        first if first >> 4 == 6 => v6(bytes),
        _ => None,
    }
}

#[inline(always)]
fn v4(bytes: &[u8]) -> Option<IpPacket> {
    let header = bytes.first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let &[_, traffic_class, l0, l1, _, _, _, _, hop_limit, protocol, ..] = header;
    let &[.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    if !is_ordinary(header) {
        return None;
    }
    let len = u16::from_be_bytes([l0, l1]);
    let payload = bytes.get(ipv4::HEADER_LEN..usize::from(len))?;
    let mapped = |bytes| Address::from_bits(0xffff << 32 | u128::from(u32::from_be_bytes(bytes)));
    Some(IpPacket {
        source: mapped([s0, s1, s2, s3]),
        destination: mapped([d0, d1, d2, d3]),
        protocol,
        transport_at: 20,
        len,
        hop_limit,
        traffic_class,
        fragment: Fragment::Whole,
        transport: transport(protocol, payload)?,
    })
}

/// Whether an IPv4 header of five words is of a whole packet between two hosts, and undamaged.
#[inline]
fn is_ordinary(header: &[u8; ipv4::HEADER_LEN]) -> bool {
    let &[_, _, _, _, _, _, f0, f1, _, _, _, _, source, _, _, _, destination, ..] = header;
    u16::from_be_bytes([f0, f1]) & ANY_FRAGMENT == 0
        && names_a_host(source)
        && names_a_host(destination)
        && checksum::is_right(header)
}

/// Whether every IPv4 address with this first byte may be a host's that packets are forwarded for:
/// not 0/8, 127/8, 224/4, nor 255/8, of which one may not and which is left to the twin.
#[inline]
fn names_a_host(first: u8) -> bool {
    /// To look costs less than to compare.
    const HOSTS: [bool; 256] = {
        let mut hosts = [true; 256];
        let mut first = 0;
        while first < 256 {
            #[expect(clippy::indexing_slicing, reason = "in a constant nothing panics at run time")]
            let host = &mut hosts[first];
            *host = !matches!(first, 0 | 127 | 224..=239 | 255);
            first += 1;
        }
        hosts
    };
    HOSTS.get(usize::from(first)).is_some_and(|host| *host)
}

#[inline(always)]
fn v6(bytes: &[u8]) -> Option<IpPacket> {
    let header = bytes.first_chunk::<{ ipv6::HEADER_LEN }>()?;
    let (&[v0, v1, _, _, l0, l1, protocol, hop_limit], addresses) = header.split_first_chunk()?;
    let (source, destination) = addresses.split_first_chunk()?;
    let source = Address::from_bits(u128::from_be_bytes(*source));
    let destination = Address::from_bits(u128::from_be_bytes(*destination.first_chunk()?));
    let refused =
        |address: Address| address.is_ipv4() || address.is_nobody() || address.is_multicast();
    if refused(source) || refused(destination) {
        return None;
    }
    let len = 40_u16.checked_add(u16::from_be_bytes([l0, l1]))?;
    let payload = bytes.get(ipv6::HEADER_LEN..usize::from(len))?;
    Some(IpPacket {
        source,
        destination,
        protocol,
        transport_at: 40,
        len,
        hop_limit,
        traffic_class: v0 << 4 | v1 >> 4,
        fragment: Fragment::Whole,
        transport: transport(protocol, payload)?,
    })
}

/// A UDP datagram over IPv4 in a frame without VLAN tag, of the plain shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// To which station.
    pub ethernet_destination: Mac,
    /// To whom.
    pub destination: Address,
    /// Destination port.
    pub destination_port: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Length of the UDP payload, bytes; all of it is in the frame.
    pub payload_len: u16,
}

impl Datagram {
    /// Where the payload begins in the frame.
    pub const PAYLOAD_AT: usize = UNTAGGED_LEN + ipv4::HEADER_LEN + UDP_LEN;

    /// Of the first bytes of a frame with a datagram, if it has no VLAN tag and is over IPv4 without options: the
    /// two stations, and the two addresses and ports, as they stand there.
    #[inline]
    #[must_use]
    pub fn ends_of_plain(headers: &[u8; Self::PAYLOAD_AT]) -> Option<(&[u8; 12], &[u8; 12])> {
        const KIND: [u8; 3] = {
            let [high, low] = ETHERTYPE_IPV4.to_be_bytes();
            [high, low, V4_WITHOUT_OPTIONS]
        };
        let (stations, rest) = headers.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        // From the type of service to the header checksum.
        let (_, rest) = rest.split_first_chunk::<11>()?;
        (*kind == KIND).then_some((stations, rest.first_chunk()?))
    }

    /// Reads a frame, if it is of this shape. [`Ethernet::parse`] and [`IpPacket::parse`] are the slow
    /// twins; `None` says nothing about a frame.
    ///
    /// [`Ethernet::parse`]: crate::Ethernet::parse
    #[inline]
    #[must_use]
    pub fn plain(frame: &[u8]) -> Option<Self> {
        let headers = frame.first_chunk::<{ Self::PAYLOAD_AT }>()?;
        let (stations, rest) = headers.split_first_chunk::<12>()?;
        let (&[t0, t1], rest) = rest.split_first_chunk()?;
        let (ip, rest) = rest.split_first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let &[_, _, q0, q1, u0, u1, ..] = rest.first_chunk::<UDP_LEN>()?;
        let &[version, traffic_class, l0, l1, _, _, _, _, _, protocol, ..] = ip;
        let &[.., d0, d1, d2, d3] = ip;
        let udp_len = u16::from_be_bytes([u0, u1]);
        let ip_len = u16::from_be_bytes([l0, l1]);
        let ordinary = u16::from_be_bytes([t0, t1]) == ETHERTYPE_IPV4
            && version == V4_WITHOUT_OPTIONS
            && protocol == UDP
            && is_ordinary(ip)
            && u32::from(udp_len).saturating_add(20) <= u32::from(ip_len)
            && usize::from(ip_len) <= frame.len().saturating_sub(UNTAGGED_LEN);
        let payload_len = udp_len.checked_sub(8).filter(|_| ordinary)?;
        let mapped =
            |bytes| Address::from_bits(0xffff << 32 | u128::from(u32::from_be_bytes(bytes)));
        Some(Self {
            ethernet_destination: Mac(*stations.first_chunk()?),
            destination: mapped([d0, d1, d2, d3]),
            destination_port: u16::from_be_bytes([q0, q1]),
            traffic_class,
            payload_len,
        })
    }
}

#[inline(always)]
fn transport(protocol: u8, payload: &[u8]) -> Option<Transport> {
    match protocol {
        UDP => {
            let &[s0, s1, d0, d1, l0, l1, _, _] = payload.first_chunk::<UDP_LEN>()?;
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let (source, destination) =
                (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
            let right = len >= UDP_LEN && len <= payload.len();
            right.then_some(Transport::Udp { source, destination })
        }
        TCP => {
            let &[s0, s1, d0, d1, .., offset, flags, _, _, _, _, _, _] =
                payload.first_chunk::<TCP_LEN_MIN>()?;
            let len = usize::from(offset >> 4) << 2;
            let (source, destination) =
                (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
            let right = len >= TCP_LEN_MIN && len <= payload.len();
            right.then_some(Transport::Tcp { source, destination, flags: TcpFlags(flags) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
