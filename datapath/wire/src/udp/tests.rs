//! Outer headers against etherparse.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::ip::tests::{a4, a6, b4, b6};
use crate::{Fragment, IpPacket, Transport};

fn outer(v6: bool) -> OuterUdp {
    OuterUdp {
        source: if v6 { a6() } else { a4() },
        destination: if v6 { b6() } else { b4() },
        source_port: 51_820,
        destination_port: 4_000,
        traffic_class: 0xb9,
        hop_limit: 64,
    }
}

proptest! {
    #[test]
    fn datagrams_read_as_they_were_written(
        payload in prop::collection::vec(any::<u8>(), 0..300), v6: bool, padding in 0usize..3
    ) {
        let outer = outer(v6);
        let header_len = outer.header_len();
        let len = header_len + payload.len();
        let mut bytes = vec![0xee; len + padding];
        bytes[header_len..len].copy_from_slice(&payload);
        prop_assert!(outer.write(&mut bytes, payload.len()));
        prop_assert_eq!(&bytes[header_len..len], &payload[..]);
        if v6 {
            prop_assert!(checksum_v6(&mut bytes));
        }
        prop_assert!(bytes[len..].iter().all(|byte| *byte == 0xee));

        let packet = IpPacket::parse(&bytes).unwrap();
        prop_assert_eq!((packet.source, packet.destination), (outer.source, outer.destination));
        prop_assert_eq!(packet.transport, Transport::Udp { source: 51_820, destination: 4_000 });
        prop_assert_eq!((packet.traffic_class, packet.hop_limit), (0xb9, 64));
        prop_assert_eq!((packet.fragment, usize::from(packet.len)), (Fragment::Whole, len));

        let sliced = SlicedPacket::from_ip(&bytes[..len]).unwrap();
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
        prop_assert_eq!(udp.payload(), &payload[..]);
        let header = udp.to_header();
        match sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                let ip = ip.header().to_header();
                prop_assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
                prop_assert!(ip.dont_fragment && ip.identification == 0);
                prop_assert_eq!(header.checksum, 0);
            }
            Some(NetSlice::Ipv6(ip)) => {
                let ip = ip.header().to_header();
                let want = header.calc_checksum_ipv6(&ip, &payload).unwrap();
                prop_assert_eq!(header.checksum, want);
            }
            Some(NetSlice::Arp(_)) | None => panic!("no IP"),
        }
    }
}

/// RFC 8200 §8.1: a sum of zero is sent as all ones.
#[test]
fn a_checksum_of_zero_is_sent_as_ones() {
    let outer = outer(true);
    let mut bytes = vec![0; 50];
    assert!(outer.write(&mut bytes, 2) && checksum_v6(&mut bytes));
    // A payload word that equals the checksum of a datagram with a zero word makes it zero.
    let sum = [bytes[46], bytes[47]];
    bytes[48..].copy_from_slice(&sum);
    assert!(checksum_v6(&mut bytes));
    assert_eq!(bytes[46..48], [0xff, 0xff]);
}

#[test]
fn what_does_not_fit_is_not_written() {
    for v6 in [false, true] {
        let outer = outer(v6);
        let mut bytes = vec![0xee; outer.header_len() - 1];
        assert!(!outer.write(&mut bytes, 0));
        let mut room = vec![0xee; 100];
        assert!(!outer.write(&mut room, 65_536 - outer.header_len()));
        assert!(!outer.write(&mut room, usize::MAX));
        let mixed = OuterUdp { source: if v6 { a4() } else { a6() }, ..outer };
        assert!(!mixed.write(&mut room, 10));
        assert!(room.iter().chain(&bytes).all(|byte| *byte == 0xee));
        assert!(outer.write(&mut room, 65_535 - outer.header_len()));
    }
    let outer = outer(true);
    let mut bytes = vec![0; 58];
    assert!(outer.write(&mut bytes, 11));
    let before = bytes.clone();
    assert!(!checksum_v6(&mut bytes), "the last byte is not there");
    assert!(!checksum_v6(&mut bytes[..47]));
    assert!(!checksum_v6(&mut []));
    assert_eq!(bytes, before);
}
