//! Known answers, before a back end may touch a packet.
//!
//! What could be wrong is a processor, an emulator or a compiler, so every lane is asked, full and
//! partial blocks, and tags that must not be believed. The right answers are the library's, and the
//! library's own is one from outside (RFC 8439), so that two wrongs do not agree.

use core::fmt;

use crate::{BATCH_MAX, Key, Open, Seal, TAG_LEN, library};

/// Lengths that exercise each path: nothing, less than and more than a block, several steps. Their number
/// does not divide that of the lanes, so that sets of messages of different lengths meet too.
const LENGTHS: [usize; 9] = [0, 1, 16, 63, 64, 65, 320, 576, 1424];

/// What a back end did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A ciphertext or a tag is not that of the library.
    Sealed,
    /// An authentic message was not opened, or not to what was sealed.
    Opened,
    /// A forged message was opened, or left plaintext.
    Forged,
    /// The library does not agree with RFC 8439.
    Library,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sealed => "sealed a message wrongly",
            Self::Opened => "did not open an authentic message",
            Self::Forged => "opened a forged message",
            Self::Library => "the library does not agree with RFC 8439",
        })
    }
}

/// A message of the test.
struct Sample {
    key: Key,
    nonce: [u8; 12],
    text: Vec<u8>,
    tag: [u8; TAG_LEN],
}

/// Asks `seal` and `open` for known answers.
///
/// # Errors
///
/// The first wrong answer.
pub(crate) fn run(
    seal: impl Fn(&mut [Seal<'_>]),
    open: impl Fn(&mut [Open<'_>]),
) -> Result<(), Defect> {
    library_agrees_with_the_rfc()?;
    // Batches in which all are of one length, and in which all lengths meet.
    for first in (0..LENGTHS.len()).chain([usize::MAX]) {
        let plain: Vec<_> = (0..BATCH_MAX).map(|n| sample(n, first)).collect();
        let mut sealed: Vec<_> = (0..BATCH_MAX).map(|n| sample(n, first)).collect();
        seal(&mut sealed.iter_mut().map(Sample::seal).collect::<Vec<_>>());
        for (n, sealed) in sealed.iter().enumerate() {
            let mut right = sample(n, first);
            library::seal(&mut right.seal());
            if (&sealed.text, sealed.tag) != (&right.text, right.tag) {
                return Err(Defect::Sealed);
            }
        }
        // Every third message is forged, each in another byte of its tag.
        let forged = |n: usize| n % 3 == 1;
        for (n, message) in sealed.iter_mut().enumerate().filter(|(n, _)| forged(*n)) {
            if let Some(byte) = message.tag.get_mut(n % TAG_LEN) {
                *byte ^= 0x80;
            }
        }
        let mut batch: Vec<_> = sealed.iter_mut().map(Sample::open).collect();
        open(&mut batch);
        let opened: Vec<_> = batch.iter().map(Open::is_opened).collect();
        for (n, ((opened, message), plain)) in opened.iter().zip(&sealed).zip(&plain).enumerate() {
            let readable = message.text == plain.text;
            if forged(n) {
                if *opened || (readable && !plain.text.is_empty()) {
                    return Err(Defect::Forged);
                }
            } else if !*opened || !readable {
                return Err(Defect::Opened);
            }
        }
    }
    Ok(())
}

/// RFC 8439 §2.4.2: the first bytes of the ciphertext of "Ladies and Gentlemen".
fn library_agrees_with_the_rfc() -> Result<(), Defect> {
    let mut key = [0; 32];
    for (byte, value) in key.iter_mut().zip(0..) {
        *byte = value;
    }
    let key = Key::new(&key);
    let mut text = *b"Ladies and Gentl";
    let mut tag = [0; TAG_LEN];
    let nonce = [0, 0, 0, 0, 0, 0, 0, 0x4a, 0, 0, 0, 0];
    library::seal(&mut Seal::new(&key, nonce, &mut text, &mut tag));
    let right = 0x6e2e_359a_2568_f980_41ba_0728_dd0d_6981_u128;
    if u128::from_be_bytes(text) == right { Ok(()) } else { Err(Defect::Library) }
}

/// Message `n` of the batch that begins with length number `first`, or of the mixed one.
fn sample(n: usize, first: usize) -> Sample {
    let mut bytes = noise(n as u64);
    let mut key = [0; 32];
    key.fill_with(|| bytes.next().unwrap_or(0));
    let mut nonce = [0; 12];
    nonce.fill_with(|| bytes.next().unwrap_or(0));
    let len = LENGTHS.get(first).or(LENGTHS.get(n % LENGTHS.len())).copied().unwrap_or(0);
    Sample { key: Key::new(&key), nonce, text: bytes.take(len).collect(), tag: [0; TAG_LEN] }
}

/// Bytes without a pattern: a linear congruential generator (Knuth, MMIX).
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed;
    core::iter::repeat_with(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [.., high] = state.to_le_bytes();
        high
    })
}

impl Sample {
    fn seal(&mut self) -> Seal<'_> {
        Seal::new(&self.key, self.nonce, &mut self.text, &mut self.tag)
    }

    fn open(&mut self) -> Open<'_> {
        Open::new(&self.key, self.nonce, &mut self.text, &self.tag)
    }
}

#[cfg(test)]
mod tests;
