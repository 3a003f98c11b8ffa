//! Sessions and their peers: what confirms, moves, ends and outlives them.

use super::*;
use bulkhead_wire::Ethernet;

use crate::rig::outer_place;

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

/// Where a peer is stands in the headers of its messages, of whatever shape, also on a worker that they were handed
/// to, and after they were decrypted in their place.
#[test]
fn a_peer_is_where_the_headers_of_its_messages_say() {
    let tagged = |mut frame: Vec<u8>| {
        frame.splice(12..12, [0x81, 0, 0, 7]);
        frame
    };
    let with_options = |mut frame: Vec<u8>| {
        frame.splice(34..34, [1; 4]);
        let total = u16::from_be_bytes([frame[16], frame[17]]) + 4;
        frame[14] = 0x46;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[24..26].fill(0);
        let sum = bulkhead_wire::checksum::of(&frame[14..38]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let (mut rig, mut laptop, mut server) = gateway(2, false);
    let [a, b] = [0, 1].map(|n| peer_address(n, false));
    let (asked, answer) = (udp(a, b, (7, 5_000), 80), udp(b, a, (5_000, 7), 80));
    for round in 1..=3u16 {
        for (shape, worker, port) in (0..4).flat_map(|shape| {
            [(0, OUTSIDE), (1, OUTSIDE), (0, INSIDE)].map(|(worker, port)| (shape, worker, port))
        }) {
            laptop.place = outer_place(0, shape == 1);
            laptop.place.remote_port += round;
            let frame = laptop.seal(&asked);
            let frame = match shape {
                2 => tagged(frame),
                3 => with_options(frame),
                _ => frame,
            };
            assert!(rig.deliver(worker, port, &frame));
            rig.run();
            assert_eq!(only(&mut rig, &server), one_hop_on(&asked));
            laptop.place.port = port;
            laptop.place.vlan = if shape == 2 { 7 } else { 0 };
            let told = (round, shape, worker, port);
            assert_eq!(rig.cells[0].place(), Some(laptop.place), "{told:?}");
            assert!(rig.deliver(1, OUTSIDE, &server.seal(&answer)));
            rig.run();
            let sent = rig.sent(port);
            let vlan = Ethernet::parse(&sent[0]).unwrap().vlan;
            assert_eq!((sent.len(), vlan.unwrap_or(0)), (1, laptop.place.vlan), "{told:?}");
            assert_eq!(laptop.open(&sent[0]), Some(one_hop_on(&answer)), "{told:?}");
        }
    }
}
