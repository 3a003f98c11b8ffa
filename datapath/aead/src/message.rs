//! The jobs of a batch.

use crate::{Key, TAG_LEN};

/// A message to seal.
pub struct Seal<'a> {
    pub(crate) key: &'a Key,
    pub(crate) nonce: [u8; 12],
    pub(crate) text: &'a mut [u8],
    pub(crate) tag: &'a mut [u8; TAG_LEN],
}

impl<'a> Seal<'a> {
    /// `text` becomes the ciphertext, `tag` its authentication tag. A nonce must be used once per
    /// key: under a repeated one ChaCha20-Poly1305 gives away both plaintexts and lets anyone
    /// forge.
    #[inline]
    #[must_use]
    pub const fn new(
        key: &'a Key,
        nonce: [u8; 12],
        text: &'a mut [u8],
        tag: &'a mut [u8; TAG_LEN],
    ) -> Self {
        Self { key, nonce, text, tag }
    }

    /// The text, once it is encrypted.
    #[inline]
    pub(crate) fn ciphertext(&self) -> &[u8] {
        self.text
    }
}

/// A message to open.
pub struct Open<'a> {
    pub(crate) key: &'a Key,
    pub(crate) nonce: [u8; 12],
    pub(crate) text: &'a mut [u8],
    pub(crate) tag: &'a [u8; TAG_LEN],
    pub(crate) opened: bool,
}

impl<'a> Open<'a> {
    /// `text` is the ciphertext without its `tag`.
    #[inline]
    #[must_use]
    pub const fn new(
        key: &'a Key,
        nonce: [u8; 12],
        text: &'a mut [u8],
        tag: &'a [u8; TAG_LEN],
    ) -> Self {
        Self { key, nonce, text, tag, opened: false }
    }

    /// The text, before it is decrypted.
    #[inline]
    pub(crate) fn ciphertext(&self) -> &[u8] {
        self.text
    }

    /// Whether the message is authentic. Not before [`crate::open_batch`] has said so.
    #[inline]
    #[must_use]
    pub const fn is_opened(&self) -> bool {
        self.opened
    }

    /// The plaintext, if the message is authentic: what is not cannot be read.
    #[inline]
    #[must_use]
    pub fn plaintext(self) -> Option<&'a mut [u8]> {
        self.opened.then_some(self.text)
    }
}
