//! One message after the other, by `ring`: for batches too small to gain from lanes, for messages
//! longer than a packet, and where nothing faster may be used.

use ring::aead::{Aad, Nonce, Tag};

use crate::{Open, Seal};

/// Seals one message. What cannot be sealed (beyond 256 GiB) leaves as zeros.
#[inline]
pub(crate) fn seal(message: &mut Seal<'_>) {
    let nonce = Nonce::assume_unique_for_key(message.nonce);
    let sealed = message.key.library.seal_in_place_separate_tag(nonce, Aad::empty(), message.text);
    match sealed {
        Ok(tag) => message.tag.copy_from_slice(tag.as_ref()),
        Err(ring::error::Unspecified) => {
            message.text.fill(0);
            message.tag.fill(0);
        }
    }
}

/// Opens one message. What is not authentic is left as zeros.
#[inline]
pub(crate) fn open(message: &mut Open<'_>) {
    let nonce = Nonce::assume_unique_for_key(message.nonce);
    let tag = Tag::from(*message.tag);
    let opened = message
        .key
        .library
        .open_in_place_separate_tag(nonce, Aad::empty(), tag, message.text, 0..)
        .is_ok();
    message.opened = opened;
    if !opened {
        // As ring does; said here, because we promise it.
        message.text.fill(0);
    }
}
