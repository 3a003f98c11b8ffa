//! ChaCha20, a block in each of sixteen 32-bit lanes; two such sets take turns through the rounds,
//! which fills all 32 registers and leaves no instruction waiting for the one before it.

use core::arch::x86_64::*;

use crate::chacha::{BLOCK_LEN, Blocks, Row, Step, double_round, xor_short};

const LANES: usize = 16;

/// XORs the key stream over all blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn xor(mut blocks: Blocks<'_, '_>) {
    let (mut a, mut b) = (Step::<LANES>::new(), Step::<LANES>::new());
    while blocks.fill(&mut a) {
        if blocks.fill(&mut b) {
            let [x, y] = key_streams(input(&a), input(&b));
            xor_blocks(&mut a, x);
            xor_blocks(&mut b, y);
        } else {
            let x = key_stream(input(&a));
            xor_blocks(&mut a, x);
        }
    }
    core::hint::black_box(&mut a.rows).fill(Row::ZERO);
    core::hint::black_box(&mut b.rows).fill(Row::ZERO);
}

/// The block function of RFC 8439 §2.3 in one set of lanes: the block of each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn key_stream(input: [__m512i; 16]) -> [__m512i; LANES] {
    let mut x = input;
    macro_rules! half {
        ($x:ident, $a:literal, $b:literal, $d:literal, $bits:literal) => {
            $x[$a] = _mm512_add_epi32($x[$a], $x[$b]);
            $x[$d] = _mm512_rol_epi32::<$bits>(_mm512_xor_si512($x[$d], $x[$a]));
        };
    }
    for _ in 0..10 {
        double_round!(half, x);
    }
    transposed(sum(x, input))
}

/// The same in two sets, step by step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn key_streams(input_x: [__m512i; 16], input_y: [__m512i; 16]) -> [[__m512i; LANES]; 2] {
    // In memory, because the rounds need all registers.
    let input_x = core::hint::black_box(input_x);
    let input_y = core::hint::black_box(input_y);
    let mut x = input_x;
    let mut y = input_y;
    macro_rules! half {
        ($x:ident, $a:literal, $b:literal, $d:literal, $bits:literal) => {
            $x[$a] = _mm512_add_epi32($x[$a], $x[$b]);
            y[$a] = _mm512_add_epi32(y[$a], y[$b]);
            $x[$d] = _mm512_rol_epi32::<$bits>(_mm512_xor_si512($x[$d], $x[$a]));
            y[$d] = _mm512_rol_epi32::<$bits>(_mm512_xor_si512(y[$d], y[$a]));
        };
    }
    for _ in 0..10 {
        double_round!(half, x);
    }
    [transposed(sum(x, input_x)), transposed(sum(y, input_y))]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn sum(mut x: [__m512i; 16], input: [__m512i; 16]) -> [__m512i; 16] {
    for (x, input) in x.iter_mut().zip(input) {
        *x = _mm512_add_epi32(*x, input);
    }
    x
}

/// The input of every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn input(step: &Step<'_, LANES>) -> [__m512i; 16] {
    let mut input = [_mm512_setzero_si512(); 16];
    if step.successive {
        let [Row(row), ..] = step.rows;
        for (vector, word) in input.iter_mut().zip(row) {
            *vector = _mm512_set1_epi32(word.cast_signed());
        }
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        input[12] = _mm512_add_epi32(input[12], lanes);
        return input;
    }
    for (vector, row) in input.iter_mut().zip(&step.rows) {
        *vector = load_row(row);
    }
    transposed(input)
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
fn xor_blocks(step: &mut Step<'_, LANES>, streams: [__m512i; LANES]) {
    for (text, stream) in step.texts.iter_mut().zip(streams) {
        if let Ok(block) = <&mut [u8; BLOCK_LEN]>::try_from(&mut **text) {
            store(block, _mm512_xor_si512(load(block), stream));
        } else if !text.is_empty() {
            let mut block = [0; BLOCK_LEN];
            store(&mut block, stream);
            xor_short(text, &block);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn load_row(row: &Row) -> __m512i {
    // SAFETY: the 64 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm512_loadu_si512(row.0.as_ptr().cast()) }
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
fn store(bytes: &mut [u8; BLOCK_LEN], vector: __m512i) {
    // SAFETY: the 64 bytes behind the pointer are those of the array, borrowed exclusively; no
    // alignment is needed.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}
