//! What the ends of a flow are told when it is not allowed any more.

use super::*;
use bulkhead_link::{FlowSetup, OnRevoke};
use bulkhead_table::{EndpointId, LabelId};
use bulkhead_wire::{TcpFlags, icmp};

const ACK: u8 = 16;
const RST: u8 = 4;

/// A laptop and a server on two workers, with a flow that the laptop opened towards the server and one
/// towards the host on the segment; then the laptop's label may nothing any more.
fn revoked(on_revoke: OnRevoke, v6: bool) -> (Rig, RigPeer, RigPeer) {
    let setup = FlowSetup { on_revoke, ..FlowSetup::default() };
    let mut rig = Rig::with_flows(2, PEERS, 1 << 12, &setup);
    let mut rules = rules();
    // So that errors and other protocols can be flows, too.
    rules.push((1, 2, Service::other(47), Service::other(47)));
    rig.publish(&draft(1, PEERS, &rules));
    let mut laptop = rig.session(0, 0, v6, true);
    let server = rig.session(1, 1, v6, true);
    rig.neighbour(5);
    let (a, b) = (peer_address(0, v6), peer_address(1, v6));
    for inner in [
        segment(a, b, (4_000, 443), ACK),
        segment(a, host_address(5, v6), (4_000, 80), ACK),
        udp(a, b, (4_000, 5_000), 60),
        transport(a, b, 47, &[0; 8]),
    ] {
        rig.deliver(0, OUTSIDE, &laptop.seal(&inner));
    }
    rig.run();
    assert_eq!(rig.ended(End::Forwarded), 4);
    rig.sent(OUTSIDE);
    rig.sent(INSIDE);
    rig.edition.as_ref().unwrap().relabel(EndpointId(1), LabelId(0)).unwrap();
    (rig, laptop, server)
}

/// A TCP segment with five bytes of data; sequence 1000, acknowledgement 2000.
fn segment(from: Address, to: Address, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut content = vec![0; 25];
    content[..2].copy_from_slice(&ports.0.to_be_bytes());
    content[2..4].copy_from_slice(&ports.1.to_be_bytes());
    content[4..8].copy_from_slice(&1_000u32.to_be_bytes());
    content[8..12].copy_from_slice(&2_000u32.to_be_bytes());
    (content[12], content[13]) = (0x50, flags);
    transport(from, to, 6, &content)
}

/// What each peer reads of all that was sent outside.
fn read(rig: &mut Rig, peers: [&RigPeer; 2]) -> [Vec<Vec<u8>>; 2] {
    let sent = rig.sent(OUTSIDE);
    let read = peers.map(|peer| sent.iter().filter_map(|frame| peer.open(frame)).collect());
    let all: usize = read.iter().map(Vec::len).sum();
    assert_eq!(all, sent.len(), "everything is for one of the two");
    read
}

/// Sender, receiver, flags, sequence and acknowledgement number.
fn reset(packet: &[u8]) -> (Address, Address, u8, u32, u32) {
    let ip = IpPacket::parse(packet).unwrap();
    let Transport::Tcp { flags: TcpFlags(flags), .. } = ip.transport else { panic!("{ip:?}") };
    let at = usize::from(ip.transport_at);
    let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
    (ip.source, ip.destination, flags, word(at + 4), word(at + 8))
}

/// on_revoke = "reset": both ends of a TCP connection are told with the numbers that they expect,
/// whoever speaks; a second time, too, until the flow is forgotten.
#[test]
fn on_revoke_reset_ends_a_tcp_connection_at_both_ends() {
    for v6 in [false, true] {
        let (mut rig, mut laptop, mut server) = revoked(OnRevoke::Reset, v6);
        let (a, b) = (peer_address(0, v6), peer_address(1, v6));
        let to_laptop = (b, a, RST, 2_000, 0);
        let to_server = (a, b, RST | ACK, 1_000, 2_000);
        for round in 1..=2 {
            rig.deliver(0, OUTSIDE, &laptop.seal(&segment(a, b, (4_000, 443), ACK)));
            rig.run();
            let [laptops, servers] = read(&mut rig, [&laptop, &server]);
            assert_eq!(laptops.iter().map(|p| reset(p)).collect::<Vec<_>>(), [to_laptop]);
            assert_eq!(servers.iter().map(|p| reset(p)).collect::<Vec<_>>(), [to_server]);
            assert_eq!(rig.ended(End::DropRevoked), round);
        }
        // The server's worker never knew the flow, and the registry does not any more: nothing to tell.
        rig.deliver(1, OUTSIDE, &server.seal(&segment(b, a, (443, 4_000), ACK)));
        rig.run();
        assert_eq!(rig.ended(End::DropNoRule), 1);
        // A reset is not answered, and neither is a new connection.
        for flags in [RST, RST | ACK, 2] {
            rig.deliver(0, OUTSIDE, &laptop.seal(&segment(a, b, (4_000, 443), flags)));
        }
        rig.run();
        assert!(rig.sent(OUTSIDE).is_empty());
        assert_eq!(rig.ended(End::DropNoRule), 2, "the SYN");
    }
}

/// The other end may be a host in plain, and the packet that is refused may be the answer, met on a
/// worker that has not seen the flow.
#[test]
fn on_revoke_reset_reaches_a_segment_and_answers_a_reply() {
    for v6 in [false, true] {
        let (mut rig, laptop, server) = revoked(OnRevoke::Reset, v6);
        let (a, host) = (peer_address(0, v6), host_address(5, v6));
        for worker in [1, 1] {
            rig.deliver(worker, INSIDE, &from_host(&segment(host, a, (80, 4_000), ACK)));
            rig.run();
            let inside: Vec<_> = rig.sent(INSIDE);
            assert_eq!(inside.len(), 1);
            assert_eq!(inside[0][..6], HOST_MAC);
            assert_eq!(reset(&inside[0][14..]), (a, host, RST, 2_000, 0));
            let [laptops, servers] = read(&mut rig, [&laptop, &server]);
            let told: Vec<_> = laptops.iter().map(|packet| reset(packet)).collect();
            assert_eq!((told, servers.len()), (vec![(host, a, RST | ACK, 1_000, 2_000)], 0));
        }
        assert_eq!(rig.ended(End::DropRevoked), 2);
    }
}

/// on_revoke = "unreachable", and "reset" for what has no resets: the sender alone gets an ICMP error
/// that quotes its packet.
#[test]
fn on_revoke_unreachable_is_an_icmp_error_to_the_sender() {
    for (v6, on_revoke) in
        [false, true].map(|v6| [(v6, OnRevoke::Unreachable), (v6, OnRevoke::Reset)]).concat()
    {
        let (mut rig, mut laptop, server) = revoked(on_revoke, v6);
        let (a, b) = (peer_address(0, v6), peer_address(1, v6));
        let mut packets = vec![udp(a, b, (4_000, 5_000), 60), transport(a, b, 47, &[0; 8])];
        if on_revoke == OnRevoke::Unreachable {
            packets.push(segment(a, b, (4_000, 443), ACK));
        }
        for packet in packets {
            rig.deliver(0, OUTSIDE, &laptop.seal(&packet));
            rig.run();
            let [laptops, servers] = read(&mut rig, [&laptop, &server]);
            assert_eq!((laptops.len(), servers.len()), (1, 0));
            let ip = IpPacket::parse(&laptops[0]).unwrap();
            assert_eq!((ip.source, ip.destination), (crate::rig::own_address(v6), a));
            let found = match ip.transport {
                Transport::Icmp { kind, code, .. } => Some((false, kind, code)),
                Transport::Icmpv6 { kind, code, .. } => Some((true, kind, code)),
                Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Other => None,
            };
            assert_eq!(found, Some(if v6 { (true, 1, 1) } else { (false, 3, 13) }));
            let quote = &laptops[0][usize::from(ip.transport_at) + icmp::HEADER_LEN..];
            assert!(quote.starts_with(&packet));
        }
    }
}

/// on_revoke = "drop", the default; and whatever is set, who was never allowed is told nothing.
#[test]
fn on_revoke_drop_and_strangers_are_told_nothing() {
    for (on_revoke, told) in [(OnRevoke::Drop, 0), (OnRevoke::Reset, 2), (OnRevoke::Unreachable, 1)]
    {
        let (mut rig, mut laptop, mut server) = revoked(on_revoke, false);
        let (a, b) = (peer_address(0, false), peer_address(1, false));
        let never = [
            (0, laptop.seal(&segment(a, b, (4_001, 443), ACK))),
            (0, laptop.seal(&udp(a, b, (4_001, 5_000), 60))),
            (1, server.seal(&segment(b, a, (444, 4_000), ACK))),
            (0, laptop.seal(&segment(b, a, (443, 4_000), ACK))),
        ];
        for (worker, frame) in &never {
            rig.deliver(*worker, OUTSIDE, frame);
        }
        rig.run();
        assert_eq!(rig.sent(OUTSIDE).len(), 0, "{on_revoke:?}");
        assert_eq!((rig.ended(End::DropNoRule), rig.ended(End::DropSpoofedSource)), (3, 1));
        rig.deliver(0, OUTSIDE, &laptop.seal(&segment(a, b, (4_000, 443), ACK)));
        rig.run();
        assert_eq!(rig.sent(OUTSIDE).len(), told, "{on_revoke:?}");
        assert_eq!(rig.ended(End::DropRevoked), 1);
        // A revoked flow is forgotten when a closed one would be.
        rig.pass(11_000);
        rig.deliver(0, OUTSIDE, &laptop.seal(&segment(a, b, (4_000, 443), ACK)));
        rig.run();
        assert_eq!((rig.sent(OUTSIDE).len(), rig.ended(End::DropNoRule)), (0, 4));
    }
}

/// A flow that is allowed again is opened again: what is remembered of the old one lets nothing pass,
/// and both workers hear of the new one.
#[test]
fn a_revoked_flow_that_is_allowed_again_is_a_new_flow() {
    let (mut rig, mut laptop, mut server) = revoked(OnRevoke::Reset, false);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let frame = laptop.seal(&segment(a, b, (4_000, 443), ACK));
    rig.deliver(0, OUTSIDE, &frame);
    rig.run();
    assert_eq!((rig.ended(End::DropRevoked), rig.sent(OUTSIDE).len()), (1, 2));
    rig.edition.as_ref().unwrap().relabel(EndpointId(1), LabelId(1)).unwrap();
    rig.deliver(1, OUTSIDE, &server.seal(&segment(b, a, (443, 4_000), ACK)));
    rig.run();
    assert_eq!(rig.ended(End::DropNoRule), 1, "the opener speaks first");
    rig.deliver(0, OUTSIDE, &laptop.seal(&segment(a, b, (4_000, 443), ACK)));
    rig.run();
    rig.deliver(1, OUTSIDE, &server.seal(&segment(b, a, (443, 4_000), ACK)));
    rig.run();
    assert_eq!((rig.ended(End::Forwarded), rig.ended(End::DropRevoked)), (4 + 2, 1));
}

/// Answers are limited: so many in a second, not more than a batch for a batch, and a frame for each.
#[test]
fn answers_to_revoked_flows_are_limited_in_each_second() {
    let (mut rig, mut laptop, _server) = revoked(OnRevoke::Unreachable, false);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let most = crate::limits::REVOCATIONS_PER_SECOND as usize;
    let mut answered = 0;
    let (mut sent, second) = (0, rig.now_ms / 1_000);
    while sent < most + 1_000 {
        for _ in 0..BATCH_MAX {
            let frame = laptop.seal(&segment(a, b, (4_000, 443), ACK));
            assert!(rig.deliver(0, OUTSIDE, &frame));
            sent += 1;
        }
        rig.run();
        answered += rig.sent(OUTSIDE).len();
    }
    assert_eq!((answered, rig.now_ms / 1_000), (most, second));
    rig.pass(1_000);
    rig.deliver(0, OUTSIDE, &laptop.seal(&segment(a, b, (4_000, 443), ACK)));
    rig.run();
    assert_eq!(rig.sent(OUTSIDE).len(), 1);
    rig.status();
}
