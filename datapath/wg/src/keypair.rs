//! The keys of a session: sealing, opening, and the counter that must never repeat.
//!
//! HOT PATH: no allocation, no lock, no log line. Keys are immutable and shared by all workers;
//! the only thing that workers contend for is [`crate::SendCounter`], once per batch.
//!
//! INVARIANT: a (key, counter) pair seals one message at most. ChaCha20-Poly1305 under a repeated
//! nonce gives away both plaintexts and the authentication key. [`crate::SendCounter`] is the only
//! source of counters.
//!
//! ```text
//!   nonce, 12 bytes (whitepaper §5.4.6):   │ 0 0 0 0 │ counter, 8 bytes little-endian │
//! ```

use std::fmt;

use bulkhead_aead::Key;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits::REJECT_AFTER_MESSAGES;

/// What a handshake yields: how to reach the other side, and one key for each direction. Wiped on
/// drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
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
pub struct SendKey(Key);

impl SendKey {
    /// Takes [`TransportKeys::send`].
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Key::new(key))
    }

    /// Encrypts `buffer` in place and returns the tag that follows it on the wire. `counter` must
    /// come from the [`crate::SendCounter`] of this key.
    #[inline]
    #[must_use = "without its tag the message cannot be opened"]
    pub fn seal(&self, counter: u64, buffer: &mut [u8]) -> [u8; 16] {
        let mut tag = [0; 16];
        seal_batch([&mut Seal::new(self, counter, buffer, &mut tag)]);
        tag
    }
}

/// Opens messages of a peer.
pub struct ReceiveKey(Key);

impl ReceiveKey {
    /// Takes [`TransportKeys::receive`].
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Key::new(key))
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
        let mut message = Open::new(self, counter, ciphertext, tag);
        open_batch([&mut message]);
        if message.is_opened() { Ok(()) } else { Err(Forged) }
    }
}

/// The message was not sealed with this key and counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not authenticate")]
pub struct Forged;

/// One message to seal.
pub struct Seal<'a>(bulkhead_aead::Seal<'a>);

impl<'a> Seal<'a> {
    /// `buffer` is the plaintext, afterwards the ciphertext; its tag goes to `tag`. `counter` must
    /// come from the [`crate::SendCounter`] of the key.
    #[inline]
    #[must_use]
    pub const fn new(
        key: &'a SendKey,
        counter: u64,
        buffer: &'a mut [u8],
        tag: &'a mut [u8; 16],
    ) -> Self {
        Self(bulkhead_aead::Seal::new(&key.0, nonce(counter), buffer, tag))
    }
}

/// Seals every message of a batch. The messages may be of different sessions.
///
/// A batch, because its messages are sealed beside each other in the lanes of vector registers.
#[inline]
pub fn seal_batch<'m, 'a: 'm>(batch: impl IntoIterator<Item = &'m mut Seal<'a>>) {
    bulkhead_aead::seal_batch(batch.into_iter().map(|message| &mut message.0));
}

/// One message to open.
pub struct Open<'a>(Option<bulkhead_aead::Open<'a>>);

impl<'a> Open<'a> {
    /// A message with its `counter`, the `ciphertext` without the tag, and the tag. It will not be
    /// opened if its counter is beyond the limit.
    #[inline]
    #[must_use]
    pub const fn new(
        key: &'a ReceiveKey,
        counter: u64,
        ciphertext: &'a mut [u8],
        tag: &'a [u8; 16],
    ) -> Self {
        if counter >= REJECT_AFTER_MESSAGES {
            return Self(None);
        }
        Self(Some(bulkhead_aead::Open::new(&key.0, nonce(counter), ciphertext, tag)))
    }

    /// The plaintext, if [`open_batch`] opened it: what did not authenticate cannot be read.
    #[inline]
    #[must_use]
    pub fn plaintext(self) -> Option<&'a mut [u8]> {
        self.0?.plaintext()
    }

    /// Whether [`open_batch`] opened it.
    #[inline]
    #[must_use]
    pub fn is_opened(&self) -> bool {
        self.0.as_ref().is_some_and(bulkhead_aead::Open::is_opened)
    }
}

/// Opens every message of a batch. The messages may be of different sessions.
#[inline]
pub fn open_batch<'m, 'a: 'm>(batch: impl IntoIterator<Item = &'m mut Open<'a>>) {
    bulkhead_aead::open_batch(batch.into_iter().filter_map(|message| message.0.as_mut()));
}

#[inline]
const fn nonce(counter: u64) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = counter.to_le_bytes();
    [0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20poly1305::aead::AeadInPlace;
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
    use proptest::prelude::*;

    /// RFC 8439 §2.4.2. The message cipher of §2.8 begins with block 1, as that example does, and
    /// the example's nonce is ours for this counter: the layout of the nonce is proved with it.
    #[test]
    fn the_sunscreen_of_rfc_8439() {
        let key = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let mut text = *b"Ladies and Gentlemen of the class of '99: If I could offer you only one \
            tip for the future, sunscreen would be it.";
        let _ = SendKey::new(&key).seal(0x4a00_0000, &mut text);
        let want = "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b\
            f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8\
            07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736\
            5af90bbf74a35be6b40b8eedf2785e42874d";
        assert_eq!(text.map(|byte| format!("{byte:02x}")).concat(), want);
    }

    /// RFC 8439 appendix A.1, vector 2: the key stream of block 1 under the zero key and nonce.
    #[test]
    fn the_zero_key_of_rfc_8439() {
        let mut zeros = [0; 32];
        let _ = SendKey::new(&[0; 32]).seal(0, &mut zeros);
        let want = "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed";
        assert_eq!(zeros.map(|byte| format!("{byte:02x}")).concat(), want);
    }

    /// The specification: another implementation, with the nonce written out.
    fn twin(key: &[u8; 32], counter: u64, text: &mut [u8]) -> [u8; 16] {
        let c = counter.to_le_bytes();
        let nonce = [0, 0, 0, 0, c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]];
        ChaCha20Poly1305::new(key.into())
            .encrypt_in_place_detached(&nonce.into(), b"", text)
            .unwrap()
            .into()
    }

    /// One message of a batch: key, counter, text, and the bit to damage on the way, if any.
    type Message = (usize, u64, Vec<u8>, Option<usize>);

    fn message() -> impl Strategy<Value = Message> {
        let counter = prop_oneof![0u64..4, any::<u64>().prop_map(|n| n % REJECT_AFTER_MESSAGES)];
        let text = proptest::collection::vec(any::<u8>(), 0..1500);
        (0usize..3, counter, text, proptest::option::of(any::<usize>()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn batches_agree_with_the_twin(
            secrets: [[u8; 32]; 3],
            messages in proptest::collection::vec(message(), 0..80),
        ) {
            let send = secrets.map(|key| SendKey::new(&key));
            let receive = secrets.map(|key| ReceiveKey::new(&key));
            let mut buffers: Vec<_> = messages.iter().map(|m| (m.2.clone(), [0; 16])).collect();
            let mut batch: Vec<_> = messages
                .iter()
                .zip(&mut buffers)
                .map(|(m, (buffer, tag))| Seal::new(&send[m.0], m.1, buffer, tag))
                .collect();
            seal_batch(&mut batch);

            for (m, (buffer, tag)) in messages.iter().zip(&mut buffers) {
                let mut want = m.2.clone();
                let want_tag = twin(&secrets[m.0], m.1, &mut want);
                prop_assert_eq!((&*buffer, &*tag), (&want, &want_tag));
                if let Some(bit) = m.3 {
                    let bit = bit % ((buffer.len() + 16) * 8);
                    let byte = buffer.iter_mut().chain(tag.iter_mut()).nth(bit / 8).unwrap();
                    *byte ^= 1 << (bit % 8);
                }
            }

            let mut batch: Vec<_> = messages
                .iter()
                .zip(&mut buffers)
                .map(|(m, (buffer, tag))| Open::new(&receive[m.0], m.1, buffer, tag))
                .collect();
            prop_assert!(batch.iter().all(|message| !message.is_opened()));
            open_batch(&mut batch);
            for (m, opened) in messages.iter().zip(batch) {
                prop_assert_eq!(opened.is_opened(), m.3.is_none());
                let want = m.3.is_none().then_some(m.2.as_slice());
                prop_assert_eq!(opened.plaintext().map(|text| &*text), want);
            }
        }
    }

    #[test]
    fn a_message_opens_only_with_its_key_and_counter() {
        let (key, mut text) = ([1; 32], *b"payroll");
        let tag = SendKey::new(&key).seal(7, &mut text);
        let open = |key, counter| {
            let mut text = text;
            ReceiveKey::new(&key).open(counter, &mut text, &tag).map(|()| text)
        };
        assert_eq!(open(key, 7), Ok(*b"payroll"));
        assert_eq!(open(key, 6), Err(Forged));
        assert_eq!(open(key, 7 << 32), Err(Forged));
        assert_eq!(open([2; 32], 7), Err(Forged));
    }

    #[test]
    fn a_counter_beyond_the_limit_opens_nothing() {
        let key = [1; 32];
        for (counter, want) in
            [(REJECT_AFTER_MESSAGES - 1, Ok(())), (REJECT_AFTER_MESSAGES, Err(Forged))]
        {
            let mut text = [0; 8];
            let tag = SendKey::new(&key).seal(counter, &mut text);
            assert_eq!(ReceiveKey::new(&key).open(counter, &mut text, &tag), want);
        }
    }

    #[test]
    fn transport_keys_are_wiped_and_not_printed() {
        fn wiped_on_drop<T: ZeroizeOnDrop>() {}
        wiped_on_drop::<TransportKeys>();
        let mut keys = TransportKeys {
            local_index: 1,
            remote_index: 2,
            send: [0xa5; 32],
            receive: [0xa5; 32],
            role: Role::Initiator,
        };
        let text = format!("{keys:?}");
        assert!(!text.contains("165") && !text.contains("a5"), "{text}");
        keys.zeroize();
        assert_eq!((keys.send, keys.receive), ([0; 32], [0; 32]));
    }
}
