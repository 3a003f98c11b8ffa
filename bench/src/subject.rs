//! The hot functions, each with an input whose answer was checked, ready to run again and again.
//!
//! One list for two instruments: criterion times them (`cargo bench`), and
//! `bulkhead-instructions` counts their instructions, which a busy machine does not change.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::net::SocketAddr;

use bulkhead_engine::cache::{Flow, FlowCache, Hashed};
use bulkhead_engine::flow::{FlowKey, Pair, Seed};
use bulkhead_engine::rig::{peer_address, udp};
use bulkhead_engine::state::{State, Timeouts};
use bulkhead_link::FlowTimeouts;
use bulkhead_table::{EndpointId, Verdict};
use bulkhead_wg::{
    CookieKey, CookieSecrets, Mac1Key, Nonces, Open, PresharedKey, PrivateKey, ReceiveKey,
    ReplayWindow, Seal, SendKey, Tai64n, initiate, open_batch, seal_batch,
};
use bulkhead_wire::{Address, IpPacket};
use rtrb::RingBuffer;

use crate::aead::Mix;
use crate::lookup::{Company, Shape, Traffic};
use crate::memory_cost::Subject as Worker;
use crate::random::Random;

/// Packets of a batch.
pub const BATCH: usize = 64;

/// A hot function.
pub struct Subject {
    /// What it is called in records.
    pub name: &'static str,
    /// Packets that one run handles.
    pub packets: usize,
    run: Box<dyn FnMut()>,
}

impl Subject {
    /// Runs it once.
    pub fn run(&mut self) {
        (self.run)();
    }

    fn new(name: &'static str, packets: usize, run: impl FnMut() + 'static) -> Self {
        Self { name, packets, run: Box::new(run) }
    }
}

/// The names of all subjects.
pub const NAMES: [&str; 13] = [
    "parse",
    "seal-64",
    "seal-1420",
    "open-64",
    "open-1420",
    "replay",
    "cookie",
    "flows",
    "endpoints",
    "verdicts",
    "handoff",
    "worker-64",
    "worker-1420",
];

/// The subject of a name.
#[must_use]
pub fn named(name: &str) -> Option<Subject> {
    match name {
        "parse" => Some(parse()),
        "seal-64" => Some(seal("seal-64", 64)),
        "seal-1420" => Some(seal("seal-1420", 1420)),
        "open-64" => Some(open("open-64", 64)),
        "open-1420" => Some(open("open-1420", 1420)),
        "replay" => Some(replay()),
        "cookie" => Some(cookie()),
        "flows" => Some(flows()),
        "endpoints" => Some(endpoints()),
        "verdicts" => Some(verdicts()),
        "handoff" => Some(handoff()),
        "worker-64" => Some(worker("worker-64", 64)),
        "worker-1420" => Some(worker("worker-1420", 1420)),
        _ => None,
    }
}

fn parse() -> Subject {
    let packets: Vec<Vec<u8>> = (0..64u32)
        .map(|n| udp(peer_address(n, n % 2 == 1), peer_address(0, n % 2 == 1), (4000, 5000), 100))
        .collect();
    for (packet, n) in packets.iter().zip(0..) {
        let parsed = IpPacket::parse(packet).unwrap();
        assert_eq!(parsed.source, peer_address(n, n % 2 == 1));
    }
    Subject::new("parse", BATCH, move || {
        for packet in &packets {
            black_box(IpPacket::parse(black_box(packet)).is_ok());
        }
    })
}

/// Sealed messages of `len` bytes, counters from 0.
fn sealed(len: usize) -> Vec<(Vec<u8>, [u8; 16])> {
    let key = SendKey::new(&[7; 32]);
    let mut messages = vec![(vec![0x5a; len], [0; 16]); BATCH];
    seal_all(&key, &mut messages, 0);
    messages
}

fn seal_all(key: &SendKey, messages: &mut [(Vec<u8>, [u8; 16])], first: u64) {
    let jobs = messages.iter_mut().zip(first..);
    let mut batch: Vec<Seal<'_>> =
        jobs.map(|((buffer, tag), counter)| Seal::new(key, counter, buffer, tag)).collect();
    seal_batch(&mut batch);
}

/// How many opened.
fn open_all(key: &ReceiveKey, messages: &mut [(Vec<u8>, [u8; 16])], first: u64) -> usize {
    let jobs = messages.iter_mut().zip(first..);
    let mut batch: Vec<Open<'_>> =
        jobs.map(|((text, tag), counter)| Open::new(key, counter, text, tag)).collect();
    open_batch(&mut batch);
    batch.iter().filter(|message| message.is_opened()).count()
}

fn seal(name: &'static str, len: usize) -> Subject {
    let mut messages = sealed(len);
    assert_eq!(open_all(&ReceiveKey::new(&[7; 32]), &mut messages, 0), BATCH);
    assert!(messages.iter().all(|(text, _)| text.iter().all(|byte| *byte == 0x5a)));
    let key = SendKey::new(&[7; 32]);
    Subject::new(name, BATCH, move || seal_all(&key, &mut messages, 1_000))
}

fn open(name: &'static str, len: usize) -> Subject {
    let good = sealed(len);
    let key = ReceiveKey::new(&[7; 32]);
    let mut messages = good.clone();
    assert_eq!(open_all(&key, &mut messages, 0), BATCH);
    Subject::new(name, BATCH, move || {
        messages.clone_from(&good);
        assert_eq!(open_all(&key, &mut messages, 0), BATCH);
    })
}

fn replay() -> Subject {
    let mut window = ReplayWindow::default();
    assert!(window.accept(5) && !window.accept(5) && window.accept(3));
    let mut first = 10;
    Subject::new("replay", BATCH, move || {
        // Pairs change places, as on a path with some reordering.
        let fresh =
            (0..BATCH as u64).filter(|at| window.accept(black_box(first + (at ^ 1)))).count();
        assert_eq!(fresh, BATCH);
        first += BATCH as u64;
    })
}

/// What a flood with a right MAC1 costs a worker that asks for cookies: each message's MAC1, its
/// MAC2, which is zero, and the reply.
fn cookie() -> Subject {
    let [gateway, stranger] = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
    let (to, psk) = (gateway.public_key(), PresharedKey::default());
    let (message, mut pending) =
        initiate(&stranger, &to, &psk, 7, Tai64n::default(), &[4; 32]).unwrap();
    let (mac1, key) = (Mac1Key::of(&to), CookieKey::of(&to));
    let (secrets, mut nonces) = (CookieSecrets::new([3; 32]), Nonces::new([5; 32], 0));
    let mut source = SocketAddr::from(([192, 0, 2, 7], 0));
    let mut turn = move |port| {
        source.set_port(port);
        let message = black_box(&message);
        assert!(mac1.verify(message) && !secrets.verify(message, source));
        secrets.reply(&key, message, source, nonces.draw()).unwrap()
    };
    assert!(pending.cookie(&turn(1)).is_ok());
    Subject::new("cookie", BATCH, move || {
        for port in (0..).take(BATCH) {
            black_box(turn(port));
        }
    })
}

/// The flows of a batch, among 10,000 that are live.
fn flows() -> Subject {
    const LIVE: u16 = 10_000;
    let now_s = 10;
    let timeouts = Timeouts::from(&FlowTimeouts::default());
    let mut random = Random::new(3);
    let seed = Seed(random.bits(), random.bits());
    let mut cache = FlowCache::new(usize::from(LIVE), seed, timeouts);
    let ends = |port| {
        Pair::of(&FlowKey {
            source: peer_address(0, false),
            destination: peer_address(1, false),
            source_port: port,
            destination_port: 5_000,
            protocol: 17,
        })
    };
    for port in 0..LIVE {
        let at = cache.hash(ends(port));
        let flow = Flow { pair: at.pair, state: State::Udp, seen_s: now_s, ..Flow::default() };
        cache.insert(&at, flow, now_s).expect("a place");
    }
    let batch: Vec<_> =
        (0..BATCH).map(|_| ends(u16::try_from(random.below(LIVE.into())).unwrap())).collect();
    Subject::new("flows", BATCH, move || {
        let mut places = [Hashed::default(); BATCH];
        for (place, ends) in places.iter_mut().zip(black_box(&batch)) {
            *place = cache.hash(*ends);
        }
        places.iter().for_each(|place| cache.warm_tags(place));
        black_box(cache.warm_flows(&mut places, 0));
        let found = places.iter().filter(|place| {
            let known = cache.find(place, now_s);
            known.and_then(|known| cache.get_mut(known)).is_some_and(|flow| flow.pair == place.pair)
        });
        assert_eq!(found.count(), BATCH, "all of them live");
    })
}

fn company() -> (Company, Vec<bulkhead_table::Question>) {
    let company = Company::new(Shape::of(1_000), 1);
    let packets = company.traffic(Traffic::Uniform, 4 * BATCH, 2);
    company.check(&packets);
    (company, packets)
}

fn endpoints() -> Subject {
    let (company, packets) = company();
    let addresses: Vec<Address> =
        packets.iter().flat_map(|packet| [packet.source, packet.destination]).collect();
    let mut found = vec![EndpointId(0); addresses.len()];
    Subject::new("endpoints", packets.len(), move || {
        company.table.view().endpoints_at(black_box(&addresses), &mut found);
        black_box(&found);
    })
}

fn verdicts() -> Subject {
    let (company, packets) = company();
    let mut verdicts = vec![Verdict::default(); packets.len()];
    Subject::new("verdicts", packets.len(), move || {
        company.table.view().verdicts(black_box(&packets), &mut verdicts);
        black_box(&verdicts);
    })
}

/// Descriptors through a ring and back out, in chunks of a batch.
fn handoff() -> Subject {
    let (mut giver, mut taker) = RingBuffer::<u64>::new(4 * BATCH);
    let mut next = 0u64;
    Subject::new("handoff", BATCH, move || {
        let chunk = giver.write_chunk_uninit(BATCH).expect("room");
        chunk.fill_from_iter(next..);
        let chunk = taker.read_chunk(BATCH).expect("a batch");
        let sum: u64 = chunk.into_iter().sum();
        let n = BATCH as u64;
        assert_eq!(sum, n * next + n * (n - 1) / 2);
        next += n;
    })
}

fn worker(name: &'static str, len: usize) -> Subject {
    let mut worker = Worker::new(Mix::Equal(len));
    Subject::new(name, BATCH, move || {
        black_box(worker.turn());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_subject_that_runs_twice() {
        for name in NAMES {
            let mut subject = named(name).expect("a subject");
            assert_eq!(subject.name, name);
            subject.run();
            subject.run();
        }
        assert!(named("nothing").is_none());
    }
}
