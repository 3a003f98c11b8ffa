//! TCP resets that a gateway sends in the name of one end of a connection to the other.

use zerocopy::byteorder::network_endian::{U16, U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::transport::{TCP, TCP_LEN_MIN};
use crate::udp::pseudo_header;
use crate::{Address, Fragment, IpPacket, TcpFlags, Transport, checksum, ipv4, ipv6};

/// Hop limit of resets: what Linux uses for all it sends.
const HOP_LIMIT: u8 = 64;

/// Who is told that the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// The sender of the segment, as if its receiver had no such connection.
    Sender,
    /// The receiver of the segment, as if its sender had sent a reset in its place.
    Receiver,
}

/// Writes the reset that ends the connection of the TCP segment `about` at one of its ends, as an IP
/// packet at the start of `out`; returns its length.
///
/// The sender gets what RFC 9293 §3.10.7.1 prescribes for a segment of no connection: the number that
/// it acknowledged, which is the next that it expects, or without ACK number zero and an
/// acknowledgement of all that it sent. The receiver gets the number of the segment itself: as the
/// segment never arrived, that is the next that it expects, and so it passes the check of RFC 5961 §3.2.
///
/// `None` if there is none to send: `about` is a reset, a fragment, malformed or no TCP; or has no ACK
/// and the reset is for the receiver, who may know of no connection yet; or `out` is too short.
pub fn write_reset(to: ResetTo, about: &[u8], out: &mut [u8]) -> Option<usize> {
    let packet = IpPacket::parse(about).ok()?;
    let Transport::Tcp { flags: TcpFlags(flags), .. } = packet.transport else { return None };
    if packet.fragment != Fragment::Whole || flags & TcpFlags::RST != 0 {
        return None;
    }
    let segment = about.get(usize::from(packet.transport_at)..usize::from(packet.len))?;
    let (header, _) = Header::ref_from_prefix(segment).ok()?;
    let acknowledges = flags & TcpFlags::ACK != 0;
    let (sequence, acknowledged, flags) = match (to, acknowledges) {
        (ResetTo::Sender, true) => (header.acknowledged.get(), 0, TcpFlags::RST),
        (ResetTo::Sender, false) => {
            let next = header.sequence.get().wrapping_add(length(header, segment.len())?);
            (0, next, TcpFlags::RST | TcpFlags::ACK)
        }
        (ResetTo::Receiver, true) => {
            let flags = TcpFlags::RST | TcpFlags::ACK;
            (header.sequence.get(), header.acknowledged.get(), flags)
        }
        (ResetTo::Receiver, false) => return None,
    };
    let ends = [(packet.source, header.source), (packet.destination, header.destination)];
    let [(from, source), (to, destination)] = match to {
        ResetTo::Sender => [ends[1], ends[0]],
        ResetTo::Receiver => ends,
    };
    let reset = Header {
        source,
        destination,
        sequence: U32::new(sequence),
        acknowledged: U32::new(acknowledged),
        offset: OFFSET,
        flags,
        window: U16::ZERO,
        checksum: U16::ZERO,
        urgent: U16::ZERO,
    };
    write_packet(from, to, reset, out)
}

/// Length of a segment in sequence numbers: its data, and one each for SYN and FIN (RFC 9293 §3.4).
/// `None` if its header says that it is longer than all there is.
fn length(header: &Header, len: usize) -> Option<u32> {
    let data = len.checked_sub(usize::from(header.offset >> 4) << 2)?;
    let set = |flag: u8| u32::from(header.flags & flag != 0);
    let marks = set(TcpFlags::SYN).wrapping_add(set(TcpFlags::FIN));
    Some(u32::try_from(data).ok()?.wrapping_add(marks))
}

/// A segment without data, with its checksum, behind an IP header.
fn write_packet(from: Address, to: Address, mut segment: Header, out: &mut [u8]) -> Option<usize> {
    let len = u16::try_from(TCP_LEN_MIN).ok()?;
    let sum = match (from.ipv4_bits(), to.ipv4_bits()) {
        (Some(from), Some(to)) => checksum::Sum::default()
            .with(&from.to_be_bytes())
            .with(&to.to_be_bytes())
            .with(&[0, TCP])
            .with(&len.to_be_bytes()),
        (None, None) => pseudo_header(from, to, TCP, u32::from(len)),
        (Some(_), None) | (None, Some(_)) => return None,
    };
    segment.checksum = U16::new(sum.with(segment.as_bytes()).finish());
    let ip_len = match (from.ipv4_bits(), to.ipv4_bits()) {
        (Some(from), Some(to)) => {
            let mut header = ipv4::Header {
                version_and_len: 0x45,
                traffic_class: 0,
                total_len: U16::new(RESET_LEN_V4),
                id: U16::ZERO,
                flags_and_offset: U16::new(ipv4::DONT_FRAGMENT),
                hop_limit: HOP_LIMIT,
                protocol: TCP,
                checksum: U16::ZERO,
                source: U32::new(from),
                destination: U32::new(to),
            };
            header.checksum = U16::new(checksum::of(header.as_bytes()));
            header.write_to_prefix(out).ok()?;
            ipv4::HEADER_LEN
        }
        _ => {
            let header = ipv6::Header {
                version_class_flow: U32::new(6 << 28),
                payload_len: U16::new(len),
                next_header: TCP,
                hop_limit: HOP_LIMIT,
                source: U128::new(from.bits()),
                destination: U128::new(to.bits()),
            };
            header.write_to_prefix(out).ok()?;
            ipv6::HEADER_LEN
        }
    };
    segment.write_to_prefix(out.get_mut(ip_len..)?).ok()?;
    ip_len.checked_add(TCP_LEN_MIN)
}

/// Five words, in the upper half of the byte.
const OFFSET: u8 = 5 << 4;
/// Length of a whole reset over IPv4.
const RESET_LEN_V4: u16 = 40;

const _: () = assert!(RESET_LEN_V4 as usize == ipv4::HEADER_LEN + TCP_LEN_MIN);

/// The header of RFC 9293 §3.1 without options.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    source: U16,
    destination: U16,
    sequence: U32,
    acknowledged: U32,
    offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

const _: () = assert!(size_of::<Header>() == TCP_LEN_MIN);

#[cfg(test)]
mod tests;
