//! Where a peer is on the outside, and where a message came from.

use core::net::{IpAddr, SocketAddr};

use bulkhead_link::Endpoint;
use bulkhead_wire::{Address, Datagram, Ethernet, IpPacket, Mac, OuterUdp, Transport, ethernet};

/// Hop limit of our datagrams: that of every stock WireGuard.
const OUTER_HOP_LIMIT: u8 = 64;

/// A peer's place on the outside, down to the Ethernet header. [`Endpoint`] as the datapath
/// keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The peer's outer address.
    pub remote: Address,
    /// Our outer address.
    pub local: Address,
    /// The peer's UDP port.
    pub remote_port: u16,
    /// Our UDP port.
    pub local_port: u16,
    /// The network port that it is reached through.
    pub port: u8,
    /// The VLAN there, 0 if untagged.
    pub vlan: u16,
    /// The neighbour.
    pub remote_mac: [u8; 6],
    /// Ourselves.
    pub local_mac: [u8; 6],
}

impl Place {
    /// In words, for a cell that several threads read.
    pub(crate) fn pack(&self) -> [u64; 7] {
        let [remote_high, remote_low] = halves(self.remote);
        let [local_high, local_low] = halves(self.local);
        let ports = u64::from(self.remote_port) << 48
            | u64::from(self.local_port) << 32
            | u64::from(self.vlan) << 16
            | u64::from(self.port);
        [
            remote_high,
            remote_low,
            local_high,
            local_low,
            ports,
            mac_bits(self.remote_mac),
            mac_bits(self.local_mac),
        ]
    }

    /// Out of the words of [`Self::pack`].
    pub(crate) fn unpack(words: &[u64; 7]) -> Self {
        let [remote_high, remote_low, local_high, local_low, ports, remote_mac, local_mac] = *words;
        let [r0, r1, l0, l1, v0, v1, _, port] = ports.to_be_bytes();
        Self {
            remote: joined(remote_high, remote_low),
            local: joined(local_high, local_low),
            remote_port: u16::from_be_bytes([r0, r1]),
            local_port: u16::from_be_bytes([l0, l1]),
            port,
            vlan: u16::from_be_bytes([v0, v1]),
            remote_mac: mac(remote_mac),
            local_mac: mac(local_mac),
        }
    }
}

fn halves(address: Address) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.bits().to_be_bytes();
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
}

fn joined(high: u64, low: u64) -> Address {
    Address::from_bits(u128::from(high) << 64 | u128::from(low))
}

fn mac_bits(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn mac(bits: u64) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
    [a, b, c, d, e, f]
}

impl Place {
    /// Where the datagram in this frame came from, through the network port `port`; `None` if it is none.
    #[must_use]
    pub fn of_frame(frame: &[u8], port: u8) -> Option<Self> {
        let ethernet = Ethernet::parse(frame).ok()?;
        let packet = IpPacket::parse(frame.get(ethernet.len..)?).ok()?;
        let Transport::Udp { source, destination } = packet.transport else { return None };
        Some(Self {
            remote: packet.source,
            local: packet.destination,
            remote_port: source,
            local_port: destination,
            port,
            vlan: ethernet.vlan.unwrap_or(0),
            remote_mac: ethernet.source.0,
            local_mac: ethernet.destination.0,
        })
    }

    /// The Ethernet header of what we send there.
    #[inline]
    #[must_use]
    pub fn ethernet(&self) -> Ethernet {
        let v4 = self.remote.is_ipv4();
        Ethernet {
            destination: Mac(self.remote_mac),
            source: Mac(self.local_mac),
            vlan: (self.vlan != 0).then_some(self.vlan),
            ether_type: if v4 { ethernet::ETHERTYPE_IPV4 } else { ethernet::ETHERTYPE_IPV6 },
            len: if self.vlan == 0 { 14 } else { 18 },
        }
    }

    /// The IP and UDP headers of what we send there.
    #[inline]
    #[must_use]
    pub fn datagram(&self, traffic_class: u8) -> OuterUdp {
        OuterUdp {
            source: self.local,
            destination: self.remote,
            source_port: self.local_port,
            destination_port: self.remote_port,
            traffic_class,
            hop_limit: OUTER_HOP_LIMIT,
        }
    }
}

impl From<&Endpoint> for Place {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            remote: Address::from(endpoint.remote.ip()),
            local: Address::from(endpoint.local.ip()),
            remote_port: endpoint.remote.port(),
            local_port: endpoint.local.port(),
            port: endpoint.port,
            vlan: endpoint.vlan.unwrap_or(0),
            remote_mac: endpoint.remote_mac,
            local_mac: endpoint.local_mac,
        }
    }
}

impl From<&Place> for Endpoint {
    fn from(place: &Place) -> Self {
        let socket = |address: Address, port| -> SocketAddr {
            let ip: IpAddr = address.to_ip();
            SocketAddr::new(ip, port)
        };
        Self {
            remote: socket(place.remote, place.remote_port),
            local: socket(place.local, place.local_port),
            port: place.port,
            vlan: (place.vlan != 0).then_some(place.vlan),
            remote_mac: place.remote_mac,
            local_mac: place.local_mac,
        }
    }
}

/// The [`Place`] that a message came from, as nearly every frame has it: made and compared without taking the
/// headers apart. Equal places are equal origins.
#[derive(Clone, Copy, Debug, Default, Eq)]
pub struct Origin {
    /// The network port and the VLAN, and if it is [`AS_IN_FRAME`]; then, in that case, all else.
    near: [u64; 4],
    /// Or the rest of a place's words.
    far: [u64; 3],
}

/// The words are as they stood in the frame, and none is far. Free in the word of the ports of
/// [`Place::pack`].
const AS_IN_FRAME: u64 = 1 << 8;

impl Origin {
    /// Of the datagram in this frame, which came through the network port `port`; `None` if it is none.
    #[inline]
    #[must_use]
    pub fn of_frame(frame: &[u8], port: u8) -> Option<Self> {
        match frame.first_chunk().map(Datagram::ends_of_plain) {
            Some(Some((stations, ends))) => Some(Self::in_frame(stations, ends, port)),
            Some(None) | None => Self::of_any_frame(frame, port),
        }
    }

    /// Whether it is that of the datagram in this frame.
    #[inline]
    #[must_use]
    pub fn is_of_frame(&self, frame: &[u8], port: u8) -> bool {
        match frame.first_chunk().map(Datagram::ends_of_plain) {
            Some(Some((stations, ends))) => *self == Self::in_frame(stations, ends, port),
            Some(None) | None => Self::of_any_frame(frame, port) == Some(*self),
        }
    }

    #[inline(never)]
    fn of_any_frame(frame: &[u8], port: u8) -> Option<Self> {
        Place::of_frame(frame, port).map(|place| Self::from(&place))
    }

    /// Of a frame without VLAN tag with a datagram over IPv4: the two stations, and the two addresses and
    /// ports, as they stand there.
    #[inline]
    fn in_frame(stations: &[u8; 12], ends: &[u8; 12], port: u8) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *stations;
        let [m, n, o, p, q, r, s, t, u, v, w, x] = *ends;
        let near = [
            AS_IN_FRAME | u64::from(port),
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            u64::from_ne_bytes([i, j, k, l, u, v, w, x]),
            u64::from_ne_bytes([m, n, o, p, q, r, s, t]),
        ];
        Self { near, far: [0; 3] }
    }

    #[inline]
    fn is_as_in_frame(&self) -> bool {
        let [ports, ..] = self.near;
        ports & AS_IN_FRAME != 0
    }
}

/// All near words at once, for nearly always they are equal.
impl PartialEq for Origin {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let words = self.near.iter().zip(&other.near);
        words.fold(0, |difference, (a, b)| difference | a ^ b) == 0
            && (self.is_as_in_frame() || self.far == other.far)
    }
}

impl From<&Place> for Origin {
    fn from(place: &Place) -> Self {
        let addresses = (place.remote.ipv4_bits(), place.local.ipv4_bits(), place.vlan);
        let (Some(remote), Some(local), 0) = addresses else {
            let [a, b, c, d, ports, e, f] = place.pack();
            return Self { near: [ports, a, b, c], far: [d, e, f] };
        };
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (place.local_mac, place.remote_mac);
        let ([m, n, o, p], [q, r, s, t]) = (remote.to_be_bytes(), local.to_be_bytes());
        let ([u, v], [w, x]) = (place.remote_port.to_be_bytes(), place.local_port.to_be_bytes());
        let stations = [a, b, c, d, e, f, g, h, i, j, k, l];
        Self::in_frame(&stations, &[m, n, o, p, q, r, s, t, u, v, w, x], place.port)
    }
}

impl From<&Origin> for Place {
    fn from(origin: &Origin) -> Self {
        let ([ports, first, second, third], [d, e, f]) = (origin.near, origin.far);
        if !origin.is_as_in_frame() {
            return Self::unpack(&[first, second, third, d, ports, e, f]);
        }
        let [a, b, c, d, e, f, g, h] = first.to_ne_bytes();
        let [i, j, k, l, u, v, w, x] = second.to_ne_bytes();
        let [m, n, o, p, q, r, s, t] = third.to_ne_bytes();
        let [.., port] = ports.to_be_bytes();
        let mapped =
            |bytes| Address::from_bits(0xffff << 32 | u128::from(u32::from_be_bytes(bytes)));
        Self {
            remote: mapped([m, n, o, p]),
            local: mapped([q, r, s, t]),
            remote_port: u16::from_be_bytes([u, v]),
            local_port: u16::from_be_bytes([w, x]),
            port,
            vlan: 0,
            remote_mac: [g, h, i, j, k, l],
            local_mac: [a, b, c, d, e, f],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn places()(
            addresses: (u128, u128), v4 in 0..4_u8, vlan in prop_oneof![Just(0), any::<u16>()],
            ports: (u16, u16, u8), macs: ([u8; 6], [u8; 6]),
        ) -> Place {
            let address = |bits: u128, v4: bool| {
                Address::from_bits(if v4 { 0xffff << 32 | bits & 0xffff_ffff } else { bits })
            };
            Place {
                remote: address(addresses.0, v4 > 0),
                local: address(addresses.1, v4 > 1),
                remote_port: ports.0,
                local_port: ports.1,
                port: ports.2,
                vlan,
                remote_mac: macs.0,
                local_mac: macs.1,
            }
        }
    }

    proptest! {
        #[test]
        fn a_place_survives_its_words_and_its_origin(place in places()) {
            prop_assert_eq!(Place::unpack(&place.pack()), place);
            prop_assert_eq!(Place::from(&Origin::from(&place)), place);
        }

        /// Every field makes another origin, also of places of different shape.
        #[test]
        fn other_places_are_other_origins(place in places(), other in places(), field in 0..9) {
            let changed = match field {
                0 => Place { remote: other.remote, ..place },
                1 => Place { local: other.local, ..place },
                2 => Place { remote_port: other.remote_port, ..place },
                3 => Place { local_port: other.local_port, ..place },
                4 => Place { port: other.port, ..place },
                5 => Place { vlan: other.vlan, ..place },
                6 => Place { remote_mac: other.remote_mac, ..place },
                7 => Place { local_mac: other.local_mac, ..place },
                _ => other,
            };
            prop_assert_eq!(Origin::from(&place) == Origin::from(&changed), place == changed);
            prop_assert_ne!(Origin::from(&place), Origin::default());
        }
    }
}
