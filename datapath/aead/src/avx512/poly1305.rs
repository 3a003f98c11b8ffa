//! Poly1305, a message in each of eight 64-bit lanes; two such sets take turns, because one alone
//! waits for its own multiplications.
//!
//! Radix 2^44 with the 52-bit multiply-add of IFMA: nine products a block, each as a low and a high
//! half. A high half counts 2^52, which is 2^8 of the next limb (2^10 of 2^130, behind h2).
//!
//! If any message of a group is long, four blocks of all that have them are one step, so that there is one
//! reduction instead of four: h = (h + m0) r^4 + m1 r^3 + m2 r^2 + m3 r.

use core::arch::x86_64::*;

use super::GROUP;
use super::chacha20::{load, load_first, store};
use crate::TAG_LEN;
use crate::kernel::Authenticated;
use crate::poly1305::{CLAMP, MASK_42, MASK_44, OneTimeKeys};

const LANES: usize = 8;

/// Computes the tags of a group.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn authenticate(group: &Authenticated<'_, GROUP>) -> [[u8; TAG_LEN]; GROUP] {
    let Authenticated { keys, texts, count } = group;
    let mut tags = [[0; TAG_LEN]; GROUP];
    let ([texts_a, texts_b], []) = texts.as_chunks::<LANES>() else { return tags };
    let ([tags_a, tags_b], []) = tags.as_chunks_mut::<LANES>() else { return tags };
    let (mut a, mut b) = (Set::new::<0>(keys), Set::new::<1>(keys));
    let (lens_a, lens_b) = (text_lengths(texts_a), text_lengths(texts_b));
    let mut rests = [(*texts_a, lens_a), (*texts_b, lens_b)];
    let lens = texts.iter().take(*count).map(|text| text.len());
    let (shortest, longest) = (lens.clone().min().unwrap_or(0), lens.max().unwrap_or(0));

    if longest >= LONG {
        let (powers_a, powers_b) = (a.powers(), b.powers());
        let mut at = 0;
        while at + 64 <= shortest {
            let pieces = [whole_pieces(texts_a, at), whole_pieces(texts_b, at)];
            [a.h, b.h] = four_blocks([a.h, b.h], pieces, [&powers_a, &powers_b]);
            at += 64;
        }
        while at + 64 <= longest {
            let (lanes_a, lanes_b) = (reach(lens_a, at + 64), reach(lens_b, at + 64));
            let after_a = four_blocks_of_one(a.h, whole_pieces(texts_a, at), &powers_a);
            a.take_in(lanes_a, after_a);
            if lanes_b != 0 {
                let after_b = four_blocks_of_one(b.h, whole_pieces(texts_b, at), &powers_b);
                b.take_in(lanes_b, after_b);
            }
            at += 64;
        }
        rests = [(*texts_a, lens_a), (*texts_b, lens_b)]
            .map(|(texts, lens)| (texts.map(behind_whole), _mm512_and_si512(lens, all(63))));
    }
    rest([&mut a, &mut b], &rests);
    [a.h, b.h] = one_block([&a, &b], [lens_a, lens_b].map(|lens| [_mm512_setzero_si512(), lens]));
    *tags_a = a.tags();
    *tags_b = b.tags();
    tags
}

/// A text of so many bytes is long: three powers more cost about what a few steps with them save.
const LONG: usize = 256;

/// A power of r as a multiplier.
#[derive(Clone, Copy)]
struct Power {
    /// Limbs below 2^44, 2^45 and 2^43; of r itself, which is clamped, less.
    r: [__m512i; 3],
    /// 20 times the upper two, below 2^50 and 2^48: 2^132 is 20 modulo 2^130 - 5.
    s: [__m512i; 2],
}

impl Power {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn new(r: [__m512i; 3]) -> Self {
        Self { r, s: [times_20(r[1]), times_20(r[2])] }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn times(&self, other: &Self) -> Self {
        let mut sum = Sum::zero();
        sum.add(self.r, other);
        Self::new(sum.reduced())
    }
}

/// A sum of at most four products of a number of limbs below 2^45, 2^46 and 2^44 and a [`Power`],
/// limb by limb: the low and the high 52 bits.
///
/// Twelve low halves are below 2^56. A limb's product is below 2^96, so a high half is below 2^44 and
/// twelve are below 2^48; of the topmost limb, where the factors are smaller, below 2^42.
struct Sum {
    low: [__m512i; 3],
    high: [__m512i; 3],
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn zero() -> Self {
        Self { low: [_mm512_setzero_si512(); 3], high: [_mm512_setzero_si512(); 3] }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn add(&mut self, [x0, x1, x2]: [__m512i; 3], power: &Power) {
        let Power { r: [r0, r1, r2], s: [s1, s2] } = *power;
        let [l0, l1, l2] = self.low;
        let [h0, h1, h2] = self.high;
        let (l0, h0) = add_product(l0, h0, x2, s1);
        let (l1, h1) = add_product(l1, h1, x2, s2);
        let (l2, h2) = add_product(l2, h2, x2, r0);
        let (l0, h0) = add_product(l0, h0, x1, s2);
        let (l1, h1) = add_product(l1, h1, x1, r0);
        let (l2, h2) = add_product(l2, h2, x1, r1);
        let (l0, h0) = add_product(l0, h0, x0, r0);
        let (l1, h1) = add_product(l1, h1, x0, r1);
        let (l2, h2) = add_product(l2, h2, x0, r2);
        (self.low, self.high) = ([l0, l1, l2], [h0, h1, h2]);
    }

    /// Modulo 2^130 - 5, with limbs below 2^44, 2^44 + 2^13 and 2^42 + 2^13. What leaves the upper limb
    /// comes back into the lowest one times 5, which is below 2^55 then.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn reduced(self) -> [__m512i; 3] {
        let [d0, d1, d2] = self.low;
        let [e0, e1, e2] = self.high;
        let d1 = _mm512_add_epi64(d1, _mm512_slli_epi64::<8>(e0));
        let d2 = _mm512_add_epi64(d2, _mm512_slli_epi64::<8>(e1));
        let around = _mm512_add_epi64(_mm512_srli_epi64::<42>(d2), _mm512_slli_epi64::<10>(e2));
        let h0 = _mm512_add_epi64(_mm512_and_si512(d0, all(MASK_44)), times_5(around));
        let h1 = _mm512_add_epi64(_mm512_and_si512(d1, all(MASK_44)), _mm512_srli_epi64::<44>(d0));
        [
            _mm512_and_si512(h0, all(MASK_44)),
            _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0)),
            _mm512_add_epi64(_mm512_and_si512(d2, all(MASK_42)), _mm512_srli_epi64::<44>(d1)),
        ]
    }
}

/// Four blocks of two sets, as the low and high halves of each, into their accumulators. `powers` are r,
/// r^2, r^3 and r^4.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn four_blocks(
    [h_a, h_b]: [[__m512i; 3]; 2],
    [pieces_a, pieces_b]: [[__m512i; LANES]; 2],
    [powers_a, powers_b]: [&[Power; 4]; 2],
) -> [[__m512i; 3]; 2] {
    let [a0, a1, a2, a3, a4, a5, a6, a7] = pieces_a;
    let [b0, b1, b2, b3, b4, b5, b6, b7] = pieces_b;
    let (mut a, mut b) = (Sum::zero(), Sum::zero());
    a.add(with_block(h_a, a0, a1), &powers_a[3]);
    b.add(with_block(h_b, b0, b1), &powers_b[3]);
    a.add(block(a2, a3), &powers_a[2]);
    b.add(block(b2, b3), &powers_b[2]);
    a.add(block(a4, a5), &powers_a[1]);
    b.add(block(b4, b5), &powers_b[1]);
    a.add(block(a6, a7), &powers_a[0]);
    b.add(block(b6, b7), &powers_b[0]);
    [a.reduced(), b.reduced()]
}

/// The same in one set.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn four_blocks_of_one(
    h: [__m512i; 3],
    [a0, a1, a2, a3, a4, a5, a6, a7]: [__m512i; LANES],
    powers: &[Power; 4],
) -> [__m512i; 3] {
    let mut sum = Sum::zero();
    sum.add(with_block(h, a0, a1), &powers[3]);
    sum.add(block(a2, a3), &powers[2]);
    sum.add(block(a4, a5), &powers[1]);
    sum.add(block(a6, a7), &powers[0]);
    sum.reduced()
}

/// A block of 16 bytes in each lane as a number, with the bit behind its end (RFC 8439 §2.5.1).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn block(low: __m512i, high: __m512i) -> [__m512i; 3] {
    let [m0, m1, m2] = split(low, high);
    [m0, m1, _mm512_or_si512(m2, all(1 << 40))]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn with_block([h0, h1, h2]: [__m512i; 3], low: __m512i, high: __m512i) -> [__m512i; 3] {
    let [m0, m1, m2] = block(low, high);
    [_mm512_add_epi64(h0, m0), _mm512_add_epi64(h1, m1), _mm512_add_epi64(h2, m2)]
}

/// Eight accumulators and their multipliers, in radix 2^44.
struct Set {
    /// As [`Sum::reduced`] leaves it.
    h: [__m512i; 3],
    r: Power,
    /// What is added at the end, in two halves.
    end: [__m512i; 2],
}

impl Set {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn new<const HALF: usize>(keys: &OneTimeKeys<GROUP>) -> Self {
        let [w0, w1, w2, w3, w4, w5, w6, w7] = &keys.words;
        let (low, high) = (wide::<HALF>(w0, w1), wide::<HALF>(w2, w3));
        let (end_low, end_high) = (wide::<HALF>(w4, w5), wide::<HALF>(w6, w7));
        let [clamp_low, clamp_high] = CLAMP;
        let low = _mm512_and_si512(low, all(clamp_low));
        let high = _mm512_and_si512(high, all(clamp_high));
        Self {
            h: [_mm512_setzero_si512(); 3],
            r: Power::new(split(low, high)),
            end: [end_low, end_high],
        }
    }

    /// r, r^2, r^3 and r^4.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn powers(&self) -> [Power; 4] {
        let square = self.r.times(&self.r);
        [self.r, square, square.times(&self.r), square.times(&square)]
    }

    /// Takes other accumulators, in some lanes only.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn take_in(&mut self, lanes: __mmask8, after: [__m512i; 3]) {
        for (before, after) in self.h.iter_mut().zip(after) {
            *before = _mm512_mask_mov_epi64(*before, lanes, after);
        }
    }

    /// The tags, lane by lane: as [`crate::poly1305::finish`], which says why this is enough.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn tags(&self) -> [[u8; TAG_LEN]; LANES] {
        let [h0, h1, h2] = self.h;
        let h0 = _mm512_add_epi64(h0, times_5(_mm512_srli_epi64::<42>(h2)));
        let h2 = _mm512_and_si512(h2, all(MASK_42));
        let h1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0));
        let h0 = _mm512_and_si512(h0, all(MASK_44));
        let h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
        let h1 = _mm512_and_si512(h1, all(MASK_44));
        let g0 = _mm512_add_epi64(h0, all(5));
        let g1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(g0));
        let g2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(g1));
        let g2 = _mm512_sub_epi64(g2, all(1 << 42));
        // The sign of the difference is set where the number is the smaller one.
        let keep = _mm512_movepi64_mask(g2);
        let h0 = _mm512_mask_mov_epi64(_mm512_and_si512(g0, all(MASK_44)), keep, h0);
        let h1 = _mm512_mask_mov_epi64(_mm512_and_si512(g1, all(MASK_44)), keep, h1);
        let h2 = _mm512_mask_mov_epi64(g2, keep, h2);
        let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
        let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
        let [end_low, end_high] = self.end;
        let low = _mm512_add_epi64(low, end_low);
        let carry = _mm512_cmplt_epu64_mask(low, end_low);
        let high = _mm512_add_epi64(high, end_high);
        let high = _mm512_mask_add_epi64(high, carry, high, all(1));
        let first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        let second = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
        let mut tags = [[0; TAG_LEN]; LANES];
        if let ([four, other_four], []) = tags.as_flattened_mut().as_chunks_mut() {
            store(four, _mm512_permutex2var_epi64(low, first, high));
            store(other_four, _mm512_permutex2var_epi64(low, second, high));
        }
        tags
    }
}

/// The accumulators of two sets after a block of 16 bytes in each lane, given in halves: added, and multiplied.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn one_block([a, b]: [&Set; 2], [block_a, block_b]: [[__m512i; 2]; 2]) -> [[__m512i; 3]; 2] {
    let ([low_a, high_a], [low_b, high_b]) = (block_a, block_b);
    let (mut sum_a, mut sum_b) = (Sum::zero(), Sum::zero());
    sum_a.add(with_block(a.h, low_a, high_a), &a.r);
    sum_b.add(with_block(b.h, low_b, high_b), &b.r);
    [sum_a.reduced(), sum_b.reduced()]
}

/// Eight texts, and their lengths.
type Texts<'t> = ([&'t [u8]; LANES], __m512i);

/// Adds texts of any length, given with their lengths.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn rest([a, b]: [&mut Set; 2], [(texts_a, lens_a), (texts_b, lens_b)]: &[Texts<'_>; 2]) {
    let longer = |at| (reach(*lens_a, at + 1), reach(*lens_b, at + 1));
    let mut at = 0;
    while longer(at) != (0, 0) {
        let [a0, a1, a2, a3, a4, a5, a6, a7] = pieces(texts_a, at);
        let [b0, b1, b2, b3, b4, b5, b6, b7] = pieces(texts_b, at);
        for [a_low, a_high, b_low, b_high] in
            [[a0, a1, b0, b1], [a2, a3, b2, b3], [a4, a5, b4, b5], [a6, a7, b6, b7]]
        {
            let (lanes_a, lanes_b) = longer(at);
            if (lanes_a, lanes_b) == (0, 0) {
                break;
            }
            let [after_a, after_b] = one_block([&*a, &*b], [[a_low, a_high], [b_low, b_high]]);
            a.take_in(lanes_a, after_a);
            b.take_in(lanes_b, after_b);
            at += 16;
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn text_lengths(texts: &[&[u8]; LANES]) -> __m512i {
    words(&texts.map(|text| text.len() as u64))
}

/// The lanes whose texts have at least so many bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn reach(lens: __m512i, bytes: usize) -> __mmask8 {
    _mm512_cmpge_epu64_mask(lens, all(bytes as u64))
}

/// The next 64 bytes of those of eight texts that have them, zeros of the others, as the low and high halves of
/// four blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn whole_pieces(texts: &[&[u8]; LANES], at: usize) -> [__m512i; 8] {
    transposed(texts.map(|text| match text.get(at..).and_then(<[u8]>::first_chunk) {
        Some(whole) => load(whole),
        None => _mm512_setzero_si512(),
    }))
}

/// What is left of a text behind its last whole 64 bytes.
#[inline]
fn behind_whole(text: &[u8]) -> &[u8] {
    text.as_chunks::<64>().1
}

/// The next 64 bytes of eight texts, zeros behind the end of each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn pieces(texts: &[&[u8]; LANES], at: usize) -> [__m512i; 8] {
    transposed(texts.map(|text| load_first(text.get(at..).unwrap_or_default())))
}

/// Word i of vector j becomes word j of vector i.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn transposed([a, b, c, d, e, f, g, h]: [__m512i; LANES]) -> [__m512i; LANES] {
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

/// Low and high words of half of the messages, the first or the second, as 64-bit numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn wide<const HALF: usize>(low: &[u32; GROUP], high: &[u32; GROUP]) -> __m512i {
    let half = |words: &[u32; GROUP]| match words.as_chunks::<LANES>() {
        ([first, second], []) => {
            _mm512_cvtepu32_epi64(words_8(if HALF == 0 { first } else { second }))
        }
        _ => _mm512_setzero_si512(),
    };
    _mm512_or_si512(half(low), _mm512_slli_epi64::<32>(half(high)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn words_8(words: &[u32; LANES]) -> __m256i {
    // SAFETY: the 32 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// 128-bit numbers in radix 2^44.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn split(low: __m512i, high: __m512i) -> [__m512i; 3] {
    [
        _mm512_and_si512(low, all(MASK_44)),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), all(MASK_44)),
        _mm512_srli_epi64::<24>(high),
    ]
}

/// Adds the low and the high 52 bits of a product to two sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn add_product(low: __m512i, high: __m512i, a: __m512i, b: __m512i) -> (__m512i, __m512i) {
    (add_product_low(low, a, b), add_product_high(high, a, b))
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
fn all(bits: u64) -> __m512i {
    _mm512_set1_epi64(bits.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn words(words: &[u64; LANES]) -> __m512i {
    // SAFETY: the 64 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// The two instructions that Miri does not have, from Intel's description of VPMADD52LUQ and
/// VPMADD52HUQ: everything else of this kernel runs there, on machines without AVX-512 too.
#[cfg(miri)]
mod miri {
    use super::*;

    fn unpacked(vector: __m512i) -> [u64; LANES] {
        let mut out = [0; LANES];
        // SAFETY: the caller has AVX-512; the 64 bytes behind the pointer are those of the array, borrowed
        // exclusively, and no alignment is needed.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), vector) };
        out
    }

    fn products(a: __m512i, b: __m512i) -> [u128; LANES] {
        const LOW_52: u64 = (1 << 52) - 1;
        let (a, b) = (unpacked(a), unpacked(b));
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
