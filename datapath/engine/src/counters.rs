//! What a worker counts, and how others read it without stopping it.
//!
//! The worker adds to a plain [`Tally`] of its own. Once per turn it publishes the whole tally
//! under a sequence number, odd while it writes; a reader that met an odd or a changed number
//! reads again. So a reader sees the figures as they were between two batches, when the
//! conservation law holds, and the packet path pays for no atomic operation at all.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use bulkhead_link::{Counted, End, WorkerStatus};

const ENDS: usize = End::ALL.len();
const FIGURES: usize = ENDS + 12;

/// A worker's own figures since it started.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Frames received from sockets.
    pub received: Counted,
    /// Frames given to sockets.
    pub transmitted: Counted,
    /// Packets that the gateway made itself.
    pub originated: u64,
    /// Packets that wait now.
    pub held: u64,
    /// Packets given to other workers.
    pub handed_out: u64,
    /// Packets taken from other workers.
    pub handed_in: u64,
    /// Live flows in the cache.
    pub flows: u64,
    /// Frames owned, wherever they are.
    pub frames: u64,
    /// Records of the flow log: written, and lost.
    pub log: (u64, u64),
    ends: Ends,
}

/// Plain counts by end; `Default` for an array of this length does not exist.
#[derive(Clone, Debug)]
struct Ends([u64; ENDS]);

impl Default for Ends {
    fn default() -> Self {
        Self([0; ENDS])
    }
}

impl Tally {
    /// One packet ended.
    #[inline]
    pub fn end(&mut self, end: End) {
        self.end_all(1, end);
    }

    /// So many packets ended.
    #[inline]
    pub fn end_all(&mut self, packets: u64, end: End) {
        if let Some(count) = self.ends.0.get_mut(end as usize) {
            *count += packets;
        }
    }

    /// How many packets ended so.
    #[must_use]
    pub fn ended(&self, end: End) -> u64 {
        self.ends.0.get(end as usize).copied().unwrap_or(0)
    }

    fn figures(&self) -> [u64; FIGURES] {
        let mut figures = [0; FIGURES];
        let (ends, rest) = figures.split_at_mut(ENDS);
        ends.copy_from_slice(&self.ends.0);
        rest.copy_from_slice(&[
            self.received.packets,
            self.received.bytes,
            self.transmitted.packets,
            self.transmitted.bytes,
            self.originated,
            self.held,
            self.handed_out,
            self.handed_in,
            self.flows,
            self.frames,
            self.log.0,
            self.log.1,
        ]);
        figures
    }
}

/// The published figures of one worker: one writer, any number of readers.
#[derive(Debug)]
pub struct Counters {
    sequence: AtomicU64,
    figures: [AtomicU64; FIGURES],
}

impl Default for Counters {
    fn default() -> Self {
        Self { sequence: AtomicU64::new(0), figures: [const { AtomicU64::new(0) }; FIGURES] }
    }
}

impl Counters {
    /// Publishes `tally`. Only the worker may call it: two writers would mix their figures.
    pub fn publish(&self, tally: &Tally) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        // The figures must not be seen before the odd number ...
        fence(Ordering::Release);
        for (published, figure) in self.figures.iter().zip(tally.figures()) {
            published.store(figure, Ordering::Relaxed);
        }
        // ... and the even number not before the figures.
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    /// The figures as they were between two turns.
    #[must_use]
    pub fn read(&self) -> WorkerStatus {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let mut figures = [0; FIGURES];
            for (figure, published) in figures.iter_mut().zip(&self.figures) {
                *figure = published.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.sequence.load(Ordering::Relaxed) {
                return status(&figures);
            }
            core::hint::spin_loop();
        }
    }
}

fn status(figures: &[u64; FIGURES]) -> WorkerStatus {
    let (ends, rest) = figures.split_at(ENDS);
    let figure = |at: usize| rest.get(at).copied().unwrap_or(0);
    let mut status = WorkerStatus {
        received: Counted { packets: figure(0), bytes: figure(1) },
        transmitted: Counted { packets: figure(2), bytes: figure(3) },
        originated: figure(4),
        held: figure(5),
        handed_out: figure(6),
        handed_in: figure(7),
        flows: figure(8),
        frames: figure(9),
        logged: figure(10),
        log_lost: figure(11),
        ..WorkerStatus::default()
    };
    for (end, count) in End::ALL.into_iter().zip(ends) {
        status.ends.add(end, *count);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_published_is_read() {
        let mut tally = Tally { originated: 3, held: 1, frames: 9, ..Tally::default() };
        tally.received = Counted { packets: 4, bytes: 400 };
        tally.transmitted = Counted { packets: 5, bytes: 500 };
        (tally.handed_out, tally.handed_in, tally.flows) = (6, 7, 8);
        tally.log = (10, 11);
        tally.end(End::Forwarded);
        tally.end(End::DropForged);
        tally.end(End::DropForged);
        let counters = Counters::default();
        counters.publish(&tally);
        let read = counters.read();
        assert_eq!((read.received, read.transmitted), (tally.received, tally.transmitted));
        assert_eq!((read.originated, read.held, read.frames), (3, 1, 9));
        assert_eq!((read.handed_out, read.handed_in, read.flows), (6, 7, 8));
        assert_eq!((read.logged, read.log_lost), (10, 11));
        assert_eq!((read.ends.get(End::DropForged), read.ends.total()), (2, 3));
    }

    /// A reader in another thread never sees a received packet without its end.
    #[test]
    fn a_reader_sees_whole_turns() {
        let counters = Arc::new(Counters::default());
        let writer = Arc::clone(&counters);
        let thread = std::thread::spawn(move || {
            let mut tally = Tally::default();
            for _ in 0..200_000 {
                tally.received.packets += 1;
                tally.end(End::DropNoRule);
                writer.publish(&tally);
            }
        });
        let mut last = 0;
        while last < 200_000 {
            let read = counters.read();
            assert!(read.conserved(), "{read:?}");
            assert!(read.received.packets >= last, "figures never go back");
            last = read.received.packets;
        }
        thread.join().unwrap();
    }
}
