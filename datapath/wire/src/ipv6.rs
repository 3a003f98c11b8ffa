//! The IPv6 header and its extension headers (RFC 8200).
//!
//! ```text
//!   header 40 | hop-by-hop | destination | routing | fragment | authentication | transport
//! ```

use zerocopy::byteorder::network_endian::{U16, U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ip::Extent;
use crate::ipv4::{fragment_of, narrow};
use crate::transport;
use crate::{Address, Fragment, IpPacket, Malformed, Transport};

/// Length of the fixed header.
pub(crate) const HEADER_LEN: usize = 40;

/// Extension headers that are walked. RFC 8200 §4.1 knows six, with one of them twice; Linux walks
/// any number, and so a longer chain could hide a port from us but not from the host.
const EXTENSIONS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// The fixed header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) version_class_flow: U32,
    pub(crate) payload_len: U16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: U128,
    pub(crate) destination: U128,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

#[inline]
pub(crate) fn read(bytes: &[u8], extent: Extent) -> Result<IpPacket, Malformed> {
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::IpTruncated)?;
    let len = HEADER_LEN.saturating_add(usize::from(header.payload_len.get()));
    if len > usize::from(u16::MAX) {
        return Err(Malformed::Ipv6TooLong);
    }
    let packet = match (bytes.get(..len), extent) {
        (Some(packet), _) => packet,
        (None, Extent::Quote) => bytes,
        (None, Extent::Whole) => return Err(Malformed::Ipv6PayloadLength),
    };

    let source = Address::from_bits(header.source.get());
    let destination = Address::from_bits(header.destination.get());
    // Inside an IPv6 header the mapped form is a disguise (RFC 4942 §2.2).
    if source.is_ipv4() || destination.is_ipv4() {
        return Err(Malformed::Martian);
    }
    refuse_martians(source, destination)?;

    let chain = Chain::walk(packet, header.next_header, extent)?;
    let payload = packet.get(chain.transport_at..).unwrap_or(&[]);
    let transport = match chain.fragment {
        Fragment::Later(_) => Transport::Other,
        Fragment::Whole | Fragment::First(_) => {
            transport::read(chain.protocol, false, payload, chain.fragment, extent)?
        }
    };
    let [first, second, ..] = header.version_class_flow.to_bytes();
    Ok(IpPacket {
        source,
        destination,
        protocol: chain.protocol,
        transport_at: narrow(chain.transport_at),
        len: narrow(packet.len()),
        hop_limit: header.hop_limit,
        traffic_class: first << 4 | second >> 4,
        fragment: chain.fragment,
        transport,
    })
}

/// Addresses that no packet carries which should be forwarded (RFC 1812 §5.3.7, RFC 4291 §2.5).
#[inline]
fn refuse_martians(source: Address, destination: Address) -> Result<(), Malformed> {
    if source.is_nobody() || source.is_multicast() || destination.is_nobody() {
        return Err(Malformed::Martian);
    }
    if destination.is_multicast() {
        return Err(Malformed::Multicast);
    }
    Ok(())
}

/// Where the extension headers end. INVARIANT: `transport_at <= packet.len()`.
struct Chain {
    protocol: u8,
    transport_at: usize,
    fragment: Fragment,
}

impl Chain {
    /// A first fragment must hold the whole chain (RFC 7112).
    fn truncated(&self, extent: Extent) -> Malformed {
        match (self.fragment, extent) {
            (Fragment::First(_), Extent::Whole) => Malformed::FragmentTiny,
            (Fragment::Whole | Fragment::First(_) | Fragment::Later(_), _) => {
                Malformed::Ipv6ExtensionTruncated
            }
        }
    }

    fn walk(packet: &[u8], first: u8, extent: Extent) -> Result<Self, Malformed> {
        let mut chain =
            Self { protocol: first, transport_at: HEADER_LEN, fragment: Fragment::Whole };
        let (mut routed, mut fragmented) = (false, false);
        // One turn more than headers, to see what follows the last.
        for turn in 0..=EXTENSIONS_MAX {
            let kind = chain.protocol;
            if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
                return Ok(chain);
            }
            if turn == EXTENSIONS_MAX {
                break;
            }
            // Every extension header has at least 8 bytes.
            let rest = packet.get(chain.transport_at..).unwrap_or(&[]);
            let &[next, units, third, fourth, ..] =
                rest.first_chunk::<8>().ok_or(chain.truncated(extent))?;
            let mut len = usize::from(units).saturating_add(1) << 3;
            match kind {
                HOP_BY_HOP if turn > 0 => return Err(Malformed::Ipv6ExtensionOrder),
                ROUTING => {
                    if core::mem::replace(&mut routed, true) {
                        return Err(Malformed::Ipv6ExtensionOrder);
                    }
                    // The destination in the header is not the last: whom would we judge?
                    let (kind, segments_left) = (third, fourth);
                    if kind == 0 || segments_left > 0 {
                        return Err(Malformed::Ipv6RoutingHeader);
                    }
                }
                FRAGMENT => {
                    if core::mem::replace(&mut fragmented, true) {
                        return Err(Malformed::Ipv6ExtensionOrder);
                    }
                    len = 8;
                    let word = u16::from_be_bytes([third, fourth]);
                    let id = rest.get(4..).and_then(|id| id.first_chunk::<4>()).copied();
                    let id = u32::from_be_bytes(id.unwrap_or_default());
                    let payload_len = rest.len().saturating_sub(len);
                    chain.fragment =
                        fragment_of((id, word >> 3, word & 1 != 0), payload_len, next, extent)?;
                }
                // RFC 4302 §2.2: in units of 4 bytes, minus 2.
                AUTHENTICATION => len = usize::from(units).saturating_add(2) << 2,
                _ => {}
            }
            if len > rest.len() {
                return Err(chain.truncated(extent));
            }
            chain.protocol = next;
            chain.transport_at = chain.transport_at.saturating_add(len);
            if let Fragment::Later(_) = chain.fragment {
                return Ok(chain);
            }
        }
        Err(Malformed::Ipv6ExtensionCount)
    }
}
