//! For processors without the vector instructions that the other kernels need, and the plain text
//! that those are read against. Four blocks beside each other suit any 128-bit register.

use crate::chacha::{BLOCK_LEN, Blocks, Row, Step, double_round, xor_short};
use crate::kernel::Kernel;
use crate::poly1305::{Accumulator, Group, lengths};

const LANES: usize = 4;

/// The kernel that needs nothing.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Kernel for Portable {
    /// It is never faster than the library, and only runs where it is asked for.
    #[inline]
    fn gains(self, _count: usize, _longest: usize) -> bool {
        true
    }

    fn xor(self, mut blocks: Blocks<'_, '_>) {
        let mut step = Step::<LANES>::new();
        while blocks.fill(&mut step) {
            let streams = key_stream(&inputs(&step));
            for (text, stream) in step.texts.iter_mut().zip(&streams) {
                xor_short(text, stream);
            }
        }
    }

    fn authenticate(self, group: &mut Group<'_>) {
        let texts = group.keys.iter().zip(&group.texts).take(group.count);
        for (tag, (key, text)) in group.tags.iter_mut().zip(texts) {
            let mut accumulator = Accumulator::new(key);
            accumulator.text(text);
            let [low, high] = lengths(text.len());
            accumulator.block(u128::from(high) << 64 | u128::from(low));
            *tag = accumulator.tag(key);
        }
    }
}

/// The input of every lane.
fn inputs(step: &Step<'_, LANES>) -> [Row; LANES] {
    let [first, ..] = step.rows;
    let mut lane = 0;
    step.rows.map(|row| {
        let mut input = if step.successive { first } else { row };
        if step.successive {
            input.count(lane);
        }
        lane += 1;
        input
    })
}

/// The block function of RFC 8439 §2.3 in four lanes.
fn key_stream(rows: &[Row; LANES]) -> [[u8; BLOCK_LEN]; LANES] {
    let [a, b, c, d] = rows.each_ref().map(|row| row.0);
    let mut input = [[0; LANES]; 16];
    for (word, (((a, b), c), d)) in input.iter_mut().zip(a.iter().zip(&b).zip(&c).zip(&d)) {
        *word = [*a, *b, *c, *d];
    }
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
    let mut out = [[0; BLOCK_LEN]; LANES];
    for ((at, x), input) in (0..).step_by(4).zip(x).zip(input) {
        for (block, word) in out.iter_mut().zip(add(x, input)) {
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
