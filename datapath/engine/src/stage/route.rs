//! The way out: a peer's tunnel, or a neighbour on a segment.

use bulkhead_link::End;
use bulkhead_table::{NextHop, PeerIndex, View};

use crate::neighbour::Neighbours;
use crate::packet::{Course, Hop, Transit};
use crate::session::{PeerCell, Sessions};
use crate::setup::Setup;

/// What there is in a batch besides packets that go to their peer now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Packets to a segment.
    pub plain: bool,
    /// Packets that must wait.
    pub waiting: bool,
    /// Packets that end here, of which their senders may be told.
    pub ended: bool,
}

/// Finds the hop of every transit, whether something of it is missing, and whether it fits.
pub fn route(
    batch: &mut [Transit],
    table: &View<'_>,
    setup: &Setup,
    neighbours: &Neighbours,
    sessions: &Sessions,
    peers: &[PeerCell],
) -> Routed {
    let mut routed = Routed::default();
    for transit in batch.iter_mut().filter(|transit| transit.goes_on()) {
        if let Some((peer, mtu)) = tunnel(transit, table, sessions, peers) {
            debug_assert!(
                hop_of(transit, table, setup, neighbours)
                    .is_ok_and(|(hop, _)| matches!(hop, Hop::Peer(same) if same == peer)),
                "its twin"
            );
            // Between the two looks another worker may confirm a session, but in tests there is none.
            #[cfg(test)]
            assert!(way(&Hop::Peer(peer), 0, sessions, peers) == (mtu, false), "its twin");
            (transit.hop, transit.fits, transit.waits) = (Some(Hop::Peer(peer)), mtu, false);
            continue;
        }
        match hop_of(transit, table, setup, neighbours) {
            Ok((hop, mtu)) => {
                (transit.fits, transit.waits) = way(&hop, mtu, sessions, peers);
                transit.hop = Some(hop);
                routed.plain |= matches!(hop, Hop::Segment { .. });
                routed.waiting |= transit.waits;
                if transit.inner.as_ref().is_none_or(|inner| inner.len > transit.fits) {
                    transit.end = Some(End::DropTooBig);
                }
            }
            Err(end) => transit.end = Some(end),
        }
        routed.ended |= !transit.goes_on();
    }
    routed
}

/// The way of nearly every packet: to a peer with a session, which it fits, and how much that carries.
/// [`hop_of`] and [`way`] are the slow twins, and decide wherever this says `None`.
#[inline]
fn tunnel(
    transit: &Transit,
    table: &View<'_>,
    sessions: &Sessions,
    peers: &[PeerCell],
) -> Option<(PeerIndex, u16)> {
    let inner = transit.inner.as_ref()?;
    let NextHop::Peer(peer) = table.endpoint(transit.destination.0)?.next_hop else { return None };
    let session = sessions.sending(peers.get(peer.0 as usize)?)?;
    let back = matches!(transit.course, Course::Tunnel { peer: from, .. } if from == Some(peer));
    let fits = inner.len <= session.tunnel_mtu && inner.hop_limit > 1;
    (fits && !back).then_some((peer, session.tunnel_mtu))
}

/// The hop, and the largest packet that its port carries.
pub(crate) fn hop_of(
    transit: &Transit,
    table: &View<'_>,
    setup: &Setup,
    neighbours: &Neighbours,
) -> Result<(Hop, u16), End> {
    let inner = transit.inner.as_ref().ok_or(End::DropInnerMalformed)?;
    let endpoint = table.endpoint(transit.destination.0).ok_or(End::DropUnknownDestination)?;
    let (hop, mtu) = match endpoint.next_hop {
        NextHop::Peer(peer) => {
            if let Course::Tunnel { peer: from, .. } = transit.course
                && from == Some(peer)
            {
                return Err(End::DropHairpin);
            }
            (Hop::Peer(peer), u16::MAX)
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
    Ok((hop, mtu))
}

/// The largest packet that goes this way, and whether it must wait, for a session or for a neighbour. How much a
/// tunnel carries is its session's affair: without one the packet waits, and is measured when it is routed
/// again.
fn way(hop: &Hop, mtu: u16, sessions: &Sessions, peers: &[PeerCell]) -> (u16, bool) {
    match hop {
        Hop::Peer(peer) => {
            let session = peers.get(peer.0 as usize).and_then(|cell| sessions.sending(cell));
            session.map_or((mtu, true), |session| (session.tunnel_mtu, false))
        }
        Hop::Segment { mac, .. } => (mtu, mac.is_none()),
    }
}
