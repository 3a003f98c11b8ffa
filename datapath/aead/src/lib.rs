//! ChaCha20-Poly1305 (RFC 8439) over batches of messages, in the lanes of vector registers.
//!
//! A single short message cannot fill a vector register: its key block comes before its data, and
//! its authenticator is one chain of multiplications. A batch can, because its messages do not
//! depend on each other. Each message has a key and a nonce of its own, and a length of its own.
//!
//! ```text
//!   batch of up to 64, longest first, in groups of 16, with AVX2 of 8
//!
//!   ChaCha20: a lane is one 64-byte block
//!     │ A.0 B.0 C.0 … │ A.1 B.1 C.1 … │      one of each message, as long as each has one,
//!     │ A.2 A.3 … A.23 C.2 … │               then what is left; block 0 makes the Poly1305 key
//!
//!   Poly1305: a lane is one message, so neighbours in a group should be about as long
//!     │ A │ B │ C │ …
//! ```
//!
//! | back end | ChaCha20 | Poly1305 | needs |
//! |---|---|---|---|
//! | [`Backend::Avx512`] | 2 × 16 blocks | 2 × 8 messages, radix 2^44, 52-bit multiply-add | AVX-512 F, BW, DQ, VL, IFMA, VBMI2 |
//! | [`Backend::Avx2`] | 8 blocks | 2 messages of the group before or after, radix 2^64, in the scalar units meanwhile | AVX2, BMI2 |
//! | [`Backend::Portable`] | 4 blocks | one message, radix 2^44 | |
//! | [`Backend::Library`] | one message after the other, by `ring` | | |
//!
//! [`choice`] picks the first that the processor has, that passes a self-test and is faster than the
//! library here, once per process; `BULKHEAD_AEAD` forces another. Batches that are too small to gain go to the library.
//!
//! # What is promised
//!
//! * No branch and no address depends on a key, a plaintext or a tag. They depend on lengths, on how
//!   many messages there are, and, after a tag was compared without branches, on whether it matched.
//! * A message that does not authenticate leaves no plaintext: its text is still the ciphertext, or
//!   zeros where the library refused it. Its neighbours in the batch are not affected.
//! * One-time keys and key stream that was held back are overwritten before a call returns. Copies
//!   that the compiler spills to the stack are not; session keys are in this process' memory anyway.
//!
//! # Where the unsafe code is
//!
//! In `avx2.rs` and `avx512.rs` and their modules, nowhere else: the calls into functions compiled
//! for more than the baseline, which a token proves to be possible (it can only be had from a
//! processor that has the features), and loads and stores of whole arrays, or of a slice under a mask.

mod backend;
mod chacha;
mod group;
mod kernel;
mod key;
mod library;
mod message;
mod poly1305;
mod portable;
mod schedule;
mod self_test;
mod speed;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

pub use backend::{Backend, Choice, Reason, Refusal, Unknown, choice};
pub use key::Key;
pub use message::{Open, Seal};
pub use self_test::Defect;

/// Messages that are worked on together. A longer batch is cut into pieces of this.
pub const BATCH_MAX: usize = 64;

/// Length of an authentication tag, in bytes.
pub const TAG_LEN: usize = 16;

/// Encrypts every message of a batch in place and writes its tag. The messages may have different
/// keys and lengths, and stand in a slice or wherever else an iterator finds them.
#[inline]
pub fn seal_batch<'m, 'a: 'm>(batch: impl IntoIterator<Item = &'m mut Seal<'a>>) {
    choice().backend.seal(batch);
}

/// Verifies every message of a batch, and decrypts in place those that are authentic.
#[inline]
pub fn open_batch<'m, 'a: 'm>(batch: impl IntoIterator<Item = &'m mut Open<'a>>) {
    choice().backend.open(batch);
}
