//! To a peer: padding, encryption in place, and the outer headers in front.
//!
//! ```text
//!   before            [ inner packet ]
//!   after  [eth|ip|udp|type index counter|inner packet|00..|tag]
//! ```

use core::ops::Range;

use bulkhead_link::{Counted, End};
use bulkhead_wg::{Seal, seal_batch};
use bulkhead_wire::{Ethernet, OuterUdp, ecn, ip, wg};
use bulkhead_xsk::Frame;

use crate::limits::BATCH_MAX;
use crate::packet::{Course, Hop, Transit};
use crate::session::{PeerCell, Place, Session, Sessions};

const TAG_LEN: usize = 16;

/// Seals every transit whose hop is a peer. Afterwards its bytes are the Ethernet frame to send.
///
/// Message counters are reserved for a run of packets to one peer at a time; all packets of the batch
/// are encrypted together, whoever they go to.
pub fn seal(batch: &mut [Transit], sessions: &Sessions, peers: &[PeerCell], now_ms: u64) {
    for piece in batch.chunks_mut(BATCH_MAX) {
        let mut outer = [None; BATCH_MAX];
        encrypt(piece, &mut outer, sessions, peers, now_ms);
        // The checksum of UDP over IPv6 covers the ciphertext.
        for (transit, outer) in piece.iter_mut().zip(outer) {
            if let Some(Outer { udp, at }) = outer
                && let Some(packet) = transit.bytes_mut().get_mut(at..)
            {
                udp.checksum_v6(packet);
            }
        }
    }
}

/// Headers that want a checksum, and where in the Ethernet frame they begin.
#[derive(Clone, Copy)]
struct Outer {
    udp: OuterUdp,
    at: usize,
}

fn encrypt(
    piece: &mut [Transit],
    outer: &mut [Option<Outer>; BATCH_MAX],
    sessions: &Sessions,
    peers: &[PeerCell],
    now_ms: u64,
) {
    let to_peer = |transit: &Transit| match transit.hop {
        Some(Hop::Peer(peer)) if transit.goes_on() => Some(peer),
        Some(Hop::Peer(_) | Hop::Segment { .. }) | None => None,
    };
    let mut jobs = [const { None }; BATCH_MAX];
    let mut places = jobs.iter_mut().zip(outer);
    for run in piece.chunk_by_mut(|a, b| to_peer(a) == to_peer(b)) {
        let places = places.by_ref().take(run.len());
        let Some(peer) = run.first().and_then(to_peer) else {
            places.for_each(drop);
            continue;
        };
        let cell = peers.get(peer.0 as usize);
        match ready(cell, sessions, run.len(), now_ms) {
            Err(end) => {
                places.for_each(drop);
                end_all(run, end);
            }
            Ok((session, place, first)) => {
                let mut sent = Counted::default();
                for ((transit, counter), (job, outer)) in run.iter_mut().zip(first..).zip(places) {
                    let content = u64::from(transit.len);
                    if let Some((message, headers)) = prepare(transit, session, &place, counter) {
                        (*job, *outer) = (Some(message), headers);
                        sent.packets += u64::from(content > 0);
                        sent.bytes += content;
                    }
                }
                session.activity.sent(sent, now_ms);
            }
        }
    }
    seal_batch(jobs.iter_mut().flatten());
}

/// The session and the place to send `count` packets with and to, and the first of their counters.
fn ready<'s>(
    cell: Option<&PeerCell>,
    sessions: &'s Sessions,
    count: usize,
    now_ms: u64,
) -> Result<(&'s Session, Place, u64), End> {
    let session = cell.and_then(|cell| sessions.sending(cell)).ok_or(End::DropPeerUnreachable)?;
    let place = cell.and_then(PeerCell::place).ok_or(End::DropPeerUnreachable)?;
    if now_ms >= session.reject_at_ms {
        return Err(End::DropPeerUnreachable);
    }
    let first = session.counter.reserve(count as u64).ok_or(End::DropCounterExhausted)?;
    Ok((session, place, first))
}

fn end_all(run: &mut [Transit], end: End) {
    for transit in run {
        transit.end = Some(end);
    }
}

/// Writes the headers of one packet around its content and tells what is to be encrypted. Without
/// room for the headers or the tag in the frame, the packet ends and nothing of it is sent.
fn prepare<'t>(
    transit: &'t mut Transit,
    session: &'t Session,
    place: &Place,
    counter: u64,
) -> Option<(Seal<'t>, Option<Outer>)> {
    let inner_class = transit.inner.as_ref().map_or(0, |inner| inner.traffic_class);
    if !matches!(transit.course, Course::Own) {
        ip::decrement_hop_limit(transit.bytes_mut());
    }
    let class = session.dscp.outer(inner_class) | ecn::encapsulate(inner_class & 3);
    let (ethernet, udp) = (place.ethernet(), place.datagram(class));
    let Transit { frame, start, len, leaves, end, .. } = transit;
    let content = usize::from(*start)..usize::from(*start) + usize::from(*len);
    let Some((message, range)) = wrap(frame, content, session, counter, &ethernet, &udp) else {
        *end = Some(End::DropTooBig);
        return None;
    };
    // A frame is shorter than 65,536 bytes.
    *start = u16::try_from(range.start).unwrap_or(u16::MAX);
    *len = u16::try_from(range.len()).unwrap_or(0);
    *leaves = Some(place.port);
    let outer = Outer { udp, at: ethernet.len };
    Some((message, (!place.remote.is_ipv4()).then_some(outer)))
}

/// Puts headers in front of the `content` of a frame, padding and room for the tag behind it. Returns
/// what is to be encrypted and the range of it all, or `None` if that is not in the frame.
fn wrap<'t>(
    frame: &'t mut Frame,
    content: Range<usize>,
    session: &'t Session,
    counter: u64,
    ethernet: &Ethernet,
    udp: &OuterUdp,
) -> Option<(Seal<'t>, Range<usize>)> {
    let padded = padded_len(content.len(), usize::from(session.tunnel_mtu));
    let headers = ethernet.len + udp.header_len() + wg::DATA_HEADER_LEN;
    let range = content.start.checked_sub(headers)?..content.start + padded + TAG_LEN;
    let bytes = frame.bytes_mut().get_mut(range.clone())?;

    let (ethernet_header, rest) = bytes.split_at_mut_checked(ethernet.len)?;
    ethernet.write(ethernet_header);
    udp.write(rest, wg::DATA_HEADER_LEN + padded + TAG_LEN);
    let message = rest.get_mut(udp.header_len()..)?;
    let (header, sealed) = message.split_at_mut_checked(wg::DATA_HEADER_LEN)?;
    wg::Data { receiver: session.remote_index, counter }.write(header);
    let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>()?;
    text.get_mut(content.len()..)?.fill(0);
    Some((Seal::new(&session.send, counter, text, tag), range))
}

/// Padding to 16 bytes, but never beyond what the path carries (whitepaper §5.4.6; Linux
/// `drivers/net/wireguard/send.c`, `calculate_skb_padding`).
fn padded_len(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(16).min(mtu).max(len)
}

#[cfg(test)]
mod tests {
    use super::padded_len;

    #[test]
    fn padding_is_to_sixteen_and_never_beyond_the_mtu() {
        let cases =
            [(0, 1420, 0), (1, 1420, 16), (16, 1420, 16), (17, 1420, 32), (1410, 1420, 1420)];
        for (len, mtu, want) in cases {
            assert_eq!(padded_len(len, mtu), want, "{len}");
        }
        assert_eq!(padded_len(1500, 1420), 1500, "never shorter than the packet");
    }
}
