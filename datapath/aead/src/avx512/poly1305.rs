//! Poly1305, a message in each of eight 64-bit lanes; two such sets take turns, because one alone
//! waits for its own multiplications.
//!
//! Radix 2^44 with the 52-bit multiply-add of IFMA: nine products a block, each as a low and a high
//! half. A high half counts 2^52, which is 2^8 of the next limb (2^10 of 2^130, behind h2).

use core::arch::x86_64::*;

use super::chacha20::load;
use crate::poly1305::{GROUP, Group, MASK_42, MASK_44, OneTimeKey, finish, lengths, piece};

const LANES: usize = 8;

const _: () = assert!(GROUP == 2 * LANES);

/// Computes the tags of a group.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn authenticate(group: &mut Group<'_>) {
    let ([keys_a, keys_b], []) = group.keys.as_chunks::<LANES>() else { return };
    let ([texts_a, texts_b], []) = group.texts.as_chunks::<LANES>() else { return };
    let (mut a, mut b) = (Set::new(keys_a), Set::new(keys_b));
    let all = || group.texts.iter().take(group.count).map(|text| text.len());
    let shortest = if group.count == GROUP { all().min().unwrap_or(0) } else { 0 };
    let longest = all().max().unwrap_or(0);

    let mut at = 0;
    while at + 64 <= shortest {
        let [a0, a1, a2, a3, a4, a5, a6, a7] = pieces(texts_a, at);
        let [b0, b1, b2, b3, b4, b5, b6, b7] = pieces(texts_b, at);
        a.block(a0, a1);
        b.block(b0, b1);
        a.block(a2, a3);
        b.block(b2, b3);
        a.block(a4, a5);
        b.block(b4, b5);
        a.block(a6, a7);
        b.block(b6, b7);
        at += 64;
    }
    while at < longest {
        let [a0, a1, a2, a3, a4, a5, a6, a7] = pieces(texts_a, at);
        let [b0, b1, b2, b3, b4, b5, b6, b7] = pieces(texts_b, at);
        let blocks = [
            ([a0, a1], [b0, b1]),
            ([a2, a3], [b2, b3]),
            ([a4, a5], [b4, b5]),
            ([a6, a7], [b6, b7]),
        ];
        for ([a_low, a_high], [b_low, b_high]) in blocks {
            a.block_if(longer(texts_a, at), a_low, a_high);
            b.block_if(longer(texts_b, at), b_low, b_high);
            at += 16;
        }
    }
    let [low, high] = text_lengths(texts_a);
    a.block(low, high);
    let [low, high] = text_lengths(texts_b);
    b.block(low, high);

    let limbs = a.limbs().into_iter().chain(b.limbs());
    for ((tag, key), limbs) in group.tags.iter_mut().zip(&group.keys).zip(limbs) {
        *tag = finish(limbs, key.s);
    }
}

/// Eight accumulators and their multipliers, in radix 2^44.
///
/// INVARIANT of `h` between blocks: h0 < 2^50, h1 < 2^45, h2 < 2^43. With a block added, every limb
/// is below the 2^52 that the multiplication looks at.
struct Set {
    h: [__m512i; 3],
    /// r0, r1 < 2^44, r2 < 2^36, clamped.
    r: [__m512i; 3],
    /// 20 * r1 < 2^49 and 20 * r2 < 2^41: 2^132 is 20 modulo 2^130 - 5.
    s: [__m512i; 2],
}

impl Set {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn new(keys: &[OneTimeKey; LANES]) -> Self {
        let low = words(&keys.map(|key| key.r[0]));
        let high = words(&keys.map(|key| key.r[1]));
        let r = split(low, high);
        Self { h: [_mm512_setzero_si512(); 3], r, s: [times_20(r[1]), times_20(r[2])] }
    }

    /// Adds a block of 16 bytes in each lane and multiplies.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn block(&mut self, low: __m512i, high: __m512i) {
        let [m0, m1, m2] = split(low, high);
        let h0 = _mm512_add_epi64(self.h[0], m0);
        let h1 = _mm512_add_epi64(self.h[1], m1);
        let h2 = _mm512_or_si512(m2, _mm512_set1_epi64(1 << 40));
        let h2 = _mm512_add_epi64(self.h[2], h2);
        let [r0, r1, r2] = self.r;
        let [s1, s2] = self.s;
        // d = h * r, limb by limb. Low halves: three of 52 bits, below 2^54. High halves: h0 < 2^51,
        // h1 < 2^46, h2 < 2^44, so the sums are below 2^44 (d0), 2^44 (d1), 2^38 (d2).
        let [d0, e0] = sum_of_products([h2, h1, h0], [s1, s2, r0]);
        let [d1, e1] = sum_of_products([h2, h1, h0], [s2, r0, r1]);
        let [d2, e2] = sum_of_products([h2, h1, h0], [r0, r1, r2]);
        // Carries, each one limb up and no further: what remains above a limb is small.
        let d1 = _mm512_add_epi64(d1, _mm512_slli_epi64::<8>(e0));
        let d2 = _mm512_add_epi64(d2, _mm512_slli_epi64::<8>(e1));
        let around = _mm512_add_epi64(_mm512_srli_epi64::<42>(d2), _mm512_slli_epi64::<10>(e2));
        self.h = [
            _mm512_add_epi64(_mm512_and_si512(d0, mask(MASK_44)), times_5(around)),
            _mm512_add_epi64(_mm512_and_si512(d1, mask(MASK_44)), _mm512_srli_epi64::<44>(d0)),
            _mm512_add_epi64(_mm512_and_si512(d2, mask(MASK_42)), _mm512_srli_epi64::<44>(d1)),
        ];
    }

    /// As [`Self::block`], in the lanes of `lanes` only.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn block_if(&mut self, lanes: __mmask8, low: __m512i, high: __m512i) {
        let before = self.h;
        self.block(low, high);
        for (after, before) in self.h.iter_mut().zip(before) {
            *after = _mm512_mask_mov_epi64(before, lanes, *after);
        }
    }

    /// The accumulators, lane by lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn limbs(&self) -> [[u64; 3]; LANES] {
        let [h0, h1, h2] = self.h;
        let (h0, h1, h2) = (unpacked(h0), unpacked(h1), unpacked(h2));
        let mut out = [[0; 3]; LANES];
        for (out, ((h0, h1), h2)) in out.iter_mut().zip(h0.into_iter().zip(h1).zip(h2)) {
            *out = [h0, h1, h2];
        }
        out
    }
}

/// The next 64 bytes of eight texts, as the low and high halves of four blocks. Bytes behind the
/// end of a text are zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn pieces(texts: &[&[u8]; LANES], at: usize) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = *texts;
    let (a, b) = (load(&piece(a, at)), load(&piece(b, at)));
    let (c, d) = (load(&piece(c, at)), load(&piece(d, at)));
    let (e, f) = (load(&piece(e, at)), load(&piece(f, at)));
    let (g, h) = (load(&piece(g, at)), load(&piece(h, at)));
    let [l0, l2, l4, l6] = quarters(
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    );
    let [h1, h3, h5, h7] = quarters(
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    );
    [l0, h1, l2, h3, l4, h5, l6, h7]
}

/// Quarter i of vector j becomes quarter j of vector i.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn quarters(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
    let low_ab = _mm512_shuffle_i64x2::<0x44>(a, b);
    let high_ab = _mm512_shuffle_i64x2::<0xee>(a, b);
    let low_cd = _mm512_shuffle_i64x2::<0x44>(c, d);
    let high_cd = _mm512_shuffle_i64x2::<0xee>(c, d);
    [
        _mm512_shuffle_i64x2::<0x88>(low_ab, low_cd),
        _mm512_shuffle_i64x2::<0xdd>(low_ab, low_cd),
        _mm512_shuffle_i64x2::<0x88>(high_ab, high_cd),
        _mm512_shuffle_i64x2::<0xdd>(high_ab, high_cd),
    ]
}

/// The lanes whose text goes on at `at`.
#[inline]
fn longer(texts: &[&[u8]; LANES], at: usize) -> __mmask8 {
    (0..).zip(texts).fold(0, |lanes, (lane, text)| lanes | u8::from(text.len() > at) << lane)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn text_lengths(texts: &[&[u8]; LANES]) -> [__m512i; 2] {
    let lengths = texts.map(|text| lengths(text.len()));
    [words(&lengths.map(|[low, _]| low)), words(&lengths.map(|[_, high]| high))]
}

/// 128-bit numbers in radix 2^44.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn split(low: __m512i, high: __m512i) -> [__m512i; 3] {
    [
        _mm512_and_si512(low, mask(MASK_44)),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), mask(MASK_44)),
        _mm512_srli_epi64::<24>(high),
    ]
}

/// The sums of the low and of the high 52 bits of three products.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn sum_of_products(a: [__m512i; 3], b: [__m512i; 3]) -> [__m512i; 2] {
    let mut sums = [_mm512_setzero_si512(); 2];
    for (a, b) in a.into_iter().zip(b) {
        sums = [add_product_low(sums[0], a, b), add_product_high(sums[1], a, b)];
    }
    sums
}

#[inline]
#[cfg(not(miri))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn add_product_low(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    _mm512_madd52lo_epu64(sum, a, b)
}

#[inline]
#[cfg(not(miri))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn add_product_high(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    _mm512_madd52hi_epu64(sum, a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn times_5(x: __m512i) -> __m512i {
    _mm512_add_epi64(x, _mm512_slli_epi64::<2>(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn times_20(x: __m512i) -> __m512i {
    _mm512_slli_epi64::<2>(times_5(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn mask(bits: u64) -> __m512i {
    _mm512_set1_epi64(bits.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn words(words: &[u64; LANES]) -> __m512i {
    // SAFETY: the 64 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn unpacked(vector: __m512i) -> [u64; LANES] {
    let mut out = [0_u64; LANES];
    // SAFETY: the 64 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), vector) };
    out
}

/// The two instructions that Miri does not have, from Intel's description of VPMADD52LUQ and
/// VPMADD52HUQ: everything else of this kernel runs there, on machines without AVX-512 too.
#[cfg(miri)]
mod miri {
    use super::*;

    fn products(a: __m512i, b: __m512i) -> [u128; LANES] {
        const LOW_52: u64 = (1 << 52) - 1;
        // SAFETY: the caller has AVX-512.
        let (a, b) = unsafe { (unpacked(a), unpacked(b)) };
        core::array::from_fn(|i| u128::from(a[i] & LOW_52) * u128::from(b[i] & LOW_52))
    }

    fn added(sum: __m512i, addends: [u64; LANES]) -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_add_epi64(sum, words(&addends)) }
    }

    pub(super) fn add_product_low(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        added(sum, products(a, b).map(|product| product as u64 & ((1 << 52) - 1)))
    }

    pub(super) fn add_product_high(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        added(sum, products(a, b).map(|product| (product >> 52) as u64))
    }
}
#[cfg(miri)]
use miri::{add_product_high, add_product_low};
