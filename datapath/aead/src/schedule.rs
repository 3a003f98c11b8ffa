//! From a batch to the work of a kernel, and back to the messages.
//!
//! ```text
//!   batch ─▶ by length, in groups of 16 ─┬─ too few, too long ─▶ library
//!                                        └─▶ kernel
//!     seal:  key stream over [key block, text] ─▶ tags of the texts
//!     open:  key stream over [key block, first block, held back] ─▶ tags, compared
//!                                         ─▶ key stream over the texts that are authentic
//! ```
//!
//! INVARIANT: no plaintext is written before its tag was found to be right.

use crate::chacha::{BLOCK_LEN, Blocks, Inputs, Row, wipe, xor_short};
use crate::kernel::Kernel;
use crate::{BATCH_MAX, GROUP, Open, Seal, library};

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
type Slots<'p, 'm, M> = &'p mut [Option<&'m mut M>];

/// Seals every message.
pub(crate) fn seal<K: Kernel>(kernel: K, piece: &mut Piece<'_, Seal<'_>>) {
    let (too_long, others) = piece.sort(|message| message.text.len());
    too_long.iter_mut().flatten().for_each(|message| library::seal(message));
    for group in others.chunks_mut(GROUP) {
        let longest = group.iter().flatten().map(|message| message.text.len()).max();
        if kernel.gains(group.len(), longest.unwrap_or(0)) {
            seal_group(kernel, group);
        } else {
            group.iter_mut().flatten().for_each(|message| library::seal(message));
        }
    }
}

/// Opens every message that is authentic.
pub(crate) fn open<K: Kernel>(kernel: K, piece: &mut Piece<'_, Open<'_>>) {
    let (too_long, others) = piece.sort(|message| message.text.len());
    too_long.iter_mut().flatten().for_each(|message| library::open(message));
    for group in others.chunks_mut(GROUP) {
        let longest = group.iter().flatten().map(|message| message.text.len()).max();
        if kernel.gains(group.len(), longest.unwrap_or(0)) {
            open_group(kernel, group);
        } else {
            group.iter_mut().flatten().for_each(|message| library::open(message));
        }
    }
}

fn seal_group<K: Kernel>(kernel: K, messages: &mut [Option<&mut Seal<'_>>]) {
    let mut inputs = Inputs::new();
    let mut streams = [[0; BLOCK_LEN]; GROUP];
    let mut rows = [Row::new(0), Row::new(1)];
    let [key_blocks, texts] = &mut rows;
    let places = key_blocks.texts.iter_mut().zip(&mut streams).zip(&mut texts.texts);
    for (n, (message, ((key_block, stream), text))) in
        (0..).zip(messages.iter_mut().flatten().zip(places))
    {
        inputs.set(n, &message.key.words, &message.nonce);
        (*key_block, *text) = (stream, &mut *message.text);
    }
    kernel.xor(&inputs, Blocks::new(&mut rows));

    let mut texts: [&[u8]; GROUP] = Default::default();
    for (text, message) in texts.iter_mut().zip(messages.iter().flatten()) {
        *text = message.text;
    }
    let tags = kernel.authenticate(&streams, &texts, messages.len());
    for (message, tag) in messages.iter_mut().flatten().zip(tags) {
        *message.tag = tag;
    }
    wipe(&mut streams);
}

fn open_group<K: Kernel>(kernel: K, messages: &mut [Option<&mut Open<'_>>]) {
    // Block 0 makes the one-time key. Block 1 comes with it, because for short messages a second
    // round through the lanes would cost as much as the first one.
    let mut inputs = Inputs::new();
    let mut streams = [[0; BLOCK_LEN]; GROUP];
    let mut firsts = streams;
    let mut rows = [Row::new(0), Row::new(1)];
    let mut texts: [&[u8]; GROUP] = Default::default();
    let [key_blocks, held_back] = &mut rows;
    let places = key_blocks.texts.iter_mut().zip(&mut streams);
    let places = places.zip(held_back.texts.iter_mut().zip(&mut firsts)).zip(&mut texts);
    for (n, (message, (((key_block, stream), (held_back, first)), text))) in
        (0..).zip(messages.iter().flatten().zip(places))
    {
        inputs.set(n, &message.key.words, &message.nonce);
        (*key_block, *held_back, *text) = (stream, first, &*message.text);
    }
    kernel.xor(&inputs, Blocks::new(&mut rows));

    let tags = kernel.authenticate(&streams, &texts, messages.len());
    for (message, tag) in messages.iter_mut().flatten().zip(&tags) {
        message.opened = same(tag, message.tag);
    }

    let mut rests = [Row::new(2)];
    let places = rests.iter_mut().flat_map(|row| &mut row.texts).zip(&firsts);
    for (message, (rest, stream)) in messages.iter_mut().flatten().zip(places) {
        if message.opened {
            let first = message.text.len().min(BLOCK_LEN);
            let (first, text) = message.text.split_at_mut(first);
            xor_short(first, stream);
            *rest = text;
        }
    }
    kernel.xor(&inputs, Blocks::new(&mut rests));
    wipe(&mut streams);
    wipe(&mut firsts);
}

/// Compares two tags without a branch before the answer.
#[inline]
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b) == 0
}

#[cfg(test)]
mod tests;
