//! The steps of one group of messages. Which of them goes beside which is `schedule.rs`'s.

use crate::chacha::{BLOCK_LEN, Blocks, Inputs, Row, wipe, xor_short};
use crate::kernel::{Authenticated, Kernel};
use crate::poly1305::OneTimeKeys;
use crate::schedule::Slots;
use crate::{Open, Seal, TAG_LEN};

/// What is known of a group beside its messages. Wiped on drop.
pub(crate) struct Keyed<const G: usize> {
    inputs: Inputs<G>,
    pub(crate) keys: OneTimeKeys<G>,
    /// Block 1, held back until the tag is known to be right.
    firsts: [[u8; BLOCK_LEN]; G],
}

impl<const G: usize> Keyed<G> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { inputs: Inputs::new(), keys: OneTimeKeys::new(), firsts: [[0; _]; _] }
    }
}

impl<const G: usize> Drop for Keyed<G> {
    fn drop(&mut self) {
        wipe(&mut self.firsts);
    }
}

/// What the places of a group without a message have for a key.
const NO_KEY: [u32; 8] = [0; 8];

/// The one-time keys and the ciphertexts. `xor` goes over the blocks.
#[inline]
pub(crate) fn encrypt<K: Kernel<G>, const G: usize, T>(
    kernel: K,
    group: Slots<'_, '_, Seal<'_>>,
    Keyed { inputs, keys, .. }: &mut Keyed<G>,
    xor: impl FnOnce(&Inputs<G>, Blocks<'_, '_, G>) -> T,
) -> T {
    let (mut rows, mut session_keys) = ([Row::new(1)], [&NO_KEY; G]);
    let places = rows.iter_mut().flat_map(|row| &mut row.texts).zip(&mut session_keys);
    for (n, (message, (text, key))) in (0..).zip(group.iter_mut().flatten().zip(places)) {
        inputs.set_nonce(n, &message.nonce);
        (*text, *key) = (&mut *message.text, &message.key.words);
    }
    kernel.set_keys(inputs, &session_keys);
    xor(inputs, Blocks::with_keys(&mut rows, keys))
}

/// The ciphertexts of a group, for their tags.
#[inline]
pub(crate) fn ciphertexts<'t, M, const G: usize>(
    group: &'t [Option<&mut M>],
    keys: &'t OneTimeKeys<G>,
    text: impl Fn(&'t M) -> &'t [u8],
) -> Authenticated<'t, G> {
    let mut texts: [&[u8]; G] = [&[]; G];
    for (place, message) in texts.iter_mut().zip(group.iter().flatten()) {
        *place = text(message);
    }
    Authenticated { keys, texts, count: group.len() }
}

#[inline]
pub(crate) fn write_tags<const G: usize>(group: Slots<'_, '_, Seal<'_>>, tags: [[u8; TAG_LEN]; G]) {
    for (message, tag) in group.iter_mut().flatten().zip(tags) {
        *message.tag = tag;
    }
}

/// The one-time keys, and block 1. The latter comes with them because for short messages a second round
/// through the lanes would cost as much as the first one.
#[inline]
pub(crate) fn begin<K: Kernel<G>, const G: usize>(
    kernel: K,
    group: &[Option<&mut Open<'_>>],
    Keyed { inputs, keys, firsts }: &mut Keyed<G>,
) {
    *firsts = [[0; _]; _];
    let (mut rows, mut session_keys) = ([Row::new(1)], [&NO_KEY; G]);
    let places = rows.iter_mut().flat_map(|row| &mut row.texts).zip(&mut session_keys).zip(firsts);
    for (n, (message, ((held_back, key), first))) in (0..).zip(group.iter().flatten().zip(places)) {
        inputs.set_nonce(n, &message.nonce);
        (*held_back, *key) = (first, &message.key.words);
    }
    kernel.set_keys(inputs, &session_keys);
    kernel.xor(inputs, Blocks::with_keys(&mut rows, keys));
}

/// Says which messages are authentic.
#[inline]
pub(crate) fn verify<const G: usize>(group: Slots<'_, '_, Open<'_>>, tags: &[[u8; TAG_LEN]; G]) {
    for (message, tag) in group.iter_mut().flatten().zip(tags) {
        message.opened = same(tag, message.tag);
    }
}

/// The texts of the messages that are authentic. `xor` goes over the blocks behind the first.
#[inline]
pub(crate) fn decrypt<const G: usize, T>(
    group: Slots<'_, '_, Open<'_>>,
    Keyed { inputs, firsts, .. }: &Keyed<G>,
    xor: impl FnOnce(&Inputs<G>, Blocks<'_, '_, G>) -> T,
) -> T {
    let mut rests = [Row::new(2)];
    let places = rests.iter_mut().flat_map(|row| &mut row.texts).zip(firsts);
    for (message, (rest, stream)) in group.iter_mut().flatten().zip(places) {
        if message.opened {
            let first = message.text.len().min(BLOCK_LEN);
            let (first, text) = message.text.split_at_mut(first);
            xor_short(first, stream);
            *rest = text;
        }
    }
    xor(inputs, Blocks::new(&mut rests))
}

/// Compares two tags without a branch before the answer.
#[inline]
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b) == 0
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn aead_tags_are_the_same_only_if_every_bit_is() {
        let tag = [0xa5; 16];
        assert!(same(&tag, &tag));
        for bit in 0..128 {
            let mut other = tag;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!same(&tag, &other), "bit {bit}");
        }
    }
}
