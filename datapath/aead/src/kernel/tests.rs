//! Every kernel against the specification, written out with numbers as long as it takes.
//!
//! These tests need no library, so they run under Miri too: there the AVX-512 kernel is executed
//! on machines that do not have the instructions, and every load and store is checked.

use super::{Authenticated, Kernel};
use crate::chacha::{Blocks, CONSTANTS, Inputs, Row};
use crate::poly1305::OneTimeKeys;
use crate::portable::Portable;
#[cfg(target_arch = "x86_64")]
use crate::{avx2::Avx2, avx512::Avx512};

/// Runs a test body with every kernel that this processor can run, and says which.
macro_rules! with_each_kernel {
    ($body:ident) => {
        $body(Portable);
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(kernel) = Avx2::detect() {
                $body(kernel);
            }
            match Avx512::detect() {
                Some(kernel) => $body(kernel),
                None => println!("NOT RUN: avx512, which this processor does not have"),
            }
        }
    };
}

/// Bytes without a pattern.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() & 0xff) as u8).collect()
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next()).unwrap() % end
    }
}

/// The block function, word by word as RFC 8439 §2.3.1 puts it.
fn chacha20_block(row: &[u32; 16]) -> Vec<u8> {
    fn quarter_round(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
        for (a, b, d, bits) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
            x[a] = x[a].wrapping_add(x[b]);
            x[d] = (x[d] ^ x[a]).rotate_left(bits);
        }
    }
    let mut x = *row;
    for _ in 0..10 {
        for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
            quarter_round(&mut x, a, b, c, d);
        }
        for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
            quarter_round(&mut x, a, b, c, d);
        }
    }
    x.iter().zip(row).flat_map(|(x, row)| x.wrapping_add(*row).to_le_bytes()).collect()
}

/// Natural numbers of 32-bit digits, least first.
fn times_plus_mod_p(h: &[u64; 5], r: &[u64; 4], add: &[u64; 5]) -> [u64; 5] {
    let digit = |wide: u128| u64::try_from(wide & 0xffff_ffff).unwrap();
    // (h + add) * r, schoolbook.
    let mut sum = [0_u64; 6];
    let mut carry = 0;
    for i in 0..5 {
        let wide = u128::from(h[i]) + u128::from(add[i]) + carry;
        sum[i] = digit(wide);
        carry = wide >> 32;
    }
    sum[5] = digit(carry);
    let mut product = [0_u128; 11];
    for (i, a) in sum.iter().enumerate() {
        for (j, b) in r.iter().enumerate() {
            product[i + j] += u128::from(*a) * u128::from(*b);
        }
    }
    // Folded at 2^130 until nothing is left above: x = low + 2^130 * high = low + 5 * high.
    loop {
        let mut carry = 0;
        let digits: Vec<u64> = product
            .iter()
            .map(|wide| {
                let wide = wide + carry;
                carry = wide >> 32;
                digit(wide)
            })
            .collect();
        assert_eq!(carry, 0);
        let high: Vec<u64> = (4..11)
            .map(|i| digits[i] >> 2 | (digits.get(i + 1).unwrap_or(&0) << 30) & 0xffff_ffff)
            .collect();
        let mut low = [digits[0], digits[1], digits[2], digits[3], digits[4] & 3];
        if high.iter().all(|digit| *digit == 0) {
            // Below 2^130; minus 2^130 - 5 if it is not smaller.
            let p = [0xffff_fffb, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 3];
            if low.iter().rev().ge(p.iter().rev()) {
                let mut borrow = 0;
                for i in 0..5 {
                    let wide = i128::from(low[i]) - i128::from(p[i]) - borrow;
                    borrow = i128::from(wide < 0);
                    low[i] = u64::try_from(wide + (borrow << 32)).unwrap();
                }
            }
            return low;
        }
        product = [0; 11];
        for i in 0..5 {
            product[i] = u128::from(low[i]);
        }
        for (i, digit) in high.iter().enumerate() {
            product[i] += u128::from(*digit) * 5;
        }
    }
}

/// Poly1305 of a text as the AEAD of RFC 8439 §2.8 pads it, with long numbers.
fn poly1305(key: &[u8], text: &[u8]) -> [u8; 16] {
    let digits = |bytes: &[u8]| -> Vec<u64> {
        bytes.chunks(4).map(|c| u64::from(u32::from_le_bytes(c.try_into().unwrap()))).collect()
    };
    let mut r = digits(&key[..16]);
    for (digit, mask) in r.iter_mut().zip([0x0fff_ffff, 0x0fff_fffc, 0x0fff_fffc, 0x0fff_fffc]) {
        *digit &= mask;
    }
    let mut data = text.to_vec();
    data.resize(text.len().next_multiple_of(16), 0);
    data.extend([0; 8]);
    data.extend((text.len() as u64).to_le_bytes());
    let mut h = [0; 5];
    for block in data.chunks(16) {
        let mut add = digits(block);
        add.push(1);
        h = times_plus_mod_p(&h, &r.clone().try_into().unwrap(), &add.try_into().unwrap());
    }
    let low = h[..4].iter().rev().fold(0_u128, |low, digit| low << 32 | u128::from(*digit));
    low.wrapping_add(u128::from_le_bytes(key[16..32].try_into().unwrap())).to_le_bytes()
}

/// The input of a block, in the order of RFC 8439 §2.3.
fn row(key: &[u32; 8], counter: u32, nonce: &[u8; 12]) -> [u32; 16] {
    let nonce = nonce.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
    let words: Vec<u32> = CONSTANTS.into_iter().chain(*key).chain([counter]).chain(nonce).collect();
    words.try_into().unwrap()
}

/// RFC 8439 §2.3.2.
#[test]
fn the_block_of_rfc_8439() {
    fn check<K: Kernel<G>, const G: usize>(kernel: K) {
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let words =
            std::array::from_fn(|i| u32::from_le_bytes(key[4 * i..][..4].try_into().unwrap()));
        let nonce = [0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0];
        let want = "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e\
            d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&chacha20_block(&row(&words, 1, &nonce))), want, "the twin");
        for place in 0..G {
            let mut inputs = Inputs::new();
            let mut keys = [&[0; 8]; G];
            keys[place] = &words;
            kernel.set_keys(&mut inputs, &keys);
            inputs.set_nonce(u32::try_from(place).unwrap(), &nonce);
            let mut text = [0; 64];
            let mut rows = [Row::new(1)];
            rows[0].texts[place] = &mut text;
            kernel.xor(&inputs, Blocks::new(&mut rows));
            assert_eq!(hex(&text), want, "in place {place}");
        }
    }
    with_each_kernel!(check);
}

/// Rows of texts of any length, as many as there are or fewer, with counters that also wrap, are
/// XORed with their own blocks, and nothing around them is touched.
#[test]
fn the_key_stream_of_any_rows_is_that_of_the_specification() {
    fn check<K: Kernel<G>, const G: usize>(kernel: K) {
        let mut noise = Noise(7);
        let (mut whole_rows, mut partial, mut empty) = (0, 0, 0);
        let rounds = if cfg!(miri) { 4 } else { 400 };
        for round in 0..rounds {
            let count = [G, 1, 5, G, G - 1][round % 5];
            let equal = (round % 3 == 0).then(|| noise.below(700));
            let keys: [([u32; 8], [u8; 12]); G] = std::array::from_fn(|_| {
                let key = std::array::from_fn(|_| u32::try_from(noise.next()).unwrap());
                (key, noise.bytes(12).try_into().unwrap())
            });
            let mut inputs = Inputs::new();
            kernel.set_keys(&mut inputs, &keys.each_ref().map(|(key, _)| key));
            for (n, (_, nonce)) in (0..).zip(&keys) {
                inputs.set_nonce(n, nonce);
            }
            let counters = [[0, 1], [u32::MAX - 3, 2], [7, u32::MAX]][round / 3 % 3];
            let mut texts: Vec<Vec<Vec<u8>>> = counters
                .iter()
                .map(|_| {
                    let mut row: Vec<Vec<u8>> = (0..count)
                        .map(|_| {
                            let len = equal.unwrap_or_else(|| match noise.below(5) {
                                0 => 64,
                                1 => 64 * noise.below(20),
                                2 => noise.below(66),
                                3 => 0,
                                _ => noise.below(if cfg!(miri) { 700 } else { 2_600 }),
                            });
                            noise.bytes(len)
                        })
                        .collect();
                    row.resize(G, vec![]);
                    row
                })
                .collect();
            let lens: Vec<usize> = texts.iter().flatten().map(Vec::len).collect();
            whole_rows += usize::from(lens.iter().all(|len| *len > 64));
            partial += usize::from(lens.iter().any(|len| !len.is_multiple_of(64)));
            empty += usize::from(lens[..count].contains(&0) && count == G);
            let want: Vec<Vec<Vec<u8>>> = texts
                .iter()
                .zip(counters)
                .map(|(texts, first)| {
                    texts
                        .iter()
                        .zip(&keys)
                        .map(|(text, (key, nonce))| {
                            let stream = (0..).flat_map(|n| {
                                chacha20_block(&row(key, first.wrapping_add(n), nonce))
                            });
                            text.iter().zip(stream).map(|(text, stream)| text ^ stream).collect()
                        })
                        .collect()
                })
                .collect();
            let mut rows = counters.map(Row::new);
            for (row, texts) in rows.iter_mut().zip(&mut texts) {
                for (place, text) in row.texts.iter_mut().zip(texts) {
                    *place = text;
                }
            }
            let mut one_time = OneTimeKeys::new();
            let keyed = round % 2 == 1;
            if keyed {
                kernel.xor(&inputs, Blocks::with_keys(&mut rows, &mut one_time));
            } else {
                kernel.xor(&inputs, Blocks::new(&mut rows));
            }
            assert_eq!(texts, want, "round {round}: {lens:?}");
            for (n, (key, nonce)) in keys.iter().enumerate() {
                let words = one_time.words.iter().flat_map(|words| words[n].to_le_bytes());
                let block = chacha20_block(&row(key, 0, nonce));
                let want = if keyed { &block[..32] } else { &[0; 32] };
                assert!(words.eq(want.iter().copied()), "round {round}: the key of message {n}");
            }
        }
        // Under Miri there are too few to meet all.
        let met = whole_rows > 0 && partial > 0 && empty > 0;
        assert!(met || cfg!(miri), "{whole_rows} {partial} {empty}");
    }
    with_each_kernel!(check);
}

/// Compares the tags of a group with the twin's, made by themselves and while another group is encrypted.
fn check_group<K: Kernel<G>, const G: usize>(kernel: K, messages: &[(Vec<u8>, Vec<u8>)]) {
    let mut keys = OneTimeKeys { words: [[0xeeee_eeee; G]; 8] };
    let mut texts: [&[u8]; G] = [&[]; G];
    for ((n, place), (key, text)) in texts.iter_mut().enumerate().zip(messages) {
        for (words, word) in keys.words.iter_mut().zip(key.chunks(4)) {
            words[n] = u32::from_le_bytes(word.try_into().unwrap());
        }
        *place = text;
    }
    let group = Authenticated { keys: &keys, texts, count: messages.len() };
    let compare = |tags: [[u8; 16]; G], how| {
        for (n, ((key, text), tag)) in messages.iter().zip(tags).enumerate() {
            let (count, len) = (messages.len(), text.len());
            assert_eq!(tag, poly1305(key, text), "message {n} of {count}: {len} bytes, {how}");
        }
    };
    compare(kernel.authenticate(&group), "alone");

    // As long as the last of the messages, so that now the one is done first and now the other.
    let longest = messages.last().map_or(0, |(_, text)| text.len());
    let inputs = Inputs::new();
    for keyed in [false, true] {
        let row = |xor: &mut dyn FnMut(Blocks<'_, '_, G>)| {
            let (mut texts, mut one_time) = (vec![vec![0; longest]; G], OneTimeKeys::new());
            let mut rows = [Row::new(9)];
            for (place, text) in rows[0].texts.iter_mut().zip(&mut texts) {
                *place = text;
            }
            xor(match keyed {
                true => Blocks::with_keys(&mut rows, &mut one_time),
                false => Blocks::new(&mut rows),
            });
            (texts, one_time.words)
        };
        let alone = row(&mut |blocks| kernel.xor(&inputs, blocks));
        let beside = row(&mut |blocks| {
            compare(kernel.xor_beside(&inputs, blocks, &group), "beside");
        });
        assert!(beside == alone, "the key stream beside {} messages", messages.len());
    }
}

#[test]
fn tags_of_any_group_are_those_of_the_specification() {
    fn check<K: Kernel<G>, const G: usize>(kernel: K) {
        let mut noise = Noise(11);
        let rounds = if cfg!(miri) { 3 } else { 200 };
        for round in 0..rounds {
            let count = [G, 1, G / 2 + 1, G, G / 2, 3][round % 6];
            let equal = (round % 4 == 0).then(|| noise.below(200));
            let messages: Vec<_> = (0..count)
                .map(|_| {
                    let len =
                        equal.unwrap_or_else(|| noise.below(if cfg!(miri) { 420 } else { 1_600 }));
                    (noise.bytes(32), noise.bytes(len))
                })
                .collect();
            check_group(kernel, &messages);
        }
    }
    with_each_kernel!(check);
}

/// Limbs at their maximum: the largest clamped r, texts of ones, and what brings the accumulator to
/// the modulus itself, just below it and just above; s that overflows 2^128.
#[test]
fn tags_at_the_edges_of_the_field_are_right() {
    fn check<K: Kernel<G>, const G: usize>(kernel: K) {
        let ones = [0xff; 16];
        let mut multipliers = vec![[0xff; 16], [0; 16]];
        for at in 0..16 {
            // A single bit, and all but a byte.
            let (mut low, mut high) = ([0; 16], [0xff; 16]);
            (low[at], high[at]) = (0x0f, 0);
            multipliers.extend([low, high]);
        }
        let mut four = [0; 16];
        four[0] = 4;
        let mut one = [0; 16];
        one[0] = 1;
        multipliers.extend([one, four]);
        if cfg!(miri) {
            multipliers = multipliers.into_iter().step_by(5).collect();
        }
        let lens: &[usize] =
            if cfg!(miri) { &[16, 80] } else { &[0, 1, 15, 16, 17, 48, 64, 80, 1_600] };
        let mut messages = vec![];
        for r in &multipliers {
            for (s, fill) in [([0; 16], 0xff), (ones, 0xff), (ones, 0), ([0; 16], 0xfb)] {
                for len in lens {
                    let mut text = vec![fill; *len];
                    // 2^130 - 5 and its neighbours, where r is 1 or 4.
                    if let Some(first) = text.first_mut().filter(|_| fill == 0xfb) {
                        *first = 0xfa;
                    }
                    messages.push(([*r, s].concat(), text));
                }
            }
        }
        // Two blocks and that of the lengths, multiplied with 1, are just below 2^130 - 5, that, and all
        // that is above it and below 2^130.
        for above in 0..8 {
            let second = u128::MAX - 6 - (32 << 64) + above;
            messages.push(([one, ones].concat(), [[0; 16], second.to_le_bytes()].concat()));
        }
        for group in messages.chunks(G) {
            check_group(kernel, group);
        }
        // Every one in every lane.
        for shift in 0..if cfg!(miri) { 1 } else { G } {
            let mut rotated = messages.clone();
            rotated.rotate_left(shift * 7 + 1);
            rotated.chunks(G).for_each(|group| check_group(kernel, group));
        }
    }
    with_each_kernel!(check);
}
