//! The fast ways against the parser of any shape.

use std::cell::Cell;

use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::Ethernet;
use crate::ip::Extent;
use crate::ip::tests::{mutant, realistic};

#[test]
fn ordinary_packets_have_the_plain_shape_and_others_have_not() {
    for (name, bytes, _) in realistic() {
        let packet = IpPacket::parse_any(&bytes).unwrap();
        let is_plain = ["udp", "syn", "fin"].contains(&name);
        assert_eq!(read(&bytes), is_plain.then_some(packet), "{name}");
    }
}

#[test]
fn what_has_the_plain_shape_reads_as_the_slow_twin_reads_it() {
    let [plain, other, datagrams] = [const { Cell::new(0) }; 3];
    let count = |one: &Cell<u32>, is: bool| one.set(one.get() + u32::from(is));
    let mut runner = TestRunner::new(Config { cases: 20_000, ..Config::default() });
    runner
        .run(&mutant(), |bytes| {
            let slow = IpPacket::parse_any(&bytes);
            let fast = read(&bytes);
            if let Some(packet) = fast {
                assert_eq!(Ok(packet), slow);
                assert_eq!(IpPacket::read_any(&bytes, Extent::Quote), slow, "quoted whole");
            }
            count(&plain, fast.is_some());
            count(&other, fast.is_none() && slow.is_ok());
            assert_eq!(IpPacket::parse(&bytes), slow, "what is used");
            assert!(!datagram_agrees(&bytes, true), "a tag is for the slow twin");
            count(&datagrams, datagram_agrees(&bytes, false));
            Ok(())
        })
        .unwrap();
    let [plain, other, datagrams] = [plain, other, datagrams].map(Cell::into_inner);
    assert!(plain > 500 && other > 500 && datagrams > 200, "{plain}, {other}, {datagrams}");
}

/// The fast reading of a frame with these headers around `bytes`, held against the slow twins.
/// Returns whether the frame has the plain shape.
fn datagram_agrees(bytes: &[u8], tagged: bool) -> bool {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(if tagged { &[0x81, 0, 0, 7][..] } else { &[] });
    frame.extend(if bytes.first().is_some_and(|first| first >> 4 == 6) {
        [0x86, 0xdd]
    } else {
        [0x08, 0x00]
    });
    frame.extend(bytes);
    let Some(read) = Datagram::plain(&frame) else { return false };
    let ethernet = Ethernet::parse(&frame).unwrap();
    let packet = IpPacket::read_any(&frame[ethernet.len..], Extent::Whole).unwrap();
    let Transport::Udp { source, destination } = packet.transport else { panic!("no UDP") };
    let udp = ethernet.len + usize::from(packet.transport_at);
    let udp_len = u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]);
    let v4 = |address: Address| address.ipv4_bits().unwrap().to_be_bytes().to_vec();
    let ends = [
        v4(packet.source),
        v4(packet.destination),
        [source, destination].map(u16::to_be_bytes).concat(),
    ];
    let (stations, as_they_stand) = Datagram::ends_of_plain(frame.first_chunk().unwrap()).unwrap();
    assert_eq!(*stations, *[ethernet.destination.0, ethernet.source.0].as_flattened());
    assert_eq!(*as_they_stand, *ends.concat());
    let want = Datagram {
        ethernet_destination: ethernet.destination,
        destination: packet.destination,
        destination_port: destination,
        traffic_class: packet.traffic_class,
        payload_len: udp_len - 8,
    };
    assert_eq!((read, Datagram::PAYLOAD_AT), (want, udp + 8));
    assert_eq!((ethernet.vlan, packet.fragment), (None, Fragment::Whole));
    true
}
