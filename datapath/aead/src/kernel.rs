//! What a set of vector instructions must provide.

use crate::TAG_LEN;
use crate::chacha::{Blocks, Inputs};
use crate::poly1305::OneTimeKeys;

/// The two halves of the cipher, over lanes, for up to `G` messages together.
pub(crate) trait Kernel<const G: usize>: Copy {
    /// Whether [`Self::xor_beside`] is faster than its two halves one after the other.
    const BESIDE: bool = false;

    /// Whether a group of `count` messages, the longest of `longest` bytes, is faster here than
    /// in the library.
    fn gains(self, count: usize, longest: usize) -> bool;

    /// Puts the keys of all messages in their places.
    #[inline]
    fn set_keys(self, inputs: &mut Inputs<G>, keys: &[&[u32; 8]; G]) {
        inputs.set_keys(keys);
    }

    /// XORs the key stream over all blocks, and gives the one-time keys, if they are wanted: it takes them with
    /// [`Blocks::take_keys`]. Those of the last group stand there before.
    fn xor(self, inputs: &Inputs<G>, blocks: Blocks<'_, '_, G>);

    /// Computes the tags of a group.
    fn authenticate(self, group: &Authenticated<'_, G>) -> [[u8; TAG_LEN]; G];

    /// As [`Self::xor`] for one group, and computes the tags of another.
    #[inline]
    fn xor_beside(
        self,
        inputs: &Inputs<G>,
        blocks: Blocks<'_, '_, G>,
        group: &Authenticated<'_, G>,
    ) -> [[u8; TAG_LEN]; G] {
        self.xor(inputs, blocks);
        self.authenticate(group)
    }
}

/// What the tags of a group are computed of.
pub(crate) struct Authenticated<'t, const G: usize> {
    /// The keys of these tags.
    pub(crate) keys: &'t OneTimeKeys<G>,
    /// The ciphertexts. Those behind `count` are empty.
    pub(crate) texts: [&'t [u8]; G],
    /// Messages. The tags behind them mean nothing.
    pub(crate) count: usize,
}

#[cfg(test)]
mod tests;
