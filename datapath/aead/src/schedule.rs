//! From a batch to the work of a kernel, and back to the messages.
//!
//! ```text
//!   batch ─▶ by length, in groups ─┬─ too few, too long ─▶ library
//!                                  └─▶ kernel
//!     seal:  one-time keys, key stream over the texts ─▶ tags of the texts
//!     open:  one-time keys, key stream of the first block, held back ─▶ tags, compared
//!                                         ─▶ key stream over the texts that are authentic
//! ```
//!
//! INVARIANT: no plaintext is written before its tag was found to be right.

use crate::group::{Keyed, begin, ciphertexts, decrypt, encrypt, verify, write_tags};
use crate::kernel::Kernel;
use crate::{BATCH_MAX, Open, Seal, library};

/// The longest text that a kernel is given, in bytes: more than any packet, and far from the
/// 2^32 blocks where the counter of ChaCha20 would start again.
pub(crate) const TEXT_MAX: usize = 65_535;

/// Messages of about the same length share a bucket of this many bytes.
const BUCKET_LEN: usize = 64;

/// Buckets. Whatever is longer than all of them shares the last one.
const BUCKETS: usize = 64;

/// Up to [`BATCH_MAX`] messages.
pub(crate) struct Piece<'m, M> {
    messages: [Option<&'m mut M>; BATCH_MAX],
    count: usize,
}

impl<'m, M> Piece<'m, M> {
    /// The next messages, if there are any.
    #[inline]
    pub(crate) fn of(messages: &mut impl Iterator<Item = &'m mut M>) -> Option<Self> {
        let mut piece = Self { messages: [const { None }; BATCH_MAX], count: 0 };
        for (slot, message) in piece.messages.iter_mut().zip(messages) {
            *slot = Some(message);
            piece.count += 1;
        }
        (piece.count > 0).then_some(piece)
    }

    #[inline]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut M> {
        self.messages.iter_mut().take(self.count).flatten().map(|message| &mut **message)
    }

    /// Puts the longest messages first, as far as [`BUCKET_LEN`] tells them apart, and cuts them into
    /// those that are too long for a kernel and the others.
    #[inline]
    fn sort(&mut self, len: impl Fn(&M) -> usize) -> (Slots<'_, 'm, M>, Slots<'_, 'm, M>) {
        let mut buckets = [0; BATCH_MAX];
        let (mut too_long, mut in_order, mut before) = (0, true, 0);
        for (bucket, message) in buckets.iter_mut().zip(self.iter_mut()) {
            *bucket = match len(message) {
                len if len > TEXT_MAX => 0,
                len => BUCKETS - 1 - len.div_ceil(BUCKET_LEN).min(BUCKETS - 2),
            };
            in_order &= before <= *bucket;
            before = *bucket;
            too_long += usize::from(*bucket == 0);
        }
        if !in_order {
            self.put_in_order(&buckets);
        }
        self.messages.get_mut(..self.count).unwrap_or_default().split_at_mut(too_long)
    }

    /// A counting sort: two passes, and a branch for nothing but the end of the loop.
    fn put_in_order(&mut self, buckets: &[usize; BATCH_MAX]) {
        let mut places = [0_u8; BUCKETS];
        for bucket in buckets.iter().take(self.count) {
            if let Some(count) = places.get_mut(*bucket) {
                *count += 1;
            }
        }
        let mut next = 0;
        for place in &mut places {
            next += core::mem::replace(place, next);
        }
        let messages = core::mem::replace(&mut self.messages, [const { None }; BATCH_MAX]);
        for (message, bucket) in messages.into_iter().take(self.count).zip(buckets) {
            if let Some(place) = places.get_mut(*bucket) {
                if let Some(slot) = self.messages.get_mut(usize::from(*place)) {
                    *slot = message;
                }
                *place += 1;
            }
        }
    }
}

/// Messages beside each other, each there.
pub(crate) type Slots<'p, 'm, M> = &'p mut [Option<&'m mut M>];

/// Seals every message.
pub(crate) fn seal<K: Kernel<G>, const G: usize>(kernel: K, piece: &mut Piece<'_, Seal<'_>>) {
    let (too_long, others) = piece.sort(|message| message.text.len());
    let (lanes, few) = split(kernel, others, |message| message.text.len());
    let by_itself = too_long.iter_mut().chain(few).flatten();
    by_itself.for_each(|message| library::seal(message));
    match lanes {
        [] => {}
        lanes if K::BESIDE => seal_beside(kernel, lanes),
        lanes => seal_in_turn(kernel, lanes),
    }
}

/// Opens every message that is authentic.
pub(crate) fn open<K: Kernel<G>, const G: usize>(kernel: K, piece: &mut Piece<'_, Open<'_>>) {
    let (too_long, others) = piece.sort(|message| message.text.len());
    let (lanes, few) = split(kernel, others, |message| message.text.len());
    let by_itself = too_long.iter_mut().chain(few).flatten();
    by_itself.for_each(|message| library::open(message));
    match lanes {
        [] => {}
        lanes if K::BESIDE => open_beside(kernel, lanes),
        lanes => open_in_turn(kernel, lanes),
    }
}

/// The groups that are for the kernel, and those from the first on that are not: the last one, if it is too
/// small.
#[inline]
fn split<'p, 'm, M, K: Kernel<G>, const G: usize>(
    kernel: K,
    messages: Slots<'p, 'm, M>,
    len: impl Fn(&M) -> usize,
) -> (Slots<'p, 'm, M>, Slots<'p, 'm, M>) {
    let gains = |group: &&[Option<&mut M>]| {
        let longest = group.iter().flatten().map(|message| len(message)).max();
        kernel.gains(group.len(), longest.unwrap_or(0))
    };
    let count = messages.chunks(G).take_while(gains).map(<[_]>::len).sum();
    messages.split_at_mut(count)
}

/// Each group is encrypted, and has its tags.
fn seal_in_turn<K: Kernel<G>, const G: usize>(kernel: K, messages: Slots<'_, '_, Seal<'_>>) {
    let mut keyed = Keyed::new();
    for group in messages.chunks_mut(G) {
        encrypt(kernel, group, &mut keyed, |inputs, blocks| kernel.xor(inputs, blocks));
        let tags = kernel.authenticate(&ciphertexts(group, &keyed.keys, Seal::ciphertext));
        write_tags(group, tags);
    }
}

/// Each group is encrypted while the one before has its tags.
fn seal_beside<K: Kernel<G>, const G: usize>(kernel: K, messages: Slots<'_, '_, Seal<'_>>) {
    let (mut one, mut other) = (Keyed::new(), Keyed::new());
    let (mut keyed, mut keyed_before) = (&mut one, &mut other);
    let mut encrypted: Option<Slots<'_, '_, Seal<'_>>> = None;
    for group in messages.chunks_mut(G) {
        match encrypted.take() {
            None => encrypt(kernel, group, keyed, |inputs, blocks| kernel.xor(inputs, blocks)),
            Some(before) => {
                let tags = encrypt(kernel, group, keyed, |inputs, blocks| {
                    kernel.xor_beside(
                        inputs,
                        blocks,
                        &ciphertexts(before, &keyed_before.keys, Seal::ciphertext),
                    )
                });
                write_tags(before, tags);
            }
        }
        encrypted = Some(group);
        core::mem::swap(&mut keyed, &mut keyed_before);
    }
    if let Some(last) = encrypted {
        let tags = kernel.authenticate(&ciphertexts(last, &keyed_before.keys, Seal::ciphertext));
        write_tags(last, tags);
    }
}

/// Each group is verified, and decrypted.
fn open_in_turn<K: Kernel<G>, const G: usize>(kernel: K, messages: Slots<'_, '_, Open<'_>>) {
    let mut keyed = Keyed::new();
    for group in messages.chunks_mut(G) {
        begin(kernel, group, &mut keyed);
        let tags = kernel.authenticate(&ciphertexts(group, &keyed.keys, Open::ciphertext));
        verify(group, &tags);
        decrypt(group, &keyed, |inputs, blocks| kernel.xor(inputs, blocks));
    }
}

/// Each group is decrypted while the next one is verified.
fn open_beside<K: Kernel<G>, const G: usize>(kernel: K, messages: Slots<'_, '_, Open<'_>>) {
    let (mut one, mut other) = (Keyed::new(), Keyed::new());
    let (mut keyed, mut keyed_before) = (&mut one, &mut other);
    let mut verified: Option<Slots<'_, '_, Open<'_>>> = None;
    for group in messages.chunks_mut(G) {
        begin(kernel, group, keyed);
        let tags = match verified.take() {
            None => kernel.authenticate(&ciphertexts(group, &keyed.keys, Open::ciphertext)),
            Some(before) => decrypt(before, keyed_before, |inputs, blocks| {
                kernel.xor_beside(
                    inputs,
                    blocks,
                    &ciphertexts(group, &keyed.keys, Open::ciphertext),
                )
            }),
        };
        verify(group, &tags);
        verified = Some(group);
        core::mem::swap(&mut keyed, &mut keyed_before);
    }
    if let Some(last) = verified {
        decrypt(last, keyed_before, |inputs, blocks| kernel.xor(inputs, blocks));
    }
}

#[cfg(test)]
mod tests;
