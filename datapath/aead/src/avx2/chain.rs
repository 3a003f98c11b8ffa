//! Poly1305 of one message after the other in the scalar units, in portions that go between the vector
//! instructions of ChaCha20. Two messages take turns, because one alone waits for its own multiplications.
//!
//! Radix 2^64, because a scalar multiplication gives 128 bits: two limbs and what is above them.

use super::GROUP;
use crate::TAG_LEN;
use crate::chacha::wipe;
use crate::kernel::Authenticated;
use crate::poly1305::{MASK_44, OneTimeKey, finish, halves_of, lengths, piece};

/// Blocks of a message that go into one portion.
pub(super) const PORTION: usize = 20;

/// One block.
pub(super) type Block = [u8; 16];

/// The accumulator of a message, `h0 + 2^64 h1 + 2^128 h2`.
///
/// INVARIANT between blocks: h2 is at most 4.
#[derive(Clone, Copy, Default)]
pub(super) struct Chain {
    h: [u64; 3],
    /// The clamped multiplier: both limbs are below 2^60, and the last two bits of the upper one are 0.
    r: [u64; 2],
    /// 5/4 of its upper limb, which is what is left of 2^128 r1: 2^130 is 5 modulo 2^130 - 5. Below
    /// 2^60.4.
    s1: u64,
}

impl Chain {
    #[inline]
    fn new(key: &OneTimeKey) -> Self {
        let [_, r1] = key.r;
        Self { h: [0; 3], r: key.r, s1: r1 + (r1 >> 2) }
    }

    /// Adds a block and multiplies.
    #[inline]
    pub(super) fn block(&mut self, block: &Block) {
        let ([h0, h1, h2], [r0, r1], s1) = (self.h, self.r, self.s1);
        let (m0, m1) = halves_of(u128::from_le_bytes(*block));
        let (h0, carry) = h0.overflowing_add(m0);
        let (h1, carry) = h1.carrying_add(m1, carry);
        // At most 6, with the bit above the block.
        let h2 = h2 + 1 + u64::from(carry);
        // Two products below 2^124.4, and one below 2^63.
        let d0 = wide(h0, r0) + wide(h1, s1);
        let d1 = wide(h0, r1) + wide(h1, r0) + u128::from(h2 * s1);
        let ((d0, carry), d2) = (halves_of(d0), h2 * r0);
        let (d1, carry) = halves_of(d1 + u128::from(carry));
        // Below 2^63.
        let d2 = d2 + carry;
        // What is above 2^130 comes back at the bottom, five times.
        let (h0, carry) = d0.overflowing_add((d2 & !3) + (d2 >> 2));
        let (h1, carry) = d1.overflowing_add(u64::from(carry));
        self.h = [h0, h1, (d2 & 3) + u64::from(carry)];
    }

    #[inline]
    fn tag(&self, key: &OneTimeKey) -> [u8; TAG_LEN] {
        let [h0, h1, h2] = self.h;
        finish([h0 & MASK_44, (h0 >> 44 | h1 << 20) & MASK_44, h1 >> 24 | h2 << 40], key.s)
    }
}

#[inline]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

/// The messages of a group, two by two. Wiped on drop.
pub(super) struct Chains<'t> {
    keys: [OneTimeKey; GROUP],
    chains: [Chain; GROUP],
    /// What is left of each.
    texts: [&'t [u8]; GROUP],
    /// The two that have their turn, by the first of them.
    turn: usize,
}

/// Blocks of two messages, as many of one as of the other.
pub(super) type Portion<'c, 't> = ([&'c mut Chain; 2], [&'t [Block]; 2]);

impl Drop for Chains<'_> {
    fn drop(&mut self) {
        wipe(core::slice::from_mut(&mut self.keys));
        wipe(core::slice::from_mut(&mut self.chains));
    }
}

impl<'t> Chains<'t> {
    #[inline]
    pub(super) fn new(group: &Authenticated<'t, GROUP>) -> Self {
        let keys = core::array::from_fn(|message| group.keys.of(message));
        Self { chains: keys.each_ref().map(Chain::new), keys, texts: group.texts, turn: 0 }
    }

    /// What goes between the next rounds: up to [`PORTION`] blocks of each of two messages, an even number.
    #[inline]
    pub(super) fn portion(&mut self) -> Option<Portion<'_, 't>> {
        loop {
            let turn = self.turn;
            let [a, b] = self.texts.get_mut(turn..)?.first_chunk_mut()?;
            let blocks = (a.len().min(b.len()) / 16).min(PORTION) & !1;
            if blocks == 0 {
                self.turn += 2;
                continue;
            }
            let texts = [a, b].map(|text| split_off_blocks(text, blocks));
            let chains = self.chains.get_mut(turn..)?.first_chunk_mut::<2>()?.each_mut();
            return Some((chains, texts));
        }
    }

    /// What is left, and the tags.
    #[inline]
    pub(super) fn tags(mut self, group: &Authenticated<'t, GROUP>) -> [[u8; TAG_LEN]; GROUP] {
        while let Some(([a, b], [texts_a, texts_b])) = self.portion() {
            for (text_a, text_b) in texts_a.iter().zip(texts_b) {
                a.block(text_a);
                b.block(text_b);
            }
        }
        let mut tags = [[0; TAG_LEN]; GROUP];
        let texts = self.texts.iter().zip(&group.texts);
        for ((tag, key), (chain, (rest, text))) in
            tags.iter_mut().zip(&self.keys).zip(self.chains.iter_mut().zip(texts))
        {
            let (blocks, last) = rest.as_chunks::<16>();
            blocks.iter().for_each(|block| chain.block(block));
            if !last.is_empty() {
                chain.block(&piece(last, 0));
            }
            let [low, high] = lengths(text.len());
            chain.block(&(u128::from(high) << 64 | u128::from(low)).to_le_bytes());
            *tag = chain.tag(key);
        }
        tags
    }
}

/// Takes so many blocks from the beginning of a text that has them.
#[inline]
fn split_off_blocks<'t>(text: &mut &'t [u8], blocks: usize) -> &'t [Block] {
    let (front, rest) = text.split_at(blocks * 16);
    *text = rest;
    front.as_chunks().0
}
