//! Tunnel data: authenticate, decrypt in place, refuse what was seen before.

use core::sync::atomic::Ordering;

use bulkhead_link::{End, SessionIndex};
use bulkhead_wg::{Open, ReplayWindow, open_batch};
use bulkhead_wire::{ecn, ip, wg};

use crate::fragments;
use crate::limits::BATCH_MAX;
use crate::packet::{Course, Transit};
use crate::place::{Origin, Place};
use crate::session::{Accepted, PeerCell, Session, Sessions, Slot};

/// Length of the authentication tag.
const TAG_LEN: usize = 16;

/// Opens every transit that came through a tunnel of this worker. Afterwards its bytes are the
/// inner packet, without padding.
///
/// All messages of the batch are decrypted together, whoever sent them; then each moves the replay
/// window of its session, in the order of arrival. A session is looked up once for a run of its messages.
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
        let mut authentic = decrypt(piece, sessions, now_ms);
        for run in piece.chunk_by_mut(|a, b| a.session() == b.session()) {
            confirmed |= accept(run, &mut authentic, sessions, peers, now_ms);
        }
    }
    confirmed
}

/// Decrypts the messages of a piece in place, and ends those that are not worth it. Returns a bit for each
/// transit, set if its message is authentic; the first is the lowest.
fn decrypt(piece: &mut [Transit], sessions: &Sessions, now_ms: u64) -> u64 {
    let mut jobs = [const { None }; BATCH_MAX];
    let (mut before, mut known) = (None, Err(End::DropNoSession));
    for (transit, job) in piece.iter_mut().zip(&mut jobs) {
        let Course::Tunnel { index, counter, .. } = transit.course else { continue };
        if !transit.goes_on() {
            continue;
        }
        if before != Some(index) {
            (before, known) = (Some(index), alive(sessions.at(index), now_ms));
        }
        let Transit { frame, start, len, end, .. } = transit;
        let start = usize::from(*start);
        let message = frame.bytes_mut().get_mut(start..start + usize::from(*len));
        let message = message.unwrap_or_default();
        match known.and_then(|alive| admit(message, alive, counter)) {
            Ok(message) => *job = Some(message),
            Err(reason) => *end = Some(reason),
        }
    }
    open_batch(jobs.iter_mut().flatten());
    let is_opened = |job: &Option<Open<'_>>| job.as_ref().is_some_and(Open::is_opened);
    jobs.iter().rev().fold(0, |all, job| all << 1 | u64::from(is_opened(job)))
}

const _: () = assert!(BATCH_MAX <= 64, "a bit for each");

/// A session that is there and has not expired.
fn alive(slot: Option<&Slot>, now_ms: u64) -> Result<(&Session, &ReplayWindow), End> {
    let Some(Slot { session: Some(session), window: Some(window), .. }) = slot else {
        return Err(End::DropNoSession);
    };
    if now_ms >= session.reject_at_ms {
        return Err(End::DropSessionExpired);
    }
    Ok((session, window))
}

/// Whether a message is worth decrypting: its counter was not seen before. Cheap, and before the cipher: a
/// replayed flood costs little.
#[inline]
fn admit<'t>(
    message: &'t mut [u8],
    (session, window): (&'t Session, &ReplayWindow),
    counter: u64,
) -> Result<Open<'t>, End> {
    if !window.is_fresh(counter) {
        return Err(End::DropReplayed);
    }
    let (_, sealed) = message.split_at_mut_checked(wg::DATA_HEADER_LEN).ok_or(End::DropForged)?;
    let (content, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(End::DropForged)?;
    Ok(Open::new(&session.receive, counter, content, tag))
}

/// What follows from a run of messages to one session: of those that authenticated, and only of them, the
/// replay window moves, their sender has moved, and the session is active. Afterwards their bytes are the inner
/// packets. Returns whether one has confirmed the session.
///
/// `authentic` has a bit for each transit from the first of the run on; those of the run are taken.
fn accept(
    run: &mut [Transit],
    authentic: &mut u64,
    sessions: &mut Sessions,
    peers: &[PeerCell],
    now_ms: u64,
) -> bool {
    let index = run.first().and_then(Transit::session);
    let moves = index.is_some_and(|index| moves_its_peer(sessions, peers, index));
    let slot = index.and_then(|index| sessions.addressed(index));
    // Without these nothing of the run was decrypted.
    let Some(Slot { session: Some(session), window: Some(window), heard_at }) = slot else {
        *authentic = authentic.unbounded_shr(u32::try_from(run.len()).unwrap_or(u32::MAX));
        return false;
    };
    let cell = peers.get(session.peer.0 as usize);
    let moved = cell.filter(|_| moves);
    let mut accepted = Accepted::default();
    for transit in run {
        let opened = *authentic & 1 == 1;
        *authentic >>= 1;
        if !transit.goes_on() {
            continue;
        }
        let content = usize::from(transit.len).saturating_sub(wg::DATA_HEADER_LEN + TAG_LEN);
        let Course::Tunnel { counter, peer, .. } = &mut transit.course else { continue };
        if !opened {
            transit.end = Some(End::DropForged);
            continue;
        }
        // A copy in the same batch was still fresh when that was decrypted.
        if !window.accept(*counter) {
            transit.end = Some(End::DropReplayed);
            continue;
        }
        *peer = Some(session.peer);
        accepted.add(*counter, content as u64);
        if !heard_at.is_of_frame(transit.outer(), transit.port)
            && let Some(origin) = Origin::of_frame(transit.outer(), transit.port)
            && moved.is_some_and(|cell| cell.roam(&Place::from(&origin)))
        {
            *heard_at = origin;
        }
        transit.narrow(wg::DATA_HEADER_LEN, content);
        transit.end = inner(transit).err();
    }
    session.activity.received(&accepted, now_ms);
    match cell {
        Some(cell) if accepted.any() => confirm(session, cell),
        Some(_) | None => false,
    }
}

/// Whether where a session's messages come from is where its peer is: not if the peer has spoken in a later
/// one. What was held back of the earlier one and is sent from elsewhere would take its packets there.
fn moves_its_peer(sessions: &Sessions, peers: &[PeerCell], index: SessionIndex) -> bool {
    let session = sessions.at(index).and_then(|slot| slot.session.as_ref());
    let newest = session
        .and_then(|session| peers.get(session.peer.0 as usize))
        .and_then(|cell| sessions.sending(cell));
    session.zip(newest).is_none_or(|(session, newest)| {
        newest.sequence <= session.sequence || !newest.activity.confirmed.load(Ordering::Relaxed)
    })
}

/// The first message that authenticates confirms the session. Returns whether this one did.
#[inline]
fn confirm(session: &Session, cell: &PeerCell) -> bool {
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
