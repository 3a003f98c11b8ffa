//! Flows through a whole gateway: who opens them, how long they live, who may disturb them.

use super::*;
use bulkhead_link::{FlowSetup, Midstream};
use bulkhead_table::{EndpointId, LabelId};

use crate::flow::{FlowKey, Pair};
use crate::state::Input;

/// A laptop, a server and a third device, with room for `flows` as `setup` says.
fn gateway_with(setup: &FlowSetup) -> (Rig, [RigPeer; 3]) {
    let mut rig = Rig::with_flows(2, 3, 1 << 12, setup);
    let rules = [
        (1, 2, Service::tcp(443), Service::tcp(443)),
        (1, 2, Service::udp(5000), Service::udp(5999)),
        (3, 1, Service::udp(9), Service::udp(9)),
    ];
    rig.publish(&draft(1, 3, &rules));
    let peers = [(0, 0), (1, 1), (2, 0)].map(|(n, worker)| rig.session(n, worker, false, true));
    rig.sent(OUTSIDE);
    (rig, peers)
}

/// Delivers one packet of a peer to its worker; whether it was forwarded.
fn passes(rig: &mut Rig, peer: &mut RigPeer, worker: usize, inner: &[u8]) -> bool {
    assert!(rig.deliver(worker, OUTSIDE, &peer.seal(inner)));
    rig.run();
    rig.sent(OUTSIDE).len() == 1
}

/// TCP states across two workers: each hears one direction only, and the timeouts are those of the
/// state that both together have reached.
#[test]
fn a_connection_on_two_workers_lives_as_long_as_its_state_allows() {
    const SYN: u8 = 2;
    const SYN_ACK: u8 = 18;
    const ACK: u8 = 16;
    const FIN: u8 = 17;
    const RST: u8 = 4;
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let setup = FlowSetup { midstream: Midstream::Refuse, ..FlowSetup::default() };
    // What is sent, by whom, and how long the silence after it may be.
    let (laptop_says, server_says) = (true, false);
    let histories: [(&[(bool, u8)], u64); 6] = [
        (&[(laptop_says, SYN)], 120),
        (&[(laptop_says, SYN), (server_says, SYN_ACK)], 60),
        (&[(laptop_says, SYN), (server_says, SYN_ACK), (laptop_says, RST)], 10),
        (
            &[(laptop_says, SYN), (server_says, SYN_ACK), (laptop_says, ACK), (server_says, FIN)],
            120,
        ),
        (
            &[
                (laptop_says, SYN),
                (server_says, SYN_ACK),
                (laptop_says, ACK),
                (server_says, FIN),
                (laptop_says, FIN),
            ],
            30,
        ),
        (
            &[
                (laptop_says, SYN),
                (server_says, SYN_ACK),
                (laptop_says, ACK),
                (laptop_says, FIN),
                (server_says, FIN),
                (laptop_says, ACK),
            ],
            // The laptop's worker has not heard of the second FIN: to it this is no last ACK.
            30,
        ),
    ];
    for (history, seconds) in histories {
        for (pause, alive) in [(seconds, true), (seconds + 1, false)] {
            let (mut rig, [mut laptop, mut server, _]) = gateway_with(&setup);
            for (from_laptop, flags) in history {
                let passed = match from_laptop {
                    true => passes(&mut rig, &mut laptop, 0, &tcp(a, b, (7, 443), *flags)),
                    false => passes(&mut rig, &mut server, 1, &tcp(b, a, (443, 7), *flags)),
                };
                assert!(passed, "{history:?}");
            }
            rig.pass(pause * 1_000);
            // Nothing that opens; the server's packet needs the flow, too.
            let late = tcp(b, a, (443, 7), SYN_ACK);
            assert_eq!(passes(&mut rig, &mut server, 1, &late), alive, "{history:?} {pause}");
            assert_eq!(rig.ended(End::DropNoRule), u64::from(!alive));
        }
    }
}

/// Mid-stream TCP after a restart: adopted or refused, by configuration; never without a rule.
#[test]
fn midstream_tcp_is_adopted_or_refused_as_configured() {
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    for (midstream, adopted) in [(Midstream::Adopt, true), (Midstream::Refuse, false)] {
        let setup = FlowSetup { midstream, ..FlowSetup::default() };
        let (mut rig, [mut laptop, mut server, _]) = gateway_with(&setup);
        let answer = tcp(b, a, (443, 7), 16);
        assert!(!passes(&mut rig, &mut server, 1, &answer), "the opener speaks first");
        assert!(!passes(&mut rig, &mut laptop, 0, &tcp(a, b, (7, 22), 16)), "no rule");
        assert_eq!(passes(&mut rig, &mut laptop, 0, &tcp(a, b, (7, 443), 16)), adopted);
        assert_eq!(passes(&mut rig, &mut server, 1, &answer), adopted);
        assert_eq!(rig.ended(End::DropMidstream), u64::from(!adopted));
        for flags in [4, 18, 0, 3] {
            assert!(!passes(&mut rig, &mut laptop, 0, &tcp(a, b, (8, 443), flags)), "{flags}");
        }
        assert_eq!(rig.ended(End::DropMidstream), 4 + u64::from(!adopted));
        assert!(passes(&mut rig, &mut laptop, 0, &tcp(a, b, (9, 443), 2)), "a SYN always may");
    }
}

#[test]
fn per_source_new_flow_limits_hold_one_device_and_not_another() {
    let setup = FlowSetup { new_per_second: 10, live_per_source: 15, ..FlowSetup::default() };
    let (mut rig, [mut laptop, mut server, mut third]) = gateway_with(&setup);
    let (a, b, c) = (peer_address(0, false), peer_address(1, false), peer_address(2, false));
    let mut opened = |rig: &mut Rig, from: u16| {
        (from..from + 30)
            .filter(|n| passes(rig, &mut laptop, 0, &udp(a, b, (*n, 5000), 60)))
            .count()
    };
    assert_eq!(opened(&mut rig, 100), 10);
    rig.pass(1_000);
    assert_eq!(opened(&mut rig, 200), 5, "fifteen at once");
    assert_eq!(rig.ended(End::DropNewFlowLimit), 20 + 25);
    assert!(passes(&mut rig, &mut server, 1, &udp(b, a, (5000, 100), 60)), "a flow that is open");
    assert!(passes(&mut rig, &mut third, 0, &udp(c, a, (1, 9), 60)), "another source");
    // Silent ones end, and their allowance comes back: but for the one that was answered.
    rig.pass(31_000);
    for _ in 0..200 {
        rig.pass(1);
    }
    assert_eq!([opened(&mut rig, 300), opened(&mut rig, 400)], [10, 0]);
    rig.pass(1_000);
    assert_eq!(opened(&mut rig, 500), 4);
}

/// ICMP errors are bound to the flow that they quote: both families, both directions, and only from
/// where the quoted packet went.
#[test]
fn an_icmp_error_from_a_third_device_is_not_believed() {
    for v6 in [false, true] {
        let (mut rig, [mut laptop, mut server, mut third]) = gateway_with(&FlowSetup::default());
        let [a, b, c] = [0, 1, 2].map(|n| peer_address(n, v6));
        let (asked, answer) = (udp(a, b, (7, 5000), 80), udp(b, a, (5000, 7), 80));
        let error = |from, to, quoted: &[u8]| {
            let (protocol, kind) = if v6 { (58, 1) } else { (1, 3) };
            let mut content = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            content.extend(quoted);
            transport(from, to, protocol, &content)
        };
        assert!(passes(&mut rig, &mut laptop, 0, &asked));
        assert!(passes(&mut rig, &mut server, 1, &answer));
        // Of the server about the laptop's packet, and of the laptop about the server's.
        assert!(passes(&mut rig, &mut server, 1, &error(b, a, &asked)));
        assert!(passes(&mut rig, &mut laptop, 0, &error(a, b, &answer)));
        let refused = [
            (true, error(c, a, &asked)),
            (true, error(c, b, &answer)),
            // To somebody who did not send it; about a packet that went elsewhere; cut short.
            (false, error(b, c, &asked)),
            (false, error(b, a, &udp(a, c, (7, 5000), 80))),
            (false, error(b, a, &asked[..if v6 { 47 } else { 27 }])),
            (false, error(b, a, &udp(a, b, (8, 5000), 80))),
        ];
        let count = refused.len() as u64;
        for (of_third, packet) in refused {
            let (peer, worker) = if of_third { (&mut third, 0) } else { (&mut server, 1) };
            assert!(!passes(&mut rig, peer, worker, &packet), "{packet:02x?}");
        }
        assert_eq!(rig.ended(End::DropUnmatchedIcmpError), count);
    }
}

/// However long a flow goes on, its packets are of its ends: not of whoever writes their addresses with another
/// key, without one, or on another segment; also right beside real ones.
#[test]
fn a_flow_that_goes_on_takes_no_packet_of_another_sender() {
    for v6 in [false, true] {
        let mut rig = Rig::new(1, 3);
        let rules = [(1, 2, 5000), (4, 1, 9)];
        let rules =
            rules.map(|(from, to, port)| (from, to, Service::udp(port), Service::udp(port)));
        rig.publish(&draft(1, 3, &rules));
        rig.neighbour(5);
        let [mut laptop, mut server, mut third] = [0, 1, 2].map(|n| rig.session(n, 0, v6, true));
        rig.sent(OUTSIDE);
        let [a, b, host] = [peer_address(0, v6), peer_address(1, v6), host_address(5, v6)];
        let (asked, answer) = (udp(a, b, (7, 5000), 80), udp(b, a, (5000, 7), 80));
        let (plain, back) = (udp(host, a, (7, 9), 80), udp(a, host, (9, 7), 80));
        let on_a_vlan = |packet: &[u8]| {
            let mut frame = from_host(packet);
            frame.splice(12..12, [0x81, 0, 0, 7]);
            frame
        };
        for round in 1..=4 {
            let frames = [
                (OUTSIDE, third.seal(&asked)),
                (OUTSIDE, laptop.seal(&asked)),
                (OUTSIDE, third.seal(&answer)),
                (OUTSIDE, server.seal(&answer)),
                (OUTSIDE, laptop.seal(&answer)),
                (OUTSIDE, third.seal(&plain)),
                (INSIDE, from_host(&asked)),
                (INSIDE, on_a_vlan(&plain)),
                (INSIDE, from_host(&plain)),
                (INSIDE, from_host(&back)),
            ];
            for (port, frame) in frames {
                assert!(rig.deliver(0, port, &frame));
            }
            rig.run();
            assert_eq!(rig.ended(End::DropSpoofedSource), 7 * round);
            let sent = rig.sent(OUTSIDE);
            assert_eq!(sent.len(), 3, "{:?}", rig.status().ends());
            assert!(
                server.open(&sent[0]).is_some_and(|inner| inner.starts_with(&one_hop_on(&asked)))
            );
            for (frame, want) in sent[1..].iter().zip([&answer, &plain]) {
                let inner = laptop.open(frame).unwrap();
                assert!(inner.starts_with(&one_hop_on(want)));
            }
            // The other direction of what the host has opened.
            assert!(rig.deliver(0, OUTSIDE, &laptop.seal(&back)));
            rig.run();
            assert_eq!((rig.sent(INSIDE).len(), rig.sent(OUTSIDE).len()), (1, 0));
        }
    }
}

/// A flow is settled as soon as no packet changes it any more, on whatever side; its entry names the sender first.
/// A newer table unsettles it for one packet.
#[test]
fn a_flow_that_goes_on_is_settled_and_names_its_ends() {
    let (mut rig, mut laptop, mut server) = gateway(1, false);
    let [a, b] = [0, 1].map(|n| peer_address(n, false));
    let ends = [1, 2].map(|n| (EndpointId(n), LabelId(u16::try_from(n).unwrap())));
    let (asked, answer) = (udp(a, b, (7, 5000), 80), udp(b, a, (5000, 7), 80));
    let number = |rig: &Rig| rig.workers[0].edition.as_ref().unwrap().law(0).number;
    let told = |rig: &Rig, edition, packet: &[u8]| {
        let packet = IpPacket::parse(packet).unwrap();
        let (flows, now_s) = (&rig.workers[0].flows, rig.workers[0].now_s);
        let mut places = [flows.hash(Pair::of(&FlowKey::of(&packet)))];
        let worth = flows.warm_flows(&mut places, edition) == 1;
        let told = flows.settled(&places[0], Input::of(packet.transport), edition, now_s);
        assert!(worth || told.is_none(), "what is settled is said to be worth asking");
        told.map(|(_, (from, to))| [from, to])
    };
    assert_eq!(told(&rig, number(&rig), &asked), None);
    for generation in 1..=3 {
        rig.publish(&draft(generation, PEERS, &rules()));
        let edition = number(&rig);
        assert_eq!(told(&rig, edition, &asked), None, "judged under another table at most");
        for _ in 0..2 {
            assert!(passes(&mut rig, &mut laptop, 0, &asked));
            assert!(passes(&mut rig, &mut server, 0, &answer));
        }
        assert_eq!(told(&rig, edition, &asked), Some(ends));
        assert_eq!(told(&rig, edition, &answer), Some([ends[1], ends[0]]));
        assert_eq!(told(&rig, edition + 1, &asked), None);
    }
}

/// An answer to a ping that nobody saw is allowed as an answer, or not at all: also when a newer table is asked
/// about what it has opened.
#[test]
fn what_an_answer_has_opened_is_judged_again_as_an_answer() {
    for v6 in [false, true] {
        let (mut rig, mut laptop, mut server) = gateway(1, v6);
        let [a, b] = [0, 1].map(|n| peer_address(n, v6));
        let icmp = |kind| if v6 { Service::icmpv6(kind, 0) } else { Service::icmp(kind, 0) };
        let (query, answer) = if v6 { (128, 129) } else { (8, 0) };
        let rule = |kind| [(1, 2, icmp(kind), icmp(kind))];
        for generation in 2..=4 {
            rig.publish(&draft(generation, PEERS, &rule(answer)));
            assert!(passes(&mut rig, &mut laptop, 0, &echo(a, b, true, 9)), "{generation}");
            assert!(passes(&mut rig, &mut server, 0, &echo(b, a, false, 9)), "of the same flow");
        }
        rig.publish(&draft(5, PEERS, &rule(query)));
        assert!(!passes(&mut rig, &mut laptop, 0, &echo(a, b, true, 9)));
        assert!(!passes(&mut rig, &mut server, 0, &echo(b, a, false, 9)));
        assert_eq!(rig.ended(End::DropRevoked), 2);
    }
}
