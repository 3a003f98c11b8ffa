//! Frames on their way out: none is lost, each comes home, and all are counted.

use std::sync::Arc;

use bulkhead_link::{Counted, FlowSetup, OnRevoke};
use bulkhead_xsk::{Frame, Umem};

use super::*;
use crate::flow::Seed;
use crate::handoff::rings;
use crate::limits::FRAME_RESERVE;
use crate::port::MemoryPort;
use crate::registry::Registry;
use crate::session::PeerCell;
use crate::setup::Setup;
use crate::stage::guard::Defences;
use crate::worker::leave::recycle;
use crate::worker::{Attached, Shared, Worker};

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

/// One of so many workers, without ports.
fn facts(worker: usize, workers: usize) -> Setup {
    Setup {
        worker,
        workers,
        frames: 0,
        addresses: vec![],
        ports: vec![],
        sessions: 1,
        flows: 16,
        on_revoke: OnRevoke::Drop,
    }
}

/// Every frame of every worker, wherever it ends.
#[test]
fn a_frame_that_has_ended_goes_home() {
    const HOME: usize = 4;
    for worker in 0..3 {
        let setup = Setup { frames: HOME, ..facts(worker, 3) };
        let (mut ends, _links) = rings(3, HOME);
        let mut mine = ends.remove(worker);
        let (_umem, frames) = Umem::new(12).unwrap();
        let mut pool = vec![];
        for frame in frames {
            recycle(frame, &setup, &mut pool, &mut mine);
        }
        let at_home = |home: usize, frame: &Frame| frame.index() as usize / HOME == home;
        assert_eq!(pool.len(), HOME);
        assert!(pool.iter().all(|frame| at_home(worker, frame)));
        for (at, home) in (0..3).filter(|home| *home != worker).enumerate() {
            let ring = ends[at].home_from[worker].as_mut().unwrap();
            assert_eq!(ring.slots(), HOME);
            assert!(std::iter::from_fn(|| ring.pop().ok()).all(|frame| at_home(home, &frame)));
        }
    }
}

#[test]
fn what_comes_in_and_goes_out_is_counted_in_packets_and_bytes() {
    let (mut rig, mut laptop, _) = gateway(1, false);
    let worker = rig.status().workers[0].clone();
    let frames = [laptop.seal(&a_to_b((1, 5000), 333)), laptop.seal(&a_to_b((1, 4999), 60))];
    let bytes: usize = frames.iter().map(Vec::len).sum();
    frames.iter().for_each(|frame| assert!(rig.deliver(0, OUTSIDE, frame)));
    rig.run();
    let sent = rig.sent(OUTSIDE);
    let after = rig.status().workers[0].clone();
    let more = |after: Counted, before: Counted| {
        (after.packets - before.packets, after.bytes - before.bytes)
    };
    assert_eq!(more(after.received, worker.received), (2, bytes as u64));
    assert_eq!(more(after.transmitted, worker.transmitted), (1, sent[0].len() as u64));
}

/// A worker gives a port a little at a time, and never the last of its frames.
#[test]
fn a_worker_keeps_frames_for_what_it_makes_itself() {
    for (frames, first, last) in [
        (FRAME_RESERVE + 3, [3, 0], 3),
        (FRAME_RESERVE + 200, [2 * BATCH_MAX, 200 - 2 * BATCH_MAX], 200),
        (FRAME_RESERVE + 600, [2 * BATCH_MAX; 2], 600),
        (FRAME_RESERVE - 1, [0; 2], 0),
    ] {
        let setup = Setup { frames, ..facts(0, 1) };
        let (seed, flows) = (Seed(1, 2), FlowSetup::default());
        let shared = Shared {
            peers: [PeerCell::default()].into(),
            registry: Arc::new(Registry::new(16, 1, seed, &flows)),
            seed,
            defences: Arc::new(Defences::new([1; 32], [2; 32], seed)),
        };
        let (mut ends, _links) = rings(1, frames);
        let (_umem, pool) = Umem::new(u32::try_from(frames).unwrap()).unwrap();
        let sockets = [OUTSIDE, INSIDE].map(|port| Attached::new(port, MemoryPort::new(512)));
        let (sockets, counters) = (sockets.into_iter().collect(), Arc::default());
        let mut worker = Worker::new(setup, sockets, shared, ends.remove(0), pool, counters);
        let at_ports =
            |worker: &Worker<MemoryPort>| [0, 1].map(|at| worker.sockets()[at].socket.frames());
        worker.turn(1_000);
        assert_eq!(at_ports(&worker), first, "of {frames}");
        for _ in 0..20 {
            worker.turn(1_000);
        }
        assert_eq!(at_ports(&worker).iter().sum::<usize>(), last, "of {frames}");
        assert_eq!(worker.frames(), frames - last);
    }
}
