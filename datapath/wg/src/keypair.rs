//! The keys of a session: sealing, opening, and the counter that must never repeat.
//!
//! HOT PATH: no allocation, no lock, no log line. Keys are immutable and shared by all workers;
//! the only thing that workers contend for is [`SendCounter`], once per batch.
//!
//! INVARIANT: a (key, counter) pair seals one message at most. ChaCha20-Poly1305 under a repeated
//! nonce gives away both plaintexts and the authentication key. [`SendCounter`] is the only
//! source of counters.
//!
//! ```text
//!   nonce, 12 bytes (whitepaper §5.4.6):   │ 0 0 0 0 │ counter, 8 bytes little-endian │
//! ```

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES};

/// What a handshake yields: how to reach the other side, and one key for each direction. Wiped on
/// drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct TransportKeys {
    /// The receiver index in messages to us.
    pub local_index: u32,
    /// The receiver index in messages to the peer.
    pub remote_index: u32,
    /// Key of the messages that we send.
    pub send: [u8; 32],
    /// Key of the messages that we receive.
    pub receive: [u8; 32],
    /// Which side we were in the handshake.
    #[zeroize(skip)]
    pub role: Role,
}

impl fmt::Debug for TransportKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportKeys")
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Which side of the handshake made a session.
///
/// The initiator may send at once. The responder may not before it has received a message of the
/// session, which proves that the initiator has the keys too (whitepaper §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We sent the initiation, and see to the successor of the session.
    Initiator,
    /// We answered it.
    Responder,
}

/// Seals messages to a peer.
pub struct SendKey(LessSafeKey);

impl SendKey {
    /// Takes [`TransportKeys::send`].
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(aead_key(key))
    }

    /// Encrypts `buffer` in place and returns the tag that follows it on the wire. `counter` must
    /// come from the [`SendCounter`] of this key.
    #[inline]
    #[must_use = "without its tag the message cannot be opened"]
    pub fn seal(&self, counter: u64, buffer: &mut [u8]) -> [u8; 16] {
        let mut out = [0; 16];
        match self.0.seal_in_place_separate_tag(nonce(counter), Aad::empty(), buffer) {
            Ok(tag) => out.copy_from_slice(tag.as_ref()),
            // Only a message beyond 256 GiB cannot be sealed. Should it ever happen otherwise,
            // what leaves is nothing.
            Err(ring::error::Unspecified) => buffer.fill(0),
        }
        out
    }
}

/// Opens messages of a peer.
pub struct ReceiveKey(LessSafeKey);

impl ReceiveKey {
    /// Takes [`TransportKeys::receive`].
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(aead_key(key))
    }

    /// Decrypts `ciphertext`, which excludes the tag, in place. Says nothing about replays: ask
    /// the [`crate::ReplayWindow`] next.
    ///
    /// # Errors
    ///
    /// [`Forged`] if the message does not authenticate or its counter is beyond the limit; then
    /// the content of `ciphertext` is of no use.
    #[inline]
    pub fn open(&self, counter: u64, ciphertext: &mut [u8], tag: &[u8; 16]) -> Result<(), Forged> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(Forged);
        }
        self.0
            .open_in_place_separate_tag(
                nonce(counter),
                Aad::empty(),
                Tag::from(*tag),
                ciphertext,
                0..,
            )
            .map(|_| ())
            .map_err(|_| Forged)
    }
}

/// The message was not sealed with this key and counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not authenticate")]
pub struct Forged;

/// One message to seal.
pub struct Seal<'a> {
    /// The key of the session.
    pub key: &'a SendKey,
    /// From the [`SendCounter`] of the key, never used before.
    pub counter: u64,
    /// The plaintext; afterwards the ciphertext.
    pub buffer: &'a mut [u8],
    /// Where the tag goes.
    pub tag: &'a mut [u8; 16],
}

/// Seals every message of a batch. The messages may be of different sessions.
///
/// A batch, because the packets of a batch can be sealed beside each other in the lanes of vector
/// registers; today they are sealed one after the other.
#[inline]
pub fn seal_batch(batch: &mut [Seal<'_>]) {
    for message in batch {
        *message.tag = message.key.seal(message.counter, message.buffer);
    }
}

/// One message to open.
pub struct Open<'a> {
    key: &'a ReceiveKey,
    counter: u64,
    ciphertext: &'a mut [u8],
    tag: &'a [u8; 16],
    opened: bool,
}

impl<'a> Open<'a> {
    /// A message with its `counter`, the `ciphertext` without the tag, and the tag.
    #[inline]
    #[must_use]
    pub const fn new(
        key: &'a ReceiveKey,
        counter: u64,
        ciphertext: &'a mut [u8],
        tag: &'a [u8; 16],
    ) -> Self {
        Self { key, counter, ciphertext, tag, opened: false }
    }

    /// The plaintext, if [`open_batch`] opened it: what did not authenticate cannot be read.
    #[inline]
    #[must_use]
    pub fn plaintext(self) -> Option<&'a mut [u8]> {
        self.opened.then_some(self.ciphertext)
    }

    /// Whether [`open_batch`] opened it.
    #[inline]
    #[must_use]
    pub const fn is_opened(&self) -> bool {
        self.opened
    }
}

/// Opens every message of a batch. The messages may be of different sessions.
#[inline]
pub fn open_batch(batch: &mut [Open<'_>]) {
    for message in batch {
        message.opened = message.key.open(message.counter, message.ciphertext, message.tag).is_ok();
    }
}

/// Hands out the message counters of one [`SendKey`], to any number of workers.
#[derive(Debug)]
pub struct SendCounter {
    next: AtomicU64,
    limit: u64,
}

impl Default for SendCounter {
    fn default() -> Self {
        Self::with_limit(REJECT_AFTER_MESSAGES)
    }
}

impl SendCounter {
    /// A counter that stops earlier than the protocol demands, for tests and simulations. A limit
    /// beyond [`REJECT_AFTER_MESSAGES`] is that.
    #[must_use]
    pub const fn with_limit(limit: u64) -> Self {
        let limit = if limit < REJECT_AFTER_MESSAGES { limit } else { REJECT_AFTER_MESSAGES };
        Self { next: AtomicU64::new(0), limit }
    }

    /// Reserves `count` successive counters and returns the first. `None`, for ever after a
    /// session has used up its counters, if fewer are left; then nothing is reserved.
    #[inline]
    #[must_use = "a reserved counter that is not used is lost"]
    pub fn reserve(&self, count: u64) -> Option<u64> {
        // Relaxed: nothing else is published through this counter, and the order of one atomic's
        // changes is total. Compare-and-swap, because a plain addition beyond the limit could be
        // repeated until it wraps.
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                next.checked_add(count).filter(|end| *end <= self.limit)
            })
            .ok()
    }

    /// How many counters were handed out: messages sent, for [`crate::limits`].
    #[inline]
    #[must_use]
    pub fn count(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Whether so many messages were sent that the session wants a successor.
    #[inline]
    #[must_use]
    pub fn wants_rekey(&self) -> bool {
        self.count() >= REKEY_AFTER_MESSAGES
    }
}

#[inline]
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    if let Some(low) = nonce.last_chunk_mut() {
        *low = counter.to_le_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

fn aead_key(key: &[u8; 32]) -> LessSafeKey {
    #[expect(clippy::expect_used, reason = "the only error is a key of another length")]
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has 32 bytes");
    LessSafeKey::new(key)
}
