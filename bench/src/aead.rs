//! The batch AEAD against the faster of ring and aws-lc-rs, batch by batch in one run.
//!
//! Every contestant seals and opens the same batch of 64 messages, each with a key of its own. The
//! ciphertexts are compared once before anything is timed.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use bulkhead_aead::{Backend, Key, Open, Seal};

/// Messages of a batch.
pub const BATCH: usize = 64;

/// Lengths of the messages, bytes.
#[derive(Clone, Copy, Debug)]
pub enum Mix {
    /// All the same.
    Equal(usize),
    /// 7 of 64, 4 of 576 and 1 of 1420 bytes in twelve, in mixed order.
    Imix,
    /// The same, padded to multiples of 16.
    ImixPadded,
}

impl Mix {
    /// The same with each length as a tunnel pads it.
    #[must_use]
    pub const fn padded(self) -> Self {
        match self {
            Self::Equal(len) => Self::Equal(len.next_multiple_of(16)),
            Self::Imix | Self::ImixPadded => Self::ImixPadded,
        }
    }

    /// The length of the `n`-th message.
    #[must_use]
    pub fn len(self, n: usize) -> usize {
        match self {
            Self::Equal(len) => len,
            Self::Imix => match n * 5 % 12 {
                0..7 => 64,
                7..11 => 576,
                _ => 1_420,
            },
            Self::ImixPadded => Self::Imix.len(n).next_multiple_of(16),
        }
    }
}

/// Nanoseconds to seal and to open a message, medians over the same rounds.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// To seal one.
    pub seal_ns: f64,
    /// To open one.
    pub open_ns: f64,
}

impl Time {
    fn sum(&self) -> f64 {
        self.seal_ns + self.open_ns
    }
}

/// What takes part.
pub trait Contestant {
    /// Seals all under a counter.
    fn seal(&mut self, counter: u64);
    /// Opens what was sealed last; asserts that all of it is authentic.
    fn open(&mut self, counter: u64);
    /// Texts and tags.
    fn texts(&self) -> Vec<(Vec<u8>, [u8; 16])>;
}

/// A back end and the faster library.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// The back end.
    pub ours: Time,
    /// The library, which the factor is over.
    pub library: Time,
}

impl Comparison {
    /// How many times faster the back end is, over seal and open together.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.library.sum() / self.ours.sum()
    }
}

/// Compares `backend` with the libraries over `rounds` rounds of batches of `count` messages.
///
/// The contestants take turns batch by batch, so that whatever disturbs the machine disturbs all.
#[must_use]
pub fn measure(backend: Backend, mix: Mix, count: usize, rounds: usize) -> Comparison {
    let mut contestants: Vec<Box<dyn Contestant>> = vec![
        Box::new(Ours::new(backend, mix, count)),
        Box::new(Ring::new(mix, count)),
        Box::new(AwsLc::new(mix, count)),
    ];
    contestants.iter_mut().for_each(|one| one.seal(1));
    let texts: Vec<_> = contestants.iter().map(|one| one.texts()).collect();
    assert!(texts.windows(2).all(|pair| pair.first() == pair.last()), "all seal to the same");
    contestants.iter_mut().for_each(|one| one.open(1));

    let mut times = vec![(vec![], vec![]); contestants.len()];
    for round in 0..rounds + rounds / 10 {
        let counter = round as u64 + 2;
        for (one, (seal, open)) in contestants.iter_mut().zip(&mut times) {
            let start = now();
            one.seal(counter);
            let sealed = now();
            one.open(counter);
            let opened = now();
            // The first rounds warm up.
            if round >= rounds / 10 {
                seal.push(sealed - start);
                open.push(opened - sealed);
            }
        }
    }
    let mut times = times.into_iter().map(|(mut seal, mut open)| Time {
        seal_ns: median_ns(&mut seal, count),
        open_ns: median_ns(&mut open, count),
    });
    let ours = times.next().expect("ours is the first");
    let library = times.min_by(|a, b| a.sum().total_cmp(&b.sum())).expect("ring is there");
    Comparison { ours, library }
}

fn median_ns(times: &mut [Duration], count: usize) -> f64 {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1e9 / count as f64
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

fn secret(n: usize) -> [u8; 32] {
    core::array::from_fn(|at| u8::try_from((n * 7 + at * 3) % 251).unwrap())
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn plain(mix: Mix, count: usize) -> Vec<(Vec<u8>, [u8; 16])> {
    (0..count).map(|n| (vec![0x5a; mix.len(n)], [0; 16])).collect()
}

/// A back end of ours.
pub struct Ours {
    backend: Backend,
    keys: Vec<Key>,
    messages: Vec<(Vec<u8>, [u8; 16])>,
}

impl Ours {
    /// With `count` messages, each with a key of its own.
    #[must_use]
    pub fn new(backend: Backend, mix: Mix, count: usize) -> Self {
        let keys = (0..count).map(|n| Key::new(&secret(n))).collect();
        Self { backend, keys, messages: plain(mix, count) }
    }
}

impl Contestant for Ours {
    fn seal(&mut self, counter: u64) {
        let mut batch = [const { None }; BATCH];
        for ((job, key), (text, tag)) in batch.iter_mut().zip(&self.keys).zip(&mut self.messages) {
            *job = Some(Seal::new(key, nonce(counter), text, tag));
        }
        self.backend.seal(batch.iter_mut().flatten());
    }

    fn open(&mut self, counter: u64) {
        let mut batch = [const { None }; BATCH];
        for ((job, key), (text, tag)) in batch.iter_mut().zip(&self.keys).zip(&mut self.messages) {
            *job = Some(Open::new(key, nonce(counter), text, tag));
        }
        self.backend.open(batch.iter_mut().flatten());
        assert!(batch.iter().flatten().all(Open::is_opened));
    }

    fn texts(&self) -> Vec<(Vec<u8>, [u8; 16])> {
        self.messages.clone()
    }
}

/// The same for a library with the interface of ring.
macro_rules! library {
    ($name:ident, $library:ident) => {
        /// A library, message by message.
        pub struct $name {
            keys: Vec<$library::aead::LessSafeKey>,
            /// Text and tag in one piece, as the library wants them to open.
            messages: Vec<Vec<u8>>,
        }

        impl $name {
            /// With `count` messages, each with a key of its own.
            #[must_use]
            pub fn new(mix: Mix, count: usize) -> Self {
                use $library::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
                let key = |n| UnboundKey::new(&CHACHA20_POLY1305, &secret(n)).unwrap();
                let keys = (0..count).map(|n| LessSafeKey::new(key(n))).collect();
                let messages = plain(mix, count).into_iter();
                Self {
                    keys,
                    messages: messages.map(|(text, tag)| [&text[..], &tag].concat()).collect(),
                }
            }
        }

        impl Contestant for $name {
            fn seal(&mut self, counter: u64) {
                use $library::aead::{Aad, Nonce};
                for (key, message) in self.keys.iter().zip(&mut self.messages) {
                    let (text, tag) = message.split_last_chunk_mut::<16>().unwrap();
                    let nonce = Nonce::assume_unique_for_key(nonce(counter));
                    let sealed = key.seal_in_place_separate_tag(nonce, Aad::empty(), text);
                    tag.copy_from_slice(sealed.unwrap().as_ref());
                }
            }

            fn open(&mut self, counter: u64) {
                use $library::aead::{Aad, Nonce};
                for (key, message) in self.keys.iter().zip(&mut self.messages) {
                    let nonce = Nonce::assume_unique_for_key(nonce(counter));
                    key.open_in_place(nonce, Aad::empty(), message).unwrap();
                }
            }

            fn texts(&self) -> Vec<(Vec<u8>, [u8; 16])> {
                let parts = self.messages.iter().map(|message| message.split_last_chunk().unwrap());
                parts.map(|(text, tag)| (text.to_vec(), *tag)).collect()
            }
        }
    };
}
library!(Ring, ring);
library!(AwsLc, aws_lc_rs);
