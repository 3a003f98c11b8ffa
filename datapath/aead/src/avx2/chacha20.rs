//! ChaCha20, a block in each of eight 32-bit lanes.

use core::arch::x86_64::*;

use super::GROUP;
use super::chain::{Chains, PORTION, Portion};
use crate::TAG_LEN;
use crate::chacha::{BLOCK_LEN, Blocks, CONSTANTS, Inputs, Lanes, Step, double_round, xor_short};
use crate::kernel::Authenticated;

const LANES: usize = 8;

const _: () = assert!(GROUP == LANES, "a word of all messages is one vector");

/// XORs the key stream over all blocks, and gives the one-time keys, if they are wanted.
#[target_feature(enable = "avx2,bmi2")]
pub(super) fn xor(inputs: &Inputs<GROUP>, blocks: Blocks<'_, '_, GROUP>) {
    steps(inputs, blocks, None);
}

/// The same, and the tags of another group.
#[target_feature(enable = "avx2,bmi2")]
pub(super) fn xor_beside(
    inputs: &Inputs<GROUP>,
    blocks: Blocks<'_, '_, GROUP>,
    group: &Authenticated<'_, GROUP>,
) -> [[u8; TAG_LEN]; GROUP] {
    let mut chains = Chains::new(group);
    steps(inputs, blocks, Some(&mut chains));
    chains.tags(group)
}

/// Never inlined, so that the rounds are here once, and in here.
#[inline(never)]
#[target_feature(enable = "avx2,bmi2")]
fn steps(
    inputs: &Inputs<GROUP>,
    mut blocks: Blocks<'_, '_, GROUP>,
    mut chains: Option<&mut Chains<'_>>,
) {
    let mut lanes = Lanes::new();
    let mut keys = blocks.take_keys();
    while let Some(step) = keys.as_ref().map(|_| Step::keys(0)).or_else(|| blocks.next(&mut lanes))
    {
        let portion = chains.as_deref_mut().and_then(Chains::portion);
        let words = key_stream(inputs, &step, &lanes, portion);
        if let Some(keys) = keys.take() {
            for (place, words) in keys.words.iter_mut().zip(words) {
                store_words(place, words);
            }
        } else {
            let streams = transposed_16(words);
            blocks.xor(&step, &mut lanes, &streams, |text, stream| xor_block(text, *stream));
        }
    }
}

/// The block function of RFC 8439 §2.3 in all lanes: each word of all blocks. A portion of Poly1305 goes between
/// the rounds, for which the vector units leave the others idle.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn key_stream(
    inputs: &Inputs<GROUP>,
    step: &Step,
    lanes: &Lanes<'_, LANES>,
    portion: Option<Portion<'_, '_>>,
) -> [__m256i; 16] {
    let mut x = input(inputs, step, lanes);
    // Were these known, the compiler would make two shuffles of each.
    let (by_16, by_8) = core::hint::black_box((rotate_16(), rotate_8()));
    macro_rules! half {
        ($x:ident, $a:literal, $b:literal, $d:literal, $bits:tt) => {
            $x[$a] = _mm256_add_epi32($x[$a], $x[$b]);
            $x[$d] = rotated!($bits, _mm256_xor_si256($x[$d], $x[$a]));
        };
    }
    macro_rules! rotated {
        (16, $x:expr) => {
            _mm256_shuffle_epi8($x, by_16)
        };
        (8, $x:expr) => {
            _mm256_shuffle_epi8($x, by_8)
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
    let mut rounds = 10;
    if let Some(([chain_a, chain_b], [texts_a, texts_b])) = portion {
        let (mut a, mut b) = (*chain_a, *chain_b);
        let (texts_a, texts_b) = (texts_a.as_chunks::<2>().0, texts_b.as_chunks::<2>().0);
        for ([a0, a1], [b0, b1]) in texts_a.iter().zip(texts_b).take(PORTION / 2) {
            a.block(a0);
            a.block(a1);
            double_round!(half, x);
            b.block(b0);
            b.block(b1);
            rounds -= 1;
        }
        (*chain_a, *chain_b) = (a, b);
    }
    for _ in 0..rounds {
        double_round!(half, x);
    }
    // The rounds need all registers. What was put in is read again, from where it may be another for all
    // the compiler knows: it would keep copies of the keys on the stack.
    let (inputs, lanes) = core::hint::black_box((inputs, lanes));
    for (x, input) in x.iter_mut().zip(input(inputs, step, lanes)) {
        *x = _mm256_add_epi32(*x, input);
    }
    x
}

/// The first and the second half of each block.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed_16(x: [__m256i; 16]) -> [[__m256i; 2]; LANES] {
    let [x0, x1, x2, x3, x4, x5, x6, x7, y0, y1, y2, y3, y4, y5, y6, y7] = x;
    let [a0, a1, a2, a3, a4, a5, a6, a7] = transposed([x0, x1, x2, x3, x4, x5, x6, x7]);
    let [b0, b1, b2, b3, b4, b5, b6, b7] = transposed([y0, y1, y2, y3, y4, y5, y6, y7]);
    [[a0, b0], [a1, b1], [a2, b2], [a3, b3], [a4, b4], [a5, b5], [a6, b6], [a7, b7]]
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

/// The input of every lane: the words of its message, and its counter.
#[inline]
#[target_feature(enable = "avx2")]
fn input(inputs: &Inputs<GROUP>, step: &Step, lanes: &Lanes<'_, LANES>) -> [__m256i; 16] {
    match step {
        Step::Across { counter, .. } => {
            let counters = _mm256_set1_epi32(counter.cast_signed());
            state(inputs, counters, |words| load_words(words))
        }
        Step::Along => {
            let messages = load_words(&lanes.messages);
            let picked = |words: &_| _mm256_permutevar8x32_epi32(load_words(words), messages);
            state(inputs, load_words(&lanes.counters), picked)
        }
    }
}

/// Constants, keys, counters and nonces (RFC 8439 §2.3), the words of each lane as `words` takes them
/// from those of the messages.
#[inline]
#[target_feature(enable = "avx2")]
fn state(
    inputs: &Inputs<GROUP>,
    counters: __m256i,
    words: impl Fn(&[u32; LANES]) -> __m256i,
) -> [__m256i; 16] {
    let [c0, c1, c2, c3] = CONSTANTS.map(u32::cast_signed);
    let (c0, c1) = (_mm256_set1_epi32(c0), _mm256_set1_epi32(c1));
    let (c2, c3) = (_mm256_set1_epi32(c2), _mm256_set1_epi32(c3));
    let [k0, k1, k2, k3, k4, k5, k6, k7] = &inputs.key;
    let (k0, k1, k2, k3) = (words(k0), words(k1), words(k2), words(k3));
    let (k4, k5, k6, k7) = (words(k4), words(k5), words(k6), words(k7));
    let [n0, n1, n2] = &inputs.nonce;
    let (n0, n1, n2) = (words(n0), words(n1), words(n2));
    [c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, counters, n0, n1, n2]
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
fn xor_block(text: &mut [u8], [low, high]: [__m256i; 2]) {
    if let ([a, b, ..], _) = text.as_chunks_mut::<32>() {
        store(a, _mm256_xor_si256(load(a), low));
        store(b, _mm256_xor_si256(load(b), high));
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

#[inline]
#[target_feature(enable = "avx2")]
fn store_words(words: &mut [u32; 8], vector: __m256i) {
    // SAFETY: the 32 bytes behind the pointer are those of the array, borrowed exclusively; no
    // alignment is needed.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
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
