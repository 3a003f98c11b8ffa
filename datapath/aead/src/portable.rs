//! For processors without the vector instructions that the other kernels need, and the plain text
//! that those are read against. Four blocks beside each other suit any 128-bit register.

use crate::TAG_LEN;
use crate::chacha::{BLOCK_LEN, Blocks, CONSTANTS, Inputs, Lanes, Step, double_round, xor_short};
use crate::kernel::{Authenticated, Kernel};
use crate::poly1305::{Accumulator, lengths};

const LANES: usize = 4;

/// Messages that it is given together.
const GROUP: usize = 16;

/// The kernel that needs nothing.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Kernel<GROUP> for Portable {
    /// It is never faster than the library, and only runs where it is asked for.
    #[inline]
    fn gains(self, _count: usize, _longest: usize) -> bool {
        true
    }

    fn xor(self, inputs: &Inputs<GROUP>, mut blocks: Blocks<'_, '_, GROUP>) {
        let mut lanes = Lanes::new();
        if let Some(keys) = blocks.take_keys() {
            for first in (0..).step_by(LANES).take(GROUP / LANES) {
                let words = key_stream(input(inputs, &Step::keys(first), &lanes));
                for (place, words) in keys.words.iter_mut().zip(words) {
                    let place = place.get_mut(first as usize..).unwrap_or_default();
                    place.iter_mut().zip(words).for_each(|(to, word)| *to = word);
                }
            }
        }
        while let Some(step) = blocks.next(&mut lanes) {
            let streams = transposed(key_stream(input(inputs, &step, &lanes)));
            blocks.xor(&step, &mut lanes, &streams, xor_short);
        }
    }

    fn authenticate(self, group: &Authenticated<'_, GROUP>) -> [[u8; TAG_LEN]; GROUP] {
        let Authenticated { keys, texts, count } = group;
        let mut tags = [[0; TAG_LEN]; GROUP];
        for ((n, tag), text) in tags.iter_mut().enumerate().zip(texts).take(*count) {
            let key = keys.of(n);
            let mut accumulator = Accumulator::new(&key);
            accumulator.text(text);
            let [low, high] = lengths(text.len());
            accumulator.block(u128::from(high) << 64 | u128::from(low));
            *tag = accumulator.tag(&key);
        }
        tags
    }
}

/// The input of every lane: the words of its message, and its counter.
fn input(inputs: &Inputs<GROUP>, step: &Step, lanes: &Lanes<'_, LANES>) -> [[u32; LANES]; 16] {
    let (messages, counters) = match step {
        Step::Across { first, counter, .. } => ([0, 1, 2, 3].map(|n| first + n), [*counter; LANES]),
        Step::Along => (lanes.messages, lanes.counters),
    };
    let picked = |words: &[u32; GROUP]| {
        messages.map(|message| words.get(message as usize).copied().unwrap_or_default())
    };
    let [c0, c1, c2, c3] = CONSTANTS.map(|word| [word; LANES]);
    let [k0, k1, k2, k3, k4, k5, k6, k7] = inputs.key.each_ref().map(picked);
    let [n0, n1, n2] = inputs.nonce.each_ref().map(picked);
    [c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, counters, n0, n1, n2]
}

/// The block function of RFC 8439 §2.3 in four lanes: each word of all blocks.
fn key_stream(input: [[u32; LANES]; 16]) -> [[u32; LANES]; 16] {
    let mut x = input;
    macro_rules! half {
        ($x:ident, $a:literal, $b:literal, $d:literal, $bits:literal) => {
            $x[$a] = add($x[$a], $x[$b]);
            $x[$d] = xor_rotate::<$bits>($x[$d], $x[$a]);
        };
    }
    for _ in 0..10 {
        double_round!(half, x);
    }
    for (x, input) in x.iter_mut().zip(input) {
        *x = add(*x, input);
    }
    x
}

/// The block of each lane.
fn transposed(words: [[u32; LANES]; 16]) -> [[u8; BLOCK_LEN]; LANES] {
    let mut out = [[0; BLOCK_LEN]; LANES];
    for (at, words) in (0..).step_by(4).zip(words) {
        for (block, word) in out.iter_mut().zip(words) {
            if let Some(bytes) = block.get_mut(at..at + 4) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    out
}

#[inline]
fn add(a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a, b);
    [a0.wrapping_add(b0), a1.wrapping_add(b1), a2.wrapping_add(b2), a3.wrapping_add(b3)]
}

#[inline]
fn xor_rotate<const BITS: u32>(a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a, b);
    [a0 ^ b0, a1 ^ b1, a2 ^ b2, a3 ^ b3].map(|word| word.rotate_left(BITS))
}
