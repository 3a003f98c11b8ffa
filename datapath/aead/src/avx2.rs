//! AVX2: eight blocks of ChaCha20 beside each other, and Poly1305 in the scalar units between them; where
//! there is nothing to encrypt, two times four messages of Poly1305.

mod chacha20;
mod chain;
mod poly1305;

use crate::TAG_LEN;
use crate::chacha::{Blocks, Inputs};
use crate::kernel::{Authenticated, Kernel};

/// Messages that it is given together.
const GROUP: usize = 8;

/// Proof that the processor has AVX2 and BMI2.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if it is true.
    pub(crate) fn detect() -> Option<Self> {
        let both = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
        both.then_some(Self(()))
    }
}

impl Kernel<GROUP> for Avx2 {
    const BESIDE: bool = true;

    #[inline]
    fn gains(self, count: usize, longest: usize) -> bool {
        count >= if longest <= 256 { 4 } else { 8 }
    }

    #[inline]
    fn xor(self, inputs: &Inputs<GROUP>, blocks: Blocks<'_, '_, GROUP>) {
        // SAFETY: the callee needs features that `detect` found before it made `self`.
        unsafe { chacha20::xor(inputs, blocks) }
    }

    #[inline]
    fn authenticate(self, group: &Authenticated<'_, GROUP>) -> [[u8; TAG_LEN]; GROUP] {
        // SAFETY: the callee needs features that `detect` found before it made `self`.
        unsafe { poly1305::authenticate(group) }
    }

    #[inline]
    fn xor_beside(
        self,
        inputs: &Inputs<GROUP>,
        blocks: Blocks<'_, '_, GROUP>,
        group: &Authenticated<'_, GROUP>,
    ) -> [[u8; TAG_LEN]; GROUP] {
        // SAFETY: the callee needs features that `detect` found before it made `self`.
        unsafe { chacha20::xor_beside(inputs, blocks, group) }
    }
}
