//! Tables and labels that change under traffic: whatever happens, each packet is judged by exactly one
//! edition, the one that its worker has.

use super::*;
use bulkhead_table::{EndpointId, LabelId, Table};
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::edition::Edition;

/// Ports that even generations allow from peer 0 to peer 1, and odd ones. Some are in both.
fn allowed(generation: u64) -> std::ops::Range<u16> {
    if generation.is_multiple_of(2) { 5_000..5_040 } else { 5_020..5_060 }
}

/// Odd generations number the labels the other way round: a label of one with a cell of another would
/// let peer 1 speak to peer 0, which none allows.
fn edition(generation: u64) -> Arc<Edition> {
    let ports = allowed(generation);
    let (first, last) = (Service::udp(ports.start), Service::udp(ports.end - 1));
    let odd = !generation.is_multiple_of(2);
    let (from, to) = if odd { (2, 1) } else { (1, 2) };
    let mut draft = draft(generation, PEERS, &[(from, to, first, last)]);
    draft.endpoints[1].label = LabelId(from);
    draft.endpoints[2].label = LabelId(to);
    Arc::new(Edition::new(Table::new(Arc::new(draft.emit().unwrap())).unwrap(), 2))
}

/// 1,000 table swaps under load: no packet lost, and each verdict is that of the generation which the
/// worker has confirmed, whatever generation the other worker has and the flow began under.
#[test]
fn a_thousand_table_swaps_under_load_lose_nothing_and_mix_nothing() {
    let (mut rig, mut laptop, mut server) = gateway(2, false);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let before = rig.status().ends().total();
    let mut has = [0u64; 2];
    let (mut sent, mut passed, mut met) = (0u64, 0u64, BTreeSet::new());
    let two = [edition(10), edition(11)];
    for round in 0..2_000u64 {
        // One worker at a time: half of the time the two have different ones.
        let worker = usize::try_from(round % 2).unwrap();
        let generation = 10 + (round / 2) % 2;
        let next = Arc::clone(&two[usize::try_from(generation - 10).unwrap()]);
        rig.links[worker].commands.push(Command::Table(next)).ok().unwrap();
        has[worker] = generation;
        // Time enough for the new flows that one source may open.
        rig.now_ms += 10;
        let mut want = BTreeSet::new();
        for n in 0..6 {
            // Old flows and new ones, of the laptop on its worker.
            let port = 5_000 + u16::try_from((round * 7 + n * 11) % 64).unwrap();
            let source = if n % 2 == 0 { 9 } else { u16::try_from(10_000 + round).unwrap() };
            assert!(rig.deliver(0, OUTSIDE, &laptop.seal(&udp(a, b, (source, port), 60))));
            if has[0] >= 10 && allowed(has[0]).contains(&port) {
                want.insert((source, port));
            }
            met.insert((has[0], allowed(10).contains(&port), allowed(11).contains(&port)));
            // The server, on the other worker, to ports that nobody opened.
            assert!(rig.deliver(1, OUTSIDE, &server.seal(&udp(b, a, (port, 7), 60))));
            sent += 2;
        }
        rig.run();
        let ports: Vec<_> = rig
            .sent(OUTSIDE)
            .iter()
            .map(|frame| {
                let inner = server.open(frame).expect("nothing goes to the laptop");
                (
                    u16::from_be_bytes([inner[20], inner[21]]),
                    u16::from_be_bytes([inner[22], inner[23]]),
                )
            })
            .collect();
        passed += ports.len() as u64;
        let distinct: BTreeSet<_> = ports.iter().copied().collect();
        assert_eq!(distinct, want, "round {round}, generations {has:?}");
    }
    let status = rig.status();
    assert_eq!(status.ends().total() - before, sent, "no packet lost");
    assert_eq!((status.ends().get(End::Forwarded), status.held()), (passed, 0));
    let refused = [End::DropNoRule, End::DropPortNotAllowed, End::DropRevoked];
    let denied: u64 = refused.map(|end| status.ends().get(end)).iter().sum();
    assert_eq!(denied + passed, sent, "{:?}", status.ends());
    assert!(status.ends().get(End::DropRevoked) > 100);
    assert!(met.len() >= 8, "{met:?}");
    let confirmed = rig.reports.iter().filter(|report| report.starts_with("confirmed 1")).count();
    assert!(confirmed >= 2_000, "two workers, a thousand swaps each");
}

/// A label change re-judges every live flow at its next packet, in both directions and on both
/// workers, without a new table; and back.
#[test]
fn a_label_change_is_judged_at_the_next_packet() {
    let (mut rig, mut laptop, mut server) = gateway(2, false);
    let (a, b) = (peer_address(0, false), peer_address(1, false));
    let (asked, answer) = (tcp(a, b, (4_000, 443), 16), tcp(b, a, (443, 4_000), 16));
    let mut count = |rig: &mut Rig| {
        let frames = [(0, laptop.seal(&asked)), (1, server.seal(&answer))];
        frames.map(|(worker, frame)| {
            rig.deliver(worker, OUTSIDE, &frame);
            rig.run();
            rig.sent(OUTSIDE).len()
        })
    };
    assert_eq!(count(&mut rig), [1, 1]);
    let edition = Arc::clone(rig.edition.as_ref().unwrap());
    // The laptop loses its posture: label 3 may not do what label 1 may.
    edition.relabel(EndpointId(1), LabelId(3)).unwrap();
    assert_eq!(count(&mut rig), [0, 0]);
    assert_eq!(rig.ended(End::DropRevoked), 2);
    assert_eq!(count(&mut rig), [0, 0], "and it stays so");
    edition.relabel(EndpointId(1), LabelId(1)).unwrap();
    assert_eq!(count(&mut rig), [1, 1], "adopted again");
    // The other end counts as well; and a label that nobody knows denies.
    edition.relabel(EndpointId(2), LabelId(3)).unwrap();
    assert_eq!(count(&mut rig), [0, 0]);
    edition.relabel(EndpointId(2), LabelId(2)).unwrap();
    assert_eq!(count(&mut rig), [1, 1]);
    assert!(edition.relabel(EndpointId(1), LabelId(99)).is_err());
    assert_eq!(count(&mut rig), [0, 0]);
    // A new edition has its own labels.
    rig.publish(&draft(2, PEERS, &rules()));
    assert_eq!(count(&mut rig), [1, 1]);
}

/// A table may number the endpoints otherwise than the one before. What goes on under both goes to the same end
/// and is of the same sender, also where another of the same label has its number now; and also where control
/// gave two tables one generation, as it may that was started again before all workers had confirmed the first.
#[test]
fn a_table_that_numbers_endpoints_otherwise_changes_no_end_of_a_live_flow() {
    let table = |generation, others: bool| {
        let mut draft = draft(generation, 3, &[(1, 2, Service::udp(5_000), Service::udp(5_999))]);
        draft.endpoints[3].label = LabelId(2);
        if others {
            draft.endpoints.swap(2, 3);
            for (_, id) in draft.prefixes.iter_mut().filter(|(_, id)| [2, 3].contains(&id.0)) {
                *id = EndpointId(5 - id.0);
            }
        }
        draft
    };
    let mut rig = Rig::new(1, 3);
    let [mut laptop, mut server, mut beside] = [0, 1, 2].map(|n| rig.session(n, 0, false, true));
    rig.sent(OUTSIDE);
    let [a, b] = [0, 1].map(|n| peer_address(n, false));
    let (asked, answer) = (udp(a, b, (7, 5_000), 64), udp(b, a, (5_000, 7), 64));
    for (at, generation) in [1, 2, 3, 3, 3, 4].into_iter().enumerate() {
        rig.publish(&table(generation, at % 2 == 1));
        // The first is judged anew, and the others are of a flow that is settled.
        for round in 1..=3 {
            rig.deliver(0, OUTSIDE, &laptop.seal(&asked));
            rig.run();
            assert_eq!(only(&mut rig, &server), one_hop_on(&asked), "{generation}, {round}");
            rig.deliver(0, OUTSIDE, &server.seal(&answer));
            rig.run();
            assert_eq!(only(&mut rig, &laptop), one_hop_on(&answer), "{generation}, {round}");
            rig.deliver(0, OUTSIDE, &beside.seal(&answer));
            rig.run();
            assert_eq!(rig.ended(End::DropSpoofedSource), 3 * at as u64 + round);
        }
    }
    assert!(rig.sent(OUTSIDE).is_empty(), "nothing of another sender");
}
