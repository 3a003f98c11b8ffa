//! A key, in the forms that the back ends want.

use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use zeroize::Zeroize;

/// A ChaCha20-Poly1305 key. It serves every back end, seals and opens.
///
/// Our copy is wiped on drop; `ring` does not wipe its own. It is in one cache line.
#[repr(C, align(64))]
pub struct Key {
    pub(crate) words: [u32; 8],
    pub(crate) library: LessSafeKey,
}

impl Key {
    /// From the 32 bytes of a key.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "the only error is a key of another length")]
        let library = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("the key has 32 bytes");
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { words, library: LessSafeKey::new(library) }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}
