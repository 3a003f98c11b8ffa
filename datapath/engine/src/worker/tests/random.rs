//! Packets and frames that nobody thought of.

use super::*;

#[test]
fn of_ten_thousand_random_packets_without_a_rule_none_is_forwarded() {
    let (mut rig, mut laptop, _) = gateway(2, false);
    rig.publish(&draft(2, PEERS, &[]));
    let before = rig.status().ends().total();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for n in 0..10_000u64 {
        let [a, b, c, d, e, f, ..] = next().to_le_bytes();
        let ports = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let v6 = e & 1 == 1;
        let to = if e & 2 == 0 { peer_address(1, v6) } else { host_address(f, v6) };
        let from = if e & 12 == 0 { host_address(f, v6) } else { peer_address(0, v6) };
        let inner = match e >> 6 {
            0 => udp(from, to, ports, usize::from(f) * 4),
            1 => tcp(from, to, ports, f),
            2 => echo(from, to, f & 1 == 1, ports.0),
            _ => transport(from, to, f, &next().to_le_bytes()),
        };
        let worker = usize::from(n % 3 == 0);
        while !rig.deliver(worker, OUTSIDE, &laptop.seal(&inner)) {
            rig.run();
        }
        if n % 32 == 0 {
            rig.run();
        }
    }
    rig.run();
    let status = rig.status();
    assert_eq!(status.ends().total() - before, 10_000, "each is accounted for");
    assert_eq!(status.ends().get(End::Forwarded) + status.held(), 0);
    assert!(status.ends().get(End::DropNoRule) > 5_000, "{:?}", status.ends());
    assert!(status.ends().get(End::DropSpoofedSource) > 1_000, "{:?}", status.ends());
    assert!(rig.sent(OUTSIDE).is_empty() && rig.sent(INSIDE).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Mutated frames, outside and inside, on both ports: no panic, each has an end, and what is
    /// forwarded is what the rules allow.
    #[test]
    fn mutated_frames_never_get_more_than_the_rules_allow(
        seeds in proptest::collection::vec((0u8..8, any::<u16>(), any::<[(u16, u8); 3]>(), any::<bool>()), 1..60)
    ) {
        let (mut rig, mut laptop, server) = gateway(2, false);
        let before = rig.status().ends().total();
        let (a, b, host) = (peer_address(0, false), peer_address(1, false), host_address(5, false));
        let mut count = 0;
        for (shape, port, changes, outer) in seeds {
            let mut inner = match shape {
                0 => udp(a, b, (port, 5000 + port % 1000), 120),
                1 => tcp(a, b, (port, 443), 2),
                2 => tcp(a, host, (port, 80), 2),
                3 => tcp(b, a, (443, port), 18),
                4 => echo(a, b, false, port),
                5 => udp(peer_address(0, true), peer_address(1, true), (port, 5000), 90),
                6 => tcp(host, a, (80, port), 18),
                _ => udp(a, b, (port, port), 64),
            };
            let mutate = |bytes: &mut Vec<u8>| for (at, with) in changes {
                let at = usize::from(at) % bytes.len();
                bytes[at] = with;
            };
            if !outer { mutate(&mut inner) }
            let plain = shape == 6;
            let mut frame = if plain { from_host(&inner) } else { laptop.seal(&inner) };
            if outer { mutate(&mut frame) }
            let port = if plain { INSIDE } else { OUTSIDE };
            if rig.deliver(usize::from(outer), port, &frame) { count += 1; }
        }
        rig.run();
        let status = rig.status();
        prop_assert_eq!(status.ends().total() + status.held() - before, count);
        for frame in rig.sent(OUTSIDE) {
            let content = server.open(&frame).or_else(|| laptop.open(&frame));
            let content = content.expect("only sealed packets leave on the outside");
            if content.is_empty() { continue }
            let packet = IpPacket::parse(&content).expect("only whole packets are forwarded");
            prop_assert!(oracle(&packet), "{packet:?}");
        }
        for frame in rig.sent(INSIDE) {
            let packet = IpPacket::parse(&frame[14..]).expect("only whole packets are forwarded");
            prop_assert!(oracle(&packet), "{packet:?}");
        }
    }
}

/// The rules once more, for obviousness, with what may answer them.
fn oracle(packet: &IpPacket) -> bool {
    let own_error = |kind| matches!(kind, 3 | 11);
    [false, true].into_iter().any(|v6| {
        let (a, b, host) = (peer_address(0, v6), peer_address(1, v6), host_address(5, v6));
        let pair = (packet.source, packet.destination);
        let in_segment = |address: Address| (0..=255).any(|n| host_address(n, v6) == address);
        match packet.transport {
            Transport::Tcp { source, destination, .. } => {
                (pair == (a, b) && destination == 443)
                    || (pair == (b, a) && source == 443)
                    || (pair.0 == a && in_segment(pair.1) && destination == 80)
                    || (pair == (host, a) && source == 80)
            }
            Transport::Udp { destination, .. } => {
                pair == (a, b) && (5000..=5999).contains(&destination)
            }
            Transport::Icmp { kind, .. } => {
                (pair == (a, b) && kind == 8)
                    || (pair.0 == a && in_segment(pair.1) && kind == 8)
                    || (pair.0 == crate::rig::own_address(false) && own_error(kind))
            }
            Transport::Icmpv6 { kind, .. } => {
                (pair == (a, b) && kind == 128)
                    || (pair.0 == crate::rig::own_address(true) && matches!(kind, 2 | 3))
            }
            Transport::Other => false,
        }
    })
}
