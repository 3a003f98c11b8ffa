//! To a peer: padding, encryption in place, and the outer headers in front.
//!
//! ```text
//!   before            [ inner packet ]
//!   after  [eth|ip|udp|type index counter|inner packet|00..|tag]
//! ```

use bulkhead_link::{Counted, End};
use bulkhead_wire::{ecn, ip, wg};

use crate::packet::{Course, Hop, Transit};
use crate::session::{PeerCell, Place, Session, Sessions};

const TAG_LEN: usize = 16;

/// Seals every transit whose hop is a peer. Afterwards its bytes are the Ethernet frame to send.
///
/// Message counters are reserved for a run of packets to one peer at a time.
pub fn seal(batch: &mut [Transit], sessions: &Sessions, peers: &[PeerCell], now_ms: u64) {
    let to_peer = |transit: &Transit| match transit.hop {
        Some(Hop::Peer(peer)) if transit.goes_on() => Some(peer),
        Some(Hop::Peer(_) | Hop::Segment { .. }) | None => None,
    };
    for run in batch.chunk_by_mut(|a, b| to_peer(a) == to_peer(b)) {
        let Some(peer) = run.first().and_then(to_peer) else { continue };
        let cell = peers.get(peer.0 as usize);
        let session = cell.and_then(|cell| sessions.sending(cell));
        let place = cell.and_then(PeerCell::place);
        let (Some(session), Some(place)) = (session, place) else {
            end_all(run, End::DropPeerUnreachable);
            continue;
        };
        if now_ms >= session.reject_at_ms {
            end_all(run, End::DropPeerUnreachable);
            continue;
        }
        let Some(first) = session.counter.reserve(run.len() as u64) else {
            end_all(run, End::DropCounterExhausted);
            continue;
        };
        let mut sent = Counted::default();
        for (transit, counter) in run.iter_mut().zip(first..) {
            let content = u64::from(transit.len);
            match seal_one(transit, session, &place, counter) {
                Some(()) => {
                    sent.packets += u64::from(content > 0);
                    sent.bytes += content;
                }
                None => transit.end = Some(End::DropTooBig),
            }
        }
        session.activity.sent(sent, now_ms);
    }
}

fn end_all(run: &mut [Transit], end: End) {
    for transit in run {
        transit.end = Some(end);
    }
}

/// Seals one packet. `None` if the frame has no room for the headers or the tag; then nothing of
/// it is sent.
fn seal_one(transit: &mut Transit, session: &Session, place: &Place, counter: u64) -> Option<()> {
    let inner_class = transit.inner.as_ref().map_or(0, |inner| inner.traffic_class);
    if !matches!(transit.course, Course::Own) {
        ip::decrement_hop_limit(transit.bytes_mut());
    }
    let class = session.dscp.outer(inner_class) | ecn::encapsulate(inner_class & 3);
    let (ethernet, outer) = (place.ethernet(), place.datagram(class));
    let start = usize::from(transit.start);
    let len = usize::from(transit.len);
    let padded = padded_len(len, usize::from(session.tunnel_mtu));
    let headers = ethernet.len + outer.header_len() + wg::DATA_HEADER_LEN;
    let frame_start = start.checked_sub(headers)?;
    let frame_end = start + padded + TAG_LEN;
    let frame = transit.frame.bytes_mut().get_mut(frame_start..frame_end)?;

    let (ethernet_header, rest) = frame.split_at_mut_checked(ethernet.len)?;
    ethernet.write(ethernet_header);
    let message_len = wg::DATA_HEADER_LEN + padded + TAG_LEN;
    outer.write(rest, message_len);
    let message = rest.get_mut(outer.header_len()..)?;
    let (header, sealed) = message.split_at_mut_checked(wg::DATA_HEADER_LEN)?;
    wg::Data { receiver: session.remote_index, counter }.write(header);
    let (content, tag) = sealed.split_at_mut_checked(padded)?;
    content.get_mut(len..)?.fill(0);
    tag.copy_from_slice(&session.send.seal(counter, content));
    if !place.remote.is_ipv4() {
        outer.checksum_v6(rest);
    }

    transit.leaves = Some(place.port);
    transit.start = u16::try_from(frame_start).ok()?;
    transit.len = u16::try_from(frame_end - frame_start).ok()?;
    Some(())
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
