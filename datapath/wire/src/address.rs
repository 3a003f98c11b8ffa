//! One type for both families, so that tables and flow keys need no second path.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address: 128 bits, IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
///
/// The two families never meet: [`crate::IpPacket::parse`] refuses the mapped form on the wire, so
/// an `Address` of that form always came from an IPv4 header or from the operator.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u128);

impl Address {
    /// The address with these bits, most significant first on the wire.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Whether this is an IPv4 address.
    #[inline]
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        self.0 >> 32 == 0xffff
    }

    /// The 32 bits of an IPv4 address.
    #[inline]
    #[must_use]
    pub const fn ipv4_bits(self) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, reason = "the last 32 bits are meant")]
        let last = self.0 as u32;
        if self.is_ipv4() { Some(last) } else { None }
    }

    /// The same address as the standard library's type.
    #[must_use]
    pub fn to_ip(self) -> IpAddr {
        match self.ipv4_bits() {
            Some(bits) => IpAddr::V4(Ipv4Addr::from(bits)),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }

    /// Multicast (224/4, ff00::/8) or the limited broadcast address.
    #[inline]
    #[must_use]
    pub fn is_multicast(self) -> bool {
        match self.ipv4_bits() {
            Some(bits) => is_multicast_v4(bits),
            None => self.0 >> 120 == 0xff,
        }
    }

    /// Addresses that name no host of the network: 0/8, 127/8, ::, ::1 (RFC 6890).
    #[inline]
    #[must_use]
    pub fn is_nobody(self) -> bool {
        match self.ipv4_bits() {
            Some(bits) => is_nobody_v4(bits),
            None => self.0 <= 1,
        }
    }
}

/// [`Address::is_multicast`] of an IPv4 address.
#[inline]
pub(crate) const fn is_multicast_v4(bits: u32) -> bool {
    bits >> 28 == 0xe || bits == u32::MAX
}

/// [`Address::is_nobody`] of an IPv4 address.
#[inline]
pub(crate) const fn is_nobody_v4(bits: u32) -> bool {
    matches!(bits >> 24, 0 | 127)
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Self(0xffff << 32 | u128::from(ip.to_bits()))
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Self {
        Self(ip.to_bits())
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["10.0.0.1", "0.0.0.0", "255.255.255.255", "::", "fd44::7", "::fffe:1.2.3.4"] {
            let ip: IpAddr = text.parse().unwrap();
            let address = Address::from(ip);
            assert_eq!(address.to_ip(), ip);
            assert_eq!(address.is_ipv4(), ip.is_ipv4());
            assert_eq!(Address::from_bits(address.bits()), address);
            assert_eq!(address.to_string(), ip.to_string());
        }
        assert_eq!(address("1.2.3.4").bits(), 0xffff_0102_0304);
        assert_eq!(address("1.2.3.4").ipv4_bits(), Some(0x0102_0304));
        assert_eq!(address("::1.2.3.4").ipv4_bits(), None);
    }

    #[test]
    fn the_edges_of_the_special_blocks() {
        let multicast = ["224.0.0.0", "239.255.255.255", "255.255.255.255", "ff00::", "ffff::1"];
        let nobody = ["0.0.0.0", "0.255.255.255", "127.0.0.0", "127.255.255.255", "::", "::1"];
        let plain = [
            "1.0.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "223.255.255.255",
            "240.0.0.0",
            "255.255.255.254",
            "::2",
            "fe80::1",
            "feff::",
        ];
        for text in multicast {
            assert!(address(text).is_multicast() && !address(text).is_nobody(), "{text}");
        }
        for text in nobody {
            assert!(address(text).is_nobody() && !address(text).is_multicast(), "{text}");
        }
        for text in plain {
            assert!(!address(text).is_nobody() && !address(text).is_multicast(), "{text}");
        }
    }
}
