//! ChaCha20, a block in each of sixteen 32-bit lanes; two such sets take turns through the rounds. Four
//! chains of quarter rounds alone would leave a core waiting: 60 cycles a double round on a Zen 4, against 52
//! each with eight, and 48 that its units allow.

use core::arch::x86_64::*;

use super::GROUP;
use crate::chacha::{BLOCK_LEN, Blocks, CONSTANTS, Inputs, Lanes, Step, double_round};

const LANES: usize = 16;

const _: () = assert!(GROUP == LANES, "a word of all messages is one vector");

/// Puts the keys of all messages in their places: word i of key j becomes word j of row i.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn set_keys(inputs: &mut Inputs<GROUP>, keys: &[&[u32; 8]; GROUP]) {
    let [k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, ka, kb, kc, kd, ke, kf] = *keys;
    // In quarters: words 0 to 3 and 4 to 7 of a key, and of the key eight places behind.
    let [a0, a1, a2, a3] =
        transposed_in_quarters([pair(k0, k8), pair(k1, k9), pair(k2, ka), pair(k3, kb)]);
    let [b0, b1, b2, b3] =
        transposed_in_quarters([pair(k4, kc), pair(k5, kd), pair(k6, ke), pair(k7, kf)]);
    let front = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let back = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let words = [
        _mm512_permutex2var_epi64(a0, front, b0),
        _mm512_permutex2var_epi64(a1, front, b1),
        _mm512_permutex2var_epi64(a2, front, b2),
        _mm512_permutex2var_epi64(a3, front, b3),
        _mm512_permutex2var_epi64(a0, back, b0),
        _mm512_permutex2var_epi64(a1, back, b1),
        _mm512_permutex2var_epi64(a2, back, b2),
        _mm512_permutex2var_epi64(a3, back, b3),
    ];
    for (place, words) in inputs.key.iter_mut().zip(words) {
        store_words(place, words);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn pair(low: &[u32; 8], high: &[u32; 8]) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load_key(low)), load_key(high))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn load_key(words: &[u32; 8]) -> __m256i {
    // SAFETY: the 32 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// XORs the key stream over all blocks, and gives the one-time keys, if they are wanted.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn xor(inputs: &Inputs<GROUP>, mut blocks: Blocks<'_, '_, GROUP>) {
    let (mut lanes_a, mut lanes_b) = (Lanes::new(), Lanes::new());
    if let Some(keys) = blocks.take_keys() {
        // Beside the first step of the texts.
        let first = blocks.next(&mut lanes_a).unwrap_or(Step::Along);
        let [x, y] = key_streams::<true>(inputs, [(&Step::keys(0), &lanes_b), (&first, &lanes_a)]);
        for (place, words) in keys.words.iter_mut().zip(x) {
            store_words(place, words);
        }
        let y = transposed(y);
        blocks.xor(&first, &mut lanes_a, &y, |text, stream| xor_block(text, *stream));
    }
    while let Some((a, b)) = blocks.next_two([&mut lanes_a, &mut lanes_b]) {
        if let Some(b) = b {
            let [x, y] = key_streams::<false>(inputs, [(&a, &lanes_a), (&b, &lanes_b)]);
            let x = transposed(x);
            blocks.xor(&a, &mut lanes_a, &x, |text, stream| xor_block(text, *stream));
            let y = transposed(y);
            blocks.xor(&b, &mut lanes_b, &y, |text, stream| xor_block(text, *stream));
        } else {
            let x = transposed(key_stream(inputs, (&a, &lanes_a)));
            blocks.xor(&a, &mut lanes_a, &x, |text, stream| xor_block(text, *stream));
        }
    }
}

/// The block function of RFC 8439 §2.3 in one set of lanes: each word of all blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn key_stream(
    inputs: &Inputs<GROUP>,
    (step, lanes): (&Step, &Lanes<'_, LANES>),
) -> [__m512i; LANES] {
    let mut x = input(inputs, step, lanes);
    macro_rules! half {
        ($x:ident, $a:literal, $b:literal, $d:literal, $bits:literal) => {
            $x[$a] = _mm512_add_epi32($x[$a], $x[$b]);
            $x[$d] = _mm512_rol_epi32::<$bits>(_mm512_xor_si512($x[$d], $x[$a]));
        };
    }
    for _ in 0..10 {
        double_round!(half, x);
    }
    sum(x, input(inputs, step, lanes))
}

/// The same in two sets, step by step. `KEYS` only tells the copies of its two callers apart: with one caller each
/// they are in line, and a call would take 32 vectors through memory, 8 % of the time of a long message.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn key_streams<const KEYS: bool>(
    inputs: &Inputs<GROUP>,
    [(step_x, lanes_x), (step_y, lanes_y)]: [(&Step, &Lanes<'_, LANES>); 2],
) -> [[__m512i; LANES]; 2] {
    let mut x = input(inputs, step_x, lanes_x);
    let mut y = input(inputs, step_y, lanes_y);
    // Each operation of both sets side by side: the compiler keeps the order, and a core likes this one
    // (ADR 10).
    macro_rules! half {
        ($x:ident, $a:literal, $b:literal, $d:literal, $bits:literal) => {
            $x[$a] = _mm512_add_epi32($x[$a], $x[$b]);
            y[$a] = _mm512_add_epi32(y[$a], y[$b]);
            $x[$d] = _mm512_xor_si512($x[$d], $x[$a]);
            y[$d] = _mm512_xor_si512(y[$d], y[$a]);
            $x[$d] = _mm512_rol_epi32::<$bits>($x[$d]);
            y[$d] = _mm512_rol_epi32::<$bits>(y[$d]);
        };
    }
    for _ in 0..10 {
        double_round!(half, x);
    }
    // The rounds need all registers. What was put in is read again, from where it may be another for all
    // the compiler knows: it would keep copies of the keys on the stack.
    let (inputs, lanes_x, lanes_y) = core::hint::black_box((inputs, lanes_x, lanes_y));
    let x = sum(x, input(inputs, step_x, lanes_x));
    let y = sum(y, input(inputs, step_y, lanes_y));
    [x, y]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn sum(mut x: [__m512i; 16], input: [__m512i; 16]) -> [__m512i; 16] {
    for (x, input) in x.iter_mut().zip(input) {
        *x = _mm512_add_epi32(*x, input);
    }
    x
}

/// The input of every lane: the words of its message, and its counter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn input(inputs: &Inputs<GROUP>, step: &Step, lanes: &Lanes<'_, LANES>) -> [__m512i; 16] {
    match step {
        Step::Across { counter, .. } => {
            let counters = _mm512_set1_epi32(counter.cast_signed());
            state(inputs, counters, |words| load_words(words))
        }
        Step::Along => {
            let messages = load_words(&lanes.messages);
            let picked = |words: &_| _mm512_permutexvar_epi32(messages, load_words(words));
            state(inputs, load_words(&lanes.counters), picked)
        }
    }
}

/// Constants, keys, counters and nonces (RFC 8439 §2.3), the words of each lane as `words` takes them
/// from those of the messages.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn state(
    inputs: &Inputs<GROUP>,
    counters: __m512i,
    words: impl Fn(&[u32; LANES]) -> __m512i,
) -> [__m512i; 16] {
    let [c0, c1, c2, c3] = CONSTANTS.map(u32::cast_signed);
    let (c0, c1) = (_mm512_set1_epi32(c0), _mm512_set1_epi32(c1));
    let (c2, c3) = (_mm512_set1_epi32(c2), _mm512_set1_epi32(c3));
    let [k0, k1, k2, k3, k4, k5, k6, k7] = &inputs.key;
    let (k0, k1, k2, k3) = (words(k0), words(k1), words(k2), words(k3));
    let (k4, k5, k6, k7) = (words(k4), words(k5), words(k6), words(k7));
    let [n0, n1, n2] = &inputs.nonce;
    let (n0, n1, n2) = (words(n0), words(n1), words(n2));
    [c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, counters, n0, n1, n2]
}

/// Word i of vector j becomes word j of vector i.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn transposed(x: [__m512i; 16]) -> [__m512i; 16] {
    let [x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf] = x;
    let [a0, a1, a2, a3] = transposed_in_quarters([x0, x1, x2, x3]);
    let [b0, b1, b2, b3] = transposed_in_quarters([x4, x5, x6, x7]);
    let [c0, c1, c2, c3] = transposed_in_quarters([x8, x9, xa, xb]);
    let [d0, d1, d2, d3] = transposed_in_quarters([xc, xd, xe, xf]);
    let [y0, y4, y8, yc] = quarters_transposed([a0, b0, c0, d0]);
    let [y1, y5, y9, yd] = quarters_transposed([a1, b1, c1, d1]);
    let [y2, y6, ya, ye] = quarters_transposed([a2, b2, c2, d2]);
    let [y3, y7, yb, yf] = quarters_transposed([a3, b3, c3, d3]);
    [y0, y1, y2, y3, y4, y5, y6, y7, y8, y9, ya, yb, yc, yd, ye, yf]
}

/// Four by four words in each 128-bit quarter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn transposed_in_quarters(x: [__m512i; 4]) -> [__m512i; 4] {
    let low_01 = _mm512_unpacklo_epi32(x[0], x[1]);
    let high_01 = _mm512_unpackhi_epi32(x[0], x[1]);
    let low_23 = _mm512_unpacklo_epi32(x[2], x[3]);
    let high_23 = _mm512_unpackhi_epi32(x[2], x[3]);
    [
        _mm512_unpacklo_epi64(low_01, low_23),
        _mm512_unpackhi_epi64(low_01, low_23),
        _mm512_unpacklo_epi64(high_01, high_23),
        _mm512_unpackhi_epi64(high_01, high_23),
    ]
}

/// Four by four 128-bit quarters.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn quarters_transposed(x: [__m512i; 4]) -> [__m512i; 4] {
    let low_01 = _mm512_shuffle_i32x4::<0x44>(x[0], x[1]);
    let high_01 = _mm512_shuffle_i32x4::<0xee>(x[0], x[1]);
    let low_23 = _mm512_shuffle_i32x4::<0x44>(x[2], x[3]);
    let high_23 = _mm512_shuffle_i32x4::<0xee>(x[2], x[3]);
    [
        _mm512_shuffle_i32x4::<0x88>(low_01, low_23),
        _mm512_shuffle_i32x4::<0xdd>(low_01, low_23),
        _mm512_shuffle_i32x4::<0x88>(high_01, high_23),
        _mm512_shuffle_i32x4::<0xdd>(high_01, high_23),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn xor_block(text: &mut [u8], stream: __m512i) {
    if let Some(block) = text.first_chunk_mut() {
        store(block, _mm512_xor_si512(load(block), stream));
    } else if !text.is_empty() {
        store_first(text, _mm512_xor_si512(load_first(text), stream));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn load_words(words: &[u32; LANES]) -> __m512i {
    // SAFETY: the 64 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn store_words(words: &mut [u32; LANES], vector: __m512i) {
    // SAFETY: the 64 bytes behind the pointer are those of the array, borrowed exclusively; no
    // alignment is needed.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) }
}

/// 64 bytes of memory as a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn load(bytes: &[u8; BLOCK_LEN]) -> __m512i {
    // SAFETY: the 64 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn store(bytes: &mut [u8; BLOCK_LEN], vector: __m512i) {
    // SAFETY: the 64 bytes behind the pointer are those of the array, borrowed exclusively; no
    // alignment is needed.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

/// A bit for each of the first 64 bytes that a text has.
#[inline]
fn present(bytes: &[u8]) -> __mmask64 {
    match bytes.len() {
        len @ 0..BLOCK_LEN => (1 << len) - 1,
        BLOCK_LEN.. => u64::MAX,
    }
}

/// The first 64 bytes of memory as a vector, zeros where there are fewer.
///
/// There is nothing to load from an empty slice, which points nowhere: the processor would find that
/// out slowly.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn load_first(bytes: &[u8]) -> __m512i {
    if bytes.is_empty() {
        return _mm512_setzero_si512();
    }
    // SAFETY: a byte is read only where its bit is set, and those are bytes of the slice; no
    // alignment is needed.
    unsafe { _mm512_maskz_loadu_epi8(present(bytes), bytes.as_ptr().cast()) }
}

/// Stores as many bytes as there is room for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn store_first(bytes: &mut [u8], vector: __m512i) {
    // SAFETY: a byte is written only where its bit is set, and those are bytes of the slice, borrowed
    // exclusively; no alignment is needed.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), present(bytes), vector) }
}
