//! The flow log of a whole gateway: what the generator did is what is recorded, no more and no less.

use super::*;
use crate::flow::FlowKey;
use crate::flow_log::{Event, Past, Record};
use crate::limits::{DENIALS_LOGGED_PER_SECOND, FLOW_LOG_RING};
use bulkhead_link::{Counted, FlowEnding, FlowSetup};
use bulkhead_table::{Draft, Log, RuleIndex};
use std::collections::BTreeMap;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const FIN: u8 = 17;
const SYN_ACK: u8 = 18;

/// Peer 0 may speak to peer 1: TCP (rule 0), and UDP (rule 1), of which `log` is logged.
fn logging(generation: u64, log: Log) -> Draft {
    let rules = [
        (1, 2, Service::tcp(0), Service::tcp(65_535)),
        (1, 2, Service::udp(0), Service::udp(65_535)),
    ];
    let mut made = draft(generation, PEERS, &rules);
    made.logs = [0, 1].map(|rule| (RuleIndex(rule), log)).to_vec();
    made
}

/// Two workers: what the laptop sends arrives on the first, what the server sends on the second.
fn gateway(log: Log, setup: &FlowSetup, flows: usize) -> (Rig, RigPeer, RigPeer) {
    let mut rig = Rig::with_flows(2, PEERS, flows, setup);
    rig.publish(&logging(1, log));
    let laptop = rig.session(0, 0, false, true);
    let server = rig.session(1, 1, false, true);
    rig.sent(OUTSIDE);
    (rig, laptop, server)
}

fn generous() -> FlowSetup {
    FlowSetup { new_per_second: u32::MAX, live_per_source: u32::MAX, ..FlowSetup::default() }
}

/// Delivers one packet to the worker of its session; whether it was forwarded.
fn passes(rig: &mut Rig, peer: &mut RigPeer, inner: &[u8]) -> bool {
    let worker = peer.index.worker();
    assert!(rig.deliver(worker, OUTSIDE, &peer.seal(inner)));
    rig.run();
    rig.sent(OUTSIDE).len() == 1
}

/// Long enough for every flow, and a look at every place.
fn run_out(rig: &mut Rig) {
    rig.pass(500_000_000);
    (0..64 * 8).for_each(|_| rig.pass(1));
}

fn pasts(rig: &Rig) -> BTreeMap<FlowKey, Past> {
    let past = |record: &Record| match record.event {
        Event::Closed(past) => Some((record.key, past)),
        Event::Opened | Event::Denied(_) => None,
    };
    let all: Vec<_> = rig.records.iter().filter_map(past).collect();
    let by_key: BTreeMap<_, _> = all.iter().copied().collect();
    assert_eq!(by_key.len(), all.len(), "each flow ended once");
    by_key
}

fn opened(rig: &Rig) -> usize {
    rig.records.iter().filter(|record| record.event == Event::Opened).count()
}

/// Goal: flows of the generator are flow records, with the packets and bytes of both directions, to the
/// last one. Method: hundreds of flows of both IP versions, whose two directions are on two workers, in
/// one interleaved order; every figure against what was sent.
#[test]
fn the_records_of_many_flows_are_what_the_generator_did() {
    let (mut rig, mut laptop, mut server) = gateway(Log::All, &generous(), 1 << 12);
    let mut want: BTreeMap<FlowKey, (Counted, Counted)> = BTreeMap::new();
    for round in 0..6u16 {
        for n in 0..150u16 {
            let (v6, udp_flow) = (n % 2 == 0, n % 3 == 0);
            let (a, b) = (peer_address(0, v6), peer_address(1, v6));
            let (ports, protocol) = ((10_000 + n, 443), if udp_flow { 17 } else { 6 });
            let key = FlowKey {
                source: a,
                destination: b,
                source_port: ports.0,
                destination_port: ports.1,
                protocol,
            };
            let answers = round > 0 && (n + round) % 4 != 0;
            let len = usize::from(60 + (7 * n + 13 * round) % 900);
            let (packet, back) = ((a, b, ports), (b, a, (ports.1, ports.0)));
            let inner = match (udp_flow, round) {
                (true, _) => udp(packet.0, packet.1, packet.2, len),
                (false, 0) => tcp(packet.0, packet.1, packet.2, SYN),
                (false, _) => tcp(packet.0, packet.1, packet.2, ACK),
            };
            assert!(passes(&mut rig, &mut laptop, &inner), "{key:?}");
            let (sent, returned) = want.entry(key).or_default();
            sent.add(Counted { packets: 1, bytes: inner.len() as u64 });
            if answers {
                let inner = match udp_flow {
                    true => udp(back.0, back.1, back.2, len + 11),
                    false => tcp(back.0, back.1, back.2, SYN_ACK),
                };
                assert!(passes(&mut rig, &mut server, &inner));
                returned.add(Counted { packets: 1, bytes: inner.len() as u64 });
            }
        }
        rig.pass(1_000);
    }
    assert_eq!(opened(&rig), want.len());
    assert!(pasts(&rig).is_empty(), "all are open");
    run_out(&mut rig);
    let found: BTreeMap<_, _> =
        pasts(&rig).into_iter().map(|(key, past)| (key, (past.sent, past.returned))).collect();
    assert_eq!(found, want);
    let status = rig.status();
    let (logged, lost) = status
        .workers
        .iter()
        .fold((0, 0), |(logged, lost), worker| (logged + worker.logged, lost + worker.log_lost));
    assert_eq!((logged, lost), (2 * want.len() as u64, 0));
}

/// With "new" there is the first word only, and with "none" not even that; the packets are forwarded alike.
#[test]
fn a_rule_logs_beginnings_or_nothing_as_it_says() {
    for (log, want) in [(Log::None, 0), (Log::New, 1), (Log::All, 2)] {
        let (mut rig, mut laptop, mut server) = gateway(log, &generous(), 1 << 12);
        let (a, b) = (peer_address(0, false), peer_address(1, false));
        for _ in 0..3 {
            assert!(passes(&mut rig, &mut laptop, &udp(a, b, (7, 5_000), 90)));
            assert!(passes(&mut rig, &mut server, &udp(b, a, (5_000, 7), 70)));
        }
        run_out(&mut rig);
        assert_eq!(rig.records.len(), want, "{log:?}");
    }
}

/// Why a connection is over, by its history, and when it was.
#[test]
fn the_end_of_a_connection_says_why() {
    let (laptop_says, server_says) = (true, false);
    let open = [(laptop_says, SYN), (server_says, SYN_ACK), (laptop_says, ACK)];
    let finished = [(server_says, FIN), (laptop_says, FIN), (server_says, ACK)];
    let half = [(laptop_says, FIN), (server_says, ACK)];
    for (history, want) in [
        (vec![], FlowEnding::Timeout),
        (half.to_vec(), FlowEnding::Timeout),
        (finished.to_vec(), FlowEnding::Fin),
        (finished[..2].to_vec(), FlowEnding::Fin),
        (vec![(server_says, RST)], FlowEnding::Reset),
    ] {
        let (mut rig, mut laptop, mut server) = gateway(Log::All, &generous(), 1 << 12);
        let (a, b) = (peer_address(0, false), peer_address(1, false));
        let start_s = u32::try_from(rig.now_ms / 1_000).unwrap();
        for (from_laptop, flags) in open.iter().chain(&history) {
            rig.pass(1_000);
            assert!(match from_laptop {
                true => passes(&mut rig, &mut laptop, &tcp(a, b, (7, 443), *flags)),
                false => passes(&mut rig, &mut server, &tcp(b, a, (443, 7), *flags)),
            });
        }
        let last_s = u32::try_from(rig.now_ms / 1_000).unwrap();
        run_out(&mut rig);
        let all = pasts(&rig);
        let past = all.values().next().unwrap();
        assert_eq!((all.len(), past.reason), (1, want), "{history:?}");
        assert_eq!((past.opened_s, past.last_s), (start_s + 1, last_s), "{history:?}");
        let packets = past.sent.packets + past.returned.packets;
        assert_eq!(packets, 3 + history.len() as u64);
    }
}

/// A connection between the ports of one that has ended is another one.
#[test]
fn ports_that_are_used_again_end_the_flow_before() {
    let (mut rig, mut laptop, mut server) = gateway(Log::All, &generous(), 1 << 12);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    for _ in 0..3 {
        assert!(passes(&mut rig, &mut laptop, &tcp(a, b, (7, 443), SYN)));
        assert!(passes(&mut rig, &mut server, &tcp(b, a, (443, 7), RST)));
    }
    let kinds: Vec<_> =
        rig.records.iter().map(|record| matches!(record.event, Event::Opened)).collect();
    assert_eq!(kinds, [true, false, true, false, true]);
    for record in rig.records.iter().filter(|record| record.event != Event::Opened) {
        let Event::Closed(past) = record.event else { panic!("{record:?}") };
        let one = Counted { packets: 1, bytes: 40 };
        assert_eq!((past.reason, past.sent, past.returned), (FlowEnding::Reset, one, one));
    }
}

/// A policy that does not allow it any more ends a flow at its next packet, by the name that it was
/// opened with; a rule that merely logs no more does not end it, and counts on.
#[test]
fn a_flow_that_is_revoked_says_so_and_one_that_is_not_counts_on() {
    let (mut rig, mut laptop, mut server) = gateway(Log::All, &generous(), 1 << 12);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    assert!(passes(&mut rig, &mut laptop, &udp(a, b, (7, 5_000), 60)));
    assert!(passes(&mut rig, &mut laptop, &udp(a, b, (8, 5_000), 60)));
    rig.publish(&logging(2, Log::None));
    assert!(passes(&mut rig, &mut laptop, &udp(a, b, (7, 5_000), 60)));
    assert!(passes(&mut rig, &mut server, &udp(b, a, (5_000, 7), 60)));
    assert!(passes(&mut rig, &mut laptop, &udp(a, b, (9, 5_000), 60)), "of this nobody hears");
    // And a rule that logs from now on finds flows that were opened without: their ends are not logged.
    rig.publish(&logging(3, Log::All));
    assert!(passes(&mut rig, &mut laptop, &udp(a, b, (9, 5_000), 60)));
    assert!(passes(&mut rig, &mut server, &udp(b, a, (5_000, 7), 60)));
    assert_eq!(rig.records.len(), 2);
    rig.publish(&draft(4, PEERS, &[]));
    for ports in [(7, 5_000), (7, 5_000), (9, 5_000)] {
        assert!(!passes(&mut rig, &mut laptop, &udp(a, b, ports, 60)));
    }
    assert_eq!(rig.records.len(), 3);
    let Record { event: Event::Closed(past), key, generation, tag, .. } = rig.records[2] else {
        panic!("{:?}", rig.records)
    };
    assert_eq!((past.reason, key.source_port, generation, tag.0), (FlowEnding::Revoked, 7, 4, 2));
    assert_eq!((past.sent.packets, past.returned.packets), (2, 2));
    run_out(&mut rig);
    assert_eq!((rig.records.len(), pasts(&rig).len()), (4, 2), "the silent one ran out");
}

/// A worker that remembers a connection from before its rule began to count has forgotten it by the time
/// that the next one between the same ports speaks.
#[test]
fn a_connection_is_counted_where_one_was_that_was_not() {
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let (there, back) = ((7, 443), (443, 7));
    // The same if the rule has ceased to count before that worker hears of the connection.
    for counts_on in [true, false] {
        let (mut rig, mut laptop, mut server) = gateway(Log::None, &generous(), 1 << 12);
        assert!(passes(&mut rig, &mut laptop, &tcp(a, b, there, SYN)));
        assert!(passes(&mut rig, &mut server, &tcp(b, a, back, SYN_ACK)));
        assert!(passes(&mut rig, &mut server, &tcp(b, a, back, RST)));
        rig.publish(&logging(2, Log::All));
        assert!(passes(&mut rig, &mut laptop, &tcp(a, b, there, SYN)));
        if counts_on {
            // Nothing that the registry would be asked about otherwise.
            assert!(passes(&mut rig, &mut server, &tcp(b, a, back, ACK)));
        } else {
            rig.publish(&logging(3, Log::None));
        }
        assert!(passes(&mut rig, &mut server, &tcp(b, a, back, SYN_ACK)));
        assert!(passes(&mut rig, &mut laptop, &tcp(a, b, there, ACK)));
        assert!(passes(&mut rig, &mut server, &tcp(b, a, back, ACK)));
        run_out(&mut rig);
        let all = pasts(&rig);
        let past = all.values().next().unwrap();
        let packets = (past.sent.packets, past.returned.packets);
        assert_eq!((all.len(), packets), (1, (2, 2 + u64::from(counts_on))), "{counts_on}");
    }
}

/// A packet that waits for a neighbour is counted once, whatever it waits for.
#[test]
fn a_packet_that_waits_is_counted_once() {
    let mut rig = Rig::new(1, PEERS);
    let mut made = draft(1, PEERS, &[(1, SEGMENT, Service::udp(9), Service::udp(9))]);
    made.logs = vec![(RuleIndex(0), Log::All)];
    rig.publish(&made);
    let mut laptop = rig.session(0, 0, false, true);
    let inner = udp(peer_address(0, false), host_address(5, false), (7, 9), 100);
    for _ in 0..2 {
        rig.deliver(0, OUTSIDE, &laptop.seal(&inner));
        rig.run();
    }
    assert_eq!(rig.status().held(), 2);
    rig.neighbour(5);
    assert_eq!(rig.sent(INSIDE).len(), 2);
    run_out(&mut rig);
    let all = pasts(&rig);
    let past = all.values().next().unwrap();
    assert_eq!(past.sent, Counted { packets: 2, bytes: 200 });
}

/// Denied packets are recorded as such, up to a rate; what is beyond, and what finds the ring full, is
/// counted, so that nothing is missing.
#[test]
fn what_is_lost_is_counted_and_nothing_is_missing() {
    let (mut rig, mut laptop, _) = gateway(Log::New, &generous(), 1 << 14);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let mut made = logging(2, Log::New);
    made.logs_denied = true;
    rig.publish(&made);
    rig.reads_log = false;
    let flows = u16::try_from(FLOW_LOG_RING).unwrap() + 300;
    let denials = u16::try_from(DENIALS_LOGGED_PER_SECOND).unwrap() + 200;
    let denied = |n: u16| transport(a, b, 132, &n.to_be_bytes().repeat(4));
    for n in 0..denials {
        assert!(rig.deliver(0, OUTSIDE, &laptop.seal(&denied(n))));
        if n % 64 == 0 {
            rig.run();
        }
    }
    rig.run();
    let count = |rig: &mut Rig| {
        let status = rig.status();
        (status.workers[0].logged, status.workers[0].log_lost)
    };
    assert_eq!(count(&mut rig), (u64::from(DENIALS_LOGGED_PER_SECOND), 200));
    for n in 0..flows {
        assert!(rig.deliver(0, OUTSIDE, &laptop.seal(&udp(a, b, (n, 5_000), 60))));
        if n % 32 == 0 {
            rig.run();
            rig.sent(OUTSIDE);
        }
    }
    rig.run();
    rig.sent(OUTSIDE);
    let (written, lost) = count(&mut rig);
    assert_eq!(written, FLOW_LOG_RING as u64);
    assert_eq!(written + lost, u64::from(flows) + u64::from(denials));
    rig.reads_log = true;
    rig.run();
    assert_eq!(rig.records.len() as u64, written);
    let refused = |record: &&Record| matches!(record.event, Event::Denied(End::DropPortNotAllowed));
    let refused = rig.records.iter().filter(refused).count();
    assert_eq!(refused, DENIALS_LOGGED_PER_SECOND as usize);
    assert_eq!(opened(&rig) + refused, rig.records.len());
    // And then there is room again.
    rig.pass(1_000);
    assert!(!passes(&mut rig, &mut laptop, &denied(0)));
    assert_eq!(rig.records.len() as u64, written + 1);
}

/// An established flow is never displaced; one that is half open may be, and says so.
#[test]
fn a_flow_that_makes_room_says_so() {
    let (mut rig, mut laptop, _) = gateway(Log::All, &generous(), 16);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let flows = 6_000u16;
    for n in 0..flows {
        passes(&mut rig, &mut laptop, &udp(a, b, (n, 5_000), 60));
    }
    let displaced = pasts(&rig).len();
    assert!(displaced > 1_000, "{displaced}");
    assert!(pasts(&rig).values().all(|past| past.reason == FlowEnding::Displaced));
    assert_eq!(opened(&rig), usize::from(flows));
    run_out(&mut rig);
    assert_eq!(pasts(&rig).len(), usize::from(flows), "each that was opened has ended, once");
}

/// An ICMP query is named by its opener, whichever end is the lower one, in both families.
#[test]
fn a_ping_is_a_flow_with_answers() {
    for v6 in [false, true] {
        let mut rig = Rig::new(2, PEERS);
        let mut made = draft(1, PEERS, &rules());
        made.logs = (0..made.rules).map(|rule| (RuleIndex(rule), Log::All)).collect();
        rig.publish(&made);
        let mut laptop = rig.session(0, 0, v6, true);
        let mut server = rig.session(1, 1, v6, true);
        rig.sent(OUTSIDE);
        let (a, b) = (peer_address(0, v6), peer_address(1, v6));
        assert!(passes(&mut rig, &mut laptop, &echo(a, b, false, 77)));
        assert!(passes(&mut rig, &mut server, &echo(b, a, true, 77)));
        run_out(&mut rig);
        let all = pasts(&rig);
        let (key, past) = all.iter().next().unwrap();
        let kind = if v6 { Service::icmpv6(128, 0) } else { Service::icmp(8, 0) };
        assert_eq!((all.len(), key.source, key.destination), (1, a, b));
        assert!(rig.records.iter().all(|record| record.service == kind));
        assert_eq!((past.sent.packets, past.returned.packets), (1, 1));
    }
}
