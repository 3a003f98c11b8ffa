//! Fragments through a whole gateway.

use super::*;

/// The fragments of an IPv4 or IPv6 packet, cut at these offsets behind the IP header.
fn cut(packet: &[u8], id: u16, pieces: &[(usize, usize, bool)]) -> Vec<Vec<u8>> {
    let v4 = packet[0] >> 4 == 4;
    let header_len = if v4 { 20 } else { 40 };
    let (header, content) = packet.split_at(header_len);
    let fragment = |(start, len, more): &(usize, usize, bool)| {
        let data = &content[*start..*start + *len];
        let mut fragment = header.to_vec();
        let offset = u16::try_from(start / 8).unwrap();
        if v4 {
            let total = u16::try_from(20 + data.len()).unwrap();
            fragment[2..4].copy_from_slice(&total.to_be_bytes());
            fragment[4..6].copy_from_slice(&id.to_be_bytes());
            fragment[6..8].copy_from_slice(&(u16::from(*more) << 13 | offset).to_be_bytes());
            fragment[10..12].fill(0);
            let sum = bulkhead_wire::checksum::of(&fragment);
            fragment[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let total = u16::try_from(8 + data.len()).unwrap();
            fragment[4..6].copy_from_slice(&total.to_be_bytes());
            let protocol = std::mem::replace(&mut fragment[6], 44);
            let [high, low] = (offset << 3 | u16::from(*more)).to_be_bytes();
            let [first, second] = id.to_be_bytes();
            fragment.extend([protocol, 0, high, low, 0, 0, first, second]);
        }
        fragment.extend(data);
        fragment
    };
    pieces.iter().map(fragment).collect()
}

/// Fragments are judged: the first by its ports, the others by their first.
#[test]
fn fragments_are_judged_by_the_ports_of_their_first() {
    for v6 in [false, true] {
        let (mut rig, mut laptop, server) = gateway(1, v6);
        let (a, b) = (peer_address(0, v6), peer_address(1, v6));
        let pieces = [(0, 800, true), (800, 800, true), (1600, 408, false)];
        let header = if v6 { 40 } else { 20 };
        let allowed = udp(a, b, (7, 5000), header + 2008);
        for fragment in cut(&allowed, 1, &pieces) {
            rig.deliver(0, OUTSIDE, &laptop.seal(&fragment));
            rig.run();
            assert!(only(&mut rig, &server).starts_with(&one_hop_on(&fragment)));
        }
        let denied = udp(a, b, (7, 6000), header + 2008);
        for fragment in cut(&denied, 2, &pieces) {
            rig.deliver(0, OUTSIDE, &laptop.seal(&fragment));
        }
        rig.run();
        assert!(rig.sent(OUTSIDE).is_empty());
        assert_eq!((rig.ended(End::DropPortNotAllowed), rig.ended(End::DropFragment)), (1, 2));
        // Revoked between the first and the rest.
        let fragments = cut(&allowed, 3, &pieces);
        rig.deliver(0, OUTSIDE, &laptop.seal(&fragments[0]));
        rig.run();
        rig.publish(&draft(2, PEERS, &[]));
        rig.deliver(0, OUTSIDE, &laptop.seal(&fragments[1]));
        rig.deliver(0, OUTSIDE, &laptop.seal(&fragments[2]));
        rig.run();
        assert_eq!((rig.ended(End::DropRevoked), rig.ended(End::DropFragment)), (2, 2));
    }
}

#[test]
fn tiny_and_overlapping_fragments_are_dropped_as_such() {
    for v6 in [false, true] {
        let (mut rig, mut laptop, _) = gateway(1, v6);
        let (a, b) = (peer_address(0, v6), peer_address(1, v6));
        let mut segment = tcp(a, b, (7, 443), 2);
        segment.extend([0; 80]);
        let datagram = udp(a, b, (7, 5000), 200);
        let sent = [
            (cut(&segment, 1, &[(0, 16, true)]), End::DropFragmentTiny),
            (cut(&segment, 2, &[(8, 16, true)]), End::DropFragmentOverlap),
            (cut(&segment, 2, &[(16, 16, false)]), End::DropFragmentOverlap),
            (cut(&datagram, 3, &[(0, 64, true), (56, 8, true)]), End::DropFragmentOverlap),
            (cut(&datagram, 4, &[(0, 64, true), (0, 64, true)]), End::DropFragmentOverlap),
        ];
        for (fragments, want) in sent {
            let (before, last) = (rig.ended(want), fragments.len() - 1);
            for (at, fragment) in fragments.iter().enumerate() {
                rig.deliver(0, OUTSIDE, &laptop.seal(fragment));
                rig.run();
                assert_eq!(rig.sent(OUTSIDE).len(), usize::from(at < last), "{want:?}");
            }
            assert_eq!(rig.ended(want), before + 1, "{want:?}");
        }
    }
}

/// Fragments wait for a session like other packets, and are judged again without being their own
/// overlap.
#[test]
fn fragments_that_waited_leave_in_order() {
    let mut rig = Rig::new(1, PEERS);
    rig.publish(&draft(1, PEERS, &rules()));
    let mut laptop = rig.session(0, 0, false, false);
    let datagram = udp(peer_address(0, false), peer_address(1, false), (7, 5000), 1220);
    for fragment in cut(&datagram, 1, &[(0, 600, true), (600, 600, false)]) {
        rig.deliver(0, OUTSIDE, &laptop.seal(&fragment));
    }
    rig.run();
    assert_eq!((rig.status().held(), rig.ended(End::DropFragmentOverlap)), (2, 0));
    let server = rig.session(1, 0, false, true);
    rig.pass(10);
    let sent = rig.sent(OUTSIDE);
    let offsets: Vec<_> = sent
        .iter()
        .filter_map(|frame| server.open(frame).filter(|inner| !inner.is_empty()))
        .map(|inner| u16::from_be_bytes([inner[6] & 0x1f, inner[7]]))
        .collect();
    assert_eq!(offsets, [0, 75]);
}

/// What a host could make of fragments, whichever of two overlapping bytes it keeps: the headers of
/// every datagram that it can complete.
fn reassembled(fragments: &[Vec<u8>], last_wins: bool) -> Option<Vec<u8>> {
    let mut bytes = std::collections::BTreeMap::new();
    let mut end = None;
    for fragment in fragments {
        let word = u16::from_be_bytes([fragment[6], fragment[7]]);
        let start = usize::from(word & 0x1fff) * 8;
        let len = usize::from(u16::from_be_bytes([fragment[2], fragment[3]])) - 20;
        for (at, byte) in (start..).zip(&fragment[20..20 + len]) {
            if last_wins || !bytes.contains_key(&at) {
                bytes.insert(at, *byte);
            }
        }
        if word & 0x2000 == 0 {
            end = Some(start + len);
        }
    }
    let end = end?;
    (0..end).map(|at| bytes.get(&at).copied()).collect()
}

/// Goal: no fragment train passes whose reassembled packet the rules deny. Method: random pieces of
/// allowed and denied datagrams with one identifier, and a host that reassembles in either way.
#[test]
fn no_fragment_train_passes_whose_packet_the_rules_deny() {
    let met = std::cell::Cell::new((0, 0, 0));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let pieces = proptest::collection::vec((any::<bool>(), 0usize..5, 1usize..4, 0u8..4), 1..10);
    runner
        .run(&pieces, |pieces| {
            let (mut rig, mut laptop, server) = gateway(1, false);
            let (a, b) = (peer_address(0, false), peer_address(1, false));
            let mut passed = vec![];
            for (good, start, len, luck) in pieces {
                let datagram = udp(a, b, (7, if good { 5000 } else { 22 }), 20 + 64);
                let more = luck > 1 || start == 0;
                let fragment = cut(&datagram, 9, &[(start * 8, len * 8, more)]).remove(0);
                rig.deliver(0, OUTSIDE, &laptop.seal(&fragment));
                rig.run();
                let sent = rig.sent(OUTSIDE);
                passed.extend(sent.iter().map(|frame| server.open(frame).unwrap()));
            }
            for last_wins in [false, true] {
                if let Some(content) = reassembled(&passed, last_wins) {
                    let port = u16::from_be_bytes([content[2], content[3]]);
                    prop_assert_eq!(port, 5000);
                    met.set((met.get().0 + 1, met.get().1, met.get().2));
                }
            }
            let overlaps = rig.ended(End::DropFragmentOverlap);
            let denied = rig.ended(End::DropPortNotAllowed);
            met.set((met.get().0, met.get().1 + overlaps, met.get().2 + denied));
            Ok(())
        })
        .unwrap();
    let (complete, overlaps, denied) = met.get();
    assert!(complete > 5 && overlaps > 20 && denied > 20, "{:?}", met.get());
}
