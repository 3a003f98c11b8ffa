//! What a set of vector instructions must provide.

use crate::chacha::Blocks;
use crate::poly1305::Group;

/// The two halves of the cipher, over lanes.
pub(crate) trait Kernel: Copy {
    /// Whether a group of `count` messages, the longest of `longest` bytes, is faster here than
    /// in the library.
    fn gains(self, count: usize, longest: usize) -> bool;

    /// XORs the key stream over all blocks.
    fn xor(self, blocks: Blocks<'_, '_>);

    /// Computes the tags of a group.
    fn authenticate(self, group: &mut Group<'_>);
}

#[cfg(test)]
mod tests;
