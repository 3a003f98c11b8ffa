//! AVX-512: two times sixteen blocks of ChaCha20 beside each other, two times eight messages of
//! Poly1305.

mod chacha20;
mod poly1305;

use crate::TAG_LEN;
use crate::chacha::{Blocks, Inputs};
use crate::kernel::{Authenticated, Kernel};

/// Messages that it is given together.
const GROUP: usize = 16;

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

impl Kernel<GROUP> for Avx512 {
    #[inline]
    fn gains(self, count: usize, longest: usize) -> bool {
        count >= if longest <= 256 { 4 } else { 6 }
    }

    #[inline]
    fn set_keys(self, inputs: &mut Inputs<GROUP>, keys: &[&[u32; 8]; GROUP]) {
        // SAFETY: the callee needs features that `detect` found before it made `self`.
        unsafe { chacha20::set_keys(inputs, keys) }
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
}
