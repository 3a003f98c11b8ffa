//! The plain side: hosts of a segment, their wire, and what does not belong there.

use super::*;

/// Nothing goes back where it came from, whatever the rules say: not into the tunnel of its sender, and not to
/// the segment of its sender.
#[test]
fn a_packet_for_where_it_came_from_ends() {
    let any = |from, to| (from, to, Service::udp(0), Service::udp(u16::MAX));
    let mut rig = Rig::new(1, PEERS);
    rig.publish(&draft(1, PEERS, &[any(1, 1), any(1, 2), any(SEGMENT, SEGMENT)]));
    let mut laptop = rig.session(0, 0, false, false);
    let mut server = rig.session(1, 0, false, false);
    rig.deliver(0, OUTSIDE, &laptop.seal(&[]));
    rig.deliver(0, OUTSIDE, &server.seal(&[]));
    rig.run();
    rig.neighbour(5);
    let to_itself = udp(peer_address(0, false), peer_address(0, false), (7, 9), 30);
    let beside = udp(host_address(5, false), host_address(6, false), (7, 9), 30);
    for round in 1..=3 {
        rig.deliver(0, OUTSIDE, &laptop.seal(&to_itself));
        rig.deliver(0, INSIDE, &from_host(&beside));
        rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((7, 9), 30)));
        rig.run();
        assert_eq!(rig.ended(End::DropHairpin), 2 * round, "in both places");
        assert_eq!(rig.ended(End::Forwarded), round, "and others pass");
    }
}

#[test]
fn the_legacy_host_is_reached_in_plain_and_answers() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let (a, host) = (peer_address(0, false), host_address(5, false));
    let request = tcp(a, host, (4000, 80), 2);
    rig.deliver(0, OUTSIDE, &laptop.seal(&request));
    rig.run();
    let sent = rig.sent(INSIDE);
    assert_eq!(sent.len(), 1);
    assert_eq!((&sent[0][..6], &sent[0][14..]), (&HOST_MAC[..], &one_hop_on(&request)[..]));
    let answer = tcp(host, a, (80, 4000), 0x12);
    rig.deliver(0, INSIDE, &from_host(&answer));
    rig.run();
    assert!(only(&mut rig, &laptop).starts_with(&one_hop_on(&answer)));
    // A device's address on the plain segment is nobody's.
    rig.deliver(0, INSIDE, &from_host(&tcp(a, host, (4000, 80), 2)));
    rig.run();
    assert_eq!(rig.ended(End::DropSpoofedSource), 1);
}

#[test]
fn only_our_own_addresses_have_listeners() {
    let (mut rig, ..) = gateway(1, false);
    // Somebody else's WireGuard, on its way through: a packet like any other.
    let through = udp(host_address(5, false), peer_address(0, false), (7, LISTEN), 120);
    rig.deliver(0, INSIDE, &from_host(&through));
    rig.run();
    assert_eq!((rig.ended(End::DropNoRule), rig.ended(End::DropNotWireguard)), (1, 0));
}

#[test]
fn a_frame_for_another_station_is_not_ours() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let mut frame = laptop.seal(&a_to_b((1, 5000), 60));
    frame[5] ^= 1;
    rig.deliver(0, OUTSIDE, &frame);
    rig.run();
    assert_eq!((rig.ended(End::DropOtherStation), rig.ended(End::Forwarded)), (1, 0));
}

#[test]
fn a_segment_in_a_vlan_is_spoken_to_with_its_tag_only() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let mut tagged = draft(2, PEERS, &rules());
    tagged.segments[0].vlan = Some(201);
    rig.publish(&tagged);
    let (a, host) = (peer_address(0, false), host_address(5, false));
    let request = tcp(a, host, (4000, 80), 2);
    rig.deliver(0, OUTSIDE, &laptop.seal(&request));
    rig.run();
    let sent = rig.sent(INSIDE);
    assert_eq!(sent[0][12..18], [0x81, 0, 0, 201, 8, 0]);
    assert_eq!(sent[0][18..], one_hop_on(&request));

    let untagged = from_host(&tcp(host, a, (80, 4000), 0x12));
    let with_tag = |vlan: u8| {
        let mut frame = untagged.clone();
        frame.splice(12..12, [0x81, 0, 0, vlan]);
        frame
    };
    rig.deliver(0, INSIDE, &untagged);
    rig.deliver(0, INSIDE, &with_tag(202));
    rig.run();
    assert_eq!(rig.ended(End::DropSpoofedSource), 2, "no tag, and another one");
    rig.deliver(0, INSIDE, &with_tag(201));
    rig.run();
    assert!(laptop.open(&rig.sent(OUTSIDE)[0]).is_some());
}

#[test]
fn a_plain_packet_on_the_outside_is_dropped() {
    let (mut rig, ..) = gateway(1, false);
    let plain = from_host(&tcp(host_address(5, false), peer_address(0, false), (80, 4000), 2));
    rig.deliver(0, OUTSIDE, &plain);
    rig.run();
    assert_eq!(rig.ended(End::DropNotWireguard), 1);
}

#[test]
fn the_first_packets_wait_for_a_neighbour_and_leave_in_order() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let (a, host) = (peer_address(0, false), host_address(9, false));
    for port in 1..4 {
        rig.deliver(0, OUTSIDE, &laptop.seal(&tcp(a, host, (port, 80), 2)));
    }
    rig.run();
    assert_eq!((rig.sent(INSIDE).len(), rig.status().held()), (0, 3));
    assert_eq!(rig.reports.iter().filter(|report| report.starts_with("neighbour 1")).count(), 1);
    rig.neighbour(9);
    let ports: Vec<u8> = rig.sent(INSIDE).iter().map(|frame| frame[14 + 21]).collect();
    assert_eq!((ports, rig.status().held()), (vec![1, 2, 3], 0));
    // And one that never answers.
    rig.deliver(0, OUTSIDE, &laptop.seal(&tcp(a, host_address(10, false), (1, 80), 2)));
    rig.run();
    rig.pass(3_000);
    assert_eq!(rig.ended(End::DropNeighbourUnreachable), 1);
}
