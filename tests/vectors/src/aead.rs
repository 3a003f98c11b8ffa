//! ChaCha20-Poly1305 as WireGuard uses it: the nonce is a counter, nothing but the text is
//! authenticated (whitepaper §5.4.6).

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use serde::{Deserialize, Serialize};

use crate::Random;

/// One message under one key, genuine or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AeadVector {
    /// What the case is about.
    pub comment: String,
    /// The key.
    #[serde(with = "crate::hex")]
    pub key: [u8; 32],
    /// The message counter: the last eight bytes of the nonce, little-endian.
    pub counter: u64,
    /// What is sealed. Of a forgery, the text of the genuine message.
    #[serde(with = "crate::hex")]
    pub plaintext: Vec<u8>,
    /// What arrives.
    #[serde(with = "crate::hex")]
    pub ciphertext: Vec<u8>,
    /// The tag behind it.
    #[serde(with = "crate::hex")]
    pub tag: [u8; 16],
    /// Whether it is what the key's owner sealed.
    pub genuine: bool,
}

/// The committed vectors.
#[must_use]
pub fn vectors() -> Vec<AeadVector> {
    serde_json::from_str(include_str!("../data/aead.json")).expect("the file is in order")
}

/// Seals the text in place and returns the tag.
pub type SealFn<'a> = &'a mut dyn FnMut(&[u8; 32], u64, &mut [u8]) -> [u8; 16];

/// Decrypts the text in place; whether it is genuine.
pub type OpenFn<'a> = &'a mut dyn FnMut(&[u8; 32], u64, &mut [u8], &[u8; 16]) -> bool;

/// Takes `seal` and `open` through every committed vector, and each genuine one through every
/// flipped bit of its tag.
///
/// # Panics
///
/// At the first wrong answer.
pub fn check(seal: SealFn<'_>, open: OpenFn<'_>) {
    let vectors = vectors();
    assert!(vectors.iter().filter(|vector| vector.genuine).count() > 100);
    assert!(vectors.iter().filter(|vector| !vector.genuine).count() > 30);
    for vector in vectors {
        let AeadVector { comment, key, counter, plaintext, ciphertext, tag, genuine } = vector;
        if genuine {
            let mut text = plaintext.clone();
            let sealed = seal(&key, counter, &mut text);
            assert_eq!((&text, sealed), (&ciphertext, tag), "sealing: {comment}");
        }
        let mut text = ciphertext.clone();
        assert_eq!(open(&key, counter, &mut text, &tag), genuine, "opening: {comment}");
        if genuine {
            assert_eq!(text, plaintext, "opening: {comment}");
            for bit in 0..128 {
                let (mut text, mut flipped) = (ciphertext.clone(), tag);
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!open(&key, counter, &mut text, &flipped), "{comment}: tag bit {bit}");
            }
        }
    }
}

/// Compares `seal` and `open` with RustCrypto's in `cases` random cases of up to `len_max` bytes.
/// One in four is damaged on the way, in one bit of text or tag.
///
/// # Panics
///
/// At the first difference, and if one of the outcomes was not met.
pub fn differ(seed: u64, cases: u32, len_max: usize, seal: SealFn<'_>, open: OpenFn<'_>) {
    let mut random = Random::new(seed);
    let (mut genuine, mut forged) = (0, 0);
    let (mut text, mut want) = (vec![], vec![]);
    for case in 0..cases {
        let key: [u8; 32] = random.bytes();
        // Small, around the 32-bit boundary, anywhere below the protocol's limit.
        let counter = match random.below(4) {
            0 => random.word() % 4,
            1 => 0xffff_fffe + random.word() % 4,
            _ => random.word() % (u64::MAX - 8192),
        };
        text.resize(random.below(len_max + 1), 0);
        random.fill(&mut text);
        want.clone_from(&text);
        let plaintext = text.clone();
        let mut tag = seal(&key, counter, &mut text);
        let want_tag = second_seal(&key, counter, &mut want);
        assert_eq!((&text, tag), (&want, want_tag), "seed {seed}, case {case}: sealing");
        let damaged = random.below(4) == 0;
        if damaged {
            let bit = random.below((text.len() + 16) * 8);
            let byte = text.iter_mut().chain(&mut tag).nth(bit / 8).expect("within the message");
            *byte ^= 1 << (bit % 8);
        }
        assert_eq!(open(&key, counter, &mut text, &tag), !damaged, "seed {seed}, case {case}");
        if damaged {
            forged += 1;
        } else {
            assert_eq!(text, plaintext, "seed {seed}, case {case}: opening");
            genuine += 1;
        }
    }
    assert!(genuine > cases / 2 && forged > cases / 8, "met: {genuine} genuine, {forged} forged");
}

/// Seals as RustCrypto's `chacha20poly1305` does.
pub(crate) fn second_seal(key: &[u8; 32], counter: u64, text: &mut [u8]) -> [u8; 16] {
    ChaCha20Poly1305::new(key.into())
        .encrypt_in_place_detached(&nonce(counter).into(), b"", text)
        .expect("short enough")
        .into()
}

/// The nonce, written out (whitepaper §5.4.6).
pub(crate) fn nonce(counter: u64) -> [u8; 12] {
    let c = counter.to_le_bytes();
    [0, 0, 0, 0, c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]
}
