//! Two peers and an unreliable world between them: what [`Peer`] asks of its caller, and when.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic"
)]

use std::time::Duration;

use bulkhead_wg::peer::{Action, Fresh, Message};
use bulkhead_wg::{
    CookieKey, CookieSecrets, HandshakeError, Initiation, Limits, Peer, PresharedKey, PrivateKey,
    PublicKey, Responder, Role, Tai64n, Time, TransportKeys,
};

/// One side: a private key, its view of the other, and what only the shell has.
struct Side {
    private: PrivateKey,
    peer: Peer,
    next_index: u32,
    wall_clock: Duration,
}

impl Side {
    fn poll(&mut self, now: Time) -> Option<Action> {
        let (index, wall_clock) = (&mut self.next_index, self.wall_clock);
        self.peer.poll(&self.private, now, || {
            *index += 1;
            Fresh {
                local_index: *index,
                timestamp: Tai64n::from_unix(wall_clock),
                entropy: [u8::try_from(*index % 251).unwrap(); 32],
            }
        })
    }

    fn drain(&mut self, now: Time) -> Vec<Action> {
        // Bounded, so that a peer that never has enough fails instead of hanging.
        let actions: Vec<_> = std::iter::from_fn(|| self.poll(now)).take(10).collect();
        assert!(actions.len() < 10, "{actions:?}");
        actions
    }

    fn initiation(&mut self, now: Time) -> [u8; 148] {
        for action in self.drain(now) {
            if let Action::Send(Message::Initiation(bytes)) = action {
                return bytes;
            }
        }
        panic!("no initiation at {now:?}");
    }

    fn authenticate(&self, message: &[u8]) -> Initiation {
        Responder::new(&self.private).consume(message).unwrap()
    }

    /// Answers an initiation: the keys, and the response.
    fn answer(
        &mut self,
        message: &[u8],
        now: Time,
    ) -> Result<(TransportKeys, [u8; 92]), HandshakeError> {
        let initiation = self.authenticate(message);
        self.next_index += 1;
        self.peer.initiation(initiation, self.next_index, &[0xee; 32], now)?;
        match <[Action; 2]>::try_from(self.drain(now)) {
            Ok([Action::Session(keys), Action::Send(Message::Response(bytes))]) => {
                Ok((keys, bytes))
            }
            other => panic!("the session, then the response: {other:?}"),
        }
    }
}

fn world() -> (Side, Side) {
    let [device, gateway] = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
    let psk = PresharedKey::from_bytes([9; 32]);
    let side = |own: &PrivateKey, other: &PrivateKey, next_index| Side {
        private: own.clone(),
        peer: Peer::new(other.public_key(), psk.clone(), Limits::default()),
        next_index,
        wall_clock: Duration::from_secs(1_800_000_000),
    };
    (side(&device, &gateway, 100), side(&gateway, &device, 200))
}

fn ms(n: u64) -> Time {
    Time(Duration::from_millis(n))
}

#[test]
fn a_handshake_gives_both_sides_the_same_keys() {
    let (mut device, mut gateway) = world();
    device.peer.want_session(ms(0), Duration::ZERO);
    let initiation = device.initiation(ms(0));
    assert_eq!(device.peer.pending_index(), Some(101));
    let (theirs, response) = gateway.answer(&initiation, ms(1)).unwrap();
    device.peer.response(&response).unwrap();
    let actions = device.drain(ms(2));
    let [Action::Session(ours)] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!((ours.role, theirs.role), (Role::Initiator, Role::Responder));
    assert_eq!((ours.send, ours.receive), (theirs.receive, theirs.send));
    assert_eq!((ours.local_index, ours.remote_index), (101, 201));
    assert_eq!((theirs.local_index, theirs.remote_index), (201, 101));
    assert_eq!((device.peer.pending_index(), device.peer.deadline()), (None, None));
    assert_eq!(device.peer.response(&response), Err(HandshakeError::UnknownReceiver));
}

/// Goal: every index that was handed out comes back once, and the packets that wait are released.
#[test]
fn nobody_answers() {
    let (mut device, _) = world();
    let (mut now, mut sent, mut retired, mut log) = (ms(0), vec![], vec![], vec![]);
    device.peer.want_session(now, Duration::ZERO);
    for _ in 0..100 {
        for action in device.drain(now) {
            match action {
                Action::Send(Message::Initiation(bytes)) => {
                    sent.push(u32::from_le_bytes(bytes[4..8].try_into().unwrap()));
                    log.push(now);
                }
                Action::Retired(index) => retired.push(index),
                Action::GiveUp => assert_eq!(now, ms(90_000)),
                other => panic!("{other:?}"),
            }
        }
        let Some(deadline) = device.peer.deadline() else { break };
        now = deadline;
        device.peer.timeout(now, Duration::ZERO);
    }
    assert_eq!(now, ms(90_000));
    assert_eq!(log, (0..18).map(|n| ms(n * 5000)).collect::<Vec<_>>());
    assert_eq!(sent, (101..119).collect::<Vec<_>>());
    assert_eq!(retired, sent);
}

#[test]
fn only_the_last_initiation_is_awaited() {
    let (mut device, mut gateway) = world();
    device.peer.want_session(ms(0), Duration::ZERO);
    let first = device.initiation(ms(0));
    let (_, late) = gateway.answer(&first, ms(1)).unwrap();
    device.peer.timeout(ms(5000), Duration::ZERO);
    let second = device.initiation(ms(5000));
    assert_eq!(device.peer.response(&late), Err(HandshakeError::UnknownReceiver));
    let (_, response) = gateway.answer(&second, ms(5001)).unwrap();
    assert_eq!(device.peer.response(&response), Ok(()));
}

/// The wall clock stands still or is set back: our initiations must still rise, or the peer would
/// refuse all of them until the clock has caught up.
#[test]
fn timestamps_rise_whatever_the_clock_does() {
    let (mut device, mut gateway) = world();
    for round in 0..6 {
        let now = ms(round * 5000);
        device.wall_clock -= Duration::from_secs(round % 3);
        device.peer.want_session(now, Duration::ZERO);
        let initiation = device.initiation(now);
        let (_, response) = gateway.answer(&initiation, now).unwrap();
        device.peer.response(&response).unwrap();
        let _ = device.drain(now);
    }
}

#[test]
fn a_replay_is_refused_and_so_is_haste() {
    let (mut device, mut gateway) = world();
    let initiations = [0, 5000, 10_000].map(|at| {
        device.peer.want_session(ms(at), Duration::ZERO);
        device.peer.timeout(ms(at), Duration::ZERO);
        device.initiation(ms(at))
    });
    assert!(gateway.answer(&initiations[1], ms(1000)).is_ok());
    for replay in [0, 1] {
        let error = gateway.answer(&initiations[replay], ms(9000)).err();
        assert_eq!(error, Some(HandshakeError::Replayed), "{replay}");
        assert!(gateway.poll(ms(9000)).is_none(), "and nothing is sent");
    }
    let error = gateway.answer(&initiations[2], ms(1019)).err();
    assert_eq!(error, Some(HandshakeError::TooFast));
    assert!(gateway.answer(&initiations[2], ms(1020)).is_ok(), "a refusal changes nothing");
}

#[test]
fn an_initiation_of_another_peer_is_refused() {
    let (mut device, gateway) = world();
    device.peer.want_session(ms(0), Duration::ZERO);
    let initiation = gateway.authenticate(&device.initiation(ms(0)));
    let stranger = PrivateKey::from_bytes([3; 32]).public_key();
    let mut other = Peer::new(stranger, PresharedKey::default(), Limits::default());
    assert_eq!(other.initiation(initiation, 1, &[4; 32], ms(0)), Err(HandshakeError::WrongPeer));
}

#[test]
fn no_packet_for_a_key_of_low_order() {
    let (mut device, _) = world();
    device.peer = Peer::new(PublicKey([0; 32]), PresharedKey::default(), Limits::default());
    for round in 0..3 {
        device.peer.want_session(ms(round * 5000), Duration::ZERO);
        let actions = device.drain(ms(round * 5000));
        assert!(matches!(actions.as_slice(), [Action::Retired(_), Action::GiveUp]), "{actions:?}");
        assert_eq!(device.peer.deadline(), None);
    }
}

#[test]
fn a_cookie_is_used_for_115_seconds_in_initiations_and_responses() {
    // It was received at 1 s.
    cookie_life(115_999, true);
    cookie_life(116_000, false);
}

fn cookie_life(last: u64, still: bool) {
    let (mut device, mut gateway) = world();
    let source = "192.0.2.1:7".parse().unwrap();
    let [device_key, gateway_key] = [&device, &gateway].map(|side| side.private.public_key());
    let checker = CookieSecrets::new([5; 32]);
    device.peer.want_session(ms(0), Duration::ZERO);
    let initiation = device.initiation(ms(0));
    let reply = checker.reply(&CookieKey::of(&gateway_key), &initiation, source, [6; 24]).unwrap();
    device.peer.cookie_reply(&reply, ms(1000)).unwrap();
    assert_eq!(device.peer.cookie_reply(&reply, ms(1001)), Err(HandshakeError::OutOfTurn));

    // The gateway starts a handshake of its own: our response carries the cookie as well.
    gateway.peer.want_session(ms(2000), Duration::ZERO);
    let theirs = gateway.initiation(ms(2000));
    let (_, response) = device.answer(&theirs, ms(2000)).unwrap();
    assert!(checker.verify(&response, source));
    assert_eq!(*gateway.peer.public_key(), device_key);

    for (now, stamped) in [(5000, true), (last, still)] {
        device.peer.want_session(ms(now), Duration::ZERO);
        device.peer.timeout(ms(now), Duration::ZERO);
        assert_eq!(checker.verify(&device.initiation(ms(now)), source), stamped, "{now} ms");
        device.peer.confirmed();
        let _ = device.drain(ms(now));
    }
}

#[test]
fn a_confirmed_session_ends_our_own_asking() {
    let (mut device, mut gateway) = world();
    gateway.peer.want_session(ms(0), Duration::ZERO);
    let _ = gateway.initiation(ms(0));
    device.peer.want_session(ms(0), Duration::ZERO);
    let _ = gateway.answer(&device.initiation(ms(0)), ms(1)).unwrap();
    assert!(gateway.peer.deadline().is_some(), "an answer alone confirms nothing");
    gateway.peer.confirmed();
    let actions = gateway.drain(ms(2));
    assert!(matches!(actions.as_slice(), [Action::Retired(201)]), "{actions:?}");
    assert_eq!((gateway.peer.deadline(), gateway.peer.pending_index()), (None, None));
}

/// Both initiate at the same moment, as happens when both sides' timers agree. Both handshakes
/// complete; neither spoils the other.
#[test]
fn crossing_initiations_both_complete() {
    let (mut device, mut gateway) = world();
    device.peer.want_session(ms(0), Duration::ZERO);
    gateway.peer.want_session(ms(0), Duration::ZERO);
    let (ours, theirs) = (device.initiation(ms(0)), gateway.initiation(ms(0)));
    let (_, to_us) = gateway.answer(&ours, ms(1)).unwrap();
    let (_, to_them) = device.answer(&theirs, ms(1)).unwrap();
    assert_eq!(device.peer.response(&to_us), Ok(()));
    assert_eq!(gateway.peer.response(&to_them), Ok(()));
}

/// Both initiate at once; then every order in which the two initiations, the two responses and the
/// first data packets may arrive or be lost. Whatever happens, once the network is good again both
/// sides hold a session in common: the keys that one sends with are keys that the other has.
#[test]
fn simultaneous_initiation_ends_in_a_common_session_in_every_order() {
    let (mut schedules, mut met) = (vec![vec![]], [0u32; 4]);
    let mut runs = 0;
    // A schedule is a list of choices; a run that asks for more than its schedule holds takes the
    // first choice and leaves the others to be tried later.
    while let Some(schedule) = schedules.pop() {
        runs += 1;
        assert!(runs < 100_000, "the choices end");
        let mut crossing = Crossing::new();
        let mut taken = vec![];
        while !crossing.wire.is_empty() {
            let choices = crossing.wire.len() * 2;
            let choice = schedule.get(taken.len()).copied().unwrap_or_else(|| {
                for other in 1..choices {
                    let mut later: Vec<usize> = taken.clone();
                    later.push(other);
                    schedules.push(later);
                }
                0
            });
            taken.push(choice);
            let (to, packet) = crossing.wire.remove(choice / 2);
            if choice % 2 == 0 {
                crossing.deliver(to, &packet, ms(1));
            }
        }
        let common = crossing.common();
        met[usize::from(common[0]) + 2 * usize::from(common[1])] += 1;
        // The network is good from here on: both sides' timers run, nothing is lost.
        for step in 1..=3 {
            let now = ms(step * 6000);
            for side in 0..2 {
                let data_waits = !crossing.common()[side];
                if data_waits {
                    crossing.sides[side].peer.want_session(now, Duration::ZERO);
                }
                crossing.sides[side].peer.timeout(now, Duration::ZERO);
                crossing.drain(side, now);
            }
            while !crossing.wire.is_empty() {
                let (to, packet) = crossing.wire.remove(0);
                crossing.deliver(to, &packet, now);
            }
        }
        assert_eq!(crossing.common(), [true; 2], "schedule {taken:?}");
    }
    assert!(met.iter().all(|count| *count > 0), "no, one-sided and common sessions met: {met:?}");
}

/// Two sides that initiated at the same moment, and what is between them.
struct Crossing {
    sides: [Side; 2],
    /// Sessions of each side, oldest first, and whether it may send with them.
    sessions: [Vec<(TransportKeys, bool)>; 2],
    wire: Vec<(usize, Packet)>,
}

#[derive(Clone)]
enum Packet {
    Handshake(Vec<u8>),
    /// The first packet of a session, by the key that sealed it.
    Data([u8; 32]),
}

impl Crossing {
    fn new() -> Self {
        let (device, gateway) = world();
        let sessions = [vec![], vec![]];
        let mut crossing = Self { sides: [device, gateway], sessions, wire: vec![] };
        for side in 0..2 {
            crossing.sides[side].peer.want_session(ms(0), Duration::ZERO);
            crossing.drain(side, ms(0));
        }
        crossing
    }

    fn drain(&mut self, side: usize, now: Time) {
        self.sides[side].wall_clock = Duration::from_secs(1_800_000_000) + now.0;
        for action in self.sides[side].drain(now) {
            match action {
                Action::Send(message) => {
                    self.wire.push((1 - side, Packet::Handshake(message.as_bytes().to_vec())));
                }
                Action::Session(keys) => {
                    let initiator = keys.role == Role::Initiator;
                    if initiator {
                        self.wire.push((1 - side, Packet::Data(keys.send)));
                    }
                    self.sessions[side].push((keys, initiator));
                }
                Action::Retired(_) => {}
                Action::GiveUp => panic!("gave up within 90 s"),
            }
        }
    }

    fn deliver(&mut self, to: usize, packet: &Packet, now: Time) {
        match packet {
            Packet::Handshake(message) if message.len() == 148 => {
                let initiation = self.sides[to].authenticate(message);
                self.sides[to].next_index += 1;
                let (index, entropy) = (self.sides[to].next_index, [0xe0 + index_byte(to); 32]);
                self.sides[to].peer.initiation(initiation, index, &entropy, now).unwrap();
            }
            // A response to an initiation that a later one replaced is refused: so it must be.
            Packet::Handshake(message) => match self.sides[to].peer.response(message) {
                Ok(()) | Err(HandshakeError::UnknownReceiver) => {}
                Err(error) => panic!("{error}"),
            },
            Packet::Data(key) => {
                // A packet under unknown keys is dropped.
                let session = self.sessions[to].iter_mut().find(|(keys, _)| keys.receive == *key);
                if let Some((_, may_send)) = session {
                    *may_send = true;
                }
            }
        }
        self.drain(to, now);
    }

    /// Whether each side can reach the other: the newest session that it may send with is one that
    /// the other side has.
    fn common(&self) -> [bool; 2] {
        [0, 1].map(|side| {
            let newest = self.sessions[side].iter().rev().find(|(_, may_send)| *may_send);
            newest.is_some_and(|(ours, _)| {
                self.sessions[1 - side].iter().any(|(theirs, _)| theirs.receive == ours.send)
            })
        })
    }
}

fn index_byte(side: usize) -> u8 {
    u8::try_from(side).unwrap()
}
