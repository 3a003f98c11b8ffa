//! A whole worker in memory, against the two AEAD operations that its packet needs.
//!
//! A peer's packet is opened, judged (10,000 rules, one of 10,000 live flows), routed, sealed for
//! another peer and sent, with all counters on. The frames are sealed and delivered outside the
//! measured time, and what is sent is opened and compared before anything is timed.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use bulkhead_engine::rig::{OUTSIDE, Rig, RigPeer, draft, peer_address, udp};
use bulkhead_link::{End, FlowSetup};
use bulkhead_table::Service;

use crate::aead::{AwsLc, Contestant, Mix, Ours, Ring};
use crate::random::Random;

/// Packets per turn.
pub const BATCH: usize = 64;

/// Live flows, of which each packet belongs to one at random.
const FLOWS: u16 = 10_000;

/// Peers, of which the first sends and the second receives.
const PEERS: u16 = 10;

/// First UDP port of the flows' sources.
const FIRST_PORT: u16 = 10_000;

/// What a packet costs, nanoseconds, medians over the same rounds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The packet through the worker.
    pub worker_ns: f64,
    /// One open and one seal of its content by the faster library.
    pub rival_ns: f64,
    /// One open and one seal of its content in a batch, as the worker does them.
    pub crypto_ns: f64,
}

impl Cost {
    /// How many times two AEAD operations of the library a packet costs.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.worker_ns / self.rival_ns
    }

    /// What is not crypto.
    #[must_use]
    pub fn rest_ns(&self) -> f64 {
        self.worker_ns - self.crypto_ns
    }
}

/// A gateway with one worker and flows from peer 0 to peer 1.
pub struct Subject {
    rig: Rig,
    laptop: RigPeer,
    server: RigPeer,
    mix: Mix,
    random: Random,
}

impl Subject {
    /// With inner packets of these lengths. Its answer is checked.
    #[must_use]
    pub fn new(mix: Mix) -> Self {
        let mut rig = Rig::with_flows(
            1,
            PEERS.into(),
            1 << 15,
            &FlowSetup { new_per_second: u32::MAX, ..FlowSetup::default() },
        );
        // 100 between each two peers. Gaps between the ports, so that no two rules become one.
        let pairs = (1..=PEERS).flat_map(|from| (1..=PEERS).map(move |to| (from, to)));
        let mut rules: Vec<_> = pairs
            .flat_map(|(from, to)| (0..100).map(move |n| (from, to, n * 600 + from)))
            .map(|(from, to, port)| (from, to, Service::tcp(port), Service::tcp(port)))
            .collect();
        rules.push((1, 2, Service::udp(5000), Service::udp(5000)));
        rig.publish(&draft(1, PEERS.into(), &rules));
        let laptop = rig.session(0, 0, false, true);
        let server = rig.session(1, 0, false, true);
        rig.sent(OUTSIDE);
        let mut subject = Self { rig, laptop, server, mix, random: Random::new(11) };
        let flows: Vec<u16> = (0..FLOWS).collect();
        flows.chunks(BATCH).for_each(|flows| subject.check(flows));
        subject
    }

    /// A packet of a flow; its length is that of the `n`-th of a batch.
    fn packet(&self, flow: u16, n: usize) -> Vec<u8> {
        let ports = (FIRST_PORT + flow, 5000);
        udp(peer_address(0, false), peer_address(1, false), ports, self.mix.len(n))
    }

    /// Sends a packet of each of these flows and looks at what comes out.
    fn check(&mut self, flows: &[u16]) {
        let numbered = flows.iter().zip(0..);
        let packets: Vec<_> = numbered.map(|(flow, n)| self.packet(*flow, n)).collect();
        for inner in &packets {
            let frame = self.laptop.seal(inner);
            assert!(self.rig.deliver(0, OUTSIDE, &frame), "the port has room");
        }
        self.rig.run();
        let sent = self.rig.sent(OUTSIDE);
        assert_eq!(sent.len(), packets.len(), "every packet is forwarded");
        for inner in &packets {
            let arrived = sent.iter().any(|frame| {
                let content = self.server.open(frame).expect("sealed for the server");
                // The hop limit and the header checksum differ, the rest is the packet.
                content.get(12..inner.len()) == inner.get(12..)
            });
            assert!(arrived, "no packet is another one");
        }
    }

    /// The time of one turn over a full batch of packets of random flows.
    pub fn turn(&mut self) -> Duration {
        for n in 0..BATCH {
            let flow = u16::try_from(self.random.below(usize::from(FLOWS))).unwrap();
            let inner = self.packet(flow, n);
            let frame = self.laptop.seal(&inner);
            assert!(self.rig.deliver(0, OUTSIDE, &frame), "the port has room");
        }
        let before = self.rig.ended(End::Forwarded);
        let start = now();
        for worker in &mut self.rig.workers {
            worker.turn(self.rig.now_ms);
        }
        let took = start.elapsed();
        assert_eq!(self.rig.ended(End::Forwarded) - before, BATCH as u64);
        // Completes what was sent and refills, outside the measured time.
        for attached in self.rig.workers.iter_mut().flat_map(|worker| worker.sockets_mut()) {
            attached.socket.collect(|_| {});
        }
        self.rig.run();
        took
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

/// The time that one contestant takes to seal a batch and open it again.
fn both(contestant: &mut dyn Contestant, counter: u64) -> Duration {
    let start = now();
    contestant.seal(counter);
    contestant.open(counter);
    start.elapsed()
}

/// Measures inner packets of these lengths over `rounds` rounds. The worker, the libraries and our
/// batch take turns, so that whatever disturbs the machine disturbs all.
#[must_use]
pub fn measure(mix: Mix, rounds: usize) -> Cost {
    let mut subject = Subject::new(mix);
    let padded = mix.padded();
    let ours = Ours::new(bulkhead_aead::choice().backend, padded, BATCH);
    let mut contestants: [Box<dyn Contestant>; 3] =
        [Box::new(ours), Box::new(Ring::new(padded, BATCH)), Box::new(AwsLc::new(padded, BATCH))];
    let mut worker = vec![];
    let mut times = [const { vec![] }; 3];
    for round in 0..rounds + rounds / 10 {
        let took = subject.turn();
        // The first rounds warm up.
        let counts = round >= rounds / 10;
        worker.extend(counts.then_some(took));
        for (one, times) in contestants.iter_mut().zip(&mut times) {
            let took = both(one.as_mut(), round as u64);
            times.extend(counts.then_some(took));
        }
    }
    let [crypto_ns, ring, aws_lc] = times.map(median_ns);
    Cost { worker_ns: median_ns(worker), rival_ns: ring.min(aws_lc), crypto_ns }
}

fn median_ns(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1e9 / BATCH as f64
}
