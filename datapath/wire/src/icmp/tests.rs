//! Errors against etherparse, against one written out by hand, and quotes of every length.

use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
use etherparse::icmpv6::DestUnreachableCode;
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

use super::*;
use crate::ip::tests::{A6, B6, a4, a6, b4, b6, realistic, signed, v4, v6};
use crate::{Fragment, TcpFlags};

const KINDS: [ErrorKind; 4] = [
    ErrorKind::TimeExceeded,
    ErrorKind::PacketTooBig { mtu: 1420 },
    ErrorKind::AdminProhibited,
    ErrorKind::NoRoute,
];

fn error(kind: ErrorKind, from: Address, offending: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0xee; 2_000];
    let len = write_error(kind, from, offending, &mut out)?;
    assert!(out[len..].iter().all(|byte| *byte == 0xee), "not a byte more");
    out.truncate(len);
    Some(out)
}

/// A whole error about a UDP packet from 10.44.0.7 to 10.20.1.5, byte for byte.
#[test]
fn a_time_exceeded_written_out() {
    let offending = v4(17, &[], &[0x0f, 0xa0, 0, 53, 0, 8, 0, 0]);
    let want = [
        // Version, class, length 56, no identification, do not fragment, TTL, ICMP, checksum.
        0x45, 0xc0, 0x00, 0x38, 0x00, 0x00, 0x40, 0x00, 0x40, 0x01, 0x24, 0xba, //
        10, 20, 1, 5, 10, 44, 0, 7, // from, to
        0x0b, 0x00, 0xe5, 0x22, 0x00, 0x00, 0x00, 0x00, // type 11, code 0, checksum, unused
        0x45, 0x00, 0x00, 0x1c, 0x00, 0x01, 0x00, 0x00, 0x40, 0x11, 0x65, 0x85, //
        10, 44, 0, 7, 10, 20, 1, 5, 0x0f, 0xa0, 0x00, 0x35, 0x00, 0x08, 0x00, 0x00,
    ];
    let got = error(ErrorKind::TimeExceeded, b4(), &offending).unwrap();
    assert_eq!(got, want, "{got:02x?}");
}

#[test]
fn ipv4_errors_read_as_they_were_meant() {
    for (name, offending, _) in realistic() {
        if offending[0] >> 4 != 4 || name == "unreachable" {
            continue;
        }
        for kind in KINDS {
            let bytes = error(kind, b4(), &offending).unwrap();
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("{name}") };
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("{name}") };
            let want =
                match kind {
                    ErrorKind::TimeExceeded => {
                        Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit)
                    }
                    ErrorKind::PacketTooBig { mtu } => Icmpv4Type::DestinationUnreachable(
                        DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu },
                    ),
                    ErrorKind::AdminProhibited => {
                        Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FilterProhibited)
                    }
                    ErrorKind::NoRoute => {
                        Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Network)
                    }
                };
            assert_eq!(icmp.icmp_type(), want, "{name}");
            assert_eq!(icmp.checksum(), want.calc_checksum(icmp.payload()), "{name}");
            assert_eq!(icmp.payload(), offending, "{name}: short packets are quoted whole");
        }
    }
}

#[test]
fn ipv6_errors_read_as_they_were_meant() {
    for (name, offending, _) in realistic() {
        if offending[0] >> 4 != 6 {
            continue;
        }
        for kind in KINDS {
            let bytes = error(kind, b6(), &offending).unwrap();
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("{name}") };
            let want = match kind {
                ErrorKind::TimeExceeded => {
                    Icmpv6Type::TimeExceeded(etherparse::icmpv6::TimeExceededCode::HopLimitExceeded)
                }
                ErrorKind::PacketTooBig { mtu } => Icmpv6Type::PacketTooBig { mtu: mtu.into() },
                ErrorKind::AdminProhibited => {
                    Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Prohibited)
                }
                ErrorKind::NoRoute => {
                    Icmpv6Type::DestinationUnreachable(DestUnreachableCode::NoRoute)
                }
            };
            assert_eq!(icmp.icmp_type(), want, "{name}");
            assert!(icmp.is_checksum_valid(B6, A6), "{name}");
            assert_eq!(icmp.payload(), offending, "{name}: short packets are quoted whole");
        }
    }
}

#[test]
fn long_packets_are_quoted_up_to_the_limits() {
    let udp_len = 1_408u16.to_be_bytes();
    let mut datagram = vec![0x0f, 0xa0, 0, 53, udp_len[0], udp_len[1], 0, 0];
    datagram.resize(1_408, 0x5a);
    let (long4, long6) = (v4(17, &[], &datagram), v6(17, &datagram));
    let got = error(ErrorKind::NoRoute, b4(), &long4).unwrap();
    assert_eq!((got.len(), &got[28..]), (576, &long4[..548]));
    let got = error(ErrorKind::NoRoute, b6(), &long6).unwrap();
    assert_eq!((got.len(), &got[48..]), (1_280, &long6[..1_232]));
    // Padding behind the packet is not a part of it.
    let short = v4(50, &[], &[1, 2, 3]);
    let padded = [&short[..], &[0; 30]].concat();
    assert_eq!(error(ErrorKind::NoRoute, b4(), &padded), error(ErrorKind::NoRoute, b4(), &short));
}

#[test]
fn nobody_is_told_about_these() {
    let about = |packet: &[u8]| {
        let from = if packet[0] >> 4 == 4 { b4() } else { b6() };
        error(ErrorKind::NoRoute, from, packet)
    };
    for kind in 0..=255u8 {
        let packet = v4(1, &[], &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(about(&packet).is_none(), matches!(kind, 3 | 4 | 5 | 11 | 12), "ICMP {kind}");
        let packet = v6(58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(about(&packet).is_none(), kind < 128 || kind == 137, "ICMPv6 {kind}");
    }
    let fragment = |word: u16| {
        let mut packet = v4(17, &[], &[0, 1, 0, 2, 0, 8, 0, 0]);
        packet[6..8].copy_from_slice(&word.to_be_bytes());
        signed(packet)
    };
    assert!(about(&fragment(0x2000)).is_some(), "a first fragment has a transport header");
    assert!(about(&fragment(0x0010)).is_none(), "a later one has none");
    let mut multicast = v4(50, &[], &[]);
    multicast[16] = 224;
    assert!(about(&signed(multicast)).is_none());
    assert!(about(&[0x45; 19]).is_none(), "what cannot be read");
    let (packet4, packet6) = (v4(50, &[], &[]), v6(59, &[]));
    assert!(error(ErrorKind::NoRoute, b6(), &packet4).is_none(), "families do not mix");
    assert!(error(ErrorKind::NoRoute, b4(), &packet6).is_none(), "families do not mix");
    let mut out = [0; 47];
    assert_eq!(write_error(ErrorKind::NoRoute, b4(), &packet4, &mut out), None, "no room");
    assert_eq!(out, [0; 47]);
}

#[test]
fn a_quote_may_end_eight_bytes_into_the_transport() {
    for (name, bytes, transport) in realistic() {
        let whole = IpPacket::parse(&bytes).unwrap();
        let enough = usize::from(whole.transport_at)
            + if whole.transport == Transport::Other { 0 } else { 8 };
        let with_flags = usize::from(whole.transport_at) + 20;
        for len in 0..=bytes.len() {
            let Ok(quote) = quoted(&bytes[..len]) else {
                assert!(len < enough, "{name}, {len} bytes");
                continue;
            };
            assert!(len >= enough, "{name}, {len} bytes");
            let want = match transport {
                Transport::Tcp { source, destination, .. } if len < with_flags => {
                    Transport::Tcp { source, destination, flags: TcpFlags(0) }
                }
                Transport::Tcp { .. }
                | Transport::Udp { .. }
                | Transport::Icmp { .. }
                | Transport::Icmpv6 { .. }
                | Transport::Other => transport,
            };
            assert_eq!(quote, IpPacket { transport: want, len: len.try_into().unwrap(), ..whole });
        }
    }
}

#[test]
fn a_quote_may_have_a_stale_checksum() {
    let mut quote = v4(17, &[], &[0, 1, 0, 2, 0, 8, 0, 0]);
    quote[8] = 0;
    assert_eq!(IpPacket::parse(&quote), Err(Malformed::Ipv4Checksum));
    let packet = quoted(&quote).unwrap();
    assert_eq!(packet.transport, Transport::Udp { source: 1, destination: 2 });
    assert_eq!((packet.source, packet.destination), (a4(), b4()));
    assert_eq!(packet.fragment, Fragment::Whole);
    assert_eq!(quoted(&v6(59, &[])).unwrap().source, a6());
}
