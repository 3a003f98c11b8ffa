//! Fragments: the decision is reassembled, not the data.
//!
//! ```text
//!   first ─▶ judged by its ports ─ allowed ─▶ a train: whose it is, and which bytes have passed
//!   later ─▶ its train, and bytes that have not passed yet ─▶ judged as a packet of the same flow
//! ```
//!
//! What passed of one datagram never overlaps, so the host that reassembles it gets the headers that
//! were judged (RFC 1858, RFC 3128, RFC 5722). An overlap ends the whole train (RFC 8200 §4.5).
//!
//! A later fragment without its first is dropped, not held: hosts send the first first, and holding
//! would give packet memory to whoever sends the others. Every worker has trains of its own; all
//! fragments of a tunnel come to the worker of its session, and network cards spread the fragments
//! of plain packets by their addresses alone.
//!
//! BOUNDED: [`SETS`] sets of [`WAYS`] trains, and a source has one set, so that it can displace
//! nobody's trains but its own and those that share its set by a secret hash. A train lives
//! [`TRAIN_S`] seconds.

use bulkhead_link::End;
use bulkhead_wire::{Address, IpPacket, Malformed, Piece};

use crate::flow::{FlowKey, Pair, Seed, halves, index_below};

/// Sets of trains: about 250 KB for each worker.
const SETS: usize = 256;

/// Trains of one set.
const WAYS: usize = 8;

/// Runs of bytes of one datagram that may have passed with gaps between. Fragments that arrive in
/// order make one.
const SPANS: usize = 4;

/// How long a train lives, seconds: as long as a host may wait for the rest (RFC 8200 §4.5).
pub const TRAIN_S: u32 = 60;

/// How a packet ends that cannot be read.
#[must_use]
pub fn end_of(malformed: Malformed) -> End {
    if malformed == Malformed::FragmentTiny {
        End::DropFragmentTiny
    } else if malformed == Malformed::FragmentOverlap {
        End::DropFragmentOverlap
    } else {
        End::DropInnerMalformed
    }
}

/// The trains of one worker.
pub struct Trains {
    sets: Box<[[Train; WAYS]]>,
    seed: Seed,
}

/// Which datagram a fragment belongs to (RFC 791 §2.3, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Datagram {
    source: Address,
    destination: Address,
    id: u32,
    /// Of IPv4 only: IPv6 tells datagrams apart without it.
    protocol: u8,
}

/// What has passed of one datagram. The default has ended long ago.
#[derive(Clone, Copy, Debug, Default)]
struct Train {
    datagram: Datagram,
    /// The flow of its first fragment.
    key: FlowKey,
    /// Runs of bytes that have passed, apart from each other; `(0, 0)` is none.
    passed: [(u16, u16); SPANS],
    /// Where the datagram ends, once its last fragment has passed; 0 before.
    end: u16,
    until_s: u32,
    /// Whether nothing of it may pass any more.
    refused: bool,
}

impl Trains {
    /// Room for all that one worker remembers.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self { sets: vec![[Train::default(); WAYS]; SETS].into_boxed_slice(), seed }
    }

    /// A first fragment has arrived.
    ///
    /// # Errors
    ///
    /// [`End::DropFragmentOverlap`] if one of the same datagram has passed; then the rest of it will
    /// not.
    pub fn first(&mut self, packet: &IpPacket, piece: Piece, now_s: u32) -> Result<(), End> {
        let datagram = Datagram::of(packet, piece);
        let known = self.set(packet.source).iter_mut().find(|train| train.is(&datagram, now_s));
        match known {
            // Of a complete datagram nothing more is expected: the number is used again.
            Some(train) if train.complete() && !train.refused => Ok(()),
            Some(train) => Err(train.refuse()),
            None => Ok(()),
        }
    }

    /// The first fragment was allowed: what follows may belong to it. Of the trains of its source one
    /// that is complete makes room, or the oldest.
    pub fn begin(&mut self, packet: &IpPacket, piece: Piece, now_s: u32) {
        let datagram = Datagram::of(packet, piece);
        let mut passed = [(0, 0); SPANS];
        passed[0] = (0, piece.len);
        let train = Train {
            datagram,
            key: FlowKey::of(packet),
            passed,
            end: 0,
            until_s: now_s.saturating_add(TRAIN_S),
            refused: false,
        };
        let rank = |found: &Train| (found.datagram != datagram, !found.complete(), found.until_s);
        if let Some(place) = self.set(packet.source).iter_mut().min_by_key(|found| rank(found)) {
            *place = train;
        }
    }

    /// A later fragment has arrived: the flow of its train.
    ///
    /// # Errors
    ///
    /// [`End::DropFragment`] without a train, [`End::DropFragmentOverlap`] if bytes of it have passed
    /// or lie behind the end, [`End::DropFragmentTiny`] if it has none.
    pub fn later(&mut self, packet: &IpPacket, piece: Piece, now_s: u32) -> Result<FlowKey, End> {
        let datagram = Datagram::of(packet, piece);
        let train = self
            .set(packet.source)
            .iter_mut()
            .find(|train| train.is(&datagram, now_s))
            .ok_or(End::DropFragment)?;
        if piece.len == 0 {
            return Err(End::DropFragmentTiny);
        }
        if train.refused || !train.pass(piece) {
            return Err(train.refuse());
        }
        Ok(train.key)
    }

    /// The flow of a later fragment that [`Self::later`] let pass and that has waited since.
    #[must_use]
    pub fn again(&mut self, packet: &IpPacket, piece: Piece, now_s: u32) -> Option<FlowKey> {
        let datagram = Datagram::of(packet, piece);
        let train = self.set(packet.source).iter().find(|train| train.is(&datagram, now_s))?;
        (!train.refused).then_some(train.key)
    }

    fn set(&mut self, source: Address) -> &mut [Train] {
        let key = FlowKey { source, destination: source, ..FlowKey::default() };
        let (half, _) = halves(Pair::of(&key).0.hash(self.seed));
        let at = index_below(half, self.sets.len());
        self.sets.get_mut(at).map_or(&mut [], |set| set)
    }
}

impl Datagram {
    fn of(packet: &IpPacket, piece: Piece) -> Self {
        let protocol = if packet.source.is_ipv4() { packet.protocol } else { 0 };
        let (source, destination) = (packet.source, packet.destination);
        Self { source, destination, id: piece.id, protocol }
    }
}

impl Train {
    fn is(&self, datagram: &Datagram, now_s: u32) -> bool {
        self.datagram == *datagram && now_s < self.until_s
    }

    fn complete(&self) -> bool {
        self.end > 0 && self.passed.contains(&(0, self.end))
    }

    fn refuse(&mut self) -> End {
        self.refused = true;
        End::DropFragmentOverlap
    }

    /// Notes that the bytes of `piece` pass. `false`: some have passed, they contradict where the
    /// datagram ends, or there are too many gaps to remember.
    fn pass(&mut self, piece: Piece) -> bool {
        let (start, end) = (piece.start, piece.start.saturating_add(piece.len));
        let runs = || self.passed.iter().filter(|run| run.1 > 0);
        if runs().any(|run| start < run.1 && run.0 < end) {
            return false;
        }
        if piece.more {
            if self.end > 0 && end >= self.end {
                return false;
            }
        } else if self.end > 0 || runs().any(|run| run.1 > end) {
            return false;
        } else {
            self.end = end;
        }
        // The run grows together with those that it touches.
        let mut grown = (start, end);
        for run in self.passed.iter_mut().filter(|run| run.1 > 0) {
            if run.1 == grown.0 || run.0 == grown.1 {
                grown = (grown.0.min(run.0), grown.1.max(run.1));
                *run = (0, 0);
            }
        }
        match self.passed.iter_mut().find(|run| run.1 == 0) {
            Some(free) => *free = grown,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests;
