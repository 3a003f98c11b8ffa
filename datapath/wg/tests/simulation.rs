//! Two peers for hours, in virtual time, over a network that loses, repeats and reorders.
//!
//! Each side is what a gateway is made of: [`Peer`] for handshakes, [`Timers`] for each session,
//! [`SendCounter`], [`ReplayWindow`], and real keys. The seed of a run is in every failure.
//!
//! Demanded of every run: no counter seals two messages; no packet is accepted twice; nothing is
//! sealed or opened at REJECT_AFTER_TIME or later; initiations are at least REKEY_TIMEOUT apart;
//! and whenever the network has been good for long enough, data flows both ways.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bulkhead_wg::limits::{REJECT_AFTER_TIME, REKEY_TIMEOUT};
use bulkhead_wg::peer::{Action, Fresh};
use bulkhead_wg::timers::Activity;
use bulkhead_wg::{
    Limits, Peer, PresharedKey, PrivateKey, ReceiveKey, ReplayWindow, Responder, Role, SendCounter,
    SendKey, Tai64n, Time, Timers,
};

/// How long a good network takes to bring a session back at worst: a lost attempt is repeated after
/// REKEY_TIMEOUT and its jitter, and a session whose keys the other side lost is noticed after
/// KEEPALIVE_TIMEOUT + REKEY_TIMEOUT.
const RECOVERY: Duration = Duration::from_secs(30);

/// A tick of the simulation: the interval at which the link thread looks at its timers.
const TICK: Duration = Duration::from_millis(100);

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Session {
    remote_index: u32,
    role: Role,
    confirmed: bool,
    sequence: u32,
    send: SendKey,
    receive: ReceiveKey,
    counter: SendCounter,
    window: ReplayWindow,
    timers: Timers,
    activity: Activity,
}

impl Session {
    fn is_usable(&self) -> bool {
        self.role == Role::Initiator || self.confirmed
    }
}

struct Side {
    private: PrivateKey,
    peer: Peer,
    sessions: BTreeMap<u32, Session>,
    /// Indices given to initiations and sessions so far.
    index: u32,
    sequence: u32,
    initiated_at: Vec<Time>,
    /// Numbers of the data packets that arrived.
    arrived: BTreeSet<u64>,
    sealed: BTreeSet<(u32, u64)>,
    outbox: Vec<Vec<u8>>,
}

impl Side {
    fn new(own: u8, other: u8, psk: &PresharedKey) -> Self {
        let [private, theirs] = [own, other].map(|byte| PrivateKey::from_bytes([byte; 32]));
        Self {
            peer: Peer::new(theirs.public_key(), psk.clone(), Limits::default()),
            private,
            sessions: BTreeMap::new(),
            index: 0,
            sequence: 0,
            initiated_at: vec![],
            arrived: BTreeSet::new(),
            sealed: BTreeSet::new(),
            outbox: vec![],
        }
    }

    /// The newest session that we may send with.
    fn sending(&self, now: Time) -> Option<u32> {
        let usable = |session: &Session| {
            session.is_usable() && now.since(session.activity.created) < REJECT_AFTER_TIME
        };
        let all = self.sessions.iter().filter(|(_, session)| usable(session));
        all.max_by_key(|(_, session)| session.sequence).map(|(index, _)| *index)
    }

    /// Sends `number` as data, or an empty packet; without a session one is asked for.
    fn send(&mut self, number: Option<u64>, now: Time, random: &mut Random) {
        let Some(index) = self.sending(now) else {
            self.peer.want_session(now, jitter(random));
            return;
        };
        let session = self.sessions.get_mut(&index).unwrap();
        let Some(counter) = session.counter.reserve(1) else { return };
        let mut text = number.map_or(vec![], |number| number.to_le_bytes().to_vec());
        let tag = session.send.seal(counter, &mut text);
        session.activity.sent = Some(now);
        if number.is_some() {
            session.activity.data_sent = Some(now);
        }
        assert!(self.sealed.insert((index, counter)), "a nonce was used twice");
        let header = [&[4, 0, 0, 0][..], &session.remote_index.to_le_bytes()].concat();
        self.outbox.push([&header, &counter.to_le_bytes()[..], &text, &tag].concat());
    }

    fn receive(&mut self, packet: &[u8], now: Time) {
        let word = |at: usize| u32::from_le_bytes(packet[at..at + 4].try_into().unwrap());
        match packet[0] {
            1 => {
                // Damaged or late messages do not occur here, replays do.
                let initiation = Responder::new(&self.private).consume(packet).unwrap();
                self.index += 1;
                let entropy = entropy(self.index, 1);
                let _ = self.peer.initiation(initiation, self.index, &entropy, now);
            }
            2 => {
                let _ = self.peer.response(packet);
            }
            _ => self.open(word(4), &packet[8..], now),
        }
        self.act(now);
    }

    fn open(&mut self, index: u32, rest: &[u8], now: Time) {
        let Some(session) = self.sessions.get_mut(&index) else { return };
        if now.since(session.activity.created) >= REJECT_AFTER_TIME {
            return;
        }
        let counter = u64::from_le_bytes(rest[..8].try_into().unwrap());
        let (text, tag) = rest[8..].split_last_chunk::<16>().unwrap();
        let mut text = text.to_vec();
        session.receive.open(counter, &mut text, tag).expect("nobody forges here");
        if !session.window.accept(counter) {
            return;
        }
        session.activity.received = Some(now);
        session.confirmed = true;
        if let Ok(number) = text.try_into().map(u64::from_le_bytes) {
            session.activity.data_received = Some(now);
            assert!(self.arrived.insert(number), "packet {number} was accepted twice");
        }
    }

    /// What time asks for, as the ledger of the datapath does it.
    fn tick(&mut self, now: Time, random: &mut Random) {
        // What is not confirmed is no successor: the one before speaks for the peer until then.
        let usable = self.sessions.values().filter(|session| session.is_usable());
        let newest = usable.map(|session| session.sequence).max();
        let (mut keepalive, mut wanted) = (false, false);
        self.sessions.retain(|_, session| {
            session.activity.messages_sent = session.counter.count();
            let due = session.timers.due(now, &session.activity, &Limits::default(), None);
            if Some(session.sequence) == newest && !due.expired {
                keepalive |= due.send_keepalive;
                wanted |= due.want_handshake;
            }
            !due.expired
        });
        if keepalive && self.sending(now).is_some() {
            self.send(None, now, random);
        }
        if wanted {
            self.peer.want_session(now, jitter(random));
        }
        if self.peer.deadline().is_some_and(|deadline| deadline <= now) {
            self.peer.timeout(now, jitter(random));
        }
        self.act(now);
    }

    fn act(&mut self, now: Time) {
        loop {
            let index = &mut self.index;
            let action = self.peer.poll(&self.private, now, || {
                *index += 1;
                Fresh {
                    local_index: *index,
                    timestamp: Tai64n::from_unix(Duration::from_secs(1_800_000_000) + now.0),
                    entropy: entropy(*index, 2),
                }
            });
            match action {
                Some(Action::Send(message)) => {
                    if message.as_bytes()[0] == 1 {
                        self.initiated_at.push(now);
                    }
                    self.outbox.push(message.as_bytes().to_vec());
                }
                Some(Action::Session(keys)) => {
                    self.sequence += 1;
                    let activity = Activity {
                        created: now,
                        role: keys.role,
                        messages_sent: 0,
                        data_sent: None,
                        data_received: None,
                        sent: None,
                        received: None,
                    };
                    let session = Session {
                        remote_index: keys.remote_index,
                        role: keys.role,
                        confirmed: false,
                        sequence: self.sequence,
                        send: SendKey::new(&keys.send),
                        receive: ReceiveKey::new(&keys.receive),
                        counter: SendCounter::default(),
                        window: ReplayWindow::default(),
                        timers: Timers::default(),
                        activity,
                    };
                    self.sessions.insert(keys.local_index, session);
                    // Previous, current and next: the oldest beyond them goes.
                    while self.sessions.len() > 3 {
                        let by_age = |(_, session): &(&u32, &Session)| session.sequence;
                        let oldest = *self.sessions.iter().min_by_key(by_age).unwrap().0;
                        self.sessions.remove(&oldest);
                    }
                }
                Some(Action::Retired(_) | Action::GiveUp) => {}
                None => return,
            }
        }
    }
}

fn entropy(index: u32, salt: u8) -> [u8; 32] {
    let mut bytes = [salt; 32];
    bytes[..4].copy_from_slice(&index.to_le_bytes());
    bytes
}

fn jitter(random: &mut Random) -> Duration {
    Duration::from_millis(random.below(335))
}

/// What a run met, so that a run in which nothing happened is seen.
#[derive(Debug, Default)]
struct Met {
    lost: u32,
    repeated: u32,
    overtaken: u32,
    sessions: u32,
    checks: u32,
}

/// One run of `hours`. The network changes between good and bad every minute or so; in a bad time
/// it loses one packet in `loss`, or all.
fn run(seed: u64, hours: u64, psk: [u8; 32]) -> Met {
    let (mut random, mut met) = (Random(seed), Met::default());
    let psk = PresharedKey::from_bytes(psk);
    let mut sides = [Side::new(1, 2, &psk), Side::new(2, 1, &psk)];
    // What is under way: when it arrives, to whom.
    let mut wire: Vec<(Time, usize, Vec<u8>)> = vec![];
    let (mut now, mut number) = (Time::default(), 0);
    let (mut loss, mut change_at) = (0, Time::default());
    let mut good_since = Time::default();
    let mut busy = true;
    while now.0 < Duration::from_secs(3600 * hours) {
        now = now.plus(TICK);
        if now >= change_at {
            change_at = now.plus(Duration::from_secs(20 + random.below(200)));
            loss = [0, 0, 2, 5, 1][usize::try_from(random.below(5)).unwrap()];
            busy = !random.one_in(4);
            good_since = now;
        }
        for side in 0..2 {
            if busy && random.one_in(20) {
                number += 1;
                sides[side].send(Some(number), now, &mut random);
            }
            sides[side].tick(now, &mut random);
            for packet in std::mem::take(&mut sides[side].outbox) {
                if loss > 0 && random.one_in(loss) {
                    met.lost += 1;
                    continue;
                }
                let copies = 1 + u32::from(random.one_in(10));
                met.repeated += copies - 1;
                for _ in 0..copies {
                    let delay =
                        Duration::from_millis(10 + random.below(if loss > 0 { 900 } else { 50 }));
                    met.overtaken += u32::from(wire.iter().any(|(at, ..)| *at > now.plus(delay)));
                    wire.push((now.plus(delay), 1 - side, packet.clone()));
                }
            }
        }
        wire.sort_by_key(|(at, ..)| *at);
        let due = wire.partition_point(|(at, ..)| *at <= now);
        for (_, to, packet) in wire.drain(..due).collect::<Vec<_>>() {
            sides[to].receive(&packet, now);
        }
        // A good network for long enough, and traffic: a fresh packet crosses, both ways.
        if loss == 0 && busy && now.since(good_since) == RECOVERY {
            met.checks += 1;
            for side in 0..2 {
                number += 1;
                sides[side].send(Some(number), now, &mut random);
                let packets = std::mem::take(&mut sides[side].outbox);
                assert!(!packets.is_empty(), "seed {seed}, {now:?}: side {side} has no session");
                packets.iter().for_each(|packet| sides[1 - side].receive(packet, now));
                let arrived = sides[1 - side].arrived.contains(&number);
                assert!(arrived, "seed {seed}, {now:?}: nothing from side {side} arrives");
            }
        }
    }
    for side in &sides {
        let paced =
            side.initiated_at.windows(2).all(|pair| pair[1].since(pair[0]) >= REKEY_TIMEOUT);
        assert!(paced, "seed {seed}: initiations follow too fast");
        met.sessions += side.sequence;
    }
    met
}

/// Goal: whatever the network does, the promises at the top of this file hold. Method: seeded runs,
/// with and without a preshared key; what a run met is summed up.
#[test]
fn two_peers_for_hours_over_a_bad_network() {
    let mut sum = Met::default();
    for seed in 0..6 {
        let psk = if seed % 2 == 0 { [0; 32] } else { [9; 32] };
        let met = run(seed, 2, psk);
        sum.lost += met.lost;
        sum.repeated += met.repeated;
        sum.overtaken += met.overtaken;
        sum.sessions += met.sessions;
        sum.checks += met.checks;
    }
    let enough = [sum.lost, sum.repeated, sum.overtaken, sum.sessions, sum.checks];
    assert!(enough.iter().all(|count| *count > 60), "met: {sum:?}");
}

/// Many more worlds, for `make test-long`.
#[test]
#[ignore = "minutes: make test-long"]
fn two_peers_for_days_over_a_bad_network() {
    for seed in 1_000..1_200 {
        let _ = run(seed, 8, [u8::try_from(seed % 2).unwrap(); 32]);
    }
}
