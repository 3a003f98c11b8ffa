//! Protocols and ports as they are written: `tcp/443`, `udp/1000-2000`, `icmp/echo`, `icmp/3.4`.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use serde::{Serialize, Serializer};

/// IANA protocol numbers.
pub(crate) const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// An inclusive range of one protocol's ports.
///
/// What "port" means depends on the protocol: the destination port of TCP and UDP; of ICMP and
/// ICMPv6 the type in the upper and the code in the lower byte; all others have none, and the
/// range covers everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRange {
    /// IANA protocol number.
    pub protocol: u8,
    /// The first port that belongs.
    pub first: u16,
    /// The last port that belongs; not below `first`.
    pub last: u16,
}

impl ServiceRange {
    const fn whole(protocol: u8) -> Self {
        Self { protocol, first: 0, last: u16::MAX }
    }

    /// All codes of one ICMP type.
    const fn kind(protocol: u8, kind: u8) -> Self {
        let first = (kind as u16) << 8;
        Self { protocol, first, last: first | 0xff }
    }

    /// A type with all its codes, or `TYPE.CODE`.
    fn message(protocol: u8, text: &str) -> Result<Self, InvalidService> {
        let byte = |text| number::<u8>(text).ok_or(InvalidService::Kind);
        match text.split_once('.') {
            None => Ok(Self::kind(protocol, byte(text)?)),
            Some((kind, code)) => {
                let one = u16::from_be_bytes([byte(kind)?, byte(code)?]);
                Ok(Self { protocol, first: one, last: one })
            }
        }
    }
}

/// What [`ServiceRange::from_str`] accepts, for error messages.
pub(crate) const RANGE_ACCEPTED: &str =
    "tcp, tcp/443, udp/1000-2000, icmp, icmp/echo, icmp/3.4, icmpv6/135 or protocol/50";

/// The text is not a range of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidService {
    /// No such protocol.
    #[error("unknown protocol; accepted are tcp, udp, icmp, icmpv6 and protocol/NUMBER")]
    Protocol,
    /// A port or type that is not a number in range.
    #[error("not a port; accepted are 1 to 65535, or a range of them")]
    Port,
    /// A range that ends before it begins.
    #[error("the range ends before it begins")]
    Backwards,
    /// ICMP type.
    #[error("not an ICMP type; accepted are echo and 0 to 255, and TYPE.CODE for one code")]
    Kind,
    /// Protocol number.
    #[error("not a protocol number; accepted are 0 to 255")]
    Number,
    /// A protocol that has a name of its own.
    #[error("this protocol is written {0}")]
    Named(&'static str),
    /// A test asks about one port.
    #[error("a flow has one port; accepted is for example tcp/443")]
    NotOne,
}

impl FromStr for ServiceRange {
    type Err = InvalidService;

    fn from_str(text: &str) -> Result<Self, InvalidService> {
        let (protocol, rest) = match text.split_once('/') {
            Some((protocol, rest)) => (protocol, Some(rest)),
            None => (text, None),
        };
        match (protocol, rest) {
            ("tcp", None) => Ok(Self::whole(TCP)),
            ("udp", None) => Ok(Self::whole(UDP)),
            ("icmp", None) => Ok(Self::whole(ICMP)),
            ("icmpv6", None) => Ok(Self::whole(ICMPV6)),
            ("tcp", Some(ports)) => port_range(TCP, ports),
            ("udp", Some(ports)) => port_range(UDP, ports),
            // Echo request: RFC 792 and RFC 4443 §4.1.
            ("icmp", Some("echo")) => Ok(Self::kind(ICMP, 8)),
            ("icmpv6", Some("echo")) => Ok(Self::kind(ICMPV6, 128)),
            ("icmp", Some(which)) => Self::message(ICMP, which),
            ("icmpv6", Some(which)) => Self::message(ICMPV6, which),
            ("protocol", Some(which)) => match number(which).ok_or(InvalidService::Number)? {
                TCP => Err(InvalidService::Named("tcp or tcp/PORT")),
                UDP => Err(InvalidService::Named("udp or udp/PORT")),
                ICMP => Err(InvalidService::Named("icmp or icmp/TYPE")),
                ICMPV6 => Err(InvalidService::Named("icmpv6 or icmpv6/TYPE")),
                other => Ok(Self::whole(other)),
            },
            _ => Err(InvalidService::Protocol),
        }
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, first, last } = *self;
        let name = match protocol {
            TCP => "tcp",
            UDP => "udp",
            ICMP => "icmp",
            ICMPV6 => "icmpv6",
            other => return write!(f, "protocol/{other}"),
        };
        f.write_str(name)?;
        match protocol {
            _ if (first, last) == (0, u16::MAX) => Ok(()),
            ICMP | ICMPV6 => match (protocol, first >> 8) {
                (_, kind) if first == last => write!(f, "/{kind}.{}", first & 0xff),
                (ICMP, 8) | (ICMPV6, 128) => f.write_str("/echo"),
                (_, kind) => write!(f, "/{kind}"),
            },
            _ if first == last => write!(f, "/{first}"),
            _ => write!(f, "/{first}-{last}"),
        }
    }
}

/// The destination and service of one flow, written `10.20.1.5 tcp/443`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Where to.
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// See [`ServiceRange`]; 0 for protocols that have none.
    pub port: u16,
}

/// What [`Flow::from_str`] accepts, for error messages.
pub(crate) const FLOW_ACCEPTED: &str =
    "an address and one service, for example 10.20.1.5 tcp/443, or fd44::7 icmpv6/echo";

/// The text is not a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFlow {
    /// Not two words.
    #[error("want an address and a service, for example 10.20.1.5 tcp/443")]
    Shape,
    /// The first word.
    #[error("the first word is not an IP address")]
    Address,
    /// The second word.
    #[error(transparent)]
    Service(InvalidService),
    /// ICMP over IPv6, or ICMPv6 over IPv4.
    #[error("icmp goes to IPv4 addresses, icmpv6 to IPv6 addresses")]
    Family,
}

impl FromStr for Flow {
    type Err = InvalidFlow;

    fn from_str(text: &str) -> Result<Self, InvalidFlow> {
        let mut words = text.split_ascii_whitespace();
        let (Some(address), Some(service), None) = (words.next(), words.next(), words.next())
        else {
            return Err(InvalidFlow::Shape);
        };
        let destination: IpAddr = address.parse().map_err(|_| InvalidFlow::Address)?;
        // Written as IPv6, but on the wire it is the IPv4 address.
        let destination = destination.to_canonical();
        let range: ServiceRange = service.parse().map_err(InvalidFlow::Service)?;
        let (protocol, port) = match range.protocol {
            ICMP | ICMPV6 if service.contains('/') => (range.protocol, range.first),
            TCP | UDP if range.first == range.last => (range.protocol, range.first),
            TCP | UDP | ICMP | ICMPV6 => {
                return Err(InvalidFlow::Service(InvalidService::NotOne));
            }
            other => (other, 0),
        };
        match (protocol, destination) {
            (ICMP, IpAddr::V6(_)) | (ICMPV6, IpAddr::V4(_)) => Err(InvalidFlow::Family),
            _ => Ok(Self { destination, protocol, port }),
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An ICMP type alone means code 0, which is all that most types have.
        let last = match self.protocol {
            ICMP | ICMPV6 if self.port.trailing_zeros() >= 8 => self.port | 0xff,
            _ => self.port,
        };
        let service = ServiceRange { protocol: self.protocol, first: self.port, last };
        write!(f, "{} {service}", self.destination)
    }
}

impl Serialize for Flow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn port_range(protocol: u8, text: &str) -> Result<ServiceRange, InvalidService> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text| number::<u16>(text).filter(|port| *port != 0).ok_or(InvalidService::Port);
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(InvalidService::Backwards);
    }
    Ok(ServiceRange { protocol, first, last })
}

/// Digits only: `u16::from_str` would also take `+443`.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn services_mean_what_they_say() {
        for (text, protocol, first, last) in [
            ("tcp", 6, 0, 65_535),
            ("tcp/443", 6, 443, 443),
            ("udp/1000-2000", 17, 1_000, 2_000),
            ("tcp/1-65535", 6, 1, 65_535),
            ("icmp", 1, 0, 65_535),
            ("icmp/echo", 1, 0x0800, 0x08ff),
            ("icmp/13", 1, 0x0d00, 0x0dff),
            ("icmpv6/echo", 58, 0x8000, 0x80ff),
            ("icmp/3.4", 1, 0x0304, 0x0304),
            ("icmp/8.0", 1, 0x0800, 0x0800),
            ("icmpv6/1.255", 58, 0x01ff, 0x01ff),
            ("protocol/50", 50, 0, 65_535),
        ] {
            let range = ServiceRange { protocol, first, last };
            assert_eq!(text.parse(), Ok(range), "{text}");
            assert_eq!(range.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_service_says_why() {
        use InvalidService::{Backwards, Kind, Named, Number, Port, Protocol};
        for (text, why) in [
            ("", Protocol),
            ("https", Protocol),
            ("TCP/443", Protocol),
            ("tcp ", Protocol),
            ("protocol", Protocol),
            ("tcp/", Port),
            ("tcp/0", Port),
            ("tcp/+443", Port),
            ("tcp/ 443", Port),
            ("tcp/65536", Port),
            ("tcp/1-", Port),
            ("tcp/1-2-3", Port),
            ("udp/2000-1000", Backwards),
            ("icmp/ping", Kind),
            ("icmpv6/256", Kind),
            ("icmp/3.", Kind),
            ("icmp/.4", Kind),
            ("icmp/3.4.5", Kind),
            ("icmp/3.256", Kind),
            ("icmp/echo.0", Kind),
            ("protocol/256", Number),
            ("protocol/esp", Number),
            ("protocol/6", Named("tcp or tcp/PORT")),
            ("protocol/17", Named("udp or udp/PORT")),
            ("protocol/1", Named("icmp or icmp/TYPE")),
            ("protocol/58", Named("icmpv6 or icmpv6/TYPE")),
        ] {
            assert_eq!(text.parse::<ServiceRange>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_flow_has_one_address_and_one_port() {
        let flow = |text: &str| text.parse::<Flow>();
        let v4 = "10.20.1.5".parse().unwrap();
        let want = Flow { destination: v4, protocol: 6, port: 443 };
        assert_eq!(flow("10.20.1.5 tcp/443"), Ok(want));
        assert_eq!(want.to_string(), "10.20.1.5 tcp/443");
        let echo = flow("fd44::7 icmpv6/echo").unwrap();
        assert_eq!((echo.protocol, echo.port), (58, 0x8000));
        assert_eq!(echo.to_string(), "fd44::7 icmpv6/echo");
        assert_eq!(flow("10.20.1.5 protocol/50").unwrap().port, 0);
        let too_big = flow("10.20.1.5 icmp/3.4").unwrap();
        assert_eq!((too_big.port, too_big.to_string().as_str()), (0x0304, "10.20.1.5 icmp/3.4"));
        assert_eq!(flow("10.20.1.5 icmp/3").unwrap().port, 0x0300);

        assert_eq!(flow("::ffff:10.20.1.5 tcp/443"), Ok(want));

        assert_eq!(flow("10.20.1.5"), Err(InvalidFlow::Shape));
        assert_eq!(flow("10.20.1.5 tcp/443 now"), Err(InvalidFlow::Shape));
        assert_eq!(flow("10.20.1 tcp/443"), Err(InvalidFlow::Address));
        let not_one = InvalidFlow::Service(InvalidService::NotOne);
        for several in ["10.20.1.5 tcp", "10.20.1.5 tcp/1-2", "10.20.1.5 icmp"] {
            assert_eq!(flow(several), Err(not_one), "{several}");
        }
        assert_eq!(flow("fd44::7 icmp/echo"), Err(InvalidFlow::Family));
        assert_eq!(flow("10.20.1.5 icmpv6/echo"), Err(InvalidFlow::Family));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9/ .:-]{0,24}") {
            if let Ok(range) = text.parse::<ServiceRange>() {
                prop_assert!(range.first <= range.last);
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
            if let Ok(flow) = text.parse::<Flow>() {
                prop_assert_eq!(flow.to_string().parse(), Ok(flow));
            }
        }
    }
}
