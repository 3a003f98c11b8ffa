//! Packets and frames as peers and hosts write them.

use bulkhead_wire::{Address, Ethernet, Mac, OuterUdp, checksum, ethernet};

use super::{HOST_MAC, OWN_MAC};
use crate::place::Place;

/// An Ethernet frame with `payload` as a UDP datagram from a place to the gateway.
#[must_use]
pub fn datagram(place: &Place, payload: &[u8], ecn: u8) -> Vec<u8> {
    let outer = OuterUdp {
        source: place.remote,
        destination: place.local,
        source_port: place.remote_port,
        destination_port: place.local_port,
        traffic_class: ecn,
        hop_limit: 60,
    };
    let mut ip = vec![0; outer.header_len() + payload.len()];
    outer.write(&mut ip, payload.len());
    ip[outer.header_len()..].copy_from_slice(payload);
    framed(place.local_mac, place.remote_mac, &ip)
}

/// An Ethernet frame around an IP packet.
#[must_use]
pub fn framed(to: [u8; 6], from: [u8; 6], ip: &[u8]) -> Vec<u8> {
    let ether_type = match ip[0] >> 4 {
        4 => ethernet::ETHERTYPE_IPV4,
        _ => ethernet::ETHERTYPE_IPV6,
    };
    let header =
        Ethernet { destination: Mac(to), source: Mac(from), vlan: None, ether_type, len: 14 };
    let mut frame = vec![0; 14];
    header.write(&mut frame);
    frame.extend(ip);
    frame
}

/// A plain frame from the legacy host to the gateway.
#[must_use]
pub fn from_host(ip: &[u8]) -> Vec<u8> {
    framed(OWN_MAC, HOST_MAC, ip)
}

/// A UDP packet of `len` bytes in all, or as short as it can be.
#[must_use]
pub fn udp(from: Address, to: Address, ports: (u16, u16), len: usize) -> Vec<u8> {
    let header = OuterUdp {
        source: from,
        destination: to,
        source_port: ports.0,
        destination_port: ports.1,
        traffic_class: 0,
        hop_limit: 64,
    };
    let len = len.max(header.header_len());
    let mut packet: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
    header.write(&mut packet, len - header.header_len());
    packet
}

/// A TCP packet without data; `flags` as on the wire (SYN 2, ACK 16, RST 4, FIN 1).
#[must_use]
pub fn tcp(from: Address, to: Address, ports: (u16, u16), flags: u8) -> Vec<u8> {
    transport(from, to, 6, &{
        let mut header = vec![0; 20];
        header[..2].copy_from_slice(&ports.0.to_be_bytes());
        header[2..4].copy_from_slice(&ports.1.to_be_bytes());
        (header[12], header[13]) = (0x50, flags);
        header
    })
}

/// An IP packet with any transport header.
#[must_use]
pub fn transport(from: Address, to: Address, protocol: u8, content: &[u8]) -> Vec<u8> {
    // The headers of a UDP packet, with its transport replaced.
    let mut packet = udp(from, to, (0, 0), 0);
    let ip_len = packet.len() - 8;
    packet.truncate(ip_len);
    packet.extend(content);
    if from.is_ipv4() {
        packet[2..4].copy_from_slice(&u16::try_from(ip_len + content.len()).unwrap().to_be_bytes());
        packet[9] = protocol;
        packet[10..12].fill(0);
        let sum = checksum::of(&packet[..ip_len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&u16::try_from(content.len()).unwrap().to_be_bytes());
        packet[6] = protocol;
    }
    packet
}

/// An ICMP or ICMPv6 echo packet.
#[must_use]
pub fn echo(from: Address, to: Address, reply: bool, id: u16) -> Vec<u8> {
    let (protocol, kind) = match (from.is_ipv4(), reply) {
        (true, false) => (1, 8),
        (true, true) => (1, 0),
        (false, false) => (58, 128),
        (false, true) => (58, 129),
    };
    let [high, low] = id.to_be_bytes();
    transport(from, to, protocol, &[kind, 0, 0, 0, high, low, 0, 1])
}
