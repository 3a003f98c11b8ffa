//! Poly1305, a message in each of four 64-bit lanes; two such sets take turns, because one alone
//! waits for its own multiplications.
//!
//! Radix 2^26, because AVX2 multiplies 32 bits by 32: five limbs, 25 products a block.

use core::arch::x86_64::*;

use super::GROUP;
use super::chacha20::load;
use crate::TAG_LEN;
use crate::kernel::Authenticated;
use crate::poly1305::{CLAMP, MASK_44, OneTimeKeys, finish, lengths, piece};

const LANES: usize = 4;

const _: () = assert!(GROUP == 2 * LANES, "a group is two sets");

/// Computes the tags of a group.
#[target_feature(enable = "avx2")]
pub(super) fn authenticate(group: &Authenticated<'_, GROUP>) -> [[u8; TAG_LEN]; GROUP] {
    let (mut a, mut b) = (Set::new::<0>(group.keys), Set::new::<1>(group.keys));
    let [t0, t1, t2, t3, t4, t5, t6, t7] = group.texts;
    let (texts_a, texts_b) = ([t0, t1, t2, t3], [t4, t5, t6, t7]);
    let lens = group.texts.map(<[u8]>::len);
    let shortest = lens.iter().take(group.count).copied().min().unwrap_or(0);
    let longest = lens.into_iter().max().unwrap_or(0);

    let mut at = 0;
    while at + 32 <= shortest {
        let [a0, a1, a2, a3] = pieces(&texts_a, at);
        let [b0, b1, b2, b3] = pieces(&texts_b, at);
        a.block(a0, a1);
        b.block(b0, b1);
        a.block(a2, a3);
        b.block(b2, b3);
        at += 32;
    }
    while at < longest {
        let [a0, a1, a2, a3] = pieces(&texts_a, at);
        let [b0, b1, b2, b3] = pieces(&texts_b, at);
        a.block_if(longer(&texts_a, at), a0, a1);
        b.block_if(longer(&texts_b, at), b0, b1);
        a.block_if(longer(&texts_a, at + 16), a2, a3);
        b.block_if(longer(&texts_b, at + 16), b2, b3);
        at += 32;
    }
    let [low, high] = text_lengths(&texts_a);
    a.block(low, high);
    let [low, high] = text_lengths(&texts_b);
    b.block(low, high);

    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.tags(), b.tags());
    [a0, a1, a2, a3, b0, b1, b2, b3]
}

/// Four accumulators and their multipliers, in radix 2^26.
///
/// INVARIANT of `h` between blocks: limbs below 2^26, but h1 and h4 below 2^26 + 2^10.
struct Set {
    h: [__m256i; 5],
    r: [__m256i; 5],
    /// 5 * r1 to 5 * r4: what leaves at 2^130 comes back at 1, times 5.
    s: [__m256i; 4],
    /// What is added at the end, in two halves.
    end: [__m256i; 2],
}

impl Set {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new<const HALF: usize>(keys: &OneTimeKeys<GROUP>) -> Self {
        let [w0, w1, w2, w3, w4, w5, w6, w7] = &keys.words;
        let (low, high) = (wide::<HALF>(w0, w1), wide::<HALF>(w2, w3));
        let (s_low, s_high) = (wide::<HALF>(w4, w5), wide::<HALF>(w6, w7));
        let [clamp_low, clamp_high] = CLAMP.map(u64::cast_signed);
        let low = _mm256_and_si256(low, _mm256_set1_epi64x(clamp_low));
        let high = _mm256_and_si256(high, _mm256_set1_epi64x(clamp_high));
        let r = split(low, high);
        let [_, r1, r2, r3, r4] = r;
        Self {
            h: [_mm256_setzero_si256(); 5],
            r,
            s: [times_5(r1), times_5(r2), times_5(r3), times_5(r4)],
            end: [s_low, s_high],
        }
    }

    /// Adds a block of 16 bytes in each lane and multiplies.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn block(&mut self, low: __m256i, high: __m256i) {
        let [m0, m1, m2, m3, m4] = split(low, high);
        let [h0, h1, h2, h3, h4] = self.h;
        let h0 = _mm256_add_epi64(h0, m0);
        let h1 = _mm256_add_epi64(h1, m1);
        let h2 = _mm256_add_epi64(h2, m2);
        let h3 = _mm256_add_epi64(h3, m3);
        let h4 = _mm256_add_epi64(h4, _mm256_or_si256(m4, _mm256_set1_epi64x(1 << 24)));
        let [r0, r1, r2, r3, r4] = self.r;
        let [s1, s2, s3, s4] = self.s;
        // Limbs of h are below 2^27.1 here, of r below 2^26, of s below 2^28.4: five products are
        // below 2^57.9.
        let d0 = sum_of_products([h0, h1, h2, h3, h4], [r0, s4, s3, s2, s1]);
        let d1 = sum_of_products([h0, h1, h2, h3, h4], [r1, r0, s4, s3, s2]);
        let d2 = sum_of_products([h0, h1, h2, h3, h4], [r2, r1, r0, s4, s3]);
        let d3 = sum_of_products([h0, h1, h2, h3, h4], [r3, r2, r1, r0, s4]);
        let d4 = sum_of_products([h0, h1, h2, h3, h4], [r4, r3, r2, r1, r0]);
        // Two chains of carries, 0 1 2 3 and 3 4 0 1, that meet.
        let (d0, d1) = carry(d0, d1);
        let (d3, d4) = carry(d3, d4);
        let (d1, d2) = carry(d1, d2);
        let around = times_5(_mm256_srli_epi64::<26>(d4));
        let d4 = _mm256_and_si256(d4, mask_26());
        let d0 = _mm256_add_epi64(d0, around);
        let (d2, d3) = carry(d2, d3);
        let (d0, d1) = carry(d0, d1);
        let (d3, d4) = carry(d3, d4);
        self.h = [d0, d1, d2, d3, d4];
    }

    /// As [`Self::block`], in the lanes of `mask` only.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn block_if(&mut self, mask: __m256i, low: __m256i, high: __m256i) {
        let before = self.h;
        self.block(low, high);
        for (after, before) in self.h.iter_mut().zip(before) {
            *after = _mm256_blendv_epi8(before, *after, mask);
        }
    }

    /// The tags, lane by lane.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tags(&self) -> [[u8; TAG_LEN]; LANES] {
        let [h0, h1, h2, h3, h4] = self.h;
        let (h0, h1, h2) = (unpacked(h0), unpacked(h1), unpacked(h2));
        let (h3, h4) = (unpacked(h3), unpacked(h4));
        let [end_low, end_high] = self.end;
        let end = unpacked(end_low).into_iter().zip(unpacked(end_high));
        let mut tags = [[0; TAG_LEN]; LANES];
        let limbs = h0.into_iter().zip(h1).zip(h2).zip(h3).zip(h4);
        for ((tag, ((((h0, h1), h2), h3), h4)), (end_low, end_high)) in
            tags.iter_mut().zip(limbs).zip(end)
        {
            // In radix 2^44. Below 2^79, then below 2^87.
            let low = u128::from(h0) + (u128::from(h1) << 26) + (u128::from(h2) << 52);
            let high = (low >> 44) + (u128::from(h3) << 34) + (u128::from(h4) << 60);
            let limbs = [low_64(low) & MASK_44, low_64(high) & MASK_44, low_64(high >> 44)];
            *tag = finish(limbs, u128::from(end_low) | u128::from(end_high) << 64);
        }
        tags
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn low_64(value: u128) -> u64 {
    value as u64
}

/// The next 32 bytes of four texts, as the low and high halves of block 0 and of block 1. Bytes
/// behind the end of a text are zeros.
#[inline]
#[target_feature(enable = "avx2")]
fn pieces(texts: &[&[u8]; LANES], at: usize) -> [__m256i; 4] {
    let [a, b, c, d] = *texts;
    let (a, b) = (load(&piece(a, at)), load(&piece(b, at)));
    let (c, d) = (load(&piece(c, at)), load(&piece(d, at)));
    let ab_low = _mm256_unpacklo_epi64(a, b);
    let ab_high = _mm256_unpackhi_epi64(a, b);
    let cd_low = _mm256_unpacklo_epi64(c, d);
    let cd_high = _mm256_unpackhi_epi64(c, d);
    [
        _mm256_permute2x128_si256::<0x20>(ab_low, cd_low),
        _mm256_permute2x128_si256::<0x20>(ab_high, cd_high),
        _mm256_permute2x128_si256::<0x31>(ab_low, cd_low),
        _mm256_permute2x128_si256::<0x31>(ab_high, cd_high),
    ]
}

/// All ones in the lanes whose text goes on at `at`.
#[inline]
#[target_feature(enable = "avx2")]
fn longer(texts: &[&[u8]; LANES], at: usize) -> __m256i {
    let [a, b, c, d] = texts.map(|text| u64::from(text.len() > at).wrapping_neg());
    words(a, b, c, d)
}

#[inline]
#[target_feature(enable = "avx2")]
fn text_lengths(texts: &[&[u8]; LANES]) -> [__m256i; 2] {
    let [a, b, c, d] = texts.map(|text| lengths(text.len()));
    [words(a[0], b[0], c[0], d[0]), words(a[1], b[1], c[1], d[1])]
}

/// Low and high words of half of the messages, the first or the second, as 64-bit numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn wide<const HALF: usize>(low: &[u32; GROUP], high: &[u32; GROUP]) -> __m256i {
    let half = |words: &[u32; GROUP]| match words.as_chunks::<LANES>() {
        ([first, second], []) => {
            _mm256_cvtepu32_epi64(words_4(if HALF == 0 { first } else { second }))
        }
        _ => _mm256_setzero_si256(),
    };
    _mm256_or_si256(half(low), _mm256_slli_epi64::<32>(half(high)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn words_4(words: &[u32; LANES]) -> __m128i {
    // SAFETY: the 16 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

/// 128-bit numbers in radix 2^26.
#[inline]
#[target_feature(enable = "avx2")]
fn split(low: __m256i, high: __m256i) -> [__m256i; 5] {
    let middle = _mm256_or_si256(_mm256_srli_epi64::<52>(low), _mm256_slli_epi64::<12>(high));
    [
        _mm256_and_si256(low, mask_26()),
        _mm256_and_si256(_mm256_srli_epi64::<26>(low), mask_26()),
        _mm256_and_si256(middle, mask_26()),
        _mm256_and_si256(_mm256_srli_epi64::<14>(high), mask_26()),
        _mm256_srli_epi64::<40>(high),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_of_products(a: [__m256i; 5], b: [__m256i; 5]) -> __m256i {
    let p0 = _mm256_mul_epu32(a[0], b[0]);
    let p1 = _mm256_mul_epu32(a[1], b[1]);
    let p2 = _mm256_mul_epu32(a[2], b[2]);
    let p3 = _mm256_mul_epu32(a[3], b[3]);
    let p4 = _mm256_mul_epu32(a[4], b[4]);
    _mm256_add_epi64(_mm256_add_epi64(_mm256_add_epi64(p0, p1), _mm256_add_epi64(p2, p3)), p4)
}

/// Moves what exceeds 26 bits from a limb to the next one.
#[inline]
#[target_feature(enable = "avx2")]
fn carry(limb: __m256i, next: __m256i) -> (__m256i, __m256i) {
    let excess = _mm256_srli_epi64::<26>(limb);
    (_mm256_and_si256(limb, mask_26()), _mm256_add_epi64(next, excess))
}

#[inline]
#[target_feature(enable = "avx2")]
fn times_5(x: __m256i) -> __m256i {
    _mm256_add_epi64(x, _mm256_slli_epi64::<2>(x))
}

#[inline]
#[target_feature(enable = "avx2")]
fn mask_26() -> __m256i {
    _mm256_set1_epi64x((1 << 26) - 1)
}

#[inline]
#[target_feature(enable = "avx2")]
fn words(a: u64, b: u64, c: u64, d: u64) -> __m256i {
    _mm256_setr_epi64x(a.cast_signed(), b.cast_signed(), c.cast_signed(), d.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn unpacked(vector: __m256i) -> [u64; LANES] {
    let mut out = [0_u64; LANES];
    // SAFETY: the 32 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), vector) };
    out
}
