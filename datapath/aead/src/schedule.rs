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

use crate::chacha::{BLOCK_LEN, Blocks, Row, Span, xor_short};
use crate::kernel::Kernel;
use crate::poly1305::{GROUP, Group, OneTimeKey};
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
}

/// Seals every message.
pub(crate) fn seal<K: Kernel>(kernel: K, piece: &mut Piece<'_, Seal<'_>>) {
    let mut sorted = Sorted::new(piece, |message| message.text.len());
    sorted.too_long(library::seal);
    for group in sorted.groups() {
        let longest = longest(group, |message| message.text.len());
        if kernel.gains(group.len(), longest) {
            seal_group(kernel, group);
        } else {
            group.iter_mut().flatten().for_each(|message| library::seal(message));
        }
    }
}

/// Opens every message that is authentic.
pub(crate) fn open<K: Kernel>(kernel: K, piece: &mut Piece<'_, Open<'_>>) {
    let mut sorted = Sorted::new(piece, |message| message.text.len());
    sorted.too_long(library::open);
    for group in sorted.groups() {
        let longest = longest(group, |message| message.text.len());
        if kernel.gains(group.len(), longest) {
            open_group(kernel, group);
        } else {
            group.iter_mut().flatten().for_each(|message| library::open(message));
        }
    }
}

fn seal_group<K: Kernel>(kernel: K, messages: &mut [Option<&mut Seal<'_>>]) {
    let mut streams = [[0; BLOCK_LEN]; GROUP];
    let pairs = messages.iter_mut().flatten().zip(&mut streams);
    kernel.xor(Blocks::new(&mut pairs.flat_map(|(message, stream)| {
        [
            Span::new(Row::new(&message.key.words, &message.nonce, 0), stream),
            Span::new(Row::new(&message.key.words, &message.nonce, 1), message.text),
        ]
    })));

    let mut group = Group::default();
    for (message, stream) in messages.iter().flatten().zip(&streams) {
        group.push(OneTimeKey::new(stream), message.text);
    }
    let tags = group.authenticated_by(kernel);
    for (message, tag) in messages.iter_mut().flatten().zip(tags) {
        *message.tag = tag;
    }
    wipe(&mut streams);
}

fn open_group<K: Kernel>(kernel: K, messages: &mut [Option<&mut Open<'_>>]) {
    // Block 0 makes the one-time key. Block 1 comes with it, because for short messages a second
    // round through the lanes would cost as much as the first one.
    let mut streams = [[[0; BLOCK_LEN]; 2]; GROUP];
    let mut spans = messages.iter_mut().flatten().zip(&mut streams).map(|(message, stream)| {
        let blocks = if message.text.is_empty() { 1 } else { 2 };
        let stream = stream.as_flattened_mut();
        let stream = stream.get_mut(..blocks * BLOCK_LEN).unwrap_or_default();
        Span::new(Row::new(&message.key.words, &message.nonce, 0), stream)
    });
    kernel.xor(Blocks::new(&mut spans));

    let mut group = Group::default();
    for (message, [key_block, _]) in messages.iter().flatten().zip(&streams) {
        group.push(OneTimeKey::new(key_block), message.text);
    }
    let tags = group.authenticated_by(kernel);
    for (message, tag) in messages.iter_mut().flatten().zip(&tags) {
        message.opened = same(tag, message.tag);
    }

    let authentic = messages.iter_mut().flatten().zip(&streams);
    let mut rests = authentic.filter(|(message, _)| message.opened).map(|(message, [_, block])| {
        let first = message.text.len().min(BLOCK_LEN);
        let (first, rest) = message.text.split_at_mut(first);
        xor_short(first, block);
        Span::new(Row::new(&message.key.words, &message.nonce, 2), rest)
    });
    kernel.xor(Blocks::new(&mut rests));
    wipe(streams.as_flattened_mut());
}

/// Compares two tags without a branch before the answer.
#[inline]
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b) == 0
}

/// Overwrites what must not stay on the stack. `black_box` is all that keeps the compiler from
/// seeing that nobody reads it; writing volatile bytes one by one would cost more than the cipher.
#[inline]
fn wipe(streams: &mut [[u8; BLOCK_LEN]]) {
    streams.fill([0; BLOCK_LEN]);
    core::hint::black_box(&*streams);
}

/// References to the messages of a piece, longest first as far as [`BUCKET_LEN`] tells them apart.
struct Sorted<'p, M> {
    messages: [Option<&'p mut M>; BATCH_MAX],
    /// Those before are too long for a kernel.
    too_long: usize,
    count: usize,
}

impl<'p, M> Sorted<'p, M> {
    /// Counting sort: two passes, and a branch for nothing but the end of the loop.
    fn new(piece: &mut Piece<'p, M>, len: impl Fn(&M) -> usize) -> Self {
        let bucket = |message: &M| match len(message) {
            len if len > TEXT_MAX => 0,
            len => BUCKETS - 1 - (len.div_ceil(BUCKET_LEN)).min(BUCKETS - 2),
        };
        let mut places = [0_usize; BUCKETS];
        for message in piece.iter_mut() {
            if let Some(count) = places.get_mut(bucket(message)) {
                *count += 1;
            }
        }
        let [too_long, ..] = places;
        let mut next = 0;
        for place in &mut places {
            next += core::mem::replace(place, next);
        }
        let mut messages = [const { None }; BATCH_MAX];
        for message in piece.messages.iter_mut().take(piece.count).filter_map(Option::take) {
            if let Some(place) = places.get_mut(bucket(message)) {
                if let Some(slot) = messages.get_mut(*place) {
                    *slot = Some(message);
                }
                *place += 1;
            }
        }
        Self { messages, too_long, count: next }
    }

    fn too_long(&mut self, mut one: impl FnMut(&mut M)) {
        self.messages.iter_mut().take(self.too_long).flatten().for_each(|message| one(message));
    }

    fn groups(&mut self) -> impl Iterator<Item = &mut [Option<&'p mut M>]> {
        self.messages.get_mut(self.too_long..self.count).unwrap_or_default().chunks_mut(GROUP)
    }
}

fn longest<M>(group: &[Option<&mut M>], len: impl Fn(&M) -> usize) -> usize {
    group.iter().flatten().map(|message| len(message)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
