//! The way out of a worker: to the transmit rings, or home to the pool.

use bulkhead_link::End;
use bulkhead_table::RuleIndex;
use bulkhead_xsk::{Frame, Packet};

use super::Worker;
use crate::handoff::WorkerRings;
use crate::hits::Hits;
use crate::limits::{BATCH_MAX, FRAME_RESERVE};
use crate::packet::Course;
use crate::port::Port;
use crate::setup::Setup;

impl<P: Port> Worker<P> {
    /// Empties the batch: each packet to its way out, or its frame back to the pool.
    pub(super) fn finish(&mut self) {
        for transit in self.batch.drain(..) {
            let own = matches!(transit.course, Course::Own);
            let end = transit.end.or(match transit.leaves {
                Some(_) => None,
                None => Some(End::DropTransmitFull),
            });
            let attached = transit
                .leaves
                .filter(|_| end.is_none())
                .and_then(|port| self.sockets.iter_mut().find(|socket| socket.port == port));
            let packet = Packet { frame: transit.frame, start: transit.start, len: transit.len };
            match attached {
                Some(attached) if own => {
                    self.tally.originated += 1;
                    attached.own.push(packet);
                }
                Some(attached) => {
                    attached.forwarded.push(packet);
                    let len = transit.inner.as_ref().map_or(0, |inner| inner.len);
                    attached.credits.push((transit.rule, len));
                }
                None => {
                    if !own {
                        self.tally.end(end.unwrap_or(End::DropTransmitFull));
                    }
                    recycle(packet.frame, &self.setup, &mut self.pool, &mut self.rings);
                }
            }
        }
        for at in 0..self.sockets.len() {
            self.send(at);
        }
    }

    /// Gives what is queued for one socket to its ring; what does not fit is dropped.
    pub(super) fn send(&mut self, at: usize) {
        let Some(attached) = self.sockets.get_mut(at) else { return };
        let bytes = |packets: &[Packet]| packets.iter().map(|packet| u64::from(packet.len)).sum();
        let queues = [
            (Some(End::Forwarded), &mut attached.forwarded),
            (Some(End::CookieReply), &mut attached.answers),
            // What we made ourselves was never received, so it has no end.
            (None, &mut attached.own),
        ];
        for (sent_end, queue) in queues {
            if queue.is_empty() {
                continue;
            }
            let all: u64 = bytes(queue);
            let sent = attached.socket.transmit(queue);
            self.tally.transmitted.packets += sent as u64;
            self.tally.transmitted.bytes += all - bytes(queue);
            if sent_end == Some(End::Forwarded) {
                let hits = self.edition.as_ref().map(|edition| edition.hits(self.setup.worker));
                credit(&mut attached.credits, sent, hits, self.now_s);
            }
            if let Some(end) = sent_end {
                self.tally.end_all(sent as u64, end);
                self.tally.end_all(queue.len() as u64, End::DropTransmitFull);
            }
            for packet in queue.drain(..) {
                recycle(packet.frame, &self.setup, &mut self.pool, &mut self.rings);
            }
        }
    }

    pub(super) fn transmit(&mut self) -> bool {
        let mut busy = false;
        for attached in &mut self.sockets {
            busy |= attached.socket.reclaim(&mut self.returned) > 0;
            for frame in self.returned.drain(..) {
                recycle(frame, &self.setup, &mut self.pool, &mut self.rings);
            }
            // Twice what one turn takes out of the ring: it fills up without a turn that moves
            // the whole pool.
            let spare = self.pool.len().saturating_sub(FRAME_RESERVE).min(2 * BATCH_MAX);
            attached.socket.fill(&mut self.pool, spare);
            // What a port that is gone was given stays in its ring until that is full; from then on
            // packets end as DropTransmitFull.
            attached.socket.flush();
        }
        busy
    }
}

/// Counts the first `sent` of what was queued for their rules, those of one rule in a row as one.
fn credit(credits: &mut Vec<(RuleIndex, u16)>, sent: usize, hits: Option<&Hits>, now_s: u32) {
    if let (Some(hits), Some(sent)) = (hits, credits.get(..sent)) {
        for run in sent.chunk_by(|a, b| a.0 == b.0) {
            let bytes = run.iter().map(|(_, len)| u64::from(*len)).sum();
            if let Some((rule, _)) = run.first() {
                hits.passed(*rule, run.len() as u64, bytes, now_s);
            }
        }
    }
    credits.clear();
}

/// Sends a frame home.
pub(super) fn recycle(frame: Frame, setup: &Setup, pool: &mut Vec<Frame>, rings: &mut WorkerRings) {
    let (index, first) = (frame.index() as usize, setup.worker * setup.frames);
    // Nearly always: a division takes longer than all else here.
    if index.checked_sub(first).is_some_and(|at| at < setup.frames) {
        return pool.push(frame);
    }
    let home = index / setup.frames.max(1);
    match rings.home_to.get_mut(home) {
        // The ring has room for every frame that is at home there.
        Some(Some(ring)) => {
            if let Err(rtrb::PushError::Full(frame)) = ring.push(frame) {
                pool.push(frame);
            }
        }
        Some(None) | None => pool.push(frame),
    }
}
