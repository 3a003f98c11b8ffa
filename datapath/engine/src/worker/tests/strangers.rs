//! Forged and mutated packets change nothing and get no answer beyond what the
//! protocol owes: a cookie reply, to a right MAC1, under load.

use std::fmt::Write as _;

use bulkhead_wg::{PresharedKey, PublicKey, Tai64n, initiate};
use bulkhead_wire::wg;

use super::*;
use crate::place::Place;
use crate::rig::{PUBLIC_KEY, datagram, outer_place};

/// SplitMix64 (Steele, Lea, Flood 2014): a seed makes the run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// Everything that a packet could change: windows, sessions, peers, flows, opened flows, what waits.
fn snapshot(rig: &mut Rig, sessions: &[bulkhead_link::SessionIndex]) -> String {
    let mut text = String::new();
    for worker in &mut rig.workers {
        for index in sessions {
            let slot = worker.sessions.addressed(*index).unwrap();
            let session = slot.session.as_ref().unwrap();
            let counter = session.counter.count();
            let state = (&slot.window, &slot.heard_at, &session.activity, counter);
            writeln!(text, "{state:?}").unwrap();
        }
        writeln!(text, "{} {}", worker.flows.len(), worker.hold.len()).unwrap();
        writeln!(text, "{:?}", worker.shared.registry.live()).unwrap();
    }
    for cell in rig.cells.iter() {
        writeln!(text, "{:?} {:?}", cell.place(), cell.sending()).unwrap();
    }
    text
}

/// What is right, before it is spoilt.
struct Originals {
    /// Sealed for the gateway and never delivered: each would be accepted.
    fresh: Vec<Vec<u8>>,
    /// Delivered before: each is refused.
    replayed: Vec<Vec<u8>>,
    /// Of strangers who know our public key.
    initiations: Vec<Vec<u8>>,
    responses: Vec<Vec<u8>>,
}

impl Originals {
    /// The UDP payload of a packet of a stranger, and whether its MAC1 is right.
    fn spoilt(&self, dice: &mut Dice) -> (Vec<u8>, bool) {
        let from = |dice: &mut Dice, all: &[Vec<u8>]| all[dice.below(all.len())].clone();
        match dice.below(16) {
            0..5 => (mutated(from(dice, &self.fresh), dice), false),
            5 => (from(dice, &self.replayed), false),
            6 => {
                // The right header around what nobody sealed.
                let mut forged = from(dice, &self.fresh);
                let content = dice.bytes(forged.len() - wg::DATA_HEADER_LEN);
                forged[wg::DATA_HEADER_LEN..].copy_from_slice(&content);
                forged[8..16].copy_from_slice(&dice.next().to_le_bytes());
                (forged, false)
            }
            7..10 => (mutated(from(dice, &self.initiations), dice), false),
            10 => (mutated(from(dice, &self.responses), dice), false),
            11 => (from(dice, &self.initiations), true),
            12 => (from(dice, &self.responses), true),
            13 => {
                let mut reply = dice.bytes(64);
                reply[..4].copy_from_slice(&[3, 0, 0, 0]);
                (reply, false)
            }
            14 => {
                let mut typed = dice.bytes(200);
                typed.truncate(dice.below(200));
                if let Some(kind) = typed.first_chunk_mut::<4>() {
                    *kind = [1 + dice.next().to_le_bytes()[0] % 5, 0, 0, 0];
                }
                (typed, false)
            }
            _ => {
                let len = dice.below(1_400);
                (dice.bytes(len), false)
            }
        }
    }
}

/// The same with at least one bit of what is authenticated changed, or cut, or longer. MAC2 is not
/// authenticated by MAC1, so a handshake message is changed before it.
fn mutated(mut message: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let authenticated = match message[0] {
        4 => message.len(),
        _ => message.len() - 16,
    };
    match dice.below(8) {
        0 => message.truncate(dice.below(message.len())),
        1 => {
            let more = 1 + dice.below(64);
            message.extend(dice.bytes(more));
        }
        _ => {
            let first = dice.below(authenticated * 8);
            message[first / 8] ^= 1 << (first % 8);
            for _ in 0..dice.below(4) {
                let at = dice.below(authenticated * 8);
                // Not the first one back.
                message[at / 8] ^= u8::from(at != first) << (at % 8);
            }
        }
    }
    message
}

fn payload(frame: &[u8]) -> Vec<u8> {
    frame[14 + if frame[14] >> 4 == 4 { 28 } else { 48 }..].to_vec()
}

#[expect(clippy::disallowed_methods, reason = "how long it took is printed")]
fn forged_and_mutated(packets: usize, seed: u64) {
    println!("seed {seed:#x}");
    let started = std::time::Instant::now();
    let mut dice = Dice(seed);
    let (mut rig, mut laptop, server) = gateway(2, false);
    let flow = a_to_b((4000, 5000), 200);
    let mut originals =
        Originals { fresh: vec![], replayed: vec![], initiations: vec![], responses: vec![] };
    for len in [60, 200, 1_300] {
        let frame = laptop.seal(&a_to_b((4000, 5000), len));
        originals.replayed.push(payload(&frame));
        rig.deliver(0, OUTSIDE, &frame);
        rig.run();
    }
    for counter in 1_000..1_040 {
        let inner = a_to_b((4000, 5000), 28 + usize::try_from(counter).unwrap() % 900);
        originals.fresh.push(payload(&laptop.seal_as(&inner, counter, 0)));
        originals.fresh.push(payload(&server.seal_as(&[], counter, 0)));
    }
    let stranger = PrivateKey::from_bytes([0x41; 32]);
    for n in 0..16 {
        let psk = PresharedKey::default();
        let made =
            initiate(&stranger, &PublicKey(PUBLIC_KEY), &psk, n, Tai64n::default(), &[3; 32]);
        let initiation = made.unwrap().0;
        originals.initiations.push(initiation.to_vec());
        // A response is a MAC1 over other bytes.
        let mut response = dice.bytes(92);
        response[..4].copy_from_slice(&[2, 0, 0, 0]);
        response[8..12].copy_from_slice(&n.to_le_bytes());
        bulkhead_wg::Mac1Key::of(&PublicKey(PUBLIC_KEY)).stamp(&mut response);
        originals.responses.push(response);
    }
    rig.sent(OUTSIDE);
    let sessions = [laptop.index, server.index];
    let before = snapshot(&mut rig, &sessions);
    let known = rig.status().ends();
    let now = rig.now_ms;
    let (mut right_mac1, mut answers) = (0u64, 0u64);

    let mut places: Vec<Place> = vec![];
    for at in 0..packets {
        if at == packets / 2 {
            // From here on nobody finishes what is handed on: load.
            rig.control_works = false;
        }
        let (message, mac1) = originals.spoilt(&mut dice);
        let mut place = match dice.below(4) {
            0 => laptop.place,
            1 => server.place,
            _ => outer_place(u32::try_from(dice.below(60_000)).unwrap(), dice.below(2) == 0),
        };
        place.remote_port = 1 + u16::try_from(dice.below(60_000)).unwrap();
        if dice.below(50) == 0 {
            place.local_mac = [2, 0, 0, 0, 0, 9];
        } else if mac1 {
            right_mac1 += 1;
        }
        places.push(place);
        assert!(rig.deliver(dice.below(2), OUTSIDE, &datagram(&place, &message, 0)));
        if at % 64 == 63 || at + 1 == packets {
            // Ten seconds in all: flows and sessions do not end of age.
            rig.now_ms = now + u64::try_from(at).unwrap() / (packets as u64 / 10_000).max(1);
            rig.run();
            rig.handshakes.clear();
            for frame in rig.sent(OUTSIDE) {
                answers += 1;
                let message = payload(&frame);
                assert_eq!((message.len(), &message[..4]), (64, &[3, 0, 0, 0][..]));
                let to = places.iter().any(|place| frame[..6] == place.remote_mac);
                assert!(to, "an answer to nobody who asked");
            }
            assert!(rig.sent(INSIDE).is_empty());
            places.clear();
        }
        if at % 65_536 == 65_535 {
            assert_eq!(snapshot(&mut rig, &sessions), before, "after {at} packets");
        }
    }
    assert_eq!(snapshot(&mut rig, &sessions), before);
    let ends = rig.status().ends();
    let count = |end| ends.get(end) - known.get(end);
    println!("{packets} packets in {:.1} s", started.elapsed().as_secs_f64());
    for (end, _) in ends.iter().filter(|(end, _)| count(*end) > 0) {
        println!("{:>9} {}", count(end), end.name());
    }
    assert_eq!(answers, count(End::CookieReply));
    // Every right MAC1 went one of these ways, and nothing else did but cookie replies to us.
    let owed = count(End::CookieReply) + count(End::DropCookieRate);
    assert!(owed <= right_mac1, "{owed} {right_mac1}");
    assert_eq!(count(End::Forwarded) + count(End::Keepalive), 0);
    for end in [
        End::Handshake,
        End::CookieReply,
        End::DropMac1,
        End::DropUnasked,
        End::DropOtherStation,
        End::DropNotWireguard,
        End::DropNoSession,
        End::DropForged,
        End::DropReplayed,
    ] {
        assert!(count(end) > packets as u64 / 5_000, "{end:?} was hardly met: {}", count(end));
    }
    // And everything still works: what was sealed before is accepted now.
    rig.deliver(0, OUTSIDE, &laptop.seal(&flow));
    rig.run();
    assert!(server.open(&rig.sent(OUTSIDE)[0]).unwrap().starts_with(&one_hop_on(&flow)));
}

#[test]
fn forged_and_mutated_packets_change_nothing_and_get_no_answer_beyond_the_protocol() {
    forged_and_mutated(200_000, 0x5eed);
}

#[test]
#[ignore = "minutes; make test-long runs it"]
fn ten_million_forged_and_mutated_packets_change_nothing_and_get_no_answer() {
    forged_and_mutated(10_000_000, 0x0005_eed2);
}
