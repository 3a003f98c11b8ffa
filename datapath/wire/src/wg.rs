//! The outside of the four WireGuard messages (whitepaper §5.4; Linux
//! `drivers/net/wireguard/messages.h`). All integers are little-endian.
//!
//! ```text
//!   1 initiation    148 bytes          3 cookie reply   64 bytes
//!   2 response       92 bytes          4 data           16 + padded content + 16
//!   data:  type 4 | 0 0 0 | receiver u32 | counter u64 | ciphertext | tag
//! ```

/// Length of a handshake initiation.
pub const INITIATION_LEN: usize = 148;
/// Length of a handshake response.
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Length of what precedes the ciphertext of a data message.
pub const DATA_HEADER_LEN: usize = 16;
/// Length of the authenticator at the end of a data message.
pub const TAG_LEN: usize = 16;
/// Length of the shortest data message: a keepalive.
pub const DATA_LEN_MIN: usize = 32;

const _: () = assert!(DATA_LEN_MIN == DATA_HEADER_LEN + TAG_LEN);

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First message of a handshake.
    Initiation,
    /// Second message of a handshake.
    Response,
    /// Answer of a loaded responder.
    CookieReply,
    /// An encrypted packet, or a keepalive.
    Data,
}

/// What a UDP payload is, by its type, reserved bytes and length; `None` if it is no message.
#[inline]
#[must_use]
pub fn kind(message: &[u8]) -> Option<Kind> {
    match (message.first_chunk::<4>()?, message.len()) {
        ([1, 0, 0, 0], INITIATION_LEN) => Some(Kind::Initiation),
        ([2, 0, 0, 0], RESPONSE_LEN) => Some(Kind::Response),
        ([3, 0, 0, 0], COOKIE_REPLY_LEN) => Some(Kind::CookieReply),
        ([4, 0, 0, 0], DATA_LEN_MIN..) => Some(Kind::Data),
        _ => None,
    }
}

/// The header of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// Index that the receiver chose for its session.
    pub receiver: u32,
    /// Message counter; the nonce of the cipher.
    pub counter: u64,
}

impl Data {
    /// Reads the header of a data message; `None` if [`kind`] says that it is none.
    #[inline]
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let &[4, 0, 0, 0, r0, r1, r2, r3, c0, c1, c2, c3, c4, c5, c6, c7] =
            message.first_chunk::<DATA_HEADER_LEN>()?
        else {
            return None;
        };
        if message.len() < DATA_LEN_MIN {
            return None;
        }
        Some(Self {
            receiver: u32::from_le_bytes([r0, r1, r2, r3]),
            counter: u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        })
    }

    /// Writes the 16 bytes at the start of `message`. Returns `false`, and writes nothing, if they
    /// do not fit.
    #[inline]
    pub fn write(&self, message: &mut [u8]) -> bool {
        let Some(room) = message.first_chunk_mut::<DATA_HEADER_LEN>() else { return false };
        let [r0, r1, r2, r3] = self.receiver.to_le_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_le_bytes();
        *room = [4, 0, 0, 0, r0, r1, r2, r3, c0, c1, c2, c3, c4, c5, c6, c7];
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_length() {
        for kind_byte in 0..=255u8 {
            for len in 0..=200 {
                let mut message = vec![0; len];
                if let Some(first) = message.first_mut() {
                    *first = kind_byte;
                }
                let want = match (kind_byte, len) {
                    (1, 148) => Some(Kind::Initiation),
                    (2, 92) => Some(Kind::Response),
                    (3, 64) => Some(Kind::CookieReply),
                    (4, 32..) => Some(Kind::Data),
                    _ => None,
                };
                assert_eq!(kind(&message), want, "type {kind_byte}, {len} bytes");
            }
        }
    }

    #[test]
    fn reserved_bytes_are_zero() {
        for at in 1..4 {
            for (kind_byte, len) in [(1, 148), (2, 92), (3, 64), (4, 32)] {
                let mut message = vec![0; len];
                (message[0], message[at]) = (kind_byte, 1);
                assert_eq!(kind(&message), None, "type {kind_byte}, byte {at}");
            }
        }
    }

    #[test]
    fn the_data_header_byte_for_byte() {
        let header = Data { receiver: 0x0403_0201, counter: 0x0c0b_0a09_0807_0605 };
        let mut message = [0xee; 32];
        assert!(header.write(&mut message));
        assert_eq!(message[..16], [4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(message[16..], [0xee; 16]);
        assert_eq!(Data::parse(&message), Some(header));
        assert_eq!(Data::parse(&message[..31]), None);
        assert!(!header.write(&mut message[..15]));
        message[0] = 1;
        assert_eq!(Data::parse(&message), None);
    }
}
