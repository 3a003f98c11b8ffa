use super::*;
use bulkhead_wire::{Fragment, Transport};
use proptest::prelude::*;

const SEED: Seed = Seed(0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9);

fn packet(source: u32, id: u32, start: u16, len: u16, more: bool) -> (IpPacket, Piece) {
    let piece = Piece { id, start, len, more };
    let first = start == 0;
    let packet = IpPacket {
        source: Address::from_bits(0xffff_0a00_0000 + u128::from(source)),
        destination: Address::from_bits(0xffff_0b00_0000),
        protocol: 17,
        transport_at: 20,
        len: 20 + len,
        hop_limit: 64,
        traffic_class: 0,
        fragment: if first { Fragment::First(piece) } else { Fragment::Later(piece) },
        transport: match first {
            true => Transport::Udp { source: 7, destination: 5000 },
            false => Transport::Other,
        },
    };
    (packet, piece)
}

/// What becomes of a fragment that the policy allows.
fn send(trains: &mut Trains, what: &(IpPacket, Piece), now_s: u32) -> Result<(), End> {
    let (packet, piece) = what;
    if let Fragment::First(_) = packet.fragment {
        trains.first(packet, *piece, now_s)?;
        trains.begin(packet, *piece, now_s);
        return Ok(());
    }
    let key = trains.later(packet, *piece, now_s)?;
    assert_eq!((key.source_port, key.destination_port), (7, 5000), "the flow of the first");
    assert_eq!(trains.again(packet, *piece, now_s), Some(key), "also when it had to wait");
    Ok(())
}

fn ends(pieces: &[(u16, u16, bool)]) -> Vec<Option<End>> {
    let mut trains = Trains::new(SEED);
    let all = pieces.iter().map(|(start, len, more)| packet(1, 9, *start, *len, *more));
    all.map(|fragment| send(&mut trains, &fragment, 100).err()).collect()
}

#[test]
fn later_fragments_follow_their_first_in_any_order() {
    assert_eq!(ends(&[(0, 800, true), (800, 800, true), (1600, 8, false)]), [None; 3]);
    assert_eq!(ends(&[(0, 800, true), (1600, 8, false), (800, 800, true)]), [None; 3]);
    // Before it they are dropped, and it is not too late for the next.
    let first = Some(End::DropFragment);
    assert_eq!(ends(&[(800, 800, true), (0, 800, true), (800, 8, false)]), [first, None, None]);
    // Another first with the number of a complete datagram is another datagram.
    let again = [(0, 8, true), (8, 8, false), (0, 8, true), (8, 16, false)];
    assert_eq!(ends(&again), [None; 4]);
}

#[test]
fn overlapping_fragments_end_the_whole_datagram() {
    let overlap = Some(End::DropFragmentOverlap);
    for bad in [
        (0, 8, true),     // the first again
        (792, 8, true),   // the last bytes of the first
        (800, 16, true),  // more than the second
        (1600, 8, false), // an end before what has passed
        (0, 1608, false), // everything
        (2400, 0, false),
    ] {
        let pieces = [(0, 800, true), (800, 8, true), (1608, 792, true), bad, (808, 800, true)];
        let got = ends(&pieces);
        if bad.1 == 0 {
            assert_eq!(got[3], Some(End::DropFragmentTiny));
            assert_eq!(got[4], None);
        } else {
            assert_eq!(got, [None, None, None, overlap, overlap], "{bad:?}");
        }
    }
    // Behind the end, and a second end.
    for bad in [(1600, 8, true), (1608, 8, true), (1608, 8, false), (1592, 8, true)] {
        let got = ends(&[(0, 800, true), (1592, 8, false), bad, (800, 8, true)]);
        assert_eq!(got, [None, None, overlap, overlap], "{bad:?}");
    }
}

#[test]
fn memory_is_bounded_in_time_gaps_and_trains() {
    let mut trains = Trains::new(SEED);
    send(&mut trains, &packet(1, 9, 0, 8, true), 100).unwrap();
    assert_eq!(send(&mut trains, &packet(1, 9, 8, 8, true), 159), Ok(()));
    assert_eq!(send(&mut trains, &packet(1, 9, 16, 8, true), 160), Err(End::DropFragment));
    // Every second piece: as many runs as are remembered, the first among them.
    let scattered: Vec<_> = (0..6u16).map(|n| (n * 16, 8, true)).collect();
    let overlap = Some(End::DropFragmentOverlap);
    assert_eq!(ends(&scattered), [None, None, None, None, overlap, overlap]);
    // A source has eight trains, and another source its own.
    send(&mut trains, &packet(2, 1, 0, 8, true), 200).unwrap();
    for id in 0..9 {
        send(&mut trains, &packet(1, id, 0, 8, true), 200 + id).unwrap();
    }
    assert_eq!(send(&mut trains, &packet(1, 0, 8, 8, true), 210), Err(End::DropFragment));
    assert_eq!(send(&mut trains, &packet(1, 1, 8, 8, false), 210), Ok(()), "now complete");
    assert_eq!(send(&mut trains, &packet(2, 1, 8, 8, true), 210), Ok(()));
    send(&mut trains, &packet(1, 100, 0, 8, true), 211).unwrap();
    assert_eq!(send(&mut trains, &packet(1, 2, 8, 8, true), 211), Ok(()), "the complete one went");
    assert!(size_of::<Train>() * SETS * WAYS <= 400 << 10);
}

#[test]
fn datagrams_are_told_apart_by_everything_that_names_them() {
    let mut trains = Trains::new(SEED);
    send(&mut trains, &packet(1, 9, 0, 8, true), 100).unwrap();
    let (later, piece) = packet(1, 9, 8, 8, true);
    let mut others = [later; 3];
    others[0].destination = Address::from_bits(0xffff_0b00_0001);
    others[1].protocol = 6;
    others[2].source = Address::from_bits(0xffff_0a00_0002);
    for other in &others {
        assert_eq!(trains.later(other, piece, 100), Err(End::DropFragment));
    }
    let other = Piece { id: 10, ..piece };
    assert_eq!(trains.later(&later, other, 100), Err(End::DropFragment));
    assert!(trains.later(&later, piece, 100).is_ok());
}

/// The slow twin: every byte of the datagram by itself.
#[derive(Default)]
struct Bytes {
    passed: std::collections::BTreeSet<u16>,
    end: Option<u16>,
    begun: bool,
    refused: bool,
}

impl Bytes {
    fn hear(&mut self, piece: Piece) -> Result<(), End> {
        let all = piece.start..piece.start + piece.len;
        let complete = self.end.is_some_and(|end| (0..end).all(|at| self.passed.contains(&at)));
        if piece.start == 0 {
            if self.begun && (self.refused || !complete) {
                self.refused = true;
                return Err(End::DropFragmentOverlap);
            }
            *self = Self { begun: true, passed: all.collect(), ..Self::default() };
            return Ok(());
        }
        if !self.begun {
            return Err(End::DropFragment);
        }
        let behind =
            |end| piece.start + piece.len > end || (piece.more && piece.start + piece.len == end);
        let conflict = all.clone().any(|at| self.passed.contains(&at))
            || self.end.is_some_and(|end| behind(end) || !piece.more)
            || !piece.more && self.passed.last().is_some_and(|last| *last >= all.end);
        self.passed.extend(all.clone());
        let runs =
            (0..u16::MAX).filter(|at| self.passed.contains(at) && !self.passed.contains(&(at + 1)));
        if self.refused || conflict || runs.take(SPANS + 1).count() > SPANS {
            self.refused = true;
            return Err(End::DropFragmentOverlap);
        }
        if !piece.more {
            self.end = Some(all.end);
        }
        Ok(())
    }
}

/// Goal: the table equals its slow twin, and a reassembled datagram never has a byte twice.
#[test]
fn trains_equal_the_byte_by_byte_twin() {
    let met = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let pieces = proptest::collection::vec((0u16..8, 1u16..4, any::<bool>(), 0u8..8), 1..14);
    runner
        .run(&pieces, |pieces| {
            let (mut trains, mut twin) = (Trains::new(SEED), Bytes::default());
            for (start, len, more, luck) in pieces {
                // A first fragment is never the last.
                let more = more || start == 0 || luck > 2;
                let fragment = packet(1, 9, start * 8, len * 8, more);
                let got = send(&mut trains, &fragment, 100);
                prop_assert_eq!(got, twin.hear(fragment.1));
                met.borrow_mut().insert(format!("{got:?} {}", twin.end.is_some()));
            }
            Ok(())
        })
        .unwrap();
    let met = met.into_inner();
    assert_eq!(met.len(), 5, "{met:?}: an unknown one is not behind an end");
}
