//! Tunnel data: authenticate, decrypt in place, refuse what was seen before.

use core::sync::atomic::Ordering;

use bulkhead_link::End;
use bulkhead_wg::{Open, open_batch};
use bulkhead_wire::{IpPacket, ecn, ip, wg};

use crate::fragments;
use crate::limits::BATCH_MAX;
use crate::packet::{Course, Transit};
use crate::session::{PeerCell, Place, Sessions, Slot};

/// Length of the authentication tag.
const TAG_LEN: usize = 16;

/// Opens every transit that came through a tunnel of this worker. Afterwards its bytes are the
/// inner packet, without padding.
///
/// All messages of the batch are decrypted together, whoever sent them; then each moves the replay
/// window of its session, in the order of arrival.
///
/// Returns whether a session was confirmed, so that packets that wait for it can go.
pub fn open(
    batch: &mut [Transit],
    sessions: &mut Sessions,
    peers: &[PeerCell],
    now_ms: u64,
) -> bool {
    let mut confirmed = false;
    for piece in batch.chunks_mut(BATCH_MAX) {
        let opened = decrypt(piece, sessions, now_ms);
        for (transit, opened) in piece.iter_mut().zip(opened) {
            let Some(opened) = opened else { continue };
            let Course::Tunnel { index, counter, place, ecn, .. } = transit.course else {
                continue;
            };
            let result = match sessions.addressed(index) {
                None => Err(End::DropNoSession),
                Some(_) if !opened => Err(End::DropForged),
                Some(slot) => accept(transit, slot, counter).map(|len| {
                    confirmed |= authenticated(slot, peers, &place, (counter, len), now_ms);
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
    }
    confirmed
}

/// Decrypts the messages of a piece in place. `None`: there was nothing to decrypt.
fn decrypt(piece: &mut [Transit], sessions: &Sessions, now_ms: u64) -> [Option<bool>; BATCH_MAX] {
    let mut jobs = [const { None }; BATCH_MAX];
    for (transit, job) in piece.iter_mut().zip(&mut jobs) {
        let Course::Tunnel { index, counter, .. } = transit.course else { continue };
        if !transit.goes_on() {
            continue;
        }
        let Transit { frame, start, len, end, .. } = transit;
        let start = usize::from(*start);
        let message = frame.bytes_mut().get_mut(start..start + usize::from(*len));
        match admit(message.unwrap_or_default(), sessions.at(index), counter, now_ms) {
            Ok(message) => *job = Some(message),
            Err(reason) => *end = Some(reason),
        }
    }
    open_batch(jobs.iter_mut().flatten());
    jobs.map(|job| job.map(|message| message.is_opened()))
}

/// Whether a message is worth decrypting: its session is there and alive, and its counter not seen
/// before. Cheap, and before the cipher: a replayed flood costs little.
fn admit<'t>(
    message: &'t mut [u8],
    slot: Option<&'t Slot>,
    counter: u64,
    now_ms: u64,
) -> Result<Open<'t>, End> {
    let Some(Slot { session: Some(session), window: Some(window), .. }) = slot else {
        return Err(End::DropNoSession);
    };
    if now_ms >= session.reject_at_ms {
        return Err(End::DropSessionExpired);
    }
    if !window.is_fresh(counter) {
        return Err(End::DropReplayed);
    }
    let (_, sealed) = message.split_at_mut_checked(wg::DATA_HEADER_LEN).ok_or(End::DropForged)?;
    let (content, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(End::DropForged)?;
    Ok(Open::new(&session.receive, counter, content, tag))
}

/// Moves the replay window for a message that has authenticated: only such a counter may. Returns
/// the length of its content, padding included.
fn accept(transit: &mut Transit, slot: &mut Slot, counter: u64) -> Result<usize, End> {
    let Some(window) = &mut slot.window else { return Err(End::DropNoSession) };
    // A copy in the same batch was still fresh when that was decrypted.
    if !window.accept(counter) {
        return Err(End::DropReplayed);
    }
    let len = usize::from(transit.len).saturating_sub(wg::DATA_HEADER_LEN + TAG_LEN);
    transit.narrow(wg::DATA_HEADER_LEN, len);
    Ok(len)
}

/// What follows from an authenticated packet: activity, confirmation, roaming.
fn authenticated(
    slot: &mut Slot,
    peers: &[PeerCell],
    place: &Place,
    (counter, len): (u64, usize),
    now_ms: u64,
) -> bool {
    let Some(session) = &slot.session else { return false };
    session.activity.received(counter, len as u64, now_ms);
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
