//! What did the wire bring: a tunnel's data, a handshake, or a plain packet of a segment?

use bulkhead_link::{End, SessionIndex};
use bulkhead_wire::{Datagram, Ethernet, Fragment, IpPacket, Transport, ethernet, wg};

use crate::fragments;
use crate::listeners::Listeners;
use crate::packet::{Course, Transit};
use crate::setup::Setup;

/// Length of a UDP header.
const UDP_LEN: usize = 8;

/// What there is in a batch besides tunnel data for this worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steered {
    /// Handshake messages, for the guard (`stage/guard.rs`).
    pub handshakes: bool,
    /// Messages to sessions of other workers.
    pub foreign: bool,
}

/// Finds the course of every transit. What it says is not looked at here.
pub fn steer(batch: &mut [Transit], setup: &Setup, listeners: &Listeners) -> Steered {
    let mut steered = Steered::default();
    for transit in batch.iter_mut().filter(|transit| transit.goes_on()) {
        if let Some(index) = plain_data(transit, setup, listeners) {
            steered.foreign |= index.worker() != setup.worker;
            continue;
        }
        match steer_one(transit, setup, listeners) {
            Ok(()) => {
                let index = transit.session();
                steered.foreign |= index.is_some_and(|index| index.worker() != setup.worker);
                steered.handshakes |= matches!(transit.course, Course::Handshake);
            }
            Err(end) => transit.end = Some(end),
        }
    }
    steered
}

/// A tunnel's data in the shape in which nearly all of it comes: its session. [`steer_one`] is the slow twin, and
/// decides wherever this says `None`.
#[inline]
fn plain_data(transit: &mut Transit, setup: &Setup, listeners: &Listeners) -> Option<SessionIndex> {
    let frame = transit.bytes();
    let datagram = Datagram::plain(frame)?;
    let port = setup.ports.get(usize::from(transit.port))?;
    if datagram.ethernet_destination != port.mac
        || !listeners.has(datagram.destination_port)
        || !setup.is_own(datagram.destination)
    {
        return None;
    }
    let len = usize::from(datagram.payload_len);
    let data = wg::Data::parse(frame.get(Datagram::PAYLOAD_AT..)?.get(..len)?)?;
    let (index, counter) = (SessionIndex(data.receiver), data.counter);
    let ecn = datagram.traffic_class & 3;
    transit.narrow(Datagram::PAYLOAD_AT, len);
    transit.course = Course::Tunnel { index, counter, ecn, peer: None };
    Some(index)
}

#[inline(never)]
fn steer_one(transit: &mut Transit, setup: &Setup, listeners: &Listeners) -> Result<(), End> {
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
    // On a segment it is a packet that somebody there wanted forwarded.
    let refused =
        |malformed| if segment { fragments::end_of(malformed) } else { End::DropOuterMalformed };
    let packet = IpPacket::parse(ip).map_err(refused)?;

    if let (Transport::Udp { destination, .. }, Fragment::Whole) =
        (packet.transport, packet.fragment)
        && listeners.has(destination)
        && setup.is_own(packet.destination)
    {
        let udp = usize::from(packet.transport_at);
        let payload = payload_len(ip, udp, &packet).ok_or(End::DropOuterMalformed)?;
        transit.narrow(ethernet.len + udp + UDP_LEN, payload);
        return wireguard(transit, packet.traffic_class & 3);
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

fn wireguard(transit: &mut Transit, ecn: u8) -> Result<(), End> {
    let message = transit.bytes();
    transit.course = match wg::kind(message).ok_or(End::DropNotWireguard)? {
        wg::Kind::Data => {
            let data = wg::Data::parse(message).ok_or(End::DropNotWireguard)?;
            let index = SessionIndex(data.receiver);
            Course::Tunnel { index, counter: data.counter, ecn, peer: None }
        }
        wg::Kind::Initiation | wg::Kind::Response | wg::Kind::CookieReply => Course::Handshake,
    };
    Ok(())
}

#[cfg(test)]
mod tests;
