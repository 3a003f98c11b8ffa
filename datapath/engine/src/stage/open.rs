//! Tunnel data: authenticate, decrypt in place, refuse what was seen before.

use core::sync::atomic::Ordering;

use bulkhead_link::End;
use bulkhead_wg::{Open, open_batch};
use bulkhead_wire::{ecn, ip, wg};

use crate::fragments;
use crate::limits::BATCH_MAX;
use crate::packet::{Course, Transit};
use crate::session::{PeerCell, Sessions, Slot};

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
            let end = accept(transit, opened, sessions)
                .map(|slot| confirmed |= authenticated(transit, slot, peers, now_ms))
                .and_then(|()| inner(transit));
            transit.end = end.err();
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
    let mut opened = [None; BATCH_MAX];
    for (opened, job) in opened.iter_mut().zip(&jobs) {
        *opened = job.as_ref().map(Open::is_opened);
    }
    opened
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

/// Moves the replay window for a message that has authenticated: only such a counter may. Afterwards the
/// bytes are its content, padding included. Returns where its session is.
fn accept<'s>(
    transit: &mut Transit,
    opened: bool,
    sessions: &'s mut Sessions,
) -> Result<&'s mut Slot, End> {
    let Course::Tunnel { index, counter, .. } = transit.course else {
        return Err(End::DropNoSession);
    };
    let slot = sessions.addressed(index).ok_or(End::DropNoSession)?;
    let Some(window) = &mut slot.window else { return Err(End::DropNoSession) };
    if !opened {
        return Err(End::DropForged);
    }
    // A copy in the same batch was still fresh when that was decrypted.
    if !window.accept(counter) {
        return Err(End::DropReplayed);
    }
    let len = usize::from(transit.len).saturating_sub(wg::DATA_HEADER_LEN + TAG_LEN);
    transit.narrow(wg::DATA_HEADER_LEN, len);
    Ok(slot)
}

/// What follows from an authenticated packet: who sent it, activity, roaming, confirmation. Returns whether
/// it confirmed its session.
fn authenticated(transit: &mut Transit, slot: &mut Slot, peers: &[PeerCell], now_ms: u64) -> bool {
    // The place is borrowed where it is: a copy of it costs more than to compare it.
    let Course::Tunnel { counter, place, peer, .. } = &mut transit.course else { return false };
    let Some(session) = &slot.session else { return false };
    *peer = Some(session.peer);
    session.activity.received(*counter, u64::from(transit.len), now_ms);
    let Some(cell) = peers.get(session.peer.0 as usize) else { return false };
    if slot.heard_at != *place && cell.roam(place) {
        slot.heard_at = *place;
    }
    if session.activity.confirmed.load(Ordering::Relaxed) {
        return false;
    }
    session.activity.confirmed.store(true, Ordering::Relaxed);
    cell.allow_sending(session);
    true
}

/// The inner packet: an IP packet that may be longer in the message than it says (padding).
fn inner(transit: &mut Transit) -> Result<(), End> {
    let Course::Tunnel { ecn: outer_ecn, .. } = transit.course else { return Ok(()) };
    if transit.len == 0 {
        return Err(End::Keepalive);
    }
    let packet = transit.read_inner().map_err(fragments::end_of)?;
    let (len, inner_ecn) = (packet.len, packet.traffic_class & 3);
    let ecn = ecn::decapsulate(inner_ecn, outer_ecn).ok_or(End::DropEcn)?;
    packet.traffic_class = packet.traffic_class & !3 | ecn;
    transit.narrow(0, usize::from(len));
    if ecn != inner_ecn {
        ip::set_ecn(transit.bytes_mut(), ecn);
    }
    Ok(())
}
