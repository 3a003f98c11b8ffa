//! A worker allocates nothing after its first batch.
//!
//! A binary of its own, because it counts what the whole process allocates, and with one test,
//! because another thread's allocations would count as well.

use std::alloc::System;
use std::sync::Arc;

use bulkhead_engine::Edition;
use bulkhead_engine::handoff::Command;
use bulkhead_engine::rig::{
    INSIDE, OUTSIDE, Rig, draft, echo, from_host, host_address, peer_address, tcp, udp,
};
use bulkhead_link::End;
use bulkhead_table::{Log, RuleIndex, Service, Table};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Goal: the claim in the crate's documentation.
/// Method: traffic of every kind, made beforehand; only the workers' turns are counted.
#[test]
fn a_worker_allocates_nothing_after_its_first_batch() {
    let mut rig = Rig::new(2, 2);
    let rules = [
        (1, 2, Service::udp(5000), Service::udp(5999)),
        (1, 3, Service::tcp(80), Service::tcp(80)),
    ];
    let mut policy = draft(1, 2, &rules);
    policy.logs = vec![(RuleIndex(0), Log::All), (RuleIndex(1), Log::New)];
    policy.logs_denied = true;
    rig.publish(&policy);
    rig.neighbour(5);
    let mut laptop = rig.session(0, 0, false, false);
    let mut server = rig.session(1, 1, true, false);
    let (a, b, host) = (peer_address(0, false), peer_address(1, false), host_address(5, false));

    let mut traffic = |round: u16| {
        let mut initiation = [0x5a; 148];
        initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
        let stranger = server.datagram(&initiation, 0);
        let mut forged = laptop.seal(&udp(a, b, (1, 5000), 60));
        *forged.last_mut().unwrap() ^= 1;
        vec![
            (0, OUTSIDE, laptop.seal(&[])),
            (1, OUTSIDE, server.seal(&[])),
            (0, OUTSIDE, laptop.seal(&udp(a, b, (round, 5000), 600))),
            // On the wrong worker: handed over.
            (1, OUTSIDE, laptop.seal(&udp(a, b, (round, 5001), 1300))),
            (1, OUTSIDE, server.seal(&udp(b, a, (5000, round), 100))),
            (0, OUTSIDE, laptop.seal(&udp(a, b, (round, 4999), 60))),
            (0, OUTSIDE, laptop.seal(&tcp(a, host, (round, 80), 2))),
            (0, INSIDE, from_host(&tcp(host, a, (80, round), 18))),
            // Nobody at home: held, and dropped when the queue is full or time is up.
            (0, OUTSIDE, laptop.seal(&tcp(a, host_address(6, false), (round, 80), 2))),
            // An ICMP error of our own.
            (0, OUTSIDE, laptop.seal(&udp(a, b, (round, 5000), 1421))),
            (0, OUTSIDE, laptop.seal(&echo(a, b, false, round))),
            (1, OUTSIDE, server.seal(&tcp(b, host, (round, 80), 2))),
            (0, OUTSIDE, forged),
            (1, OUTSIDE, stranger),
        ]
    };
    let rounds: Vec<_> = (1..=200).map(&mut traffic).collect();

    let mut counted = (0, 0);
    for (at, round) in rounds.iter().enumerate() {
        for (worker, port, frame) in round {
            assert!(rig.deliver(*worker, *port, frame));
        }
        rig.now_ms += 50;
        for _ in 0..4 {
            let region = Region::new(ALLOCATOR);
            for worker in &mut rig.workers {
                worker.turn(rig.now_ms);
            }
            if at > 0 {
                let change = region.change();
                counted.0 += change.allocations + change.reallocations;
                counted.1 += change.bytes_allocated;
            }
        }
        rig.sent(OUTSIDE);
        rig.sent(INSIDE);
    }
    assert_eq!(counted, (0, 0), "allocations and bytes");

    // The traffic was what it claims to be.
    for end in [
        End::Forwarded,
        End::Keepalive,
        End::DropPortNotAllowed,
        End::DropForged,
        End::DropMac1,
        End::DropTooBig,
        End::DropNoRule,
        End::DropWaitingFull,
    ] {
        assert!(rig.ended(end) >= 100, "{end:?}: {}", rig.ended(end));
    }
    let status = rig.status();
    assert!(status.workers.iter().any(|worker| worker.handed_out > 100));
    assert!(status.workers.iter().all(|worker| worker.logged > 100));

    // What is replaced under way is freed by the link thread, not by the worker.
    let newer = draft(2, 2, &rules).emit().unwrap();
    let newer = Arc::new(Edition::new(Table::new(Arc::new(newer)).unwrap(), rig.workers.len()));
    for link in &mut rig.links {
        link.commands.push(Command::Table(Arc::clone(&newer))).ok().unwrap();
        link.commands.push(Command::Fence(7)).ok().unwrap();
        link.commands.push(Command::Remove(laptop.index)).ok().unwrap();
    }
    let region = Region::new(ALLOCATOR);
    for worker in &mut rig.workers {
        worker.turn(rig.now_ms);
    }
    let change = region.change();
    assert_eq!((change.allocations, change.deallocations), (0, 0), "{change:?}");
    rig.run();
    assert!(rig.reports.iter().any(|report| report == "confirmed 2"), "the commands were taken");
}
