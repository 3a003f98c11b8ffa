//! AVX-512: two times sixteen blocks of ChaCha20 beside each other, two times eight messages of
//! Poly1305.

mod chacha20;
mod poly1305;

use crate::chacha::{BLOCK_LEN, Blocks, Inputs};
use crate::kernel::Kernel;
use crate::{GROUP, TAG_LEN};

/// Proof that the processor has AVX-512 F, BW, DQ, VL, IFMA and VBMI2.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, if it is true.
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2");
        all.then_some(Self(()))
    }
}

impl Kernel for Avx512 {
    #[inline]
    fn gains(self, count: usize, longest: usize) -> bool {
        count >= if longest <= 256 { 4 } else { 6 }
    }

    #[inline]
    fn xor(self, inputs: &Inputs, blocks: Blocks<'_, '_>) {
        // SAFETY: the callee needs features that `detect` found before it made `self`.
        unsafe { chacha20::xor(inputs, blocks) }
    }

    #[inline]
    fn authenticate(
        self,
        streams: &[[u8; BLOCK_LEN]; GROUP],
        texts: &[&[u8]; GROUP],
        count: usize,
    ) -> [[u8; TAG_LEN]; GROUP] {
        // SAFETY: the callee needs features that `detect` found before it made `self`.
        unsafe { poly1305::authenticate(streams, texts, count) }
    }
}
