//! What tells one flow from another.
//!
//! A packet has a [`FlowKey`], in its direction. A flow has a [`Pair`]: the two ends in the order
//! of their addresses, the same for both directions, so that one entry serves both.
//!
//! ```text
//!   packet ─▶ FlowKey ─▶ Pair, and whether the sender is its low end ─▶ FlowCache (this worker)
//!                                                                          └ miss ─▶ Registry (all)
//! ```

use bulkhead_table::{EndpointId, LabelId, Service};
use bulkhead_wire::{Address, IpPacket, Transport};

/// The types of an ICMP echo and of its answer (RFC 792; RFC 4443 §4).
const ECHO: u8 = 8;
const ECHO_ANSWER: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_ANSWER_V6: u8 = 129;

/// What tells one flow from another, in the direction of the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Sender's port. Of an ICMP query its identifier, of the answer the query's type and code.
    pub source_port: u16,
    /// Receiver's port. Of an ICMP query its type and code, of the answer the identifier.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
}

impl FlowKey {
    /// The key of a whole packet.
    #[inline]
    #[must_use]
    pub fn of(packet: &IpPacket) -> Self {
        let (source_port, destination_port) = match packet.transport {
            Transport::Tcp { source, destination, .. } | Transport::Udp { source, destination } => {
                (source, destination)
            }
            // An answer is the reverse of its query, and a query in the other direction is not.
            Transport::Icmp { kind: ECHO_ANSWER, code, id } => {
                (u16::from_be_bytes([ECHO, code]), id)
            }
            Transport::Icmpv6 { kind: ECHO_ANSWER_V6, code, id } => {
                (u16::from_be_bytes([ECHO_V6, code]), id)
            }
            Transport::Icmp { kind, code, id } | Transport::Icmpv6 { kind, code, id } => {
                (id, u16::from_be_bytes([kind, code]))
            }
            Transport::Other => (0, 0),
        };
        Self {
            source: packet.source,
            destination: packet.destination,
            source_port,
            destination_port,
            protocol: packet.protocol,
        }
    }

    /// The key of the answers.
    #[inline]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// Both directions of a flow: its two ends, that with the lower address and port first.
///
/// Without gaps, so that an entry of the flow cache has room for everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, packed)]
pub struct Pair {
    low: [u64; 2],
    high: [u64; 2],
    ports: [u16; 2],
    protocol: u8,
}

impl Pair {
    /// The pair of a packet's ends, and whether its sender is the low one.
    #[inline]
    #[must_use]
    pub fn of(key: &FlowKey) -> (Self, bool) {
        let source = (key.source, key.source_port);
        let destination = (key.destination, key.destination_port);
        let from_low = source <= destination;
        let (low, high) = if from_low { (source, destination) } else { (destination, source) };
        let pair = Self {
            low: words(low.0),
            high: words(high.0),
            ports: [low.1, high.1],
            protocol: key.protocol,
        };
        (pair, from_low)
    }

    /// The key of a packet from the low end, or from the high one.
    #[must_use]
    pub fn key(&self, from_low: bool) -> FlowKey {
        let [low, high] = [self.low, self.high]
            .map(|[a, b]| Address::from_bits(u128::from(a) << 64 | u128::from(b)));
        let [low_port, high_port] = self.ports;
        let key = FlowKey {
            source: low,
            destination: high,
            source_port: low_port,
            destination_port: high_port,
            protocol: self.protocol,
        };
        if from_low { key } else { key.reversed() }
    }

    /// What the policy was asked about the packet that opened the flow: [`service_of`] it.
    #[must_use]
    pub fn service(&self, opened: OpenedBy) -> Service {
        let FlowKey { source_port, destination_port, protocol, .. } = self.key(opened.is_low());
        match opened {
            OpenedBy::Low | OpenedBy::High => Service::new(protocol, destination_port),
            OpenedBy::LowAnswering | OpenedBy::HighAnswering => {
                let [query, code] = source_port.to_be_bytes();
                let answer = if query == ECHO { ECHO_ANSWER } else { ECHO_ANSWER_V6 };
                Service::new(protocol, u16::from_be_bytes([answer, code]))
            }
        }
    }

    /// A hash that an outsider cannot aim: folded multiplications under a secret seed.
    #[inline]
    #[must_use]
    pub fn hash(&self, seed: Seed) -> u64 {
        let ([a, b], [c, d], [low, high]) = (self.low, self.high, self.ports);
        let ports = u64::from(low) << 32 | u64::from(high) << 8 | u64::from(self.protocol);
        let first = fold(a ^ seed.0, b ^ seed.1);
        let second = fold(c ^ seed.1, d ^ first);
        fold(second ^ ports, seed.0 | 1)
    }
}

/// Who an end of a flow is to the policy, and its label.
pub type Party = (EndpointId, LabelId);

/// Which end of a pair opened its flow. Whether with an answer to an echo that nobody has seen: the pair of it is
/// that of its query, and does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OpenedBy {
    /// The low one.
    #[default]
    Low,
    /// The high one.
    High,
    /// The low one, with an answer.
    LowAnswering,
    /// The high one, with an answer.
    HighAnswering,
}

impl OpenedBy {
    /// The low or the high end of a pair, with a packet that asked for `service`.
    #[must_use]
    pub fn of(low: bool, pair: &Pair, service: Service) -> Self {
        let plainly = if low { Self::Low } else { Self::High };
        match (plainly, pair.service(plainly) == service) {
            (_, true) => plainly,
            (Self::Low | Self::LowAnswering, false) => Self::LowAnswering,
            (Self::High | Self::HighAnswering, false) => Self::HighAnswering,
        }
    }

    /// Whether it was the low one.
    #[inline]
    #[must_use]
    pub fn is_low(self) -> bool {
        matches!(self, Self::Low | Self::LowAnswering)
    }
}

/// Part of a hash as an index below `len`, by multiplication: `len` need not be a power of two.
#[inline]
#[must_use]
pub(crate) fn index_below(part: u32, len: usize) -> usize {
    // Below 2^32 * 2^32, so neither step loses anything.
    usize::try_from((u64::from(part) * len as u64) >> 32).unwrap_or(0)
}

/// The two halves of a hash.
#[inline]
#[must_use]
pub(crate) fn halves(hash: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = hash.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// What a rule is asked about this packet: protocol and port, or ICMP type and code.
#[inline]
#[must_use]
pub fn service_of(packet: &IpPacket) -> Service {
    match packet.transport {
        Transport::Tcp { destination, .. } | Transport::Udp { destination, .. } => {
            Service::new(packet.protocol, destination)
        }
        Transport::Icmp { kind, code, .. } => Service::icmp(kind, code),
        Transport::Icmpv6 { kind, code, .. } => Service::icmpv6(kind, code),
        Transport::Other => Service::other(packet.protocol),
    }
}

/// The secret of a hash, drawn once at start.
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub u64, pub u64);

#[inline]
fn words(address: Address) -> [u64; 2] {
    let bits = address.bits();
    let low = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    let high = u64::try_from(bits >> 64).unwrap_or(0);
    [high, low]
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let [high, low] = words(Address::from_bits(u128::from(a) * u128::from(b)));
    high ^ low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u16) -> FlowKey {
        FlowKey {
            source: Address::from_bits(0xffff_0a00_0000 + u128::from(n)),
            destination: Address::from_bits(0xffff_0a00_0010),
            source_port: n,
            destination_port: 443,
            protocol: 6,
        }
    }

    #[test]
    fn reversing_twice_is_the_same_flow() {
        assert_eq!(key(9).reversed().reversed(), key(9));
        assert_ne!(key(9).reversed(), key(9));
    }

    #[test]
    fn both_directions_are_one_pair_with_different_senders() {
        for n in [9, 0x10, 0x20] {
            let ((pair, from_low), (back, back_from_low)) =
                (Pair::of(&key(n)), Pair::of(&key(n).reversed()));
            assert_eq!((pair, from_low), (back, !back_from_low), "{n}");
            assert_eq!(pair.key(from_low), key(n), "{n}");
            assert_eq!(pair.key(back_from_low), key(n).reversed(), "{n}");
        }
        // One address, two ports; and the fields that make another flow.
        let itself = FlowKey { destination: key(9).source, ..key(9) };
        assert_eq!(Pair::of(&itself).0, Pair::of(&itself.reversed()).0);
        assert_ne!(Pair::of(&key(9)).0, Pair::of(&FlowKey { protocol: 17, ..key(9) }).0);
        assert_ne!(Pair::of(&key(9)).0, Pair::of(&FlowKey { source_port: 10, ..key(9) }).0);
        assert_ne!(Pair::of(&key(9)).0, Pair::of(&FlowKey { destination_port: 1, ..key(9) }).0);
    }

    /// Of every kind of packet, from either end.
    #[test]
    fn a_pair_and_who_opened_it_tell_what_it_was_opened_for() {
        let icmp = |kind| Transport::Icmp { kind, code: 3, id: 0x0800 };
        let icmpv6 = |kind| Transport::Icmpv6 { kind, code: 3, id: 0x8100 };
        let kinds = (0..=255).flat_map(|kind| [(1, icmp(kind)), (58, icmpv6(kind))]);
        let ports = |(source, destination)| {
            let flags = bulkhead_wire::TcpFlags(2);
            let tcp = Transport::Tcp { source, destination, flags };
            [(6, tcp), (17, Transport::Udp { source, destination })]
        };
        let ports = [(1, 443), (443, 1), (9, 9)].into_iter().flat_map(ports);
        let mut answering = 0;
        for (protocol, transport) in kinds.chain(ports).chain([(47, Transport::Other)]) {
            for (source, destination) in [(1, 2), (2, 1), (1, 1)] {
                let packet = IpPacket {
                    source: Address::from_bits(source),
                    destination: Address::from_bits(destination),
                    protocol,
                    transport_at: 20,
                    len: 40,
                    hop_limit: 1,
                    traffic_class: 0,
                    fragment: bulkhead_wire::Fragment::Whole,
                    transport,
                };
                let (pair, from_low) = Pair::of(&FlowKey::of(&packet));
                let opened = OpenedBy::of(from_low, &pair, service_of(&packet));
                assert_eq!(pair.service(opened), service_of(&packet), "{packet:?}");
                assert_eq!(opened.is_low(), from_low, "{packet:?}");
                answering +=
                    u32::from(matches!(opened, OpenedBy::LowAnswering | OpenedBy::HighAnswering));
            }
        }
        assert_eq!(answering, 2 * 3, "the two answers");
    }

    #[test]
    fn the_hash_depends_on_every_field_and_on_the_seed() {
        let base = key(9);
        let others = [
            FlowKey { protocol: 17, ..base },
            FlowKey { source_port: 10, ..base },
            FlowKey { destination_port: 444, ..base },
            FlowKey { source: Address::from_bits(1 << 64 | base.source.bits()), ..base },
            FlowKey { destination: Address::from_bits(0xffff_0a00_0011), ..base },
        ];
        let hash = |key: &FlowKey| Pair::of(key).0.hash(Seed(3, 5));
        for other in others {
            assert_ne!(hash(&base), hash(&other), "{other:?}");
        }
        assert_ne!(hash(&base), Pair::of(&base).0.hash(Seed(3, 6)));
        assert_ne!(hash(&base), Pair::of(&base).0.hash(Seed(4, 5)));
    }

    #[test]
    fn an_index_is_below_its_bound_and_reaches_all_of_it() {
        for len in [1, 3, 1_000] {
            assert_eq!(index_below(0, len), 0);
            assert_eq!(index_below(u32::MAX, len), len - 1);
        }
        assert_eq!(halves(0x0102_0304_0506_0708), (0x0102_0304, 0x0506_0708));
    }
}
