//! The outer headers of a tunnel packet: IP and UDP, written in one go.

use zerocopy::byteorder::network_endian::{U16, U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::transport::{UDP, UDP_LEN};
use crate::{Address, checksum, ipv4, ipv6};

/// Length of an IPv4 and a UDP header.
const HEADER_LEN_V4: usize = 28;
/// Length of an IPv6 and a UDP header.
const HEADER_LEN_V6: usize = 48;

const _: () = assert!(HEADER_LEN_V4 == ipv4::HEADER_LEN + UDP_LEN);
const _: () = assert!(HEADER_LEN_V6 == ipv6::HEADER_LEN + UDP_LEN);

/// The addresses of a datagram that we send. Both are of the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterUdp {
    /// One of our addresses.
    pub source: Address,
    /// The peer's address.
    pub destination: Address,
    /// Our port.
    pub source_port: u16,
    /// The peer's port.
    pub destination_port: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
}

impl OuterUdp {
    /// Length of both headers: 28 or 48.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        if self.destination.is_ipv4() { HEADER_LEN_V4 } else { HEADER_LEN_V6 }
    }

    /// Writes both headers at the start of `buf`, for `payload_len` bytes of UDP payload.
    ///
    /// IPv4: do-not-fragment, identification 0 (RFC 6864 §4.1), no UDP checksum (RFC 768), as the
    /// payload authenticates itself. IPv6: the UDP checksum is 0, which no receiver accepts, until
    /// [`checksum_v6`] fills it.
    ///
    /// Returns `false`, and writes nothing, if `buf` is too short, the datagram would not fit a
    /// 16-bit length, or the addresses are of two families.
    #[inline]
    pub fn write(&self, buf: &mut [u8], payload_len: usize) -> bool {
        let udp_len = UDP_LEN.saturating_add(payload_len);
        let total_len = self.header_len().saturating_add(payload_len);
        let (Ok(udp_len), Ok(total_len)) = (u16::try_from(udp_len), u16::try_from(total_len))
        else {
            return false;
        };
        let udp = UdpHeader {
            source: U16::new(self.source_port),
            destination: U16::new(self.destination_port),
            len: U16::new(udp_len),
            checksum: U16::ZERO,
        };
        match (self.source.ipv4_bits(), self.destination.ipv4_bits()) {
            (Some(source), Some(destination)) => {
                let Some(room) = buf.first_chunk_mut::<HEADER_LEN_V4>() else { return false };
                let mut ip = ipv4::Header {
                    version_and_len: 0x45,
                    traffic_class: self.traffic_class,
                    total_len: U16::new(total_len),
                    id: U16::ZERO,
                    flags_and_offset: U16::new(ipv4::DONT_FRAGMENT),
                    hop_limit: self.hop_limit,
                    protocol: UDP,
                    checksum: U16::ZERO,
                    source: U32::new(source),
                    destination: U32::new(destination),
                };
                ip.checksum = U16::new(checksum::of(ip.as_bytes()));
                *room = zerocopy::transmute!(Datagram { ip, udp });
            }
            (None, None) => {
                let Some(room) = buf.first_chunk_mut::<HEADER_LEN_V6>() else { return false };
                let ip = ipv6::Header {
                    version_class_flow: U32::new(6 << 28 | u32::from(self.traffic_class) << 20),
                    payload_len: U16::new(udp_len),
                    next_header: UDP,
                    hop_limit: self.hop_limit,
                    source: U128::new(self.source.bits()),
                    destination: U128::new(self.destination.bits()),
                };
                *room = zerocopy::transmute!(Datagram { ip, udp });
            }
            (Some(_), None) | (None, Some(_)) => return false,
        }
        true
    }
}

/// Fills the UDP checksum (RFC 8200 §8.1) of the datagram whose IPv6 header stands at the start of
/// `packet`, once the payload is there. Bytes behind the datagram do not count. Returns `false`, and
/// writes nothing, if there is no IPv6 header, or the datagram is not all there.
#[inline]
pub fn checksum_v6(packet: &mut [u8]) -> bool {
    let Some((ip, datagram)) = packet.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>() else {
        return false;
    };
    let ip: &ipv6::Header = zerocopy::transmute_ref!(&*ip);
    let Ok((header, _)) = UdpHeader::ref_from_prefix(datagram) else { return false };
    let len = header.len.get();
    let Some(datagram) = datagram.get_mut(..usize::from(len)) else { return false };
    let Ok((header, _)) = UdpHeader::mut_from_prefix(datagram) else { return false };
    if ip.version_class_flow.get() >> 28 != 6 {
        return false;
    }
    header.checksum = U16::ZERO;
    let (source, destination) = (ip.source.get(), ip.destination.get());
    let ends = (Address::from_bits(source), Address::from_bits(destination));
    let sum = pseudo_header(ends.0, ends.1, UDP, u32::from(len)).with(datagram).finish();
    // Zero would mean that there is none.
    let sum = if sum == 0 { u16::MAX } else { sum };
    let Ok((header, _)) = UdpHeader::mut_from_prefix(datagram) else { return false };
    header.checksum = U16::new(sum);
    true
}

/// The sum of the IPv6 pseudo-header (RFC 8200 §8.1) for `len` bytes of `protocol`.
pub(crate) fn pseudo_header(
    source: Address,
    destination: Address,
    protocol: u8,
    len: u32,
) -> checksum::Sum {
    checksum::Sum::default()
        .with(&source.bits().to_be_bytes())
        .with(&destination.bits().to_be_bytes())
        .with(&len.to_be_bytes())
        .with(&[0, 0, 0, protocol])
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Datagram<Ip: Unaligned> {
    ip: Ip,
    udp: UdpHeader,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct UdpHeader {
    source: U16,
    destination: U16,
    len: U16,
    checksum: U16,
}

const _: () = assert!(size_of::<UdpHeader>() == UDP_LEN);

#[cfg(test)]
mod tests;
