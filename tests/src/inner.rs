//! IP packets as a machine would send them, with right lengths and checksums; the bytes that go
//! into a tunnel, or behind an Ethernet header onto a segment.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpHeaders, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, ip_number};

use crate::Failure;

/// Hop limit of every packet here; Linux's default.
const HOP_LIMIT: u8 = 64;

/// A UDP datagram.
///
/// # Errors
///
/// If the families differ or the payload does not fit.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let builder = PacketBuilder::ip(header(from.ip(), to.ip())?).udp(from.port(), to.port());
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).map_err(|error| Failure::new(error.to_string()))?;
    Ok(packet)
}

/// A TCP segment that opens a connection.
///
/// # Errors
///
/// As [`udp`].
pub fn tcp_syn(from: SocketAddr, to: SocketAddr, sequence: u32) -> Result<Vec<u8>, Failure> {
    let builder = PacketBuilder::ip(header(from.ip(), to.ip())?)
        .tcp(from.port(), to.port(), sequence, 64_240)
        .syn();
    let mut packet = Vec::with_capacity(builder.size(0));
    builder.write(&mut packet, &[]).map_err(|error| Failure::new(error.to_string()))?;
    Ok(packet)
}

/// An ICMP or ICMPv6 echo request.
///
/// # Errors
///
/// As [`udp`].
pub fn echo_request(from: IpAddr, to: IpAddr, id: u16, sequence: u16) -> Result<Vec<u8>, Failure> {
    const DATA: [u8; 8] = *b"bulkhead";
    let builder = PacketBuilder::ip(header(from, to)?);
    let mut packet = Vec::new();
    let written = match from {
        IpAddr::V4(_) => builder.icmpv4_echo_request(id, sequence).write(&mut packet, &DATA),
        IpAddr::V6(_) => builder.icmpv6_echo_request(id, sequence).write(&mut packet, &DATA),
    };
    written.map_err(|error| Failure::new(error.to_string()))?;
    Ok(packet)
}

/// `packet` behind an Ethernet header of its family.
#[must_use]
pub fn on_ethernet(from: [u8; 6], to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ether_type: u16 = match packet.first().map(|byte| byte >> 4) {
        Some(6) => 0x86dd,
        _ => 0x0800,
    };
    [&to[..], &from[..], &ether_type.to_be_bytes()[..], packet].concat()
}

/// The lengths and the protocol are filled in by the builder.
fn header(from: IpAddr, to: IpAddr) -> Result<IpHeaders, Failure> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = Ipv4Header::new(0, HOP_LIMIT, ip_number::UDP, from.octets(), to.octets())
                .map_err(|error| Failure::new(error.to_string()))?;
            Ok(IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => Ok(IpHeaders::Ipv6(
            Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: ip_number::UDP,
                hop_limit: HOP_LIMIT,
                source: from.octets(),
                destination: to.octets(),
            },
            Default::default(),
        )),
        _ => Err(Failure::new(format!("{from} and {to} are of different families"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn packets_are_what_they_say() {
        for (from, to) in [("10.0.0.1:7", "10.0.0.2:8"), ("[fd00::1]:7", "[fd00::2]:8")] {
            let (from, to) = (address(from), address(to));
            let header_len = if from.is_ipv4() { 20 } else { 40 };
            let packet = udp(from, to, b"payload").unwrap();
            assert_eq!(packet.len(), header_len + 8 + 7);
            let sliced = etherparse::SlicedPacket::from_ip(&packet).unwrap();
            let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else {
                panic!("{sliced:?}")
            };
            assert_eq!((udp.source_port(), udp.destination_port()), (7, 8));

            let packet = tcp_syn(from, to, 1).unwrap();
            let sliced = etherparse::SlicedPacket::from_ip(&packet).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else {
                panic!("{sliced:?}")
            };
            assert!(tcp.syn() && !tcp.ack());
            assert_eq!(echo_request(from.ip(), to.ip(), 1, 2).unwrap().len(), header_len + 16);
        }
        assert!(udp(address("10.0.0.1:7"), address("[fd00::2]:8"), &[]).is_err());
    }
}
