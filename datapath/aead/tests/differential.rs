//! Each back end against two libraries that are not ours: `ring` and RustCrypto's
//! `chacha20poly1305`. Every test runs the same body for every back end of this processor.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test; clippy.toml excuses test functions, not the ones that they call"
)]

use std::cell::Cell;

use bulkhead_aead::{BATCH_MAX, Backend, Key, Open, Seal};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use proptest::prelude::*;

fn backends() -> impl Iterator<Item = Backend> {
    Backend::ALL.into_iter().filter(|backend| {
        if !backend.is_supported() {
            println!("NOT RUN: {backend}, for which this processor has not what it needs");
        }
        backend.is_supported()
    })
}

/// A message with the bytes of its key.
#[derive(Clone, Debug)]
struct Message {
    secret: [u8; 32],
    nonce: [u8; 12],
    text: Vec<u8>,
    tag: [u8; 16],
}

impl Message {
    fn sealed_by_rust_crypto(&self) -> Self {
        let mut sealed = self.clone();
        sealed.tag = ChaCha20Poly1305::new(&self.secret.into())
            .encrypt_in_place_detached(&self.nonce.into(), b"", &mut sealed.text)
            .unwrap()
            .into();
        sealed
    }

    fn sealed_by_ring(&self) -> Self {
        use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
        let mut sealed = self.clone();
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &self.secret).unwrap());
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut sealed.text).unwrap();
        sealed.tag.copy_from_slice(tag.as_ref());
        sealed
    }
}

/// Message `n` of a test: everything about it differs from the others'.
fn message(n: usize, len: usize) -> Message {
    let mut state = n as u64 ^ (len as u64) << 32;
    let mut byte = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    Message {
        secret: std::array::from_fn(|_| byte()),
        nonce: std::array::from_fn(|_| byte()),
        text: (0..len).map(|_| byte()).collect(),
        tag: [0; 16],
    }
}

fn seal(backend: Backend, messages: &mut [Message]) {
    let keys: Vec<_> = messages.iter().map(|message| Key::new(&message.secret)).collect();
    let mut batch: Vec<_> = messages
        .iter_mut()
        .zip(&keys)
        .map(|(m, key)| Seal::new(key, m.nonce, &mut m.text, &mut m.tag))
        .collect();
    backend.seal(&mut batch);
}

fn open(backend: Backend, messages: &mut [Message]) -> Vec<bool> {
    let keys: Vec<_> = messages.iter().map(|message| Key::new(&message.secret)).collect();
    let mut batch: Vec<_> = messages
        .iter_mut()
        .zip(&keys)
        .map(|(m, key)| Open::new(key, m.nonce, &mut m.text, &m.tag))
        .collect();
    assert!(batch.iter().all(|message| !message.is_opened()));
    backend.open(&mut batch);
    batch
        .into_iter()
        .map(|message| {
            let opened = message.is_opened();
            assert_eq!(message.plaintext().is_some(), opened);
            opened
        })
        .collect()
}

/// A message that must not be readable: still the ciphertext, or zeros.
fn unreadable(message: &Message, ciphertext: &[u8]) -> bool {
    message.text == ciphertext || message.text.iter().all(|byte| *byte == 0)
}

fn check_round_trip(backend: Backend, plain: &[Message]) {
    let mut messages = plain.to_vec();
    seal(backend, &mut messages);
    for (n, (sealed, plain)) in messages.iter().zip(plain).enumerate() {
        for want in [plain.sealed_by_rust_crypto(), plain.sealed_by_ring()] {
            assert_eq!(sealed.tag, want.tag, "{backend}, message {n}: {} bytes", plain.text.len());
            assert_eq!(sealed.text, want.text, "{backend}, message {n}");
        }
    }
    assert!(open(backend, &mut messages).iter().all(|opened| *opened), "{backend}");
    for (n, (opened, plain)) in messages.iter().zip(plain).enumerate() {
        assert!(opened.text == plain.text, "{backend}, message {n}: {} bytes", plain.text.len());
    }
}

/// RFC 8439 §2.4.2, in every lane: the message cipher of §2.8 begins with block 1, as it does.
#[test]
fn aead_rfc_8439_sunscreen_in_every_lane() {
    let want = "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b\
        f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8\
        07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736\
        5af90bbf74a35be6b40b8eedf2785e42874d";
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one \
        tip for the future, sunscreen would be it.";
    for backend in backends() {
        let mut messages = vec![
            Message {
                secret: std::array::from_fn(|i| u8::try_from(i).unwrap()),
                nonce: [0, 0, 0, 0, 0, 0, 0, 0x4a, 0, 0, 0, 0],
                text: text.to_vec(),
                tag: [0; 16],
            };
            BATCH_MAX
        ];
        seal(backend, &mut messages);
        for message in &messages {
            let hex: String = message.text.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, want, "{backend}");
        }
        assert!(open(backend, &mut messages).iter().all(|opened| *opened));
        assert!(messages.iter().all(|message| message.text == text), "{backend}");
    }
}

/// Every length up to a jumbo frame, sixteen at a time, so that each is in a group of its like.
#[test]
fn aead_every_length_up_to_9000_agrees_with_two_libraries() {
    let backends: Vec<_> = backends().collect();
    std::thread::scope(|scope| {
        for backend in backends {
            scope.spawn(move || {
                for first in (0..=9_000).step_by(BATCH_MAX) {
                    // The order of a batch must not matter: the longest in the middle.
                    let lens = (first..first + BATCH_MAX).map(|len| first + (len * 37) % BATCH_MAX);
                    let plain: Vec<_> = lens.enumerate().map(|(n, len)| message(n, len)).collect();
                    check_round_trip(backend, &plain);
                }
            });
        }
    });
}

/// Every number of messages, at the lengths around which the work is divided differently.
#[test]
fn aead_every_batch_size_agrees_with_two_libraries() {
    for backend in backends() {
        for count in 0..=2 * BATCH_MAX + 1 {
            for len in [0, 17, 64, 65, 300] {
                let plain: Vec<_> = (0..count).map(|n| message(n, len)).collect();
                check_round_trip(backend, &plain);
            }
        }
    }
}

/// The longest text that lanes are used for, and what is beyond it.
#[test]
fn aead_counter_limits_long_texts_agree_with_two_libraries() {
    for backend in backends() {
        let lens = [65_535, 65_536, 100, 65_534, 200_000, 65_535, 64, 65_535, 0, 65_535];
        let plain: Vec<_> = lens.iter().enumerate().map(|(n, len)| message(n, *len)).collect();
        check_round_trip(backend, &plain);
    }
}

/// In every lane, at lengths of every path: any damage to the tag, the text or the nonce refuses
/// that message, leaves no plaintext of it, and spoils no neighbour.
#[test]
fn aead_forged_in_every_lane_never_spoils_neighbours_and_never_leaks() {
    for backend in backends() {
        for len in [1, 15, 16, 63, 64, 65, 127, 128, 129, 576, 1_424] {
            let plain: Vec<_> = (0..BATCH_MAX).map(|n| message(n, len)).collect();
            let mut sealed = plain.clone();
            seal(backend, &mut sealed);
            for lane in 0..BATCH_MAX {
                let mut messages = sealed.clone();
                let victim = &mut messages[lane];
                match lane % 4 {
                    0 => victim.tag[lane % 16] ^= 1 << (lane % 8),
                    1 => victim.text[len - 1] ^= 0x80,
                    2 => victim.text[lane % len] ^= 1,
                    _ => victim.nonce[11] ^= 1,
                }
                let ciphertext = victim.text.clone();
                let opened = open(backend, &mut messages);
                for (n, (message, opened)) in messages.iter().zip(opened).enumerate() {
                    assert_eq!(
                        opened,
                        n != lane,
                        "{backend}, {len} bytes, lane {lane}, message {n}"
                    );
                    if n == lane {
                        assert!(unreadable(message, &ciphertext), "{backend}, lane {lane}");
                    } else {
                        assert!(message.text == plain[n].text, "{backend}, message {n}");
                    }
                }
            }
        }
    }
}

/// Each single bit of a tag counts.
#[test]
fn aead_every_bit_of_the_tag_is_compared() {
    for backend in backends() {
        let mut sealed: Vec<_> = (0..128).map(|n| message(n, 80)).collect();
        seal(backend, &mut sealed);
        for (bit, message) in sealed.iter_mut().enumerate() {
            message.tag[bit / 8] ^= 1 << (bit % 8);
        }
        let before = sealed.clone();
        assert!(open(backend, &mut sealed).iter().all(|opened| !opened), "{backend}");
        for (message, before) in sealed.iter().zip(&before) {
            assert!(unreadable(message, &before.text), "{backend}");
        }
    }
}

/// A message that lost bytes at its end: what is left of it is taken for text and tag.
#[test]
fn aead_truncated_messages_are_refused_in_every_lane() {
    for backend in backends() {
        for cut in [1, 15, 16, 17, 64] {
            let mut messages: Vec<_> = (0..BATCH_MAX).map(|n| message(n, 100)).collect();
            seal(backend, &mut messages);
            for message in messages.iter_mut().step_by(2) {
                let mut whole = [&message.text[..], &message.tag].concat();
                whole.truncate(whole.len() - cut);
                message.tag = *whole.last_chunk().unwrap();
                whole.truncate(whole.len() - 16);
                message.text = whole;
            }
            let opened = open(backend, &mut messages);
            for (n, opened) in opened.into_iter().enumerate() {
                assert_eq!(opened, n % 2 == 1, "{backend}, cut {cut}, message {n}");
            }
        }
    }
}

/// What happens to a message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    None,
    Tag(usize),
    Text(usize),
    Key,
    Cut,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => Just(Damage::None),
        1 => any::<usize>().prop_map(Damage::Tag),
        1 => any::<usize>().prop_map(Damage::Text),
        1 => Just(Damage::Key),
        1 => Just(Damage::Cut),
    ]
}

fn any_message() -> impl Strategy<Value = (Message, Damage)> {
    let len = prop_oneof![Just(0_usize), 1..64_usize, 64..600_usize, 600..1_600_usize, Just(1_424)];
    // A few keys only, so that messages of one session meet.
    (0_u8..5, any::<[u8; 12]>(), len, any::<u64>(), damage()).prop_map(
        |(key, nonce, len, seed, damage)| {
            let mut message = message(usize::try_from(seed >> 32).unwrap(), len);
            (message.secret, message.nonce) = ([key; 32], nonce);
            (message, damage)
        },
    )
}

/// Goal: any mix of lengths, keys, batch sizes and damages, in one batch.
/// Method: sealed and opened by each back end, judged by RustCrypto; all outcomes must be met.
#[test]
fn aead_random_batch_mixes_agree_with_the_twin() {
    for backend in backends() {
        let met = [const { Cell::new(0) }; 6];
        let meet = |outcome: usize| met[outcome].set(met[outcome].get() + 1);
        let config = ProptestConfig { cases: 256, ..ProptestConfig::default() };
        proptest!(config, |(batch in proptest::collection::vec(any_message(), 1..=BATCH_MAX))| {
            let (plain, damages): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let mut messages = plain.clone();
            seal(backend, &mut messages);
            for ((message, plain), damage) in messages.iter_mut().zip(&plain).zip(&damages) {
                let want = plain.sealed_by_rust_crypto();
                prop_assert_eq!((&message.text, message.tag), (&want.text, want.tag));
                let len = message.text.len();
                match *damage {
                    Damage::Text(at) if len > 0 => message.text[at % len] ^= 0x10,
                    Damage::Cut if len > 0 => message.text.truncate(len - 1),
                    Damage::Key => message.secret[31] ^= 0x80,
                    Damage::None => {}
                    Damage::Tag(at) => message.tag[at % 16] ^= 4,
                    Damage::Text(_) | Damage::Cut => message.tag[0] ^= 1,
                }
            }
            let before = messages.clone();
            let opened = open(backend, &mut messages);
            for (n, (message, damage)) in messages.iter().zip(&damages).enumerate() {
                prop_assert_eq!(opened[n], *damage == Damage::None);
                if opened[n] {
                    prop_assert!(message.text == plain[n].text);
                    meet(0);
                } else {
                    prop_assert!(unreadable(message, &before[n].text));
                    meet(match damage {
                        Damage::None => 0,
                        Damage::Tag(_) => 1,
                        Damage::Text(_) => 2,
                        Damage::Key => 3,
                        Damage::Cut => 4,
                    });
                }
            }
            if messages.len() > 16 {
                meet(5);
            }
        });
        let met = met.map(|count| count.get());
        assert!(met.iter().all(|count| *count > 20), "{backend}: {met:?}");
    }
}
