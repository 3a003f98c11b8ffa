//! What it costs to answer a handshake, against boringtun.
//!
//! The same initiation goes to both, in turn, and both answer it: MAC1, the peer's key, its
//! timestamp, the response, the keys. Ours is the whole path: MAC1 on the worker, then again where the
//! key is, the peer among a thousand, its timestamps, its machine. Every answer is checked by the
//! initiator before anything is counted.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use bulkhead_wg::peer::{Action, Fresh, Message};
use bulkhead_wg::{
    Freshness, Known, Limits, Mac1Key, Peer, PresharedKey, PrivateKey, PublicKey, Responder,
    Tai64n, Time, TransportKeys, initiate,
};

/// Peers that the gateway knows beside the one that calls.
const STRANGERS: u32 = 1_000;

/// Time per handshake, medians over the same rounds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Ours, nanoseconds.
    pub ours_ns: f64,
    /// boringtun's, nanoseconds.
    pub rival_ns: f64,
}

impl Cost {
    /// Our share of boringtun's time.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ours_ns / self.rival_ns
    }
}

/// A responder of ours, as control and a worker make it up.
struct Ours {
    private: PrivateKey,
    mac1: Mac1Key,
    responder: Responder,
    peer: Peer,
    freshness: Freshness,
    now: Time,
    wall_clock: Duration,
}

impl Ours {
    fn new(private: &PrivateKey, peer: PublicKey) -> Self {
        let stranger = |n: u32| {
            let mut key = [0x5a; 32];
            for (byte, value) in key.iter_mut().zip(n.to_be_bytes()) {
                *byte = value;
            }
            (PublicKey(key), n)
        };
        let known: Vec<_> = (0..STRANGERS).map(stranger).chain([(peer, STRANGERS)]).collect();
        Self {
            private: private.clone(),
            mac1: Mac1Key::of(&private.public_key()),
            responder: Responder::knowing(private, Known::new([7; 32], &known)),
            peer: Peer::new(peer, PresharedKey::default(), Limits::default()),
            freshness: Freshness::default(),
            now: Time::default(),
            wall_clock: Duration::from_secs(1_800_000_000),
        }
    }

    fn answer(&mut self, message: &[u8], entropy: &[u8; 32]) -> (TransportKeys, Message) {
        assert!(self.mac1.verify(message));
        let initiation = self.responder.consume(message).unwrap();
        assert_eq!(initiation.tag, Some(STRANGERS));
        let label = initiation.timestamp;
        self.freshness.judge(label, self.wall_clock).unwrap();
        self.peer.fresh_initiation(initiation, 0x0102_0304, entropy, self.now).unwrap();
        self.freshness.accept(label, self.wall_clock);
        let nothing = || Fresh { local_index: 0, timestamp: Tai64n::default(), entropy: [0; 32] };
        let mut next = || self.peer.poll(&self.private, self.now, nothing);
        match (next(), next()) {
            (Some(Action::Session(keys)), Some(Action::Send(response))) => (keys, response),
            other => panic!("a session and a response, not {other:?}"),
        }
    }
}

/// Both, `rounds` times in turn.
#[must_use]
pub fn measure(rounds: u32) -> Cost {
    let [gateway, device] = [[0x11; 32], [0x22; 32]].map(PrivateKey::from_bytes);
    let mut ours = Ours::new(&gateway, device.public_key());
    let limiter = RateLimiter::new(&gateway.public_key().0.into(), u64::MAX);
    let mut rival = Tunn::new(
        x25519::StaticSecret::from(*gateway.expose()),
        x25519::PublicKey::from(device.public_key().0),
        None,
        None,
        5,
        Some(Arc::new(limiter)),
    );
    let (mut own_times, mut rival_times) = (vec![], vec![]);
    let mut room = vec![0; 65_536];
    for round in 0..rounds {
        ours.now = ours.now.plus(Duration::from_secs(1));
        ours.wall_clock += Duration::from_secs(1);
        let label = Tai64n::from_unix(ours.wall_clock);
        let mut entropy = [0x33; 32];
        for (byte, value) in entropy.iter_mut().zip(round.to_be_bytes()) {
            *byte = value;
        }
        let psk = PresharedKey::default();
        let make = || initiate(&device, &gateway.public_key(), &psk, 9, label, &entropy).unwrap();
        let (message, mut pending) = make();
        let (_, mut pending_too) = make();

        let begin = now();
        let (keys, response) = ours.answer(&message, &entropy);
        own_times.push(begin.elapsed());
        let begin = now();
        let answer = rival.decapsulate(None, &message, &mut room);
        rival_times.push(begin.elapsed());

        let TunnResult::WriteToNetwork(answer) = answer else { panic!("boringtun: {answer:?}") };
        assert!(pending_too.consume(answer).is_ok(), "boringtun's answer is one");
        let made = pending.consume(response.as_bytes()).unwrap();
        assert_eq!((made.send, made.receive), (keys.receive, keys.send), "so is ours");
    }
    Cost { ours_ns: median(own_times), rival_ns: median(rival_times) }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e9)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}
