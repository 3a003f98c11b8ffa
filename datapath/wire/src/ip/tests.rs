//! Packets made and read by etherparse, an independent implementation; packets made by hand for
//! what it does not make; and mutants of both.

use std::collections::BTreeSet;

use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options,
    Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions,
    NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::checksum::tests::twin as checksum_twin;
use crate::{Ethernet, TcpFlags, icmp, wg};

pub(crate) const A4: [u8; 4] = [10, 44, 0, 7];
pub(crate) const B4: [u8; 4] = [10, 20, 1, 5];
pub(crate) const A6: [u8; 16] = [0xfd, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
pub(crate) const B6: [u8; 16] = [0xfd, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];

pub(crate) fn a4() -> Address {
    std::net::Ipv4Addr::from(A4).into()
}

pub(crate) fn b4() -> Address {
    std::net::Ipv4Addr::from(B4).into()
}

pub(crate) fn a6() -> Address {
    std::net::Ipv6Addr::from(A6).into()
}

pub(crate) fn b6() -> Address {
    std::net::Ipv6Addr::from(B6).into()
}

/// An IPv4 packet from A to B by hand; `options` are padded to words.
pub(crate) fn v4(protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    packet.extend(A4);
    packet.extend(B4);
    packet.extend(options);
    packet.resize(20 + options.len().next_multiple_of(4), 0);
    packet[0] = 0x40 | u8::try_from(packet.len() / 4).unwrap();
    packet.extend(payload);
    let len = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    signed(packet)
}

/// The same packet with a right IPv4 header checksum.
pub(crate) fn signed(mut packet: Vec<u8>) -> Vec<u8> {
    let header_len = usize::from(packet[0] & 15) * 4;
    if packet[0] >> 4 == 4 && (20..=packet.len()).contains(&header_len) {
        packet[10..12].fill(0);
        let sum = checksum_twin(&packet[..header_len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// An IPv6 packet from A to B by hand; `rest` is all behind the header.
pub(crate) fn v6(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next_header, 64];
    let len = u16::try_from(rest.len()).unwrap();
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet.extend(A6);
    packet.extend(B6);
    packet.extend(rest);
    packet
}

/// A packet from A to B by etherparse.
fn built(v6: bool) -> etherparse::PacketBuilderStep<IpHeaders> {
    PacketBuilder::ip(if v6 { headers_v6(Ipv6Extensions::default()) } else { headers_v4(&[]) })
}

fn headers_v4(options: &[u8]) -> IpHeaders {
    let header = Ipv4Header {
        source: A4,
        destination: B4,
        time_to_live: 63,
        dscp: 46.try_into().unwrap(),
        ecn: 2.try_into().unwrap(),
        options: Ipv4Options::try_from(options).unwrap(),
        ..Ipv4Header::default()
    };
    IpHeaders::Ipv4(header, Ipv4Extensions::default())
}

fn headers_v6(extensions: Ipv6Extensions) -> IpHeaders {
    let header = Ipv6Header {
        source: A6,
        destination: B6,
        hop_limit: 63,
        traffic_class: 46 << 2 | 2,
        flow_label: 0xf_1234.try_into().unwrap(),
        ..Ipv6Header::default()
    };
    IpHeaders::Ipv6(header, extensions)
}

/// All extension headers that etherparse writes, the routing header with nothing left to visit.
fn all_extensions(fragment: Option<Ipv6FragmentHeader>) -> Ipv6Extensions {
    let raw = |payload: &[u8]| Ipv6RawExtHeader::new_raw(IpNumber::UDP, payload).unwrap();
    Ipv6Extensions {
        hop_by_hop_options: Some(raw(&[5, 2, 0, 0, 1, 0])),
        destination_options: Some(raw(&[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        routing: Some(Ipv6RoutingExtensions {
            routing: raw(&[4, 0, 0, 0, 0, 0]),
            final_destination_options: Some(raw(&[1, 4, 0, 0, 0, 0])),
        }),
        fragment,
        auth: Some(IpAuthHeader::new(IpNumber::UDP, 1, 2, &[0; 12]).unwrap()),
    }
}

fn fragment(offset: u16, more: bool) -> Option<Ipv6FragmentHeader> {
    let offset = IpFragOffset::try_new(offset).unwrap();
    Some(Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, 77))
}

/// Realistic packets, each with its name and its transport as etherparse was told.
pub(crate) fn realistic() -> Vec<(&'static str, Vec<u8>, Transport)> {
    let payload = [0x5a; 64];
    let mut packets = vec![];
    for of_v6 in [false, true] {
        let mut udp = vec![];
        built(of_v6).udp(4_000, 53).write(&mut udp, &payload).unwrap();
        packets.push(("udp", udp, Transport::Udp { source: 4_000, destination: 53 }));
        let mut syn = vec![];
        let step = built(of_v6).tcp(40_000, 443, 1, 1_000).syn();
        step.options_raw(&[2, 4, 5, 0xb4, 1, 3, 3, 7]).unwrap().write(&mut syn, &[]).unwrap();
        let (source, destination) = (40_000, 443);
        packets.push(("syn", syn, Transport::Tcp { source, destination, flags: TcpFlags(2) }));
        let mut data = vec![];
        let step = built(of_v6).tcp(443, 40_000, 1, 1_000).ack(9).fin().psh();
        step.write(&mut data, &payload).unwrap();
        let (source, destination) = (443, 40_000);
        packets.push(("fin", data, Transport::Tcp { source, destination, flags: TcpFlags(0x19) }));
    }
    let mut echo = vec![];
    built(false).icmpv4_echo_request(77, 1).write(&mut echo, &payload).unwrap();
    packets.push(("echo", echo, Transport::Icmp { kind: 8, code: 0, id: 77 }));
    let mut echo = vec![];
    built(true).icmpv6_echo_reply(78, 1).write(&mut echo, &payload).unwrap();
    packets.push(("echo reply", echo, Transport::Icmpv6 { kind: 129, code: 0, id: 78 }));
    let mut unreachable = vec![];
    let step = built(false).icmpv4_raw(3, 1, [1, 2, 3, 4]);
    step.write(&mut unreachable, &packets[0].1[..28]).unwrap();
    packets.push(("unreachable", unreachable, Transport::Icmp { kind: 3, code: 1, id: 0 }));
    let mut esp = vec![];
    built(false).write(&mut esp, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &payload).unwrap();
    packets.push(("esp", esp, Transport::Other));
    let udp = Transport::Udp { source: 4_000, destination: 53 };
    let mut options = vec![];
    let step = PacketBuilder::ip(headers_v4(&[7, 7, 4, 0, 0, 0, 0, 0]));
    step.udp(4_000, 53).write(&mut options, &payload).unwrap();
    packets.push(("record route", options, udp));
    for (name, part) in [("extensions", None), ("atomic fragment", fragment(0, false))] {
        let mut chain = vec![];
        let step = PacketBuilder::ip(headers_v6(all_extensions(part)));
        step.udp(4_000, 53).write(&mut chain, &payload).unwrap();
        packets.push((name, chain, udp));
    }
    packets
}

#[test]
fn realistic_packets_read_as_they_were_built() {
    for (name, bytes, want) in realistic() {
        let packet = IpPacket::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(packet.transport, want, "{name}");
        assert_eq!((packet.hop_limit, packet.traffic_class), (63, 46 << 2 | 2), "{name}");
        assert_eq!((usize::from(packet.len), packet.fragment), (bytes.len(), Fragment::Whole));
        let ends = if bytes[0] >> 4 == 4 { (a4(), b4()) } else { (a6(), b6()) };
        assert_eq!((packet.source, packet.destination), ends, "{name}");
        assert!(agrees_with_etherparse(&bytes, &packet), "{name}");
        let padded = [&bytes[..], &[0xee; 9]].concat();
        assert_eq!(IpPacket::parse(&padded), Ok(packet), "{name}: padding is not counted");
    }
}

/// Whether etherparse could read the packet too; panics if it read something else.
fn agrees_with_etherparse(bytes: &[u8], packet: &IpPacket) -> bool {
    let Ok(sliced) = SlicedPacket::from_ip(&bytes[..usize::from(packet.len)]) else {
        return false;
    };
    let (source, destination, protocol, fragmented) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let ends = (header.source_addr().into(), header.destination_addr().into());
            (ends.0, ends.1, header.protocol(), header.is_fragmenting_payload())
        }
        NetSlice::Ipv6(ip) => {
            let (header, payload) = (ip.header(), ip.payload());
            let ends = (header.source_addr().into(), header.destination_addr().into());
            (ends.0, ends.1, payload.ip_number, payload.fragmented)
        }
        NetSlice::Arp(_) => panic!("no IP"),
    };
    assert_eq!((packet.source, packet.destination), (source, destination));
    assert_eq!(packet.fragment != Fragment::Whole, fragmented);
    if fragmented {
        return true;
    }
    assert_eq!(packet.protocol, protocol.0);
    let be = |bytes: [u8; 4]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let echo = |kind: u8, kinds: [u8; 2], bytes| if kinds.contains(&kind) { be(bytes) } else { 0 };
    let want = match sliced.transport.as_ref() {
        Some(TransportSlice::Tcp(tcp)) => Transport::Tcp {
            source: tcp.source_port(),
            destination: tcp.destination_port(),
            flags: TcpFlags(tcp.slice()[13]),
        },
        Some(TransportSlice::Udp(udp)) => {
            Transport::Udp { source: udp.source_port(), destination: udp.destination_port() }
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            let (kind, code) = (icmp.type_u8(), icmp.code_u8());
            Transport::Icmp { kind, code, id: echo(kind, [0, 8], icmp.bytes5to8()) }
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let (kind, code) = (icmp.type_u8(), icmp.code_u8());
            Transport::Icmpv6 { kind, code, id: echo(kind, [128, 129], icmp.bytes5to8()) }
        }
        None => Transport::Other,
    };
    // etherparse does not walk an authentication header of IPv4 as a part of the transport.
    if protocol != IpNumber::AUTHENTICATION_HEADER {
        assert_eq!(packet.transport, want);
    }
    true
}

/// One packet per way to be malformed, with the smallest change to a good one.
fn malformed() -> Vec<(Malformed, Vec<u8>)> {
    let changed = |mut packet: Vec<u8>, at: usize, to: u8| {
        packet[at] = to;
        signed(packet)
    };
    let udp = [0x0f, 0xa0, 0, 53, 0, 8, 0, 0];
    let tcp = [0, 80, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];
    let (udp4, udp6) = (v4(17, &[], &udp), v6(17, &udp));
    let fragment4 = |offset: u16, protocol: u8, payload: &[u8]| {
        let mut packet = v4(protocol, &[], payload);
        packet[6..8].copy_from_slice(&offset.to_be_bytes());
        signed(packet)
    };
    let fragment6 = |word: u16, next: u8, payload: &[u8]| {
        let [high, low] = word.to_be_bytes();
        v6(44, &[&[next, 0, high, low, 0, 0, 0, 9], payload].concat())
    };
    let chain = |kinds: &[u8], last: u8| -> Vec<u8> {
        let next = kinds.iter().skip(1).chain([&last]);
        v6(
            kinds[0],
            &next.flat_map(|next| [*next, 0, 4, 0, 0, 0, 0, 0]).chain(udp).collect::<Vec<_>>(),
        )
    };
    let mut broken = changed(udp4.clone(), 10, udp4[10]);
    broken[10] ^= 1;
    let bad_option = |options: &[u8]| v4(17, options, &udp);
    use Malformed as M;
    vec![
        (M::IpTruncated, vec![]),
        (M::IpTruncated, udp4[..19].to_vec()),
        (M::IpTruncated, changed(v4(17, &[], &[]), 0, 0x46)),
        (M::IpTruncated, udp6[..39].to_vec()),
        (M::IpVersion, changed(udp4.clone(), 0, 0x55)),
        (M::IpVersion, vec![0; 32]),
        (M::Ipv4HeaderLength, changed(udp4.clone(), 0, 0x44)),
        (M::Ipv4HeaderLength, changed(udp4.clone(), 0, 0x40)),
        (M::Ipv4TotalLength, changed(udp4.clone(), 3, 29)),
        (M::Ipv4TotalLength, changed(udp4.clone(), 3, 19)),
        (M::Ipv4TotalLength, changed(udp4.clone(), 2, 0xff)),
        (M::Ipv4Checksum, broken),
        (M::Ipv4Option, bad_option(&[1, 1, 7])),
        (M::Ipv4Option, bad_option(&[7, 0, 0, 0])),
        (M::Ipv4Option, bad_option(&[7, 1, 0, 0])),
        (M::Ipv4Option, bad_option(&[7, 5, 0, 0])),
        (M::Ipv4Option, bad_option(&[1, 7, 255, 0])),
        (M::Ipv4SourceRoute, bad_option(&[131, 3, 4, 0])),
        (M::Ipv4SourceRoute, bad_option(&[137, 7, 4, 10, 0, 0, 1])),
        (M::Ipv4SourceRoute, bad_option(&[7, 3, 4, 1, 1, 131, 0, 0])),
        (M::Ipv6PayloadLength, changed(udp6.clone(), 5, 9)),
        (M::Ipv6TooLong, changed(changed(udp6.clone(), 4, 0xff), 5, 0xd8)),
        (M::Ipv6PayloadLength, changed(changed(udp6.clone(), 4, 0xff), 5, 0xd7)),
        (M::Ipv6ExtensionTruncated, v6(0, &[17, 0, 4, 0, 0, 0, 0])),
        (M::Ipv6ExtensionTruncated, v6(0, &[17, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        (M::Ipv6ExtensionTruncated, v6(60, &[&[17, 255, 1, 4, 0, 0, 0, 0], &udp[..]].concat())),
        (M::Ipv6ExtensionTruncated, v6(51, &[&[17, 3, 0, 0, 0, 0, 0, 0], &udp[..]].concat())),
        (M::Ipv6ExtensionTruncated, v6(44, &[])),
        (M::Ipv6ExtensionTruncated, v6(0, &[])),
        (M::Ipv6ExtensionCount, chain(&[60; 9], 17)),
        (M::Ipv6ExtensionCount, chain(&[60; 40], 17)),
        (M::Ipv6ExtensionOrder, chain(&[60, 0], 17)),
        (M::Ipv6ExtensionOrder, chain(&[0, 0], 17)),
        (M::Ipv6ExtensionOrder, chain(&[43, 60, 43], 17)),
        (M::Ipv6ExtensionOrder, v6(44, &[44, 0, 0, 0, 0, 0, 0, 9, 17, 0, 0, 0, 0, 0, 0, 9])),
        (M::Ipv6RoutingHeader, v6(43, &[&[17, 0, 0, 0, 0, 0, 0, 0], &udp[..]].concat())),
        (M::Ipv6RoutingHeader, v6(43, &[&[17, 0, 4, 1, 0, 0, 0, 0], &udp[..]].concat())),
        (M::FragmentLength, fragment4(0x2000, 17, &[&udp[..], &[0]].concat())),
        (M::FragmentLength, fragment4(0x2009, 17, &[])),
        (M::FragmentLength, fragment6(1, 17, &[&udp[..], &[0]].concat())),
        (M::FragmentPastEnd, fragment4(0x1fff, 17, &[0; 8])),
        (M::FragmentPastEnd, fragment6(0xfff8, 17, &[0; 8])),
        (M::FragmentOverlap, fragment4(1, 6, &[0; 8])),
        (M::FragmentOverlap, fragment4(2, 6, &[0; 8])),
        (M::FragmentOverlap, fragment6(8, 6, &[0; 8])),
        (M::TransportTruncated, v4(17, &[], &udp[..7])),
        (M::TransportTruncated, v4(6, &[], &tcp[..19])),
        (M::TransportTruncated, changed(v4(6, &[], &tcp), 32, 0x60)),
        (M::TransportTruncated, v4(1, &[], &[8, 0, 0, 0, 0, 1, 0])),
        (M::TransportTruncated, v6(58, &[128, 0, 0, 0, 0, 1, 0])),
        (M::FragmentTiny, fragment4(0x2000, 6, &tcp[..16])),
        (M::FragmentTiny, fragment6(1, 6, &tcp[..16])),
        // Options that reach beyond the first fragment hide the ports.
        (M::FragmentTiny, fragment6(1, 60, &[17, 1, 0, 0, 0, 0, 0, 0])),
        (M::TcpHeaderLength, changed(v4(6, &[], &tcp), 32, 0x40)),
        (M::TcpHeaderLength, changed(v6(6, &tcp), 52, 0)),
        (M::UdpLength, changed(udp4.clone(), 25, 7)),
        (M::UdpLength, changed(udp4.clone(), 25, 9)),
        (M::UdpLength, changed(udp6.clone(), 45, 0)),
        (M::IcmpFamily, v4(58, &[], &[128, 0, 0, 0, 0, 0, 0, 0])),
        (M::IcmpFamily, v6(1, &[8, 0, 0, 0, 0, 0, 0, 0])),
        (M::EthernetTruncated, vec![0; 13]),
    ]
}

#[test]
fn every_way_to_be_malformed_has_its_own_name() {
    let mut met = BTreeSet::from([Malformed::Martian.name(), Malformed::Multicast.name()]);
    for (want, bytes) in malformed() {
        let got = if want == Malformed::EthernetTruncated {
            Ethernet::parse(&bytes).unwrap_err()
        } else {
            IpPacket::parse(&bytes).unwrap_err()
        };
        assert_eq!(got, want, "{bytes:02x?}");
        met.insert(want.name());
    }
    let all: BTreeSet<_> = Malformed::ALL.iter().map(|way| way.name()).collect();
    assert_eq!(all.len(), Malformed::ALL.len(), "names are unique");
    assert_eq!(met, all, "a way without a case");
}

#[test]
fn addresses_that_may_not_appear() {
    let udp = [0x0f, 0xa0, 0, 53, 0, 8, 0, 0];
    let (martian, multicast) = (Err(Malformed::Martian), Err(Malformed::Multicast));
    // (address, as source, as destination)
    let v4_cases = [
        ([0, 0, 0, 0], martian, martian),
        ([0, 1, 2, 3], martian, martian),
        ([127, 0, 0, 1], martian, martian),
        ([127, 255, 255, 254], martian, martian),
        ([224, 0, 0, 1], martian, multicast),
        ([239, 255, 255, 255], martian, multicast),
        ([255, 255, 255, 255], martian, multicast),
        ([128, 0, 0, 1], Ok(()), Ok(())),
        ([192, 168, 0, 255], Ok(()), Ok(())),
    ];
    for (address, as_source, as_destination) in v4_cases {
        for (at, want) in [(12, as_source), (16, as_destination)] {
            let mut packet = v4(17, &[], &udp);
            packet[at..at + 4].copy_from_slice(&address);
            assert_eq!(IpPacket::parse(&signed(packet)).map(drop), want, "{address:?} at {at}");
        }
    }
    let v6_cases = [
        ("::", martian, martian),
        ("::1", martian, martian),
        ("::ffff:10.0.0.1", martian, martian),
        ("::ffff:0.0.0.0", martian, martian),
        ("ff02::1", martian, multicast),
        ("::2", Ok(()), Ok(())),
        ("::fffe:10.0.0.1", Ok(()), Ok(())),
        ("fe80::1", Ok(()), Ok(())),
    ];
    for (text, as_source, as_destination) in v6_cases {
        let address: std::net::Ipv6Addr = text.parse().unwrap();
        for (at, want) in [(8, as_source), (24, as_destination)] {
            let mut packet = v6(17, &udp);
            packet[at..at + 16].copy_from_slice(&address.octets());
            assert_eq!(IpPacket::parse(&packet).map(drop), want, "{text} at {at}");
        }
    }
}

#[test]
fn fragments_are_told_apart() {
    let udp = [0x0f, 0xa0, 0, 53, 0x05, 0, 0, 0];
    let transport = Transport::Udp { source: 4_000, destination: 53 };
    let cases = [
        // A first fragment is shorter than the datagram that it begins.
        (0, true, transport),
        (3, true, Transport::Other),
        (3, false, Transport::Other),
        (8_190, false, Transport::Other),
    ];
    for (offset, more, transport) in cases {
        let want = |id| {
            let piece = Piece { id, start: offset * 8, len: 8, more };
            if offset == 0 { Fragment::First(piece) } else { Fragment::Later(piece) }
        };
        let mut packet = v4(17, &[], &udp);
        let word = u16::from(more) << 13 | offset;
        packet[4..8].copy_from_slice(&(0x1234_0000 | u32::from(word)).to_be_bytes());
        let packet = IpPacket::parse(&signed(packet)).unwrap();
        let found = (packet.fragment, packet.transport);
        assert_eq!(found, (want(0x1234), transport), "{offset} {more}");

        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        let bytes = v6(44, &[&[17, 0, high, low, 1, 2, 3, 9], &udp[..]].concat());
        let packet = IpPacket::parse(&bytes).unwrap();
        let found = (packet.fragment, packet.transport);
        assert_eq!(found, (want(0x0102_0309), transport), "{offset} {more}");
        assert_eq!((packet.protocol, packet.transport_at), (17, 48));
        assert!(agrees_with_etherparse(&bytes, &packet));
    }
    // The reserved byte of a fragment header is no length (RFC 8200 §4.5).
    let bytes = v6(44, &[&[17, 9, 0, 1, 0, 0, 0, 9], &udp[..]].concat());
    assert_eq!(IpPacket::parse(&bytes).unwrap().transport_at, 48);
    // Do-not-fragment alone is a whole packet.
    let mut packet = v4(50, &[], &udp);
    packet[6] = 0x40;
    assert_eq!(IpPacket::parse(&signed(packet)).unwrap().fragment, Fragment::Whole);
}

#[test]
fn extension_headers_are_walked_to_the_transport() {
    let udp = [0x0f, 0xa0, 0, 53, 0, 8, 0, 0];
    let transport = Transport::Udp { source: 4_000, destination: 53 };
    let ext = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    // (first header, bytes of the chain, protocol, transport offset, transport)
    let mut authentication = vec![17, 4, 0, 0];
    authentication.resize(24, 0);
    let mut long = vec![17, 2, 1, 20];
    long.resize(24, 0);
    let eight: Vec<u8> = [60, 60, 60, 60, 60, 60, 60, 17].into_iter().flat_map(ext).collect();
    let cases = [
        (0, ext(17).to_vec(), 17, 48),
        (60, long, 17, 64),
        (51, authentication, 17, 64),
        (60, eight, 17, 104),
        (43, vec![17, 0, 2, 0, 0, 0, 0, 0], 17, 48),
    ];
    for (first, chain, protocol, transport_at) in cases {
        let packet = IpPacket::parse(&v6(first, &[&chain[..], &udp].concat())).unwrap();
        assert_eq!((packet.protocol, packet.transport_at), (protocol, transport_at));
        assert_eq!(packet.transport, transport);
    }
    for (bytes, protocol, transport_at) in [
        (v6(59, &[]), 59, 40),
        (v6(59, &udp), 59, 40),
        (v6(60, &ext(59)), 59, 48),
        (v6(60, &[&ext(50)[..], &udp].concat()), 50, 48),
        // Mobility, HIP and shim6 are not walked: they are what the policy sees.
        (v6(135, &ext(17)), 135, 40),
    ] {
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!((packet.protocol, packet.transport_at), (protocol, transport_at));
        assert_eq!(packet.transport, Transport::Other);
    }
}

#[test]
fn flags_of_tcp() {
    for (flags, opens, closes) in [
        (0x02, true, false),
        (0xc2, true, false),
        (0x12, false, false),
        (0x10, false, false),
        (0x11, false, true),
        (0x04, false, true),
        (0x14, false, true),
    ] {
        let flags = TcpFlags(flags);
        assert_eq!((flags.opens(), flags.closes()), (opens, closes), "{flags:?}");
    }
}

#[test]
fn the_last_hop_is_not_taken_and_strangers_are_left_alone() {
    let mut packet = v4(50, &[], &[]);
    packet[8] = 0;
    let before = signed(packet);
    let mut after = before.clone();
    decrement_hop_limit(&mut after);
    assert_eq!(after, before);
    let mut packet = v6(59, &[]);
    packet[7] = 0;
    decrement_hop_limit(&mut packet);
    assert_eq!(packet[7], 0);
    for bytes in [vec![], vec![0x45; 11], vec![0x60; 7], vec![0x55; 60]] {
        let mut same = bytes.clone();
        decrement_hop_limit(&mut same);
        assert_eq!(same, bytes);
    }
    let mut stranger = vec![0x55; 60];
    set_ecn(&mut stranger, 3);
    assert_eq!(stranger, vec![0x55; 60]);
}

/// A realistic packet, or one that is malformed, with some bytes replaced, cut or grown, and
/// half the time with a right header checksum, so that mutants get past it.
pub(crate) fn mutant() -> impl Strategy<Value = Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = realistic().into_iter().map(|(_, bytes, _)| bytes).collect();
    seeds.extend(malformed().into_iter().map(|(_, bytes)| bytes));
    // Most changes hit the headers, and many values are those that mean something.
    let value = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![0, 1, 4, 6, 17, 43, 44, 51, 58, 59, 60, 127, 128, 255])
    ];
    let changes = prop::collection::vec((0usize..90, value), 0..4);
    let ends = (any::<prop::sample::Index>(), 0..8u8, any::<bool>());
    (prop::sample::select(seeds), changes, ends).prop_map(
        |(mut bytes, changes, (cut, how, sign))| {
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            match how {
                0 => bytes.truncate(cut.index(bytes.len() + 1)),
                1 => bytes.extend([0; 5]),
                _ => {}
            }
            if sign && !bytes.is_empty() { signed(bytes) } else { bytes }
        },
    )
}

/// Whatever is read lies inside the bytes.
fn in_bounds(bytes: &[u8], packet: &IpPacket) {
    assert!(usize::from(packet.len) <= bytes.len());
    assert!(packet.transport_at <= packet.len);
    let needed = match packet.transport {
        Transport::Tcp { .. } => 20,
        Transport::Udp { .. } | Transport::Icmp { .. } | Transport::Icmpv6 { .. } => 8,
        Transport::Other => 0,
    };
    assert!(packet.transport_at + needed <= packet.len);
    assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
}

/// Goal: no bytes panic, and what is accepted is what etherparse reads and what we can change.
#[test]
fn mutants_are_refused_or_read_like_the_twins_do() {
    let refused = std::cell::RefCell::new(BTreeSet::new());
    let (accepted, compared) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 20_000, ..Config::default() });
    runner
        .run(&(mutant(), any::<u8>()), |(bytes, ecn)| {
            let packet = match IpPacket::parse(&bytes) {
                Ok(packet) => packet,
                Err(error) => {
                    refused.borrow_mut().insert(error.name());
                    return Ok(());
                }
            };
            accepted.set(accepted.get() + 1);
            in_bounds(&bytes, &packet);
            compared.set(compared.get() + u32::from(agrees_with_etherparse(&bytes, &packet)));

            let mut forwarded = bytes.clone();
            decrement_hop_limit(&mut forwarded);
            set_ecn(&mut forwarded, ecn);
            let want = IpPacket {
                hop_limit: packet.hop_limit.saturating_sub(1),
                traffic_class: packet.traffic_class & !3 | ecn & 3,
                ..packet
            };
            assert_eq!(IpPacket::parse(&forwarded), Ok(want));
            if packet.source.is_ipv4() && forwarded != bytes {
                assert_eq!(forwarded, signed(forwarded.clone()), "incremental equals recomputed");
            }
            let mut out = [0; 1500];
            for kind in [icmp::ErrorKind::TimeExceeded, icmp::ErrorKind::PacketTooBig { mtu: 1420 }]
            {
                let from = if packet.source.is_ipv4() { b4() } else { b6() };
                if let Some(len) = icmp::write_error(kind, from, &bytes, &mut out) {
                    let error = IpPacket::parse(&out[..len]).unwrap();
                    assert_eq!((error.source, error.destination), (from, packet.source));
                    assert!(agrees_with_etherparse(&out[..len], &error));
                    let quote = icmp::quoted(&out[usize::from(error.transport_at) + 8..len]);
                    assert_eq!(quote.unwrap().transport, packet.transport);
                }
            }
            Ok(())
        })
        .unwrap();
    let (accepted, compared) = (accepted.get(), compared.get());
    assert!(accepted > 2_000 && compared > 1_500, "{accepted} accepted, {compared} compared");
    let all: BTreeSet<_> = Malformed::ALL.iter().map(|way| way.name()).collect();
    let refused = refused.into_inner();
    let missed: Vec<_> = all.difference(&refused).collect();
    assert_eq!(missed, [&"ethernet_truncated"], "ways that no mutant went");
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120), first in 0..16u8) {
        if let Some(byte) = bytes.first_mut() {
            *byte = *byte & 0x0f | first << 4;
        }
        for bytes in [bytes.clone(), signed_if_possible(bytes)] {
            let _ = (Ethernet::parse(&bytes), wg::kind(&bytes), wg::Data::parse(&bytes));
            if let Ok(packet) = IpPacket::parse(&bytes) {
                in_bounds(&bytes, &packet);
            }
            if let Ok(packet) = icmp::quoted(&bytes) {
                prop_assert!(packet.transport_at <= packet.len);
                prop_assert!(usize::from(packet.len) <= bytes.len());
            }
            let mut changed = bytes.clone();
            decrement_hop_limit(&mut changed);
            set_ecn(&mut changed, 1);
            icmp::write_error(icmp::ErrorKind::NoRoute, a4(), &bytes, &mut changed);
        }
    }
}

fn signed_if_possible(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.is_empty() { bytes } else { signed(bytes) }
}
