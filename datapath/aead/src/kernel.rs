//! What a set of vector instructions must provide.

use crate::chacha::{BLOCK_LEN, Blocks, Inputs};
use crate::{GROUP, TAG_LEN};

/// The two halves of the cipher, over lanes.
pub(crate) trait Kernel: Copy {
    /// Whether a group of `count` messages, the longest of `longest` bytes, is faster here than
    /// in the library.
    fn gains(self, count: usize, longest: usize) -> bool;

    /// XORs the key stream over all blocks.
    fn xor(self, inputs: &Inputs, blocks: Blocks<'_, '_>);

    /// Computes the tags of a group from block 0 of each message's key stream. There are `count`
    /// messages; the texts behind them are empty, and their tags mean nothing.
    fn authenticate(
        self,
        streams: &[[u8; BLOCK_LEN]; GROUP],
        texts: &[&[u8]; GROUP],
        count: usize,
    ) -> [[u8; TAG_LEN]; GROUP];
}

#[cfg(test)]
mod tests;
