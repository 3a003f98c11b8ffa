//! Ethernet II with at most one 802.1Q tag.

use core::fmt;
use core::str::FromStr;

use crate::Malformed;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of a customer VLAN tag (IEEE 802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Length of a header without tag.
pub const UNTAGGED_LEN: usize = 14;
/// Length of a header with one tag.
pub const TAGGED_LEN: usize = 18;

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether the address can name one station: not a group, not all zeros.
    #[inline]
    #[must_use]
    pub fn is_unicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or(MacError)?;
            // `from_str_radix` would also take "+f".
            if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        if parts.next().is_some() { Err(MacError) } else { Ok(Self(octets)) }
    }
}

/// The text is not an Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacError;

impl fmt::Display for MacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not an Ethernet address; want six pairs of hexadecimal digits like 02:00:5e:10:00:01",
        )
    }
}

impl core::error::Error for MacError {}

/// An Ethernet header.
///
/// A frame with two tags has [`ETHERTYPE_VLAN`] as its `ether_type`, an 802.3 frame a length below
/// 1536: both are not IP, and so none of our business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// VLAN identifier 0..=4095 if there is a tag. Priority and drop eligibility are ignored.
    pub vlan: Option<u16>,
    /// What follows the header.
    pub ether_type: u16,
    /// Length of the header: 14, or 18 with a tag.
    pub len: usize,
}

impl Ethernet {
    /// Reads the header at the start of a frame.
    ///
    /// # Errors
    ///
    /// [`Malformed::EthernetTruncated`].
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let (Some(&[.., t0, t1]), Some((destination, rest))) =
            (frame.first_chunk::<UNTAGGED_LEN>(), frame.split_first_chunk())
        else {
            return Err(Malformed::EthernetTruncated);
        };
        let Some(source) = rest.first_chunk() else { return Err(Malformed::EthernetTruncated) };
        let untagged = Self {
            destination: Mac(*destination),
            source: Mac(*source),
            vlan: None,
            ether_type: u16::from_be_bytes([t0, t1]),
            len: UNTAGGED_LEN,
        };
        if untagged.ether_type != ETHERTYPE_VLAN {
            return Ok(untagged);
        }
        let Some(&[.., v0, v1, t0, t1]) = frame.first_chunk::<TAGGED_LEN>() else {
            return Err(Malformed::EthernetTruncated);
        };
        Ok(Self {
            vlan: Some(u16::from_be_bytes([v0, v1]) & 0x0fff),
            ether_type: u16::from_be_bytes([t0, t1]),
            len: TAGGED_LEN,
            ..untagged
        })
    }

    /// Writes the header at the start of `frame`: 18 bytes with a VLAN, else 14. A VLAN is written
    /// with priority 0. Returns `false`, and writes nothing, if it does not fit.
    #[inline]
    pub fn write(&self, frame: &mut [u8]) -> bool {
        let len = if self.vlan.is_some() { TAGGED_LEN } else { UNTAGGED_LEN };
        let Some((destination, rest)) =
            frame.get_mut(..len).and_then(|f| f.split_first_chunk_mut())
        else {
            return false;
        };
        let Some((source, rest)) = rest.split_first_chunk_mut() else { return false };
        (*destination, *source) = (self.destination.0, self.source.0);
        let [t0, t1] = self.ether_type.to_be_bytes();
        if let (Some(vlan), Some(room)) = (self.vlan, rest.first_chunk_mut()) {
            let [g0, g1] = ETHERTYPE_VLAN.to_be_bytes();
            let [v0, v1] = (vlan & 0x0fff).to_be_bytes();
            *room = [g0, g1, v0, v1];
        }
        if let Some(room) = rest.last_chunk_mut() {
            *room = [t0, t1];
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print() {
        let mac: Mac = "02:00:5E:10:00:ff".parse().unwrap();
        assert_eq!(mac, Mac([2, 0, 0x5e, 0x10, 0, 0xff]));
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        for bad in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "2:0:5e:10:0:ff", "+2:00:5e:10:00:ff"]
        {
            assert_eq!(bad.parse::<Mac>(), Err(MacError), "{bad}");
        }
    }

    #[test]
    fn who_is_unicast() {
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_unicast());
        assert!(!Mac([0xff; 6]).is_unicast());
        assert!(!Mac([1, 0, 0x5e, 0, 0, 1]).is_unicast());
        assert!(!Mac::default().is_unicast());
    }

    #[test]
    fn what_is_written_is_read_back() {
        for vlan in [None, Some(0), Some(1), Some(4095)] {
            let header = Ethernet {
                destination: Mac([2, 0, 0, 0, 0, 1]),
                source: Mac([2, 0, 0, 0, 0, 2]),
                vlan,
                ether_type: ETHERTYPE_IPV6,
                len: if vlan.is_some() { 18 } else { 14 },
            };
            let mut frame = [0xee; 20];
            assert!(header.write(&mut frame));
            assert_eq!(Ethernet::parse(&frame), Ok(header));
            assert_eq!(frame[header.len..], [0xee; 20][header.len..], "not a byte more");
            let short = &mut frame[..header.len - 1];
            assert_eq!(Ethernet::parse(short), Err(Malformed::EthernetTruncated));
            assert!(!header.write(short));
        }
    }

    #[test]
    fn priority_is_ignored_and_a_second_tag_is_not_ip() {
        let mut frame = [0; 22];
        frame[12..22].copy_from_slice(&[0x81, 0, 0xf0, 0x07, 0x81, 0, 0, 8, 8, 0]);
        let header = Ethernet::parse(&frame).unwrap();
        assert_eq!((header.vlan, header.ether_type), (Some(7), ETHERTYPE_VLAN));
    }
}
