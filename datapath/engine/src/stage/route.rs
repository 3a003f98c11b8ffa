//! The way out: a peer's tunnel, or a neighbour on a segment.

use bulkhead_link::End;
use bulkhead_table::{NextHop, View};

use crate::hold::Missing;
use crate::neighbour::Neighbours;
use crate::packet::{Course, Hop, Transit};
use crate::session::{PeerCell, Sessions};
use crate::setup::Setup;

/// Finds the hop of every transit, what it must wait for, and whether it fits.
pub fn route(
    batch: &mut [Transit],
    table: &View<'_>,
    setup: &Setup,
    neighbours: &Neighbours,
    sessions: &Sessions,
    peers: &[PeerCell],
) {
    for transit in batch.iter_mut().filter(|transit| transit.goes_on()) {
        match hop_of(transit, table, setup, neighbours) {
            Ok(hop) => {
                transit.missing = missing(transit, &hop, sessions, peers);
                transit.hop = Some(hop);
            }
            Err(end) => transit.end = Some(end),
        }
    }
}

fn hop_of(
    transit: &Transit,
    table: &View<'_>,
    setup: &Setup,
    neighbours: &Neighbours,
) -> Result<Hop, End> {
    let inner = transit.inner.as_ref().ok_or(End::DropInnerMalformed)?;
    let endpoint = table.endpoint(transit.destination.0).ok_or(End::DropUnknownDestination)?;
    let (hop, mtu) = match endpoint.next_hop {
        NextHop::Peer(peer) => {
            if let Course::Tunnel { peer: from, .. } = transit.course
                && from == Some(peer)
            {
                return Err(End::DropHairpin);
            }
            (Hop::Peer(peer), setup.tunnel_mtu)
        }
        NextHop::Segment(id) => {
            let segment = table.segment(id).ok_or(End::DropUnknownDestination)?;
            let (port, vlan) = (segment.port.0, segment.vlan);
            if let Course::Plain { vlan: from, .. } = transit.course
                && (transit.port, from) == (port, vlan)
            {
                return Err(End::DropHairpin);
            }
            let mtu = setup.ports.get(usize::from(port)).ok_or(End::DropTransmitFull)?.mtu;
            let mac = neighbours.get(port, inner.destination);
            (Hop::Segment { port, vlan, mac }, mtu)
        }
    };
    if inner.hop_limit <= 1 {
        return Err(End::DropHopLimit);
    }
    if inner.len > mtu {
        return Err(End::DropTooBig);
    }
    Ok(hop)
}

fn missing(
    transit: &Transit,
    hop: &Hop,
    sessions: &Sessions,
    peers: &[PeerCell],
) -> Option<Missing> {
    match hop {
        Hop::Peer(peer) => {
            let session = peers.get(peer.0 as usize).and_then(|cell| sessions.sending(cell));
            session.is_none().then_some(Missing::Session(*peer))
        }
        Hop::Segment { port, mac: None, .. } => {
            transit.inner.map(|inner| Missing::Neighbour(*port, inner.destination))
        }
        Hop::Segment { mac: Some(_), .. } => None,
    }
}
