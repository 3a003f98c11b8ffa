//! To a peer: padding, encryption in place, and the outer headers in front.
//!
//! ```text
//!   before            [ inner packet ]
//!   after  [eth|ip|udp|type index counter|inner packet|00..|tag]
//! ```

use core::ops::Range;

use bulkhead_link::{Counted, End};
use bulkhead_table::PeerIndex;
use bulkhead_wg::{Seal, seal_batch};
use bulkhead_wire::ethernet::ETHERTYPE_IPV6;
use bulkhead_wire::{Envelope, Ethernet, ecn, ip, udp, wg};
use bulkhead_xsk::Frame;

use crate::limits::BATCH_MAX;
use crate::packet::{Course, Hop, Transit};
use crate::session::{PeerCell, Session, Sessions};

const TAG_LEN: usize = 16;

/// Seals every transit whose hop is a peer. Afterwards its bytes are the Ethernet frame to send.
///
/// Message counters are reserved, and outer headers written, for a run of packets to one peer at a
/// time; all packets of the batch are encrypted together, whoever they go to.
pub fn seal(batch: &mut [Transit], sessions: &Sessions, peers: &[PeerCell], now_ms: u64) {
    for piece in batch.chunks_mut(BATCH_MAX) {
        if encrypt(piece, sessions, peers, now_ms) {
            piece.iter_mut().filter(|transit| to_peer(transit).is_some()).for_each(checksum_v6);
        }
    }
}

/// Fills the UDP checksum of a frame with a datagram over IPv6.
fn checksum_v6(transit: &mut Transit) {
    let frame = transit.bytes_mut();
    if let Ok(Ethernet { ether_type: ETHERTYPE_IPV6, len, .. }) = Ethernet::parse(frame)
        && let Some(packet) = frame.get_mut(len..)
    {
        udp::checksum_v6(packet);
    }
}

fn to_peer(transit: &Transit) -> Option<PeerIndex> {
    match transit.hop {
        Some(Hop::Peer(peer)) if transit.goes_on() => Some(peer),
        Some(Hop::Peer(_) | Hop::Segment { .. }) | None => None,
    }
}

/// Writes headers and encrypts. Returns whether there is a datagram over IPv6, whose checksum covers the
/// ciphertext.
fn encrypt(piece: &mut [Transit], sessions: &Sessions, peers: &[PeerCell], now_ms: u64) -> bool {
    let mut any_v6 = false;
    let mut jobs = [const { None }; BATCH_MAX];
    let mut places = jobs.iter_mut();
    for run in piece.chunk_by_mut(|a, b| to_peer(a) == to_peer(b)) {
        let Some(peer) = run.first().and_then(to_peer) else { continue };
        match ready(peers.get(peer.0 as usize), sessions, run.len(), now_ms) {
            Err(end) => end_all(run, end),
            Ok(way) => {
                any_v6 |= way.envelope.wants_checksum();
                let (mut sent, mut counter) = (Counted::default(), way.first);
                for (transit, job) in run.iter_mut().zip(&mut places) {
                    let content = u64::from(transit.len);
                    if let Some(message) = prepare(transit, &way, counter) {
                        *job = Some(message);
                        sent.packets += u64::from(content > 0);
                        sent.bytes += content;
                    }
                    counter += 1;
                }
                way.session.activity.sent(sent, now_ms);
            }
        }
    }
    seal_batch(jobs.iter_mut().flatten());
    any_v6
}

/// What a run of packets to one peer is sent with.
struct Way<'s> {
    session: &'s Session,
    /// The network port.
    port: u8,
    envelope: Envelope,
    /// The first of the reserved message counters.
    first: u64,
}

/// The way for `count` packets.
fn ready<'s>(
    cell: Option<&PeerCell>,
    sessions: &'s Sessions,
    count: usize,
    now_ms: u64,
) -> Result<Way<'s>, End> {
    let session = cell.and_then(|cell| sessions.sending(cell)).ok_or(End::DropPeerUnreachable)?;
    let place = cell.and_then(PeerCell::place).ok_or(End::DropPeerUnreachable)?;
    let envelope = Envelope::new(&place.ethernet(), &place.datagram(0));
    let envelope = envelope.ok_or(End::DropPeerUnreachable)?;
    if now_ms >= session.reject_at_ms {
        return Err(End::DropPeerUnreachable);
    }
    let first = session.counter.reserve(count as u64).ok_or(End::DropCounterExhausted)?;
    Ok(Way { session, port: place.port, envelope, first })
}

fn end_all(run: &mut [Transit], end: End) {
    for transit in run {
        transit.end = Some(end);
    }
}

/// Writes the headers of one packet around its content and tells what is to be encrypted. Without
/// room for the headers or the tag in the frame, the packet ends and nothing of it is sent.
fn prepare<'t>(transit: &'t mut Transit, way: &Way<'t>, counter: u64) -> Option<Seal<'t>> {
    let inner_class = transit.inner.as_ref().map_or(0, |inner| inner.traffic_class);
    if !matches!(transit.course, Course::Own) {
        ip::decrement_hop_limit(transit.bytes_mut());
    }
    let class = way.session.dscp.outer(inner_class) | ecn::encapsulate(inner_class & 3);
    let Transit { frame, start, len, leaves, end, .. } = transit;
    let content = usize::from(*start)..usize::from(*start) + usize::from(*len);
    let Some((message, range)) = wrap(frame, content, way, counter, class) else {
        *end = Some(End::DropTooBig);
        return None;
    };
    // A frame is shorter than 65,536 bytes.
    *start = u16::try_from(range.start).unwrap_or(u16::MAX);
    *len = u16::try_from(range.len()).unwrap_or(0);
    *leaves = Some(way.port);
    Some(message)
}

/// Puts headers in front of the `content` of a frame, padding and room for the tag behind it. Returns
/// what is to be encrypted and the range of it all, or `None` if that is not in the frame.
fn wrap<'t>(
    frame: &'t mut Frame,
    content: Range<usize>,
    way: &Way<'t>,
    counter: u64,
    class: u8,
) -> Option<(Seal<'t>, Range<usize>)> {
    let (session, envelope) = (way.session, &way.envelope);
    let padded = padded_len(content.len(), usize::from(session.tunnel_mtu));
    let headers = envelope.header_len() + wg::DATA_HEADER_LEN;
    let range = content.start.checked_sub(headers)?..content.start + padded + TAG_LEN;
    let bytes = frame.bytes_mut().get_mut(range.clone())?;
    if !envelope.stamp(bytes, class, wg::DATA_HEADER_LEN + padded + TAG_LEN) {
        return None;
    }
    let message = bytes.get_mut(envelope.header_len()..)?;
    let (header, sealed) = message.split_at_mut_checked(wg::DATA_HEADER_LEN)?;
    wg::Data { receiver: session.remote_index, counter }.write(header);
    let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>()?;
    let padding = text.get_mut(content.len()..)?;
    // The question costs less than the call that fills nothing.
    if !padding.is_empty() {
        padding.fill(0);
    }
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
