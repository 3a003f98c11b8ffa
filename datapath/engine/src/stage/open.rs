//! Tunnel data: authenticate, decrypt in place, refuse what was seen before.

use core::sync::atomic::Ordering;

use bulkhead_link::End;
use bulkhead_wire::{IpPacket, ecn, ip, wg};

use crate::fragments;
use crate::packet::{Course, Transit};
use crate::session::{PeerCell, Place, Sessions, Slot};

/// Length of the authentication tag.
const TAG_LEN: usize = 16;

/// Opens every transit that came through a tunnel of this worker. Afterwards its bytes are the
/// inner packet, without padding.
///
/// Returns whether a session was confirmed, so that packets that wait for it can go.
pub fn open(
    batch: &mut [Transit],
    sessions: &mut Sessions,
    peers: &[PeerCell],
    now_ms: u64,
) -> bool {
    let mut confirmed = false;
    for transit in batch.iter_mut().filter(|transit| transit.goes_on()) {
        let Course::Tunnel { index, counter, place, ecn, .. } = transit.course else { continue };
        let result = match sessions.addressed(index) {
            None => Err(End::DropNoSession),
            Some(slot) => open_one(transit, slot, counter, now_ms).map(|len| {
                confirmed |= authenticated(slot, peers, &place, len, now_ms);
                if let (Some(session), Course::Tunnel { peer, .. }) =
                    (&slot.session, &mut transit.course)
                {
                    *peer = Some(session.peer);
                }
            }),
        };
        let result = result.and_then(|()| inner(transit, ecn));
        transit.end = result.err();
    }
    confirmed
}

/// Decrypts one message; returns the length of its content, padding included.
fn open_one(
    transit: &mut Transit,
    slot: &mut Slot,
    counter: u64,
    now_ms: u64,
) -> Result<usize, End> {
    let (Some(session), Some(window)) = (&slot.session, &mut slot.window) else {
        return Err(End::DropNoSession);
    };
    if now_ms >= session.reject_at_ms {
        return Err(End::DropSessionExpired);
    }
    // Cheap, and before the cipher: a replayed flood costs little.
    if !window.is_fresh(counter) {
        return Err(End::DropReplayed);
    }
    let message = transit.bytes_mut();
    let (_, sealed) = message.split_at_mut_checked(wg::DATA_HEADER_LEN).ok_or(End::DropForged)?;
    let (content, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(End::DropForged)?;
    session.receive.open(counter, content, tag).map_err(|_| End::DropForged)?;
    let len = content.len();
    // Only an authenticated counter moves the window.
    if !window.accept(counter) {
        return Err(End::DropReplayed);
    }
    transit.narrow(wg::DATA_HEADER_LEN, len);
    Ok(len)
}

/// What follows from an authenticated packet: activity, confirmation, roaming.
fn authenticated(
    slot: &mut Slot,
    peers: &[PeerCell],
    place: &Place,
    len: usize,
    now_ms: u64,
) -> bool {
    let Some(session) = &slot.session else { return false };
    session.activity.received(len as u64, now_ms);
    let Some(peer) = peers.get(session.peer.0 as usize) else { return false };
    if slot.heard_at != *place && peer.roam(place) {
        slot.heard_at = *place;
    }
    if session.activity.confirmed.load(Ordering::Relaxed) {
        return false;
    }
    session.activity.confirmed.store(true, Ordering::Relaxed);
    peer.allow_sending(session);
    true
}

/// The inner packet: an IP packet that may be longer in the message than it says (padding).
fn inner(transit: &mut Transit, outer_ecn: u8) -> Result<(), End> {
    if transit.len == 0 {
        return Err(End::Keepalive);
    }
    let mut packet = IpPacket::parse(transit.bytes()).map_err(fragments::end_of)?;
    transit.narrow(0, usize::from(packet.len));
    let inner_ecn = packet.traffic_class & 3;
    let ecn = ecn::decapsulate(inner_ecn, outer_ecn).ok_or(End::DropEcn)?;
    if ecn != inner_ecn {
        ip::set_ecn(transit.bytes_mut(), ecn);
        packet.traffic_class = packet.traffic_class & !3 | ecn;
    }
    transit.inner = Some(packet);
    Ok(())
}
