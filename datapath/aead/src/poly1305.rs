//! What all Poly1305 kernels share: the clamped key, the end of a tag, and one message done plainly.
//!
//! Radix 2^44: a number modulo 2^130 - 5 is `h0 + h1 * 2^44 + h2 * 2^88`, so that products of limbs
//! fit 128 bits, or the two halves of a 52-bit multiplication, with room for carries that are not
//! propagated at once.

use crate::TAG_LEN;
use crate::chacha::wipe;

pub(crate) const MASK_44: u64 = (1 << 44) - 1;
pub(crate) const MASK_42: u64 = (1 << 42) - 1;

/// The mask of RFC 8439 §2.5, as two little-endian halves.
pub(crate) const CLAMP: [u64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

/// The one-time keys of a group: the first eight words of key stream block 0 (RFC 8439 §2.6), each of all
/// messages beside each other, as a ChaCha20 kernel has them. Wiped on drop.
#[repr(align(64))]
pub(crate) struct OneTimeKeys<const G: usize> {
    pub(crate) words: [[u32; G]; 8],
}

impl<const G: usize> OneTimeKeys<G> {
    pub(crate) const fn new() -> Self {
        Self { words: [[0; G]; 8] }
    }

    /// That of the message in place `message`, below `G`.
    #[inline]
    pub(crate) fn of(&self, message: usize) -> OneTimeKey {
        let words = self.words.each_ref();
        let [r0, r1, r2, r3, s0, s1, s2, s3] =
            words.map(|words| words.get(message).copied().unwrap_or_default());
        let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let [mask_low, mask_high] = CLAMP;
        OneTimeKey {
            r: [wide(r0, r1) & mask_low, wide(r2, r3) & mask_high],
            s: u128::from(wide(s0, s1)) | u128::from(wide(s2, s3)) << 64,
        }
    }
}

impl<const G: usize> Drop for OneTimeKeys<G> {
    fn drop(&mut self) {
        wipe(&mut self.words);
    }
}

/// A one-time key: the clamped multiplier, and what is added at the end.
#[derive(Clone, Copy, Default)]
pub(crate) struct OneTimeKey {
    pub(crate) r: [u64; 2],
    pub(crate) s: u128,
}

/// The low and the high half.
#[inline]
pub(crate) const fn halves_of(value: u128) -> (u64, u64) {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    let low = value as u64;
    let high = (value >> 64) as u64;
    (low, high)
}

/// A 128-bit number in radix 2^44.
#[inline]
pub(crate) const fn limbs(low: u64, high: u64) -> [u64; 3] {
    [low & MASK_44, (low >> 44 | high << 20) & MASK_44, high >> 24]
}

/// The last block of a message without additional data: both lengths (RFC 8439 §2.8).
#[inline]
pub(crate) const fn lengths(text_len: usize) -> [u64; 2] {
    [0, text_len as u64]
}

/// The `N` bytes of a text from `at` on, zeros behind its end.
#[inline]
pub(crate) fn piece<const N: usize>(text: &[u8], at: usize) -> [u8; N] {
    let rest = text.get(at..).unwrap_or_default();
    if let Some(whole) = rest.first_chunk() {
        return *whole;
    }
    let mut out = [0; N];
    let (wide, tail) = rest.as_chunks::<16>();
    let (out_wide, out_tail) = out.split_at_mut(wide.len() * 16);
    for (to, from) in out_wide.as_chunks_mut::<16>().0.iter_mut().zip(wide) {
        *to = *from;
    }
    for (to, from) in out_tail.iter_mut().zip(tail) {
        *to = *from;
    }
    out
}

/// The tag of an accumulator: reduced completely modulo 2^130 - 5, `s` added modulo 2^128.
///
/// Takes limbs up to 2^62; constant time.
#[inline]
pub(crate) fn finish(h: [u64; 3], s: u128) -> [u8; TAG_LEN] {
    let [mut h0, mut h1, mut h2] = h;
    // What is above 2^130 comes back at the bottom, five times.
    h0 += (h2 >> 42) * 5;
    h2 &= MASK_42;
    // Carried up, which adds less than 2^19 to the top: the number is less than twice the modulus.
    h1 += h0 >> 44;
    h0 &= MASK_44;
    h2 += h1 >> 44;
    h1 &= MASK_44;
    // h - (2^130 - 5) = h + 5 - 2^130: taken if it is not negative.
    let g0 = h0 + 5;
    let g1 = h1 + (g0 >> 44);
    let g2 = (h2 + (g1 >> 44)).wrapping_sub(1 << 42);
    // All ones if h is the smaller one.
    let keep = (g2 >> 63).wrapping_neg();
    let h0 = h0 & keep | g0 & MASK_44 & !keep;
    let h1 = h1 & keep | g1 & MASK_44 & !keep;
    let h2 = h2 & keep | g2 & !keep;
    let value = u128::from(h0) | u128::from(h1) << 44 | u128::from(h2) << 88;
    value.wrapping_add(s).to_le_bytes()
}

/// One accumulator in radix 2^44, as RFC 8439 §2.5 reads.
pub(crate) struct Accumulator {
    h: [u64; 3],
    r: [u64; 3],
}

impl Accumulator {
    #[inline]
    pub(crate) fn new(key: &OneTimeKey) -> Self {
        let [low, high] = key.r;
        Self { h: [0; 3], r: limbs(low, high) }
    }

    /// Adds one block of 16 bytes and multiplies.
    ///
    /// Limbs before: h0 < 2^45, h1 < 2^45, h2 < 2^43; with the block below 2^46. The multiplier is
    /// clamped: r2 < 2^36. So each sum of three products stays below 2^100, its carry below 2^56.
    #[inline]
    pub(crate) fn block(&mut self, block: u128) {
        let (low, high) = halves_of(block);
        let [m0, m1, m2] = limbs(low, high);
        let [h0, h1, h2] = self.h;
        let [h0, h1, h2] = [h0 + m0, h1 + m1, h2 + (m2 | 1 << 40)].map(u128::from);
        let [r0, r1, r2] = self.r.map(u128::from);
        // 2^132 = 4 * 2^130 = 20 modulo 2^130 - 5.
        let (s1, s2) = (r1 * 20, r2 * 20);
        let d0 = h0 * r0 + h1 * s2 + h2 * s1;
        let d1 = h0 * r1 + h1 * r0 + h2 * s2 + (d0 >> 44);
        let d2 = h0 * r2 + h1 * r1 + h2 * r0 + (d1 >> 44);
        let (d0, d1, (d2_low, _)) = (halves_of(d0).0, halves_of(d1).0, halves_of(d2));
        let carry = halves_of(d2 >> 42).0 * 5;
        let low = (d0 & MASK_44) + carry;
        self.h = [low & MASK_44, (d1 & MASK_44) + (low >> 44), d2_low & MASK_42];
    }

    /// Adds a text, its last block filled up with zeros (RFC 8439 §2.8).
    #[inline]
    pub(crate) fn text(&mut self, text: &[u8]) {
        let (blocks, rest) = text.as_chunks::<16>();
        for block in blocks {
            self.block(u128::from_le_bytes(*block));
        }
        if !rest.is_empty() {
            let mut last = [0; 16];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            self.block(u128::from_le_bytes(last));
        }
    }

    /// The tag.
    #[inline]
    pub(crate) fn tag(self, key: &OneTimeKey) -> [u8; TAG_LEN] {
        finish(self.h, key.s)
    }
}

#[cfg(test)]
mod tests;
