//! What did the wire bring: a tunnel's data, a handshake, or a plain packet of a segment?

use bulkhead_link::{End, SessionIndex};
use bulkhead_wire::{Ethernet, Fragment, IpPacket, Transport, ethernet, wg};
use rtrb::Producer;

use crate::handoff::{HANDSHAKE_MAX, Handshake};
use crate::listeners::Listeners;
use crate::packet::{Course, Transit};
use crate::session::Place;
use crate::setup::Setup;

/// Length of a UDP header.
const UDP_LEN: usize = 8;

/// Finds the course of every transit. A handshake message with a right MAC1 ends here: its bytes
/// go to the link thread. Nothing is ever answered from here.
pub fn steer(
    batch: &mut [Transit],
    setup: &Setup,
    listeners: &Listeners,
    handshakes: &mut Producer<Handshake>,
) {
    for transit in batch.iter_mut().filter(|transit| transit.goes_on()) {
        if let Err(end) = steer_one(transit, setup, listeners, handshakes) {
            transit.end = Some(end);
        }
    }
}

fn steer_one(
    transit: &mut Transit,
    setup: &Setup,
    listeners: &Listeners,
    handshakes: &mut Producer<Handshake>,
) -> Result<(), End> {
    let ethernet = Ethernet::parse(transit.bytes()).map_err(|_| End::DropOuterMalformed)?;
    if !matches!(ethernet.ether_type, ethernet::ETHERTYPE_IPV4 | ethernet::ETHERTYPE_IPV6) {
        return Err(End::DropOuterMalformed);
    }
    let port = setup.ports.get(usize::from(transit.port)).ok_or(End::DropOuterMalformed)?;
    // A flooding switch or a promiscuous port delivers what was never sent to us.
    if ethernet.destination != port.mac {
        return Err(End::DropOtherStation);
    }
    let segment = port.segment;
    let ip = transit.bytes().get(ethernet.len..).unwrap_or(&[]);
    let Ok(packet) = IpPacket::parse(ip) else {
        // On a segment it is a packet that somebody there wanted forwarded.
        return Err(if segment { End::DropInnerMalformed } else { End::DropOuterMalformed });
    };

    if let (Transport::Udp { source, destination }, Fragment::Whole) =
        (packet.transport, packet.fragment)
        && listeners.has(destination)
        && setup.is_own(packet.destination)
    {
        let place = Place {
            remote: packet.source,
            local: packet.destination,
            remote_port: source,
            local_port: destination,
            port: transit.port,
            vlan: ethernet.vlan.unwrap_or(0),
            remote_mac: ethernet.source.0,
            local_mac: ethernet.destination.0,
        };
        let udp = usize::from(packet.transport_at);
        let payload = payload_len(ip, udp, &packet).ok_or(End::DropOuterMalformed)?;
        transit.narrow(ethernet.len + udp + UDP_LEN, payload);
        let ecn = packet.traffic_class & 3;
        return wireguard(transit, place, ecn, listeners, handshakes);
    }

    if !segment {
        return Err(End::DropNotWireguard);
    }
    // Ethernet padding ends here.
    transit.narrow(ethernet.len, usize::from(packet.len));
    transit.inner = Some(packet);
    transit.course = Course::Plain {
        vlan: ethernet.vlan,
        source_mac: ethernet.source.0,
        local_mac: ethernet.destination.0,
    };
    Ok(())
}

/// The length of a UDP payload, if the datagram lies inside its IP packet (RFC 768).
fn payload_len(ip: &[u8], udp: usize, packet: &IpPacket) -> Option<usize> {
    let length = ip.get(udp + 4..udp + 6)?.first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    (udp + length <= usize::from(packet.len)).then_some(length)?.checked_sub(UDP_LEN)
}

fn wireguard(
    transit: &mut Transit,
    place: Place,
    ecn: u8,
    listeners: &Listeners,
    handshakes: &mut Producer<Handshake>,
) -> Result<(), End> {
    let message = transit.bytes();
    match wg::kind(message) {
        Some(wg::Kind::Data) => {
            let data = wg::Data::parse(message).ok_or(End::DropNotWireguard)?;
            let index = SessionIndex(data.receiver);
            transit.course =
                Course::Tunnel { index, counter: data.counter, place, ecn, peer: None };
            Ok(())
        }
        // A cookie reply carries no MAC1; what proves it is its encryption, in control.
        Some(wg::Kind::CookieReply) => Err(pass_on(message, place, None, handshakes)),
        Some(wg::Kind::Initiation | wg::Kind::Response) => {
            match listeners.proven(place.local_port, message) {
                Some(key) => Err(pass_on(message, place, Some(*key), handshakes)),
                None => Err(End::DropMac1),
            }
        }
        None => Err(End::DropNotWireguard),
    }
}

fn pass_on(
    bytes: &[u8],
    place: Place,
    listener: Option<[u8; 32]>,
    handshakes: &mut Producer<Handshake>,
) -> End {
    let mut message = [0; HANDSHAKE_MAX];
    let Some(room) = message.get_mut(..bytes.len()) else { return End::DropNotWireguard };
    room.copy_from_slice(bytes);
    // `room` exists, so the length is at most HANDSHAKE_MAX, which fits.
    let len = u8::try_from(bytes.len()).unwrap_or(0);
    match handshakes.push(Handshake { place, listener, message, len }) {
        Ok(()) => End::Handshake,
        Err(_) => End::DropHandshakeQueueFull,
    }
}
