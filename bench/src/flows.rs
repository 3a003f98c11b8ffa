//! What many flows cost: packets of a million live flows against packets of a thousand, through a whole
//! worker in memory.
//!
//! Every packet belongs to a flow that is open, chosen at random, and is opened, judged, sealed and sent.
//! The flows of both were last told to the registry at times spread over the interval in which a worker
//! does that, as under steady traffic; so a share of the packets, four in a hundred of the million, goes to
//! the registry as well.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bulkhead_engine::rig::{OUTSIDE, Rig, RigPeer, draft, peer_address, udp};
use bulkhead_link::{End, FlowSetup, FlowTimeouts};
use bulkhead_table::Service;

use crate::memory_cost::BATCH;
use crate::random::Random;

/// What a packet takes, about, nanoseconds.
const PACKET_NS: u64 = 300;

/// A gateway with one worker and many flows from peer 0 to peer 1.
pub struct Crowd {
    rig: Rig,
    laptop: RigPeer,
    flows: u32,
    random: Random,
}

/// The ports of a flow.
fn ports(flow: u32) -> (u16, u16) {
    let [a, b, c, d] = flow.to_be_bytes();
    (u16::from_be_bytes([c, d]), 5_000 + u16::from_be_bytes([a, b]))
}

impl Crowd {
    /// With `flows` flows, all of them open.
    #[must_use]
    pub fn new(flows: u32) -> Self {
        // As long as a stream of UDP lives: nobody answers here.
        let timeouts = FlowTimeouts { udp: 120, ..FlowTimeouts::default() };
        let setup = FlowSetup {
            new_per_second: u32::MAX,
            live_per_source: u32::MAX,
            timeouts,
            ..FlowSetup::default()
        };
        let mut rig = Rig::with_flows(1, 2, flows as usize, &setup);
        rig.publish(&draft(1, 2, &[(1, 2, Service::udp(5_000), Service::udp(6_000))]));
        let laptop = rig.session(0, 0, false, true);
        rig.session(1, 0, false, true);
        rig.sent(OUTSIDE);
        let mut crowd = Self { rig, laptop, flows, random: Random::new(7) };
        // A worker tells the registry of such a flow every 120 / 16 = 7 seconds.
        for flow in 0..flows {
            if flow % (flows / 7).max(1) == 0 {
                crowd.rig.now_ms += 1_000;
            }
            crowd.deliver(flow);
            if flow % 64 == 63 || flow + 1 == flows {
                crowd.pass();
            }
        }
        crowd.tell_most_of_the_due();
        let forwarded = crowd.rig.ended(End::Forwarded);
        assert!(forwarded >= u64::from(flows) * 999 / 1_000, "{forwarded} of {flows} flows opened");
        crowd
    }

    /// At a tick of the flows' clock a seventh of them is due at once, and told at its next packet. That
    /// comes within [`PACKET_NS`] times the flows; so on average over the second until the next tick this
    /// share of the due is still to be told, and the others are told here.
    fn tell_most_of_the_due(&mut self) {
        let left = u64::from(self.flows) * PACKET_NS * 100 / 1_000_000_000;
        for flow in (0..self.flows / 7).filter(|flow| u64::from(flow % 100) >= left) {
            self.deliver(flow);
            if flow % 64 == 63 {
                self.pass();
            }
        }
        self.pass();
    }

    /// What was delivered goes through, and what was sent is completed.
    fn pass(&mut self) {
        self.rig.run();
        let sockets = self.rig.workers.iter_mut().flat_map(|worker| worker.sockets_mut());
        sockets.for_each(|attached| attached.socket.collect(|_| {}));
        self.rig.run();
    }

    fn deliver(&mut self, flow: u32) {
        let (from, to) = (peer_address(0, false), peer_address(1, false));
        let frame = self.laptop.seal(&udp(from, to, ports(flow), 64));
        assert!(self.rig.deliver(0, OUTSIDE, &frame), "the port has room");
    }

    /// The time of one turn over a batch of packets of random flows.
    pub fn turn(&mut self) -> Duration {
        for _ in 0..BATCH {
            let flow = u32::try_from(self.random.below(self.flows as usize)).unwrap();
            self.deliver(flow);
        }
        let start = now();
        for worker in &mut self.rig.workers {
            worker.turn(self.rig.now_ms);
        }
        let took = start.elapsed();
        self.pass();
        took
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds per packet with a thousand flows and with a million: medians over the same rounds.
#[must_use]
pub fn measure(rounds: usize) -> [f64; 2] {
    let mut crowds = [Crowd::new(1_000), Crowd::new(1_000_000)];
    let mut times = [vec![], vec![]];
    for round in 0..rounds + rounds / 10 {
        for (crowd, times) in crowds.iter_mut().zip(&mut times) {
            let took = crowd.turn();
            if round >= rounds / 10 {
                times.push(took);
            }
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        median.as_secs_f64() * 1e9 / BATCH as f64
    })
}
