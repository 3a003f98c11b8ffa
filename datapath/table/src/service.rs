//! What a flow asks for, as one number that sorts.

use core::fmt;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Protocol and port: `protocol << 16 | port`, so that a range of numbers is a range of ports, or
/// of whole protocols.
///
/// The port of ICMP is `type << 8 | code`; that of a protocol without ports is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service(u32);

impl Service {
    /// The smallest.
    pub const MIN: Self = Self(0);
    /// The largest: port 65535 of protocol 255.
    pub const MAX: Self = Self(0x00ff_ffff);

    /// A port of a protocol.
    #[inline]
    #[must_use]
    pub const fn new(protocol: u8, port: u16) -> Self {
        Self((protocol as u32) << 16 | port as u32)
    }

    /// A TCP port.
    #[must_use]
    pub const fn tcp(port: u16) -> Self {
        Self::new(TCP, port)
    }

    /// A UDP port.
    #[must_use]
    pub const fn udp(port: u16) -> Self {
        Self::new(UDP, port)
    }

    /// An ICMP message.
    #[inline]
    #[must_use]
    pub const fn icmp(kind: u8, code: u8) -> Self {
        Self::new(ICMP, u16::from_be_bytes([kind, code]))
    }

    /// An ICMPv6 message.
    #[inline]
    #[must_use]
    pub const fn icmpv6(kind: u8, code: u8) -> Self {
        Self::new(ICMPV6, u16::from_be_bytes([kind, code]))
    }

    /// A protocol without ports.
    #[inline]
    #[must_use]
    pub const fn other(protocol: u8) -> Self {
        Self::new(protocol, 0)
    }

    /// The number; `None` if it is above [`Self::MAX`].
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits <= Self::MAX.0 { Some(Self(bits)) } else { None }
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The IP protocol.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        let [_, protocol, _, _] = self.0.to_be_bytes();
        protocol
    }

    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        let [_, _, high, low] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The one after this, across protocols.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::from_bits(self.0 + 1)
    }

    /// The one before this, across protocols.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, code] = self.port().to_be_bytes();
        match self.protocol() {
            TCP => write!(f, "tcp/{}", self.port()),
            UDP => write!(f, "udp/{}", self.port()),
            ICMP => write!(f, "icmp/{kind}.{code}"),
            ICMPV6 => write!(f, "icmpv6/{kind}.{code}"),
            protocol if self.port() == 0 => write!(f, "protocol/{protocol}"),
            protocol => write!(f, "protocol/{protocol}/{}", self.port()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        let cases = [
            (Service::tcp(443), 0x0006_01bb, "tcp/443"),
            (Service::udp(53), 0x0011_0035, "udp/53"),
            (Service::icmp(8, 0), 0x0001_0800, "icmp/8.0"),
            (Service::icmpv6(128, 1), 0x003a_8001, "icmpv6/128.1"),
            (Service::other(50), 0x0032_0000, "protocol/50"),
            (Service::MAX, 0x00ff_ffff, "protocol/255/65535"),
        ];
        for (service, bits, name) in cases {
            assert_eq!((service.bits(), service.to_string().as_str()), (bits, name));
            assert_eq!(Service::from_bits(bits), Some(service));
            assert_eq!(Service::new(service.protocol(), service.port()), service);
        }
        assert_eq!(Service::from_bits(0x0100_0000), None);
    }

    #[test]
    fn neighbours_cross_protocols_and_end() {
        assert_eq!(Service::tcp(65_535).next(), Some(Service::other(7)));
        assert_eq!(Service::udp(0).previous(), Some(Service::new(16, 65_535)));
        assert_eq!((Service::MAX.next(), Service::MIN.previous()), (None, None));
    }
}
