//! What a worker has to say about flows whose rules are logged, on its way to the link thread.
//!
//! ```text
//!   judge ── opened, denied ─┐
//!   registry ── over ────────┴─▶ ring ──▶ link thread ──▶ control
//!                                 └ full, or too many denials: lost, and counted
//! ```
//!
//! INVARIANT: everything that is to be recorded is in the ring, or was, or is counted as lost:
//! `written + lost` is what happened. Nothing waits for room, and no packet of a flow comes here but
//! the first and, if it is what ends the flow, the last.

use bulkhead_link::{Counted, End, FlowEnding};
use bulkhead_table::{RuleTag, Service};
use rtrb::Producer;

use crate::flow::FlowKey;
use crate::limits::DENIALS_LOGGED_PER_SECOND;
use crate::stage::complain::Allowance;

/// Something that happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What.
    pub event: Event,
    /// When, seconds of the datapath's clock.
    pub at_s: u32,
    /// The name of the rule; [`RuleTag::NONE`]: no rule allows it.
    pub tag: RuleTag,
    /// The flow, in the direction of who opened it.
    pub key: FlowKey,
    /// What it was opened for.
    pub service: Service,
    /// Of the table in force.
    pub generation: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was opened.
    Opened,
    /// It is over.
    Closed(Past),
    /// A packet wanted to open it and was denied.
    Denied(End),
}

/// How a flow was, once it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Why it is over.
    pub reason: FlowEnding,
    /// When it was opened, seconds of the datapath's clock.
    pub opened_s: u32,
    /// When its last packet passed.
    pub last_s: u32,
    /// Packets and bytes of the opener that the policy let pass.
    pub sent: Counted,
    /// Those of the responder.
    pub returned: Counted,
}

/// A worker's end.
pub struct FlowLog {
    ring: Producer<Record>,
    denials: Allowance,
    written: u64,
    lost: u64,
}

impl FlowLog {
    /// Writes into this ring.
    #[must_use]
    pub fn new(ring: Producer<Record>) -> Self {
        Self { ring, denials: Allowance::default(), written: 0, lost: 0 }
    }

    /// Records written, and records lost, since the start.
    #[inline]
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.written, self.lost)
    }

    /// Writes a record. Whoever floods with denials takes no room from flows that were allowed: half of the
    /// ring is theirs alone.
    pub fn write(&mut self, record: Record) {
        let granted = match record.event {
            Event::Opened | Event::Closed(_) => true,
            Event::Denied(_) => {
                let room = self.ring.slots() > self.ring.buffer().capacity() / 2;
                room && self.denials.take(record.at_s, DENIALS_LOGGED_PER_SECOND)
            }
        };
        if granted && self.ring.push(record).is_ok() {
            self.written += 1;
        } else {
            self.lost += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtrb::RingBuffer;

    fn record(event: Event, at_s: u32) -> Record {
        let (key, service) = (FlowKey::default(), Service::default());
        Record { event, at_s, tag: RuleTag(1), key, service, generation: 1 }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_rest_is_in_order() {
        let (ring, mut reader) = RingBuffer::new(3);
        let mut log = FlowLog::new(ring);
        (0..5).for_each(|at| log.write(record(Event::Opened, at)));
        assert_eq!(log.counts(), (3, 2));
        let mut read = || -> Vec<u32> {
            std::iter::from_fn(|| reader.pop().ok()).map(|record| record.at_s).collect()
        };
        assert_eq!(read(), [0, 1, 2]);
        log.write(record(Event::Opened, 5));
        assert_eq!((read(), log.counts()), (vec![5], (4, 2)));
    }

    #[test]
    fn denials_leave_half_of_the_ring_to_the_others() {
        let (ring, _reader) = RingBuffer::new(8);
        let mut log = FlowLog::new(ring);
        (0..9).for_each(|at| log.write(record(Event::Denied(End::DropNoRule), at)));
        assert_eq!(log.counts(), (4, 5), "nobody reads, for many seconds");
        (0..5).for_each(|at| log.write(record(Event::Opened, at)));
        assert_eq!(log.counts(), (8, 6));
    }

    #[test]
    fn denials_have_a_rate_and_take_none_from_the_others() {
        let most = u64::from(DENIALS_LOGGED_PER_SECOND);
        let (ring, _reader) = RingBuffer::new(100_000);
        let mut log = FlowLog::new(ring);
        let denied = Event::Denied(End::DropNoRule);
        (0..most + 7).for_each(|_| log.write(record(denied, 9)));
        assert_eq!(log.counts(), (most, 7));
        (0..most).for_each(|_| log.write(record(Event::Opened, 9)));
        assert_eq!(log.counts(), (2 * most, 7));
        log.write(record(denied, 10));
        assert_eq!(log.counts(), (2 * most + 1, 7), "another second");
    }
}
