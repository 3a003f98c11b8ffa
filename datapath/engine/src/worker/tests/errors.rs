//! ICMP errors, of others and of our own.

use super::*;

#[test]
fn an_icmp_error_passes_only_with_the_flow_that_it_quotes() {
    let (mut rig, mut laptop, mut server) = gateway(1, false);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let asked = udp(a, b, (4000, 5000), 60);
    let error = |quoted: &[u8]| {
        let mut content = vec![3, 3, 0, 0, 0, 0, 0, 0];
        content.extend(&quoted[..28]);
        let sum = bulkhead_wire::checksum::of(&content);
        content[2..4].copy_from_slice(&sum.to_be_bytes());
        transport(b, a, 1, &content)
    };
    rig.deliver(0, OUTSIDE, &server.seal(&error(&asked)));
    rig.run();
    assert_eq!(rig.ended(End::DropUnmatchedIcmpError), 1, "no such flow yet");
    rig.deliver(0, OUTSIDE, &laptop.seal(&asked));
    rig.run();
    rig.sent(OUTSIDE);
    rig.deliver(0, OUTSIDE, &server.seal(&error(&asked)));
    rig.run();
    assert!(only(&mut rig, &laptop).starts_with(&one_hop_on(&error(&asked))));
    let other = udp(a, b, (4001, 5000), 60);
    rig.deliver(0, OUTSIDE, &server.seal(&error(&other)));
    // The flow is open, but the laptop did not send this packet of it.
    rig.deliver(0, OUTSIDE, &server.seal(&error(&udp(b, a, (5000, 4000), 60))));
    rig.run();
    assert_eq!(rig.ended(End::DropUnmatchedIcmpError), 3);
}

#[test]
fn hop_limit_and_size_are_answered_with_icmp_to_the_sender() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let mut last_hop = a_to_b((1, 5000), 60);
    while last_hop[8] > 1 {
        bulkhead_wire::ip::decrement_hop_limit(&mut last_hop);
    }
    let too_long = a_to_b((1, 5000), 1421);
    for (inner, end, kind) in [(last_hop, End::DropHopLimit, 11), (too_long, End::DropTooBig, 3)] {
        rig.deliver(0, OUTSIDE, &laptop.seal(&inner));
        rig.run();
        assert_eq!(rig.ended(end), 1);
        let error = only(&mut rig, &laptop);
        let parsed = IpPacket::parse(&error).unwrap();
        assert_eq!(parsed.destination, a);
        assert!(matches!(parsed.transport, Transport::Icmp { kind: k, .. } if k == kind));
        assert_eq!(&error[28..48], &inner[..20], "it quotes the packet");
        if kind == 3 {
            assert_eq!(&error[20..28][6..], &1420u16.to_be_bytes(), "the MTU of the tunnel");
        }
    }
    assert_eq!(rig.status().workers[0].originated, 2);
    let _ = b;
}

#[test]
fn icmp_errors_of_our_own_are_limited() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let too_long = a_to_b((1, 5000), 1421);
    for _ in 0..150 {
        rig.deliver(0, OUTSIDE, &laptop.seal(&too_long));
        rig.run();
        rig.sent(OUTSIDE);
    }
    assert_eq!(rig.ended(End::DropTooBig), 150);
    assert_eq!(rig.status().workers[0].originated, 100);
}
