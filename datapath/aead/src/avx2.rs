//! AVX2: eight blocks of ChaCha20 beside each other, four messages of Poly1305, two times.

mod chacha20;
mod poly1305;

use crate::chacha::{BLOCK_LEN, Blocks, Inputs};
use crate::kernel::Kernel;
use crate::{GROUP, TAG_LEN};

/// Proof that the processor has AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if it is true.
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Kernel for Avx2 {
    #[inline]
    fn gains(self, count: usize, longest: usize) -> bool {
        count >= if longest <= 256 { 6 } else { 8 }
    }

    #[inline]
    fn xor(self, inputs: &Inputs, blocks: Blocks<'_, '_>) {
        // SAFETY: the callee needs AVX2, which `detect` found before it made `self`.
        unsafe { chacha20::xor(inputs, blocks) }
    }

    #[inline]
    fn authenticate(
        self,
        streams: &[[u8; BLOCK_LEN]; GROUP],
        texts: &[&[u8]; GROUP],
        count: usize,
    ) -> [[u8; TAG_LEN]; GROUP] {
        // SAFETY: the callee needs AVX2, which `detect` found before it made `self`.
        unsafe { poly1305::authenticate(streams, texts, count) }
    }
}
