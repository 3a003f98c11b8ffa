//! The steering program again, in plain Rust over the standard library's addresses. Shares no code
//! with the program: where both are wrong, they are wrong for different reasons.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{SteerConfig, Verdict};

/// What the program decides about `frame`, given a socket on its queue.
#[must_use]
pub fn twin(config: &SteerConfig, frame: &[u8]) -> Verdict {
    if wanted(config, frame) == Some(true) { Verdict::Redirect } else { Verdict::Pass }
}

/// `None` if the frame ends before the question is answered.
fn wanted(config: &SteerConfig, frame: &[u8]) -> Option<bool> {
    let (macs, rest) = frame.split_at_checked(12)?;
    let is_group = macs.first()? % 2 == 1;
    let (ether_type, packet) = match rest {
        [0x81, 0x00, _, _, high, low, packet @ ..] => ([*high, *low], packet),
        [high, low, packet @ ..] => ([*high, *low], packet),
        [] | [_] => return None,
    };
    let (destination, udp) = match ether_type {
        [0x08, 0x00] => ipv4(packet)?,
        [0x86, 0xdd] => ipv6(packet)?,
        [_, _] => return None,
    };
    if is_group {
        return Some(false);
    }
    if config.addresses.iter().any(|own| own.to_canonical() == destination) {
        let port = u16::from_be_bytes(udp?.get(2..4)?.try_into().ok()?);
        return Some(udp?.len() >= 8 && config.listeners.contains(&port));
    }
    Some(config.segment && is_routable(destination))
}

/// The destination, and what is behind the header if it is a whole UDP datagram without options.
fn ipv4(packet: &[u8]) -> Option<(IpAddr, Option<&[u8]>)> {
    let first = *packet.first()?;
    let words = usize::from(first % 16);
    if first / 16 != 4 || words < 5 {
        return None;
    }
    let (header, payload) = packet.split_at_checked(20)?;
    let destination: [u8; 4] = header.get(16..20)?.try_into().ok()?;
    let fragment = u16::from_be_bytes(header.get(6..8)?.try_into().ok()?);
    let (more, offset) = (fragment & 0x2000 != 0, fragment % 0x2000);
    let whole_udp = *header.get(9)? == 17 && words == 5 && !more && offset == 0;
    Some((Ipv4Addr::from(destination).into(), whole_udp.then_some(payload)))
}

/// As [`ipv4`]. UDP behind extension headers is not looked for. `None` for ::/64.
fn ipv6(packet: &[u8]) -> Option<(IpAddr, Option<&[u8]>)> {
    let (header, payload) = packet.split_at_checked(40)?;
    let destination: [u8; 16] = header.get(24..40)?.try_into().ok()?;
    let destination = Ipv6Addr::from(destination);
    if *header.first()? / 16 != 6 || destination.segments().starts_with(&[0; 4]) {
        return None;
    }
    Some((destination.into(), (*header.get(6)? == 17).then_some(payload)))
}

fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let reserved = v4 >= Ipv4Addr::new(240, 0, 0, 0);
            let this_network = v4 < Ipv4Addr::new(1, 0, 0, 0);
            !(v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || reserved
                || this_network)
        }
        IpAddr::V6(v6) => !(v6.is_multicast() || v6.is_unicast_link_local()),
    }
}
