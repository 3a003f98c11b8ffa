//! The three handshake messages, byte for byte (whitepaper §5.4.2, §5.4.3, §5.4.7).
//!
//! Private to the crate: others see byte arrays of fixed length.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First word of an initiation: type 1, three reserved bytes that must be zero.
pub(crate) const KIND_INITIATION: U32 = U32::new(1);
/// First word of a response.
pub(crate) const KIND_RESPONSE: U32 = U32::new(2);
/// First word of a cookie reply.
pub(crate) const KIND_COOKIE_REPLY: U32 = U32::new(3);

/// Length of the Noise part of an initiation: ephemeral key, sealed static key, sealed timestamp.
pub(crate) const INITIATION_NOISE_LEN: usize = 32 + (32 + 16) + (12 + 16);
/// Length of the Noise part of a response: ephemeral key, sealed nothing.
pub(crate) const RESPONSE_NOISE_LEN: usize = 32 + 16;

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Initiation {
    pub(crate) kind: U32,
    pub(crate) sender: U32,
    pub(crate) noise: [u8; INITIATION_NOISE_LEN],
    pub(crate) mac1: [u8; 16],
    pub(crate) mac2: [u8; 16],
}

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Response {
    pub(crate) kind: U32,
    pub(crate) sender: U32,
    pub(crate) receiver: U32,
    pub(crate) noise: [u8; RESPONSE_NOISE_LEN],
    pub(crate) mac1: [u8; 16],
    pub(crate) mac2: [u8; 16],
}

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct CookieReply {
    pub(crate) kind: U32,
    pub(crate) receiver: U32,
    pub(crate) nonce: [u8; 24],
    pub(crate) cookie: [u8; 16],
    pub(crate) tag: [u8; 16],
}

impl Initiation {
    /// The bytes that MAC1 covers.
    pub(crate) fn before_mac1(&self) -> &[u8] {
        self.as_bytes().get(..size_of::<Self>() - 2 * 16).unwrap_or_default()
    }
}

impl Response {
    /// The bytes that MAC1 covers.
    pub(crate) fn before_mac1(&self) -> &[u8] {
        self.as_bytes().get(..size_of::<Self>() - 2 * 16).unwrap_or_default()
    }
}

/// Either of the messages that end with two MACs, taken apart.
///
/// ```text
/// │ authenticated by MAC1 ... │ MAC1 16 │ MAC2 16 │
/// │ authenticated by MAC2 ............. │
/// ```
pub(crate) struct Maced<'a> {
    pub(crate) sender: u32,
    pub(crate) before_mac1: &'a [u8],
    pub(crate) mac1: &'a [u8; 16],
    pub(crate) before_mac2: &'a [u8],
    pub(crate) mac2: &'a [u8; 16],
}

impl<'a> Maced<'a> {
    /// `None` if the bytes are neither an initiation nor a response by type and length.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, _) = <[U32; 2]>::ref_from_prefix(bytes).ok()?;
        let [kind, sender] = *head;
        match (kind, bytes.len()) {
            (KIND_INITIATION, crate::INITIATION_LEN) | (KIND_RESPONSE, crate::RESPONSE_LEN) => {}
            (_, _) => return None,
        }
        let (before_mac2, mac2) = bytes.split_last_chunk::<16>()?;
        let (before_mac1, mac1) = before_mac2.split_last_chunk::<16>()?;
        Some(Self { sender: sender.get(), before_mac1, mac1, before_mac2, mac2 })
    }
}
