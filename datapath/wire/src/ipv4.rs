//! The IPv4 header (RFC 791).

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::address::{is_multicast_v4, is_nobody_v4};
use crate::ip::Extent;
use crate::transport::{self, TCP, TCP_LEN_MIN};
use crate::{Address, Fragment, IpPacket, Malformed, Piece, Transport, checksum};

/// Length of a header without options.
pub(crate) const HEADER_LEN: usize = 20;

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Do not fragment.
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;

/// The fixed part of the header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) version_and_len: u8,
    pub(crate) traffic_class: u8,
    pub(crate) total_len: U16,
    pub(crate) id: U16,
    pub(crate) flags_and_offset: U16,
    pub(crate) hop_limit: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: U16,
    pub(crate) source: U32,
    pub(crate) destination: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

#[inline]
pub(crate) fn read(bytes: &[u8], extent: Extent) -> Result<IpPacket, Malformed> {
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::IpTruncated)?;
    let header_len = usize::from(header.version_and_len & 0x0f) << 2;
    let total_len = header.total_len.get();
    if header_len < HEADER_LEN {
        return Err(Malformed::Ipv4HeaderLength);
    }
    let header_bytes = bytes.get(..header_len).ok_or(Malformed::IpTruncated)?;
    if usize::from(total_len) < header_len {
        return Err(Malformed::Ipv4TotalLength);
    }
    let packet = match (bytes.get(..usize::from(total_len)), extent) {
        (Some(packet), _) => packet,
        (None, Extent::Quote) => bytes,
        (None, Extent::Whole) => return Err(Malformed::Ipv4TotalLength),
    };
    // Nearly all headers have no options: a length that is known makes the sum five additions.
    let sum = match header_bytes.first_chunk::<HEADER_LEN>() {
        Some(plain) if header_len == HEADER_LEN => checksum::of(plain),
        Some(_) | None => checksum::of(header_bytes),
    };
    if extent == Extent::Whole && sum != 0 {
        return Err(Malformed::Ipv4Checksum);
    }
    if let Some(options @ [_, ..]) = header_bytes.get(HEADER_LEN..) {
        refuse_source_routes(options)?;
    }

    // Addresses that no packet carries which should be forwarded (RFC 1812 §5.3.7).
    let (from, to) = (header.source.get(), header.destination.get());
    if is_nobody_v4(from) || is_multicast_v4(from) || is_nobody_v4(to) {
        return Err(Malformed::Martian);
    }
    if is_multicast_v4(to) {
        return Err(Malformed::Multicast);
    }
    let mapped = |bits: u32| Address::from_bits(0xffff << 32 | u128::from(bits));
    let (source, destination) = (mapped(from), mapped(to));

    let payload = packet.get(header_len..).unwrap_or(&[]);
    let flags_and_offset = header.flags_and_offset.get();
    let more = flags_and_offset & MORE_FRAGMENTS != 0;
    let offset = flags_and_offset & OFFSET_MASK;
    let id = u32::from(header.id.get());
    let fragment = fragment_of((id, offset, more), payload.len(), header.protocol, extent)?;
    let transport = match fragment {
        Fragment::Later(_) => Transport::Other,
        Fragment::Whole | Fragment::First(_) => {
            transport::read(header.protocol, true, payload, fragment, extent)?
        }
    };
    Ok(IpPacket {
        source,
        destination,
        protocol: header.protocol,
        transport_at: narrow(header_len),
        len: narrow(packet.len()),
        hop_limit: header.hop_limit,
        traffic_class: header.traffic_class,
        fragment,
        transport,
    })
}

/// RFC 791 §3.1: an option is one byte (0 ends the list, 1 is padding), or type, length, data.
fn refuse_source_routes(mut options: &[u8]) -> Result<(), Malformed> {
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    // Each turn takes at least a byte of at most 40.
    while let [kind, rest @ ..] = options {
        options = match (kind, rest) {
            (0, _) => return Ok(()),
            (1, rest) => rest,
            (&LOOSE | &STRICT, _) => return Err(Malformed::Ipv4SourceRoute),
            (_, [0 | 1, ..] | []) => return Err(Malformed::Ipv4Option),
            (_, [len, ..]) => options.get(usize::from(*len)..).ok_or(Malformed::Ipv4Option)?,
        };
    }
    Ok(())
}

/// What identifier, offset in units of 8 bytes, and the more-fragments flag make of a payload.
#[inline]
pub(crate) fn fragment_of(
    (id, offset, more): (u32, u16, bool),
    payload_len: usize,
    protocol: u8,
    extent: Extent,
) -> Result<Fragment, Malformed> {
    // 13 bits times 8 stay below 2^16.
    let start = usize::from(offset) << 3;
    let piece = Piece { id, start: narrow(start), len: narrow(payload_len), more };
    let fragment = match (offset, more) {
        (0, false) => return Ok(Fragment::Whole),
        (0, true) => Fragment::First(piece),
        (_, _) => Fragment::Later(piece),
    };
    // We judge a first fragment by the 20 bytes that it must have; whoever reassembles may prefer
    // those of a later fragment.
    if offset > 0 && protocol == TCP && start < TCP_LEN_MIN {
        return Err(Malformed::FragmentOverlap);
    }
    if extent == Extent::Whole {
        if more && (payload_len == 0 || payload_len & 7 != 0) {
            return Err(Malformed::FragmentLength);
        }
        if start.saturating_add(payload_len) > usize::from(u16::MAX) {
            return Err(Malformed::FragmentPastEnd);
        }
    }
    Ok(fragment)
}

/// A length that was already held against one of 16 bits.
#[inline]
pub(crate) fn narrow(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
