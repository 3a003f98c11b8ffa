//! ChaCha20, a block in each of eight 32-bit lanes.

use core::arch::x86_64::*;

use crate::chacha::{BLOCK_LEN, Blocks, Row, Step, double_round, xor_short};

const LANES: usize = 8;

/// XORs the key stream over all blocks.
#[target_feature(enable = "avx2")]
pub(super) fn xor(mut blocks: Blocks<'_, '_>) {
    let mut step = Step::<LANES>::new();
    while blocks.fill(&mut step) {
        let (low, high) = key_stream(&step);
        for (text, stream) in step.texts.iter_mut().zip(low.into_iter().zip(high)) {
            xor_block(text, stream);
        }
    }
    core::hint::black_box(&mut step.rows).fill(Row::ZERO);
}

/// The block function of RFC 8439 §2.3 in all lanes: the first and the second half of each block.
#[inline]
#[target_feature(enable = "avx2")]
fn key_stream(step: &Step<'_, LANES>) -> ([__m256i; LANES], [__m256i; LANES]) {
    let input = if step.successive { successive(step) } else { gathered(step) };
    // For the compiler the input is in memory from here on: it would rather keep it in registers,
    // of which the rounds need all sixteen.
    let input = core::hint::black_box(input);
    let mut x = input;
    macro_rules! half {
        ($x:ident, $a:literal, $b:literal, $d:literal, $bits:tt) => {
            $x[$a] = _mm256_add_epi32($x[$a], $x[$b]);
            $x[$d] = rotated!($bits, _mm256_xor_si256($x[$d], $x[$a]));
        };
    }
    macro_rules! rotated {
        (16, $x:expr) => {
            _mm256_shuffle_epi8($x, rotate_16())
        };
        (8, $x:expr) => {
            _mm256_shuffle_epi8($x, rotate_8())
        };
        (12, $x:expr) => {{
            let x = $x;
            _mm256_or_si256(_mm256_slli_epi32::<12>(x), _mm256_srli_epi32::<20>(x))
        }};
        (7, $x:expr) => {{
            let x = $x;
            _mm256_or_si256(_mm256_slli_epi32::<7>(x), _mm256_srli_epi32::<25>(x))
        }};
    }
    for _ in 0..10 {
        double_round!(half, x);
    }
    for (x, input) in x.iter_mut().zip(input) {
        *x = _mm256_add_epi32(*x, input);
    }
    let [x0, x1, x2, x3, x4, x5, x6, x7, y0, y1, y2, y3, y4, y5, y6, y7] = x;
    (transposed([x0, x1, x2, x3, x4, x5, x6, x7]), transposed([y0, y1, y2, y3, y4, y5, y6, y7]))
}

/// Bytes to rotate each 32-bit word left by 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn rotate_16() -> __m256i {
    _mm256_setr_epi8(
        2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9,
        14, 15, 12, 13,
    )
}

/// Bytes to rotate each 32-bit word left by 8 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn rotate_8() -> __m256i {
    _mm256_setr_epi8(
        3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10,
        15, 12, 13, 14,
    )
}

/// Lanes that differ in the counter only.
#[inline]
#[target_feature(enable = "avx2")]
fn successive(step: &Step<'_, LANES>) -> [__m256i; 16] {
    let [Row(row), ..] = step.rows;
    let mut input = [_mm256_setzero_si256(); 16];
    for (vector, word) in input.iter_mut().zip(row) {
        *vector = _mm256_set1_epi32(word.cast_signed());
    }
    input[12] = _mm256_add_epi32(input[12], _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    input
}

/// Lanes of any messages.
#[inline]
#[target_feature(enable = "avx2")]
fn gathered(step: &Step<'_, LANES>) -> [__m256i; 16] {
    let mut low = [_mm256_setzero_si256(); LANES];
    let mut high = low;
    for ((low, high), row) in low.iter_mut().zip(&mut high).zip(&step.rows) {
        let [r0, r1, r2, r3, r4, r5, r6, r7, s0, s1, s2, s3, s4, s5, s6, s7] = row.0;
        *low = load_words(&[r0, r1, r2, r3, r4, r5, r6, r7]);
        *high = load_words(&[s0, s1, s2, s3, s4, s5, s6, s7]);
    }
    let [x0, x1, x2, x3, x4, x5, x6, x7] = transposed(low);
    let [y0, y1, y2, y3, y4, y5, y6, y7] = transposed(high);
    [x0, x1, x2, x3, x4, x5, x6, x7, y0, y1, y2, y3, y4, y5, y6, y7]
}

/// Word i of vector j becomes word j of vector i.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(x: [__m256i; 8]) -> [__m256i; 8] {
    // Pairs of words, then of double words, then of 128-bit halves.
    let a0 = _mm256_unpacklo_epi32(x[0], x[1]);
    let a1 = _mm256_unpackhi_epi32(x[0], x[1]);
    let a2 = _mm256_unpacklo_epi32(x[2], x[3]);
    let a3 = _mm256_unpackhi_epi32(x[2], x[3]);
    let a4 = _mm256_unpacklo_epi32(x[4], x[5]);
    let a5 = _mm256_unpackhi_epi32(x[4], x[5]);
    let a6 = _mm256_unpacklo_epi32(x[6], x[7]);
    let a7 = _mm256_unpackhi_epi32(x[6], x[7]);
    let b0 = _mm256_unpacklo_epi64(a0, a2);
    let b1 = _mm256_unpackhi_epi64(a0, a2);
    let b2 = _mm256_unpacklo_epi64(a1, a3);
    let b3 = _mm256_unpackhi_epi64(a1, a3);
    let b4 = _mm256_unpacklo_epi64(a4, a6);
    let b5 = _mm256_unpackhi_epi64(a4, a6);
    let b6 = _mm256_unpacklo_epi64(a5, a7);
    let b7 = _mm256_unpackhi_epi64(a5, a7);
    [
        _mm256_permute2x128_si256::<0x20>(b0, b4),
        _mm256_permute2x128_si256::<0x20>(b1, b5),
        _mm256_permute2x128_si256::<0x20>(b2, b6),
        _mm256_permute2x128_si256::<0x20>(b3, b7),
        _mm256_permute2x128_si256::<0x31>(b0, b4),
        _mm256_permute2x128_si256::<0x31>(b1, b5),
        _mm256_permute2x128_si256::<0x31>(b2, b6),
        _mm256_permute2x128_si256::<0x31>(b3, b7),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor_block(text: &mut [u8], (low, high): (__m256i, __m256i)) {
    if let Ok(block) = <&mut [u8; BLOCK_LEN]>::try_from(&mut *text) {
        if let ([a, b], []) = block.as_chunks_mut::<32>() {
            store(a, _mm256_xor_si256(load(a), low));
            store(b, _mm256_xor_si256(load(b), high));
        }
    } else if !text.is_empty() {
        let mut stream = [0; BLOCK_LEN];
        if let ([a, b], []) = stream.as_chunks_mut::<32>() {
            store(a, low);
            store(b, high);
        }
        xor_short(text, &stream);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_words(words: &[u32; 8]) -> __m256i {
    // SAFETY: the 32 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// 32 bytes of memory as a vector.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the 32 bytes behind the pointer are those of the array; no alignment is needed.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8; 32], vector: __m256i) {
    // SAFETY: the 32 bytes behind the pointer are those of the array, borrowed exclusively; no
    // alignment is needed.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}
