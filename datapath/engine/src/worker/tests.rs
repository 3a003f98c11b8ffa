//! A whole gateway in memory: what goes in, what comes out, and that nothing is lost on the way.

use bulkhead_link::End;
use bulkhead_table::Service;
use bulkhead_wg::PrivateKey;
use bulkhead_wire::{Address, IpPacket, Transport};
use proptest::prelude::*;

use crate::handoff::Command;
use crate::limits::BATCH_MAX;
use crate::rig::{
    HOST_MAC, INSIDE, LISTEN, OUTSIDE, Rig, RigPeer, draft, echo, from_host, host_address,
    peer_address, tcp, transport, udp,
};

mod errors;
mod flow_log;
mod flows;
mod fragments;
mod generations;
mod hits;
mod leave;
mod random;
mod revoke;
mod segments;
mod sessions;
mod strangers;

/// Peers 0 and 1, label 1 and 2; the segment has label 3.
const PEERS: u32 = 2;
const SEGMENT: u16 = 3;

/// Peer 0 may speak to peer 1 on tcp/443 and udp/5000-5999, to the segment on tcp/80 and by ping.
fn rules() -> Vec<(u16, u16, Service, Service)> {
    vec![
        (1, 2, Service::tcp(443), Service::tcp(443)),
        (1, 2, Service::udp(5000), Service::udp(5999)),
        (1, 2, Service::icmp(8, 0), Service::icmp(8, 0)),
        (1, 2, Service::icmpv6(128, 0), Service::icmpv6(128, 0)),
        (1, SEGMENT, Service::tcp(80), Service::tcp(80)),
        (1, SEGMENT, Service::icmp(8, 0), Service::icmp(8, 0)),
    ]
}

/// A gateway with sessions for both peers: peer 0 lives on the first worker, peer 1 on the last.
fn gateway(workers: usize, v6: bool) -> (Rig, RigPeer, RigPeer) {
    let mut rig = Rig::new(workers, PEERS);
    rig.publish(&draft(1, PEERS, &rules()));
    let mut laptop = rig.session(0, 0, v6, false);
    let mut server = rig.session(1, workers - 1, v6, false);
    // The responder may send only after it has heard from the peer.
    rig.deliver(0, OUTSIDE, &laptop.seal(&[]));
    rig.deliver(workers - 1, OUTSIDE, &server.seal(&[]));
    rig.run();
    assert_eq!(rig.ended(End::Keepalive), 2);
    rig.neighbour(5);
    (rig, laptop, server)
}

fn a_to_b(ports: (u16, u16), len: usize) -> Vec<u8> {
    udp(peer_address(0, false), peer_address(1, false), ports, len)
}

/// The packet as it must leave: one hop further.
fn one_hop_on(packet: &[u8]) -> Vec<u8> {
    let mut want = packet.to_vec();
    bulkhead_wire::ip::decrement_hop_limit(&mut want);
    want
}

/// What a peer reads from the only frame that was sent outside.
fn only(rig: &mut Rig, peer: &RigPeer) -> Vec<u8> {
    let sent = rig.sent(OUTSIDE);
    assert_eq!(sent.len(), 1, "one frame leaves");
    peer.open(&sent[0]).expect("it is sealed for this peer")
}

#[test]
fn an_allowed_packet_is_sealed_for_its_destination_on_any_worker() {
    for (workers, v6) in [(1, false), (1, true), (2, false), (3, true)] {
        let (mut rig, mut laptop, server) = gateway(workers, v6);
        let inner = a_to_b((4000, 5000), 333);
        // It arrives on every worker in turn; only the first owns the session.
        for worker in 0..workers {
            assert!(rig.deliver(worker, OUTSIDE, &laptop.seal(&inner)));
            rig.run();
            let mut got = only(&mut rig, &server);
            assert_eq!(got.len(), 336, "padded to sixteen");
            assert!(got.split_off(333).iter().all(|byte| *byte == 0));
            assert_eq!(got, one_hop_on(&inner));
        }
        assert_eq!(rig.ended(End::Forwarded), workers as u64);
        let handed: u64 = rig.status().workers.iter().map(|worker| worker.handed_out).sum();
        assert_eq!(handed, workers as u64 - 1);
    }
}

/// RFC 8200 §8.1 over a frame, word by word: all ones if its checksum is right.
fn udp_sum_over_ipv6(frame: &[u8]) -> u32 {
    let ip = &frame[14..];
    let words = ip[8..40].chunks(2).chain(ip[40..].chunks(2));
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    sum += u32::try_from(ip.len() - 40).unwrap() + 17;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[test]
fn ipv6_inside_is_judged_by_the_same_rules() {
    let (mut rig, mut laptop, server) = gateway(1, true);
    let inner = udp(peer_address(0, true), peer_address(1, true), (4000, 5999), 100);
    rig.deliver(0, OUTSIDE, &laptop.seal(&inner));
    rig.run();
    assert!(only(&mut rig, &server).starts_with(&one_hop_on(&inner)));
    let denied = udp(peer_address(0, true), peer_address(1, true), (4000, 6000), 100);
    rig.deliver(0, OUTSIDE, &laptop.seal(&denied));
    rig.run();
    assert!(rig.sent(OUTSIDE).is_empty());
    assert_eq!(rig.ended(End::DropPortNotAllowed), 1);
}

#[test]
fn what_no_rule_allows_ends_with_its_reason() {
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let stranger = Address::from_bits(0xffff_0808_0808);
    let host = host_address(5, false);
    let cases = [
        (udp(a, b, (1, 4999), 60), End::DropPortNotAllowed),
        (udp(a, host, (1, 80), 60), End::DropPortNotAllowed),
        (udp(a, stranger, (1, 80), 60), End::DropUnknownDestination),
        (udp(stranger, b, (1, 5000), 60), End::DropUnknownSource),
        (udp(b, a, (1, 5000), 60), End::DropSpoofedSource),
        (udp(host, b, (1, 5000), 60), End::DropSpoofedSource),
        (udp(a, a, (1, 5000), 60), End::DropNoRule),
        (vec![0x45; 7], End::DropInnerMalformed),
        (vec![0; 32], End::DropInnerMalformed),
        (transport(a, b, 1, &[3, 1, 0, 0, 0, 0, 0, 0]), End::DropUnmatchedIcmpError),
    ];
    for (inner, want) in cases {
        let (mut rig, mut laptop, _) = gateway(1, false);
        rig.deliver(0, OUTSIDE, &laptop.seal(&inner));
        rig.run();
        assert_eq!(rig.ended(want), 1, "{want:?}");
        assert!(rig.sent(OUTSIDE).is_empty() && rig.sent(INSIDE).is_empty(), "{want:?}");
    }
}

#[test]
fn without_a_table_everything_is_denied() {
    let mut rig = Rig::new(1, PEERS);
    let mut laptop = rig.session(0, 0, false, false);
    rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((1, 5000), 60)));
    rig.deliver(
        0,
        INSIDE,
        &from_host(&udp(host_address(5, false), peer_address(0, false), (1, 2), 60)),
    );
    rig.run();
    assert_eq!(rig.ended(End::DropNoRule), 2);
}

#[test]
fn a_reply_passes_on_another_worker_and_an_unasked_packet_does_not() {
    let (mut rig, mut laptop, mut server) = gateway(2, false);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let answer = tcp(b, a, (443, 4000), 0x12);
    rig.deliver(1, OUTSIDE, &server.seal(&answer));
    rig.run();
    assert_eq!(rig.ended(End::DropNoRule), 1, "nobody asked");
    rig.deliver(0, OUTSIDE, &laptop.seal(&tcp(a, b, (4000, 443), 2)));
    rig.run();
    only(&mut rig, &server);
    for _ in 0..2 {
        rig.deliver(1, OUTSIDE, &server.seal(&answer));
        rig.run();
        assert!(only(&mut rig, &laptop).starts_with(&one_hop_on(&answer)));
    }
    let other = tcp(b, a, (443, 4001), 0x12);
    rig.deliver(1, OUTSIDE, &server.seal(&other));
    rig.run();
    assert_eq!(rig.ended(End::DropNoRule), 2, "another connection");
}

#[test]
fn a_reply_is_over_when_its_flow_is() {
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let idle_ms = u64::from(bulkhead_link::FlowTimeouts::default().udp) * 1_000;
    for (pause_ms, passes) in [(idle_ms, true), (idle_ms + 1_000, false)] {
        let (mut rig, mut laptop, _) = gateway(1, false);
        rig.deliver(0, OUTSIDE, &laptop.seal(&udp(a, b, (7, 5000), 60)));
        rig.run();
        rig.sent(OUTSIDE);
        rig.pass(pause_ms);
        // The old sessions are over by then; new ones do not revive a flow.
        rig.session(0, 0, false, true);
        let mut server = rig.session(1, 0, false, true);
        rig.sent(OUTSIDE);
        rig.deliver(0, OUTSIDE, &server.seal(&udp(b, a, (5000, 7), 60)));
        rig.run();
        assert_eq!(rig.sent(OUTSIDE).len(), usize::from(passes), "after {pause_ms} ms");
        assert_eq!(rig.ended(End::DropNoRule), u64::from(!passes));
    }
}

#[test]
fn ping_is_answered_and_pings_back_are_not() {
    for v6 in [false, true] {
        let (mut rig, mut laptop, mut server) = gateway(1, v6);
        let (a, b) = (peer_address(0, v6), peer_address(1, v6));
        for (packet, from_laptop, passes) in [
            (echo(b, a, true, 9), false, false),
            (echo(a, b, false, 9), true, true),
            (echo(b, a, true, 9), false, true),
            (echo(b, a, true, 10), false, false),
            (echo(b, a, false, 9), false, false),
        ] {
            let peer = if from_laptop { &mut laptop } else { &mut server };
            let frame = peer.seal(&packet);
            rig.deliver(0, OUTSIDE, &frame);
            rig.run();
            assert_eq!(rig.sent(OUTSIDE).len(), usize::from(passes), "{packet:?}");
        }
    }
}

#[test]
fn a_live_flow_ends_with_its_rule_in_both_directions() {
    let (mut rig, mut laptop, mut server) = gateway(2, false);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let (asked, answer) = (tcp(a, b, (4000, 443), 16), tcp(b, a, (443, 4000), 16));
    for _ in 0..3 {
        rig.deliver(0, OUTSIDE, &laptop.seal(&asked));
        rig.deliver(1, OUTSIDE, &server.seal(&answer));
        rig.run();
    }
    let before = rig.ended(End::Forwarded);
    rig.publish(&draft(2, PEERS, &rules()[1..]));
    rig.deliver(1, OUTSIDE, &server.seal(&answer));
    rig.run();
    rig.deliver(0, OUTSIDE, &laptop.seal(&asked));
    rig.run();
    assert_eq!((rig.ended(End::DropRevoked), rig.ended(End::Forwarded)), (2, before));
    rig.deliver(0, OUTSIDE, &laptop.seal(&asked));
    rig.run();
    assert_eq!(rig.ended(End::DropRevoked), 3, "remembered as revoked");
    rig.pass(11_000);
    rig.deliver(0, OUTSIDE, &laptop.seal(&asked));
    rig.run();
    assert_eq!(rig.ended(End::DropPortNotAllowed), 1, "forgotten: judged as a new flow");
    // The rule comes back, and with it the flow.
    rig.publish(&draft(3, PEERS, &rules()));
    rig.deliver(0, OUTSIDE, &laptop.seal(&asked));
    rig.run();
    assert_eq!(rig.ended(End::Forwarded), before + 1);
}

#[test]
fn a_flow_that_stays_allowed_survives_any_number_of_generations() {
    let (mut rig, mut laptop, mut server) = gateway(1, false);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    for generation in 2..20 {
        rig.deliver(0, OUTSIDE, &laptop.seal(&tcp(a, b, (4000, 443), 16)));
        rig.deliver(0, OUTSIDE, &server.seal(&tcp(b, a, (443, 4000), 16)));
        rig.run();
        rig.publish(&draft(generation, PEERS, &rules()));
    }
    assert_eq!(rig.ended(End::Forwarded), 36);
}

#[test]
fn congestion_marks_cross_the_gateway() {
    let (mut rig, laptop, server) = gateway(1, false);
    let mut inner = a_to_b((1, 5000), 60);
    bulkhead_wire::ip::set_ecn(&mut inner, 2);
    rig.deliver(0, OUTSIDE, &laptop.seal_as(&inner, 100, 3));
    rig.run();
    let sent = rig.sent(OUTSIDE);
    let got = server.open(&sent[0]).unwrap();
    assert_eq!((got[1] & 3, sent[0][15] & 3), (3, 3), "inner and outer carry the mark on");
    let unmarkable = a_to_b((1, 5000), 60);
    rig.deliver(0, OUTSIDE, &laptop.seal_as(&unmarkable, 101, 3));
    rig.run();
    assert_eq!(rig.ended(End::DropEcn), 1);
}

/// DSCP policy: cleared by default, or copied, or fixed; ECN crosses whatever it is.
#[test]
fn the_dscp_of_datagrams_is_that_of_the_listener() {
    use bulkhead_link::Dscp;
    for (policy, want) in [(Dscp::Clear, 0), (Dscp::Copy, 46), (Dscp::Fixed(10), 10)] {
        let (mut rig, ..) = gateway(1, false);
        rig.dscp = policy;
        let mut laptop = rig.session(0, 0, false, true);
        let server = rig.session(1, 0, false, true);
        rig.sent(OUTSIDE);
        let mut inner = a_to_b((1, 5000), 60);
        inner[1] = 46 << 2;
        inner[10..12].fill(0);
        let sum = bulkhead_wire::checksum::of(&inner[..20]);
        inner[10..12].copy_from_slice(&sum.to_be_bytes());
        bulkhead_wire::ip::set_ecn(&mut inner, 2);
        rig.deliver(0, OUTSIDE, &laptop.seal(&inner));
        rig.run();
        let sent = rig.sent(OUTSIDE);
        assert_eq!((sent[0][15] >> 2, sent[0][15] & 3), (want, 2), "{policy:?}");
        assert_eq!(server.open(&sent[0]).unwrap()[1], 46 << 2 | 2, "inside it stays");
    }
}

#[test]
fn a_stranger_gets_no_answer_and_a_right_mac1_reaches_control() {
    let (mut rig, laptop, _) = gateway(1, false);
    let mut message = vec![0x5a; 148];
    message[..4].copy_from_slice(&[1, 0, 0, 0]);
    rig.deliver(0, OUTSIDE, &laptop.datagram(&message, 0));
    rig.deliver(0, OUTSIDE, &laptop.datagram(b"hello?", 0));
    rig.deliver(0, OUTSIDE, &laptop.datagram(&[], 0));
    rig.run();
    assert_eq!((rig.ended(End::DropMac1), rig.ended(End::DropNotWireguard)), (1, 2));
    assert!(rig.handshakes.is_empty());

    let private = PrivateKey::from_bytes([9; 32]);
    let gateway = bulkhead_wg::PublicKey(crate::rig::PUBLIC_KEY);
    let psk = bulkhead_wg::PresharedKey::default();
    let stamp = bulkhead_wg::Tai64n::from_unix(std::time::Duration::from_secs(1));
    let ephemeral = [3; 32];
    let (initiation, _) =
        bulkhead_wg::initiate(&private, &gateway, &psk, 1, stamp, &ephemeral).unwrap();
    rig.deliver(0, OUTSIDE, &laptop.datagram(&initiation, 0));
    rig.run();
    assert_eq!(rig.ended(End::Handshake), 1);
    assert_eq!(rig.handshakes[0].bytes(), initiation);
    assert_eq!(rig.handshakes[0].place, laptop.place);
    assert!(rig.sent(OUTSIDE).is_empty());
}

/// Gateway key rotation: both keys of a UDP port are listened to, each message names the key that it
/// was made for, and the set changes between two batches. Data does not notice.
#[test]
fn two_keys_share_a_udp_port_and_change_under_traffic() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let [today, tomorrow] = [crate::rig::PUBLIC_KEY, [11; 32]];
    let initiation_to = |key: [u8; 32]| {
        let stamp = bulkhead_wg::Tai64n::from_unix(std::time::Duration::from_secs(1));
        let psk = bulkhead_wg::PresharedKey::default();
        let private = PrivateKey::from_bytes([9; 32]);
        bulkhead_wg::initiate(&private, &bulkhead_wg::PublicKey(key), &psk, 1, stamp, &[3; 32])
            .unwrap()
            .0
    };
    let mut counted = 0;
    for (listens, heard) in [
        (vec![(LISTEN, today)], vec![today]),
        (vec![(LISTEN, today), (LISTEN, tomorrow)], vec![today, tomorrow]),
        (vec![(LISTEN + 1, today), (LISTEN, tomorrow)], vec![tomorrow]),
        (vec![(LISTEN, tomorrow)], vec![tomorrow]),
        (vec![], vec![]),
    ] {
        rig.listen(&listens);
        rig.handshakes.clear();
        let before = rig.ended(End::DropMac1);
        for key in [today, tomorrow] {
            rig.deliver(0, OUTSIDE, &laptop.datagram(&initiation_to(key), 0));
        }
        rig.run();
        let proven: Vec<_> = rig.handshakes.iter().map(|one| one.listener.unwrap()).collect();
        assert_eq!(proven, heard);
        if !listens.is_empty() {
            let refused = rig.ended(End::DropMac1) - before;
            assert_eq!(refused, 2 - heard.len() as u64);
            rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((1, 5000), 60)));
            rig.run();
            counted += 1;
            assert_eq!(rig.ended(End::Forwarded), counted, "sessions stay");
        }
    }
    assert_eq!(rig.ended(End::DropNotWireguard), 2, "no listener: not ours");
    // A cookie reply names no key: the receiver index says whose it is.
    rig.listen(&[(LISTEN, today)]);
    let mut reply = [0; 64];
    reply[0] = 3;
    rig.deliver(0, OUTSIDE, &laptop.datagram(&reply, 0));
    rig.run();
    assert_eq!(rig.handshakes.last().unwrap().listener, None);
}
