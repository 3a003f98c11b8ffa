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

mod flow_log;
mod hits;
mod revoke;
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

/// A session that the peer has initiated is sent with once the peer has proved that it holds the keys: not after
/// a forged message, nor one that is not opened for another reason.
#[test]
fn only_what_authenticates_confirms_a_session() {
    let mut rig = Rig::new(1, PEERS);
    rig.publish(&draft(1, PEERS, &rules()));
    let mut laptop = rig.session(0, 0, false, true);
    let mut server = rig.session(1, 0, false, false);
    rig.sent(OUTSIDE);
    let genuine = server.seal(&[]);
    for damaged in 14 + 28 + 16..genuine.len() {
        let mut forged = genuine.clone();
        forged[damaged] ^= 1;
        rig.deliver(0, OUTSIDE, &forged);
        rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((7, 5001), 30)));
        rig.run();
        assert_eq!(rig.sent(OUTSIDE).len(), 0, "the packet waits");
    }
    assert_eq!(rig.ended(End::DropForged), 16);
    rig.deliver(0, OUTSIDE, &genuine);
    rig.run();
    assert!(!rig.sent(OUTSIDE).is_empty(), "those that waited go");
}

/// A message that was held back and is sent from elsewhere once its session has a successor is opened, but its
/// peer has not moved; what comes in the new session from there has moved it.
#[test]
fn a_late_message_of_an_earlier_session_moves_nobody() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let home = laptop.place;
    let from = |peer: &mut RigPeer, remote_port, inner: &[u8]| {
        peer.place.remote_port = remote_port;
        let frame = peer.seal(inner);
        peer.place = home;
        frame
    };
    let late = [7_777, 7_777, 6_666];
    let late = late.map(|remote| from(&mut laptop, remote, &a_to_b((1, 5001), 30)));
    rig.deliver(0, OUTSIDE, &late[0]);
    rig.run();
    assert_eq!(rig.cells[0].place().unwrap().remote_port, 7_777, "a device moves");
    rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((3, 5001), 30)));
    rig.run();
    // The next of the other peer, so that this one's has another slot than its first.
    rig.session(1, 0, false, false);
    let mut successor = rig.session(0, 0, false, true);
    rig.deliver(0, OUTSIDE, &late[2]);
    rig.run();
    let place = rig.cells[0].place().unwrap();
    assert_eq!(place.remote_port, 6_666, "it has not spoken in the successor yet");
    rig.deliver(0, OUTSIDE, &successor.seal(&[]));
    rig.run();
    assert_eq!(rig.cells[0].place(), Some(home), "and back");
    let forwarded = rig.ended(End::Forwarded);
    rig.deliver(0, OUTSIDE, &late[1]);
    rig.run();
    assert_eq!(rig.ended(End::Forwarded), forwarded + 1, "nothing else is wrong with it");
    assert_eq!(rig.cells[0].place(), Some(home), "a session with a successor moves nobody");
    rig.deliver(0, OUTSIDE, &from(&mut successor, 8_888, &a_to_b((4, 5001), 30)));
    rig.run();
    assert_eq!(rig.cells[0].place().unwrap().remote_port, 8_888);
}

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

/// Goal: no nonce is used twice, whichever worker seals. Method: one worker sends runs of
/// different lengths to a peer, both send it keepalives between; every counter on the wire is collected.
#[test]
fn no_message_counter_is_used_twice() {
    let (mut rig, mut laptop, server) = gateway(2, false);
    let mut counters = vec![];
    for run in 1..40 {
        for n in 0..run {
            let frame = laptop.seal(&a_to_b((n, 5000 + n), 60));
            rig.deliver(0, OUTSIDE, &frame);
        }
        let peer = bulkhead_table::PeerIndex(1);
        rig.tell_all(|_| Command::Keepalive(peer));
        for frame in rig.sent(OUTSIDE) {
            let (header, _) = server.message(&frame).expect("everything goes to the server");
            assert!(server.open(&frame).is_some());
            counters.push(header.counter);
        }
    }
    let sent = counters.len();
    counters.sort_unstable();
    counters.dedup();
    assert_eq!((counters.len(), sent), (sent, 39 * 40 / 2 + 2 * 39));
}

/// Goal: what is decrypted and encrypted together stays apart: keys, ends, order, lengths.
/// Method: full batches in which two sessions take turns, each message of another length; in every
/// place once, a forged message, and in every place once, a copy of the message before it.
#[test]
fn aead_a_batch_of_several_sessions_keeps_its_messages_apart() {
    for v6 in [false, true] {
        let (mut rig, mut laptop, mut server) = gateway(1, v6);
        // A flow, so that the server may answer.
        rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((4000, 5000), 60)));
        rig.run();
        only(&mut rig, &server);
        let (forged, replayed) = (rig.ended(End::DropForged), rig.ended(End::DropReplayed));
        for place in 0..BATCH_MAX {
            let mut frames: Vec<Vec<u8>> = vec![];
            let (mut for_server, mut for_laptop) = (vec![], vec![]);
            for n in 0..BATCH_MAX {
                let len = 28 + (n * 89 + place * 7) % 1_380;
                let (from, to, ports) =
                    (peer_address(0, false), peer_address(1, false), (4000, 5000));
                let (inner, frame) = if n % 2 == 0 {
                    let inner = udp(from, to, ports, len);
                    let frame = laptop.seal(&inner);
                    (inner, frame)
                } else {
                    let inner = udp(to, from, (ports.1, ports.0), len);
                    let frame = server.seal(&inner);
                    (inner, frame)
                };
                if n == place {
                    let mut forged = frame;
                    let at = forged.len() - 1 - (place % 16);
                    forged[at] ^= 1;
                    frames.push(forged);
                } else if n > 0 && n == (place + 9) % BATCH_MAX {
                    // This one is lost, and the one before comes twice.
                    frames.push(frames[n - 1].clone());
                } else {
                    frames.push(frame);
                    let want = one_hop_on(&inner);
                    if n % 2 == 0 { for_server.push(want) } else { for_laptop.push(want) }
                }
            }
            for frame in &frames {
                assert!(rig.deliver(0, OUTSIDE, frame));
            }
            rig.run();
            let sent = rig.sent(OUTSIDE);
            for (peer, want) in [(&server, for_server), (&laptop, for_laptop)] {
                let got: Vec<_> = sent.iter().filter_map(|frame| peer.open(frame)).collect();
                assert_eq!(got.len(), want.len(), "place {place}");
                for (got, want) in got.iter().zip(&want) {
                    assert_eq!(got[..want.len()], want[..], "place {place}");
                    assert!(got[want.len()..].iter().all(|byte| *byte == 0), "padding");
                }
            }
            assert!(!v6 || sent.iter().all(|frame| udp_sum_over_ipv6(frame) == 0xffff));
        }
        assert_eq!(rig.ended(End::DropForged) - forged, BATCH_MAX as u64);
        assert_eq!(
            rig.ended(End::DropReplayed) - replayed,
            BATCH_MAX as u64 - 1,
            "not in the first place"
        );
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
fn nothing_is_sealed_with_an_expired_session() {
    let (mut rig, _, _) = gateway(1, false);
    rig.now_ms += 180_000;
    let mut laptop = rig.session(0, 0, false, true);
    rig.sent(OUTSIDE);
    rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((1, 5000), 60)));
    rig.run();
    assert_eq!(rig.ended(End::DropPeerUnreachable), 1, "the server's session is over");
    assert!(rig.sent(OUTSIDE).is_empty());
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

#[test]
fn a_packet_waits_for_the_session_of_its_peer_and_is_judged_again() {
    let mut rig = Rig::new(2, PEERS);
    rig.publish(&draft(1, PEERS, &rules()));
    let mut laptop = rig.session(0, 0, false, false);
    for _ in 0..2 {
        let frame = laptop.seal(&a_to_b((1, 5000), 60));
        rig.deliver(0, OUTSIDE, &frame);
    }
    rig.run();
    assert_eq!((rig.status().held(), rig.sent(OUTSIDE).len()), (2, 0));
    assert_eq!(rig.reports.iter().filter(|report| *report == "session 1").count(), 1);
    // The handshake is done, by us, on the other worker.
    let server = rig.session(1, 1, false, true);
    rig.pass(10);
    let sent = rig.sent(OUTSIDE);
    let lengths: Vec<_> = sent.iter().map(|frame| server.open(frame).unwrap().len()).collect();
    assert_eq!(lengths.iter().filter(|len| **len == 0).count(), 1, "the initiator speaks first");
    assert_eq!(lengths.iter().filter(|len| **len == 64).count(), 2);

    // Another that waits while its rule goes away.
    let mut rig = Rig::new(1, PEERS);
    rig.publish(&draft(1, PEERS, &rules()));
    let mut laptop = rig.session(0, 0, false, false);
    rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((1, 5000), 60)));
    rig.run();
    rig.publish(&draft(2, PEERS, &[]));
    rig.session(1, 0, false, true);
    rig.pass(10);
    assert_eq!((rig.ended(End::DropRevoked), rig.ended(End::Forwarded)), (1, 0));
    // And one whose peer never answers.
    rig.publish(&draft(3, PEERS, &rules()));
    let mut alone = Rig::new(1, PEERS);
    alone.publish(&draft(1, PEERS, &rules()));
    let mut laptop = alone.session(0, 0, false, false);
    alone.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((1, 5000), 60)));
    alone.run();
    alone.pass(5_000);
    assert_eq!(alone.ended(End::DropPeerUnreachable), 1);
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
fn forged_replayed_and_expired_messages_end_as_such() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let inner = a_to_b((1, 5000), 60);
    let good = laptop.seal(&inner);
    for at in [42, 46, 51, 58, 70, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        rig.deliver(0, OUTSIDE, &bad);
    }
    rig.run();
    // Type; receiver; counter; content, twice; tag.
    assert_eq!(rig.ended(End::DropNotWireguard), 1);
    assert_eq!(rig.ended(End::DropNoSession), 1);
    assert_eq!(rig.ended(End::DropForged), 4);
    rig.deliver(0, OUTSIDE, &good);
    rig.deliver(0, OUTSIDE, &good);
    rig.run();
    assert_eq!((rig.ended(End::Forwarded), rig.ended(End::DropReplayed)), (1, 1));
    rig.now_ms += 180_000;
    rig.deliver(0, OUTSIDE, &laptop.seal(&inner));
    rig.run();
    assert_eq!(rig.ended(End::DropSessionExpired), 1);
}

#[test]
fn a_removed_session_is_gone_on_every_worker() {
    let (mut rig, mut laptop, _) = gateway(2, false);
    rig.tell_all(|_| Command::Remove(laptop.index));
    rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((1, 5000), 60)));
    rig.run();
    assert_eq!(rig.ended(End::DropNoSession), 1);
}

#[test]
fn a_peer_roams_only_with_an_authenticated_packet() {
    let (mut rig, mut laptop, mut server) = gateway(1, false);
    let home = rig.cells[0].place().unwrap();
    laptop.place.remote_port = 9;
    let mut forged = laptop.seal(&[]);
    *forged.last_mut().unwrap() ^= 1;
    rig.deliver(0, OUTSIDE, &forged);
    rig.run();
    assert_eq!(rig.cells[0].place(), Some(home));
    laptop.place.remote_mac = [6; 6];
    rig.deliver(
        0,
        OUTSIDE,
        &laptop.seal(&tcp(peer_address(0, false), peer_address(1, false), (1, 443), 2)),
    );
    rig.run();
    rig.sent(OUTSIDE);
    rig.deliver(
        0,
        OUTSIDE,
        &server.seal(&tcp(peer_address(1, false), peer_address(0, false), (443, 1), 18)),
    );
    rig.run();
    let sent = rig.sent(OUTSIDE);
    assert_eq!((&sent[0][..6], &sent[0][36..38]), (&[6; 6][..], &[0, 9][..]));
    assert!(laptop.open(&sent[0]).is_some());
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

#[test]
fn a_full_transmit_ring_drops_and_loses_no_frame() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    for _ in 0..40 {
        for _ in 0..32 {
            rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((1, 5000), 60)));
        }
        rig.workers[0].turn(rig.now_ms);
    }
    assert_eq!(rig.ended(End::Forwarded) + rig.ended(End::DropTransmitFull), 1_280);
    assert!(rig.ended(End::DropTransmitFull) > 0, "nobody collected");
    rig.sent(OUTSIDE);
    rig.deliver(0, OUTSIDE, &laptop.seal(&a_to_b((1, 5000), 60)));
    rig.run();
    assert_eq!(rig.sent(OUTSIDE).len(), 1, "and it recovers");
}

#[test]
fn a_worker_whose_packets_all_belong_elsewhere_keeps_its_frames() {
    let (mut rig, mut laptop, server) = gateway(2, false);
    // Peer 0 lives on worker 0; everything arrives on worker 1, far more than its frames.
    for _ in 0..300 {
        for _ in 0..16 {
            assert!(rig.deliver(1, OUTSIDE, &laptop.seal(&a_to_b((1, 5000), 60))));
        }
        rig.run();
        for frame in rig.sent(OUTSIDE) {
            assert!(server.open(&frame).is_some());
        }
    }
    assert_eq!(rig.ended(End::Forwarded), 4_800);
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

mod flows;
mod fragments;
mod generations;
