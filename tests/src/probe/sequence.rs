//! What a receiver of numbered records knows: which came, which are missing, when the last came.

use std::time::Duration;

/// Follows a stream of records numbered from 0.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    next: u64,
    received: u64,
    last_at_ns: Option<u64>,
    quiet: bool,
}

/// What is worth a line of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first record of all.
    First,
    /// The next in order.
    InOrder,
    /// Records `from..to` did not come before this one.
    Gap {
        /// First missing number.
        from: u64,
        /// The number that came instead.
        to: u64,
    },
    /// A number below one that came already: reordered or repeated.
    Late,
}

impl Sequence {
    /// Takes note of a record. The second value is the length of the silence that it ended, if
    /// [`Self::fell_quiet`] had reported one.
    pub fn record(&mut self, number: u64, at_ns: u64) -> (Event, Option<Duration>) {
        let event = match self.last_at_ns {
            _ if number < self.next => Event::Late,
            _ if number > self.next => Event::Gap { from: self.next, to: number },
            None => Event::First,
            Some(_) => Event::InOrder,
        };
        let silence = self
            .quiet
            .then(|| Duration::from_nanos(at_ns.saturating_sub(self.last_at_ns.unwrap_or(at_ns))));
        self.quiet = false;
        self.next = self.next.max(number.saturating_add(1));
        self.received = self.received.saturating_add(1);
        self.last_at_ns = Some(at_ns);
        (event, silence)
    }

    /// Whether the stream has just fallen quiet: it had begun, the last record is at least `limit`
    /// old, and this is the first time that it is asked since.
    pub fn fell_quiet(&mut self, now_ns: u64, limit: Duration) -> bool {
        let Some(last) = self.last_at_ns else { return false };
        if self.quiet || Duration::from_nanos(now_ns.saturating_sub(last)) < limit {
            return false;
        }
        self.quiet = true;
        true
    }

    /// Records received, repeated ones included.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The state as `key=value` words: `received`, `next` (one above the highest number), `missing`
    /// (numbers below `next` that did not come, if none came twice) and `last_at`.
    #[must_use]
    pub fn words(&self) -> String {
        format!(
            "received={} next={} missing={} last_at={}",
            self.received,
            self.next,
            self.next.saturating_sub(self.received),
            self.last_at_ns.unwrap_or(0)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_told() {
        let mut sequence = Sequence::default();
        let steps = [
            (0, Event::First),
            (1, Event::InOrder),
            (4, Event::Gap { from: 2, to: 4 }),
            (3, Event::Late),
            (4, Event::Late),
            (5, Event::InOrder),
        ];
        for (at, (number, want)) in (100..).zip(steps) {
            assert_eq!(sequence.record(number, at), (want, None), "record {number}");
        }
        assert_eq!(sequence.words(), "received=6 next=6 missing=0 last_at=105");
    }

    #[test]
    fn a_stream_whose_beginning_is_lost_starts_with_a_gap() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.record(2, 1).0, Event::Gap { from: 0, to: 2 });
        assert_eq!(sequence.words(), "received=1 next=3 missing=2 last_at=1");
    }

    #[test]
    fn silence_is_told_once_and_measured_when_it_ends() {
        let limit = Duration::from_nanos(50);
        let mut sequence = Sequence::default();
        assert!(!sequence.fell_quiet(1_000, limit), "it has not begun");
        sequence.record(0, 1_000);
        assert!(!sequence.fell_quiet(1_049, limit));
        assert!(sequence.fell_quiet(1_050, limit));
        assert!(!sequence.fell_quiet(2_000, limit), "told already");
        let (event, silence) = sequence.record(1, 2_000);
        assert_eq!((event, silence), (Event::InOrder, Some(Duration::from_nanos(1_000))));
        assert!(sequence.fell_quiet(2_050, limit), "a new silence");
    }
}
