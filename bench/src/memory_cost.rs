//! A whole worker in memory, against the two AEAD operations that its packet needs.
//!
//! A peer's packet is opened, judged (a policy with rules and a live flow), routed, sealed for
//! another peer and sent, with all counters on. The frames are sealed and delivered outside the
//! measured time, and what is sent is opened and compared before anything is timed.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use bulkhead_engine::rig::{OUTSIDE, Rig, RigPeer, draft, peer_address, udp};
use bulkhead_link::End;
use bulkhead_table::Service;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

/// Packets per turn.
pub const BATCH: usize = 64;

/// Time per packet of the worker and of two operations of `ring`, medians over the same rounds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// A packet through the worker, nanoseconds.
    pub worker_ns: f64,
    /// One open and one seal of its content, nanoseconds.
    pub rival_ns: f64,
}

impl Cost {
    /// How many times two AEAD operations a packet costs.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.worker_ns / self.rival_ns
    }
}

/// A gateway with one worker and a flow from peer 0 to peer 1.
pub struct Subject {
    rig: Rig,
    laptop: RigPeer,
    server: RigPeer,
    inner: Vec<u8>,
}

impl Subject {
    /// With inner packets of `len` bytes. Its answer is checked.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let mut rig = Rig::new(1, 2);
        // Some rules beside the one that matters.
        let rules: Vec<_> = (0..200)
            .map(|n| (1, 2, Service::tcp(n * 10), Service::tcp(n * 10)))
            .chain([(1, 2, Service::udp(5000), Service::udp(5000))])
            .collect();
        rig.publish(&draft(1, 2, &rules));
        let laptop = rig.session(0, 0, false, true);
        let server = rig.session(1, 0, false, true);
        rig.sent(OUTSIDE);
        let inner = udp(peer_address(0, false), peer_address(1, false), (4000, 5000), len);
        let mut subject = Self { rig, laptop, server, inner };
        subject.check();
        subject
    }

    fn check(&mut self) {
        self.load();
        self.rig.run();
        let sent = self.rig.sent(OUTSIDE);
        assert_eq!(sent.len(), BATCH, "every packet is forwarded");
        for frame in sent {
            let content = self.server.open(&frame).expect("sealed for the server");
            // The hop limit and the header checksum differ, the rest is the packet.
            assert_eq!(content.get(12..self.inner.len()), self.inner.get(12..));
        }
    }

    /// Seals and delivers a batch.
    fn load(&mut self) {
        for _ in 0..BATCH {
            let frame = self.laptop.seal(&self.inner);
            assert!(self.rig.deliver(0, OUTSIDE, &frame), "the port has room");
        }
    }

    /// The time of one turn over a full batch.
    pub fn turn(&mut self) -> Duration {
        self.load();
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

/// Two operations of `ring` for a batch of messages of `len` bytes.
pub struct Rival {
    key: LessSafeKey,
    messages: Vec<(Vec<u8>, Tag)>,
    counter: u64,
}

impl Rival {
    /// With messages of `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).unwrap());
        let mut rival = Self { key, messages: vec![], counter: 0 };
        for _ in 0..BATCH {
            let mut message = vec![0x5a; len];
            let tag = rival.seal(&mut message, 0);
            rival.messages.push((message, tag));
        }
        rival
    }

    fn seal(&self, message: &mut [u8], counter: u64) -> Tag {
        self.key.seal_in_place_separate_tag(nonce(counter), Aad::empty(), message).unwrap()
    }

    /// The time to open every message and seal it again.
    pub fn turn(&mut self) -> Duration {
        let start = now();
        let (old, new) = (self.counter, self.counter + 1);
        for (message, tag) in &mut self.messages {
            self.key
                .open_in_place_separate_tag(nonce(old), Aad::empty(), *tag, message, 0..)
                .expect("sealed by the last turn");
            *tag = self
                .key
                .seal_in_place_separate_tag(nonce(new), Aad::empty(), message)
                .expect("a short message");
        }
        self.counter = new;
        start.elapsed()
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

/// Measures inner packets of `len` bytes over `rounds` rounds.
#[must_use]
pub fn measure(len: usize, rounds: usize) -> Cost {
    let (mut subject, mut rival) = (Subject::new(len), Rival::new(len));
    for _ in 0..rounds / 10 {
        subject.turn();
        rival.turn();
    }
    let (mut worker, mut ring) = (vec![], vec![]);
    for _ in 0..rounds {
        worker.push(subject.turn());
        ring.push(rival.turn());
    }
    Cost { worker_ns: median_ns(&mut worker), rival_ns: median_ns(&mut ring) }
}

fn median_ns(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1e9 / BATCH as f64
}
