//! The outer headers of all datagrams to one peer: written once, stamped on each.
//!
//! ```text
//!   [ Ethernet | IP | UDP ]   of which a datagram has its own: traffic class, two lengths, checksum
//! ```

use crate::{Ethernet, OuterUdp, checksum, ipv4, ipv6};

/// Headers with a VLAN tag and IPv6.
const LEN_MAX: usize = 18 + 48;

/// Outer headers without what differs from datagram to datagram.
#[derive(Clone, Debug)]
pub struct Envelope {
    headers: [u8; LEN_MAX],
    len: usize,
    ethernet_len: usize,
    v6: bool,
    /// Of the IPv4 header as it stands in `headers`.
    sum: checksum::Sum,
}

impl Envelope {
    /// The headers of these addresses. `None` if they are of two families. `udp.traffic_class` is
    /// not looked at.
    // Not inlined, so that the headers are in memory and a stamp copies them from there: a compiler
    // that sees how they are made keeps every byte in a register of its own.
    #[inline(never)]
    #[must_use]
    pub fn new(ethernet: &Ethernet, udp: &OuterUdp) -> Option<Self> {
        let mut headers = [0; LEN_MAX];
        let ethernet_len = if ethernet.vlan.is_some() { 18 } else { 14 };
        let len = udp.header_len().saturating_add(ethernet_len);
        let (link, packet) = headers.split_at_mut_checked(ethernet_len)?;
        let plain = OuterUdp { traffic_class: 0, ..*udp };
        if !ethernet.write(link) || !plain.write(packet, 0) {
            return None;
        }
        let v6 = !udp.destination.is_ipv4();
        let mut sum = checksum::Sum::default();
        if !v6 {
            let header = packet.first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
            let [_, _, l0, l1, _, _, _, _, _, _, s0, s1, ..] = header;
            [*l0, *l1, *s0, *s1] = [0; 4];
            sum = sum.with(header);
        }
        Some(Self { headers, len, ethernet_len, v6, sum })
    }

    /// Length of all headers, bytes.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.len
    }

    /// Whether the datagrams need a checksum over their payload ([`udp::checksum_v6`](crate::udp::checksum_v6)).
    #[inline]
    #[must_use]
    pub const fn wants_checksum(&self) -> bool {
        self.v6
    }

    /// Writes the headers of a datagram at the start of `frame`, for `payload_len` bytes of UDP
    /// payload, as [`Ethernet::write`] and [`OuterUdp::write`] do. Returns `false` if they do not fit,
    /// and then what was written means nothing.
    #[inline]
    pub fn stamp(&self, frame: &mut [u8], traffic_class: u8, payload_len: usize) -> bool {
        let udp_len = payload_len.saturating_add(8);
        let total_len = payload_len.saturating_add(self.len.saturating_sub(self.ethernet_len));
        let (Ok(udp_len), Ok(total_len)) = (u16::try_from(udp_len), u16::try_from(total_len))
        else {
            return false;
        };
        let written = match (self.ethernet_len, self.v6) {
            (14, false) => self.write::<14, { 14 + 28 }>(frame, traffic_class, total_len, udp_len),
            (_, false) => self.write::<18, { 18 + 28 }>(frame, traffic_class, total_len, udp_len),
            (14, true) => self.write::<14, { 14 + 48 }>(frame, traffic_class, total_len, udp_len),
            (_, true) => self.write::<18, { 18 + 48 }>(frame, traffic_class, total_len, udp_len),
        };
        written.is_some()
    }

    /// The constants let the compiler copy the headers in a few registers.
    #[inline]
    fn write<const IP: usize, const LEN: usize>(
        &self,
        frame: &mut [u8],
        traffic_class: u8,
        total_len: u16,
        udp_len: u16,
    ) -> Option<()> {
        let room = frame.first_chunk_mut::<LEN>()?;
        *room = *self.headers.first_chunk::<LEN>()?;
        let (_, packet) = room.split_at_mut_checked(IP)?;
        if self.v6 {
            let [first, second, _, _, l0, l1, ..] = packet else { return None };
            (*first, *second) = (6 << 4 | traffic_class >> 4, traffic_class << 4);
            [*l0, *l1] = udp_len.to_be_bytes();
        } else {
            let [_, class, l0, l1, _, _, _, _, _, _, s0, s1, ..] = packet else { return None };
            *class = traffic_class;
            [*l0, *l1] = total_len.to_be_bytes();
            let sum = self.sum.with(&[0, *class, *l0, *l1]);
            [*s0, *s1] = sum.finish().to_be_bytes();
        }
        let ip_len = if self.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        let [_, _, _, _, l0, l1, ..] = packet.get_mut(ip_len..)? else { return None };
        [*l0, *l1] = udp_len.to_be_bytes();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;
    use crate::ip::tests::{a4, a6, b4, b6};
    use proptest::prelude::*;

    proptest! {
        /// The slow twins write each header from its fields.
        #[test]
        fn a_stamp_is_what_the_twins_write(
            v6: bool, vlan in proptest::option::of(0..4096u16), class: u8, hop_limit: u8,
            ports: (u16, u16), payload_len in 0..66_000usize, short in 0..70usize,
        ) {
            let ethernet = Ethernet {
                destination: Mac([2, 0, 0, 0, 0, 1]),
                source: Mac([2, 0, 0, 0, 0, 2]),
                vlan,
                ether_type: if v6 { 0x86dd } else { 0x0800 },
                len: if vlan.is_some() { 18 } else { 14 },
            };
            let udp = OuterUdp {
                source: if v6 { a6() } else { a4() },
                destination: if v6 { b6() } else { b4() },
                source_port: ports.0,
                destination_port: ports.1,
                traffic_class: class,
                hop_limit,
            };
            let envelope = Envelope::new(&ethernet, &udp).unwrap();
            prop_assert_eq!(envelope.header_len(), ethernet.len + udp.header_len());
            prop_assert_eq!(envelope.wants_checksum(), v6);
            let (mut want, mut got) = ([0xee; 70], [0xee; 70]);
            ethernet.write(&mut want);
            let fits = udp.write(&mut want[ethernet.len..], payload_len);
            prop_assert_eq!(envelope.stamp(&mut got, class, payload_len), fits);
            if fits {
                prop_assert_eq!(got, want);
                let enough = short >= envelope.header_len();
                prop_assert_eq!(envelope.stamp(&mut got[..short], class, payload_len), enough);
            }
            let mixed = OuterUdp { source: if v6 { a4() } else { a6() }, ..udp };
            prop_assert!(Envelope::new(&ethernet, &mixed).is_none());
        }
    }
}
