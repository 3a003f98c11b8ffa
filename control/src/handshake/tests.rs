use super::*;
use bulkhead_link::Session;
use bulkhead_wg::{Pending, ReceiveKey, Responder, SendKey, initiate};
use std::net::{IpAddr, Ipv4Addr};

mod kept;
mod listeners;

/// Randomness and time that a test can foresee.
#[derive(Default)]
struct Script {
    drawn: u8,
    wall_clock: Duration,
    dry: bool,
}

impl Outside for Script {
    fn entropy(&mut self) -> Option<[u8; 32]> {
        self.drawn = self.drawn.wrapping_add(1);
        (!self.dry).then_some([self.drawn; 32])
    }
    fn jitter(&mut self, _max: Duration) -> Duration {
        Duration::ZERO
    }
    fn wall_clock(&mut self) -> Duration {
        self.wall_clock
    }
}

struct World {
    handshakes: Handshakes,
    outside: Script,
    now: Time,
}

const OURS: [u8; 32] = [0x11; 32];

fn theirs(peer: u8) -> PrivateKey {
    PrivateKey::from_bytes([peer; 32])
}

fn setup(peer: u8) -> PeerSetup {
    PeerSetup {
        public_key: theirs(peer).public_key(),
        index: u32::from(peer),
        preshared_key: PresharedKey::default(),
        listener: None,
        endpoint: None,
        keepalive: None,
    }
}

fn listener(private: [u8; 32], limits: Limits) -> ListenerSetup {
    let timers = bulkhead_link::Timers::default();
    let terms = Terms { tunnel_mtu: 1_420, timers, dscp: bulkhead_link::Dscp::Clear };
    ListenerSetup { private: PrivateKey::from_bytes(private), udp_port: 51_820, limits, terms }
}

fn remote(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 1_000 + u16::from(host))
}

fn from(host: u8) -> Endpoint {
    Endpoint {
        remote: remote(host),
        local: "198.51.100.1:51820".parse().unwrap(),
        port: 0,
        vlan: None,
        remote_mac: [2; 6],
        local_mac: [4; 6],
    }
}

impl World {
    fn new(peers: Vec<PeerSetup>) -> Self {
        Self::with_accepted(peers, BTreeMap::new())
    }

    fn with_accepted(peers: Vec<PeerSetup>, accepted: BTreeMap<PublicKey, Freshness>) -> Self {
        let mut outside =
            Script { wall_clock: Duration::from_secs(1_800_000_000), ..Script::default() };
        let mut handshakes = Handshakes::new(accepted);
        let now = Time(Duration::from_secs(100));
        let listeners = vec![listener(OURS, Limits::default())];
        handshakes.set_peers(listeners, peers, now, &mut outside);
        handshakes.adopt(8, 4, &[], now, &mut outside);
        Self { handshakes, outside, now }
    }

    fn initiation(&mut self, peer: u8, at: u64) -> ([u8; 148], Pending) {
        self.initiation_to(OURS, peer, at)
    }

    fn initiation_to(&mut self, to: [u8; 32], peer: u8, at: u64) -> ([u8; 148], Pending) {
        let label = Tai64n::from_unix(Duration::from_secs(at));
        let our_public = PrivateKey::from_bytes(to).public_key();
        let psk = PresharedKey::default();
        initiate(&theirs(peer), &our_public, &psk, 0x0700 + u32::from(peer), label, &[peer; 32])
            .unwrap()
    }

    fn tell(&mut self, worker: u8, host: u8, message: &[u8]) -> Vec<Outcome> {
        self.tell_at(OURS, worker, host, message)
    }

    /// The same at the listener with this private key.
    fn tell_at(&mut self, at: [u8; 32], worker: u8, host: u8, message: &[u8]) -> Vec<Outcome> {
        let ours = Some(PrivateKey::from_bytes(at).public_key());
        self.handshakes.datagram(worker, ours, &from(host), message, self.now, &mut self.outside);
        self.outcomes()
    }

    fn outcomes(&mut self) -> Vec<Outcome> {
        std::iter::from_fn(|| self.handshakes.poll()).collect()
    }

    fn wait(&mut self, seconds: u64) -> Vec<Outcome> {
        self.now = self.now.plus(Duration::from_secs(seconds));
        self.handshakes.timeout(self.now, &mut self.outside);
        self.outcomes()
    }

    fn want(&mut self, peer: u32) -> Vec<Outcome> {
        self.handshakes.session_wanted(peer, self.now, &mut self.outside);
        self.outcomes()
    }

    fn retire(&mut self, index: SessionIndex) -> Vec<Outcome> {
        self.handshakes.session_retired(index, self.now, &mut self.outside);
        self.outcomes()
    }
}

fn datagrams(outcomes: &[Outcome]) -> Vec<&Datagram> {
    outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Datagram(datagram) => Some(datagram),
            Outcome::Accepted(..) | Outcome::Unanswered(_) | Outcome::Session(..) => None,
        })
        .collect()
}

fn only_session(outcomes: &[Outcome]) -> &Session {
    let sessions: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Session(_, session) => Some(session),
            Outcome::Accepted(..) | Outcome::Unanswered(_) | Outcome::Datagram(_) => None,
        })
        .collect();
    assert_eq!(sessions.len(), 1, "{outcomes:?}");
    sessions[0]
}

/// What one seals the other opens.
fn assert_joined(send: &[u8; 32], receive: &[u8; 32]) {
    let mut text = *b"across";
    let tag = SendKey::new(send).seal(7, &mut text);
    assert!(ReceiveKey::new(receive).open(7, &mut text, &tag).is_ok());
    assert_eq!(&text, b"across");
}

#[test]
fn a_peer_that_calls_gets_keys_installed_before_its_response() {
    let mut world = World::new(vec![setup(5)]);
    let (message, mut pending) = world.initiation(5, 1);
    let outcomes = world.tell(3, 9, &message);
    let [
        Outcome::Accepted(peer, accepted),
        Outcome::Session(_, session),
        Outcome::Datagram(response),
    ] = &outcomes[..]
    else {
        panic!("{outcomes:?}");
    };
    assert_eq!(*peer, theirs(5).public_key());
    assert_eq!(accepted.greatest(), Tai64n::from_unix(Duration::from_secs(1)));
    assert_eq!((session.peer, session.index.worker(), session.initiator), (5, 3, false));
    assert_eq!((session.remote_index, session.endpoint), (0x0705, from(9)));
    assert_eq!((response.remote, response.local), (remote(9), Some(from(9).local)));
    let keys = pending.consume(&response.bytes).unwrap();
    assert_eq!(keys.remote_index, session.index.0);
    assert_joined(&keys.send, &session.keys.receive);
    assert_joined(&session.keys.send, &keys.receive);
}

#[test]
fn we_call_a_peer_at_its_endpoint_and_take_its_answer() {
    let peer = PeerSetup { endpoint: Some(remote(7)), ..setup(5) };
    let mut world = World::new(vec![peer]);
    let outcomes = world.want(5);
    let [sent] = datagrams(&outcomes)[..] else { panic!("{outcomes:?}") };
    assert_eq!((sent.remote, sent.local), (remote(7), None));
    assert!(world.want(5).is_empty(), "asked for already");

    let responder = Responder::new(&theirs(5));
    let initiation = responder.consume(&sent.bytes).unwrap();
    let (response, keys) = initiation.respond(&PresharedKey::default(), 0xabcd, &[9; 32]).unwrap();
    // From another address than where it went: the session goes there.
    let outcomes = world.tell(2, 8, &response);
    let session = only_session(&outcomes);
    assert_eq!((session.peer, session.initiator, session.remote_index), (5, true, 0xabcd));
    assert_eq!(session.endpoint, from(8));
    assert_joined(&keys.send, &session.keys.receive);

    assert!(world.tell(2, 8, &response).is_empty(), "a response counts once");
    assert_eq!(world.handshakes.counters().unknown_receiver, 1);
    // The next call goes where the peer was last, from the address that it knows.
    world.now = world.now.plus(Duration::from_secs(6));
    let outcomes = world.want(5);
    let [sent] = datagrams(&outcomes)[..] else { panic!("{outcomes:?}") };
    assert_eq!((sent.remote, sent.local), (remote(8), Some(from(8).local)));
}

#[test]
fn strangers_replays_and_garbage_are_silent_and_counted() {
    let mut world = World::new(vec![setup(5)]);
    let (stranger, _) = world.initiation(6, 1);
    assert!(world.tell(0, 1, &stranger).is_empty());
    let (message, _) = world.initiation(5, 10);
    assert_eq!(world.tell(0, 1, &message).len(), 3);
    world.now = world.now.plus(Duration::from_secs(1));
    assert!(world.tell(0, 1, &message).is_empty());
    let (older, _) = world.initiation(5, 9);
    assert!(world.tell(0, 1, &older).is_empty());
    let mut damaged = message;
    damaged[140] ^= 1;
    damaged[50] ^= 1;
    assert!(world.tell(0, 1, &damaged).is_empty());
    for garbage in [&[][..], &[1], &[2; 92], &[3; 64], &[4; 32]] {
        assert!(world.tell(0, 1, garbage).is_empty());
    }
    let counters = world.handshakes.counters();
    assert_eq!((counters.unknown_peer, counters.replayed), (1, 2));
    // The damaged one, the empty one, the one-byte one and the data packet.
    assert_eq!((counters.invalid, counters.unknown_receiver), (4, 2));
    assert_eq!((counters.messages, counters.sessions_responder), (10, 1));
    assert_eq!(world.handshakes.slots.in_use(), 1, "the refused gave their index back");
}

#[test]
fn an_initiation_that_an_earlier_process_answered_is_refused() {
    let label = |at| Tai64n::from_unix(Duration::from_secs(at));
    let kept = BTreeMap::from([(theirs(5).public_key(), Freshness::restored(label(10), []))]);
    let mut world = World::with_accepted(vec![setup(5)], kept);
    let (replayed, _) = world.initiation(5, 10);
    assert!(world.tell(0, 1, &replayed).is_empty());
    let (newer, _) = world.initiation(5, 11);
    assert_eq!(world.tell(0, 1, &newer).len(), 3);
    assert_eq!(world.handshakes.counters().replayed, 1);
}

#[test]
fn without_slots_or_randomness_nothing_is_sent() {
    let mut world = World::new(vec![setup(5)]);
    world.handshakes.adopt(1, 1, &[], world.now, &mut world.outside);
    let (first, _) = world.initiation(5, 1);
    let installed = world.tell(0, 1, &first);
    let index = only_session(&installed).index;
    world.now = world.now.plus(Duration::from_secs(1));
    let (second, _) = world.initiation(5, 2);
    assert!(world.tell(0, 1, &second).is_empty());
    assert!(world.want(5).is_empty());
    assert_eq!(world.handshakes.counters().no_slot, 2);
    assert!(world.retire(index).is_empty());
    world.outside.dry = true;
    assert!(world.tell(0, 1, &second).is_empty());
    world.outside.dry = false;
    assert_eq!(world.tell(0, 1, &second).len(), 3, "a refusal has not used up the timestamp");
}

#[test]
fn adopted_sessions_keep_their_slots_and_tell_where_the_peer_is() {
    let mut world = World::new(vec![setup(5)]);
    let status = |slot, peer| SessionStatus {
        peer,
        index: SessionIndex::new(2, 9, slot),
        age: Duration::from_secs(3),
        initiator: false,
        confirmed: true,
        endpoint: Some(from(4)),
        received: Default::default(),
        sent: Default::default(),
        silent_for: None,
        listener: [9; 32],
        accepted: 0,
        expected: 0,
    };
    let adopted = [status(0, 5), status(1, 77)];
    world.handshakes.adopt(3, 4, &adopted, world.now, &mut world.outside);
    assert!(world.outcomes().is_empty(), "it has a session");
    let outcomes = world.want(5);
    let [sent] = datagrams(&outcomes)[..] else { panic!("{outcomes:?}") };
    assert_eq!((sent.remote, sent.local), (remote(4), Some(from(4).local)));
    let initiation = Responder::new(&theirs(5)).consume(&sent.bytes).unwrap();
    let index = SessionIndex(initiation.sender);
    assert_eq!((index.slot(), index.worker()), (2, 2), "the free slot, on the worker it had");
}

#[test]
fn a_removed_peer_is_a_stranger_and_a_kept_one_loses_nothing() {
    let mut world = World::new(vec![setup(5), setup(6)]);
    for peer in [5, 6] {
        let (message, _) = world.initiation(peer, 1);
        assert_eq!(world.tell(0, peer, &message).len(), 3);
    }
    let listeners = || vec![listener(OURS, Limits::default())];
    let moved = PeerSetup { index: 60, ..setup(6) };
    world.handshakes.set_peers(listeners(), vec![moved], world.now, &mut world.outside);
    assert!(world.want(5).is_empty() && world.want(6).is_empty());
    assert_eq!(datagrams(&world.want(60))[0].remote, remote(6));
    world.now = world.now.plus(Duration::from_secs(1));
    let (message, _) = world.initiation(5, 2);
    assert!(world.tell(0, 5, &message).is_empty());
    // The timestamp of a removed peer is remembered: it may come back.
    let (replayed, _) = world.initiation(5, 1);
    world.handshakes.set_peers(listeners(), vec![setup(5)], world.now, &mut world.outside);
    assert!(world.tell(0, 5, &replayed).is_empty());
    assert_eq!(world.handshakes.counters().replayed, 1);
}

/// Roaming only on authenticated packets: a recorded initiation proves nothing of where the peer is.
#[test]
fn an_initiation_moves_a_peer_only_once_its_session_is_confirmed() {
    let mut world = World::new(vec![setup(5)]);
    let call = |world: &mut World, at: u64, host: u8| {
        world.now = world.now.plus(Duration::from_secs(10));
        let (message, _) = world.initiation(5, at);
        let outcomes = world.tell(0, host, &message);
        only_session(&outcomes).index
    };
    let asked_at = |world: &mut World| {
        world.now = world.now.plus(Duration::from_secs(100));
        world.handshakes.timeout(world.now, &mut world.outside);
        world.outcomes();
        datagrams(&world.want(5)).first().map(|sent| sent.remote)
    };
    let first = call(&mut world, 1, 7);
    // Nothing else is known of it: this is where it seems to be.
    assert_eq!(asked_at(&mut world), Some(remote(7)));
    world.handshakes.session_confirmed(first);
    // Somebody replays what a crash has made us forget, from elsewhere.
    let replayed = call(&mut world, 2, 66);
    assert_eq!(asked_at(&mut world), Some(remote(7)), "not moved");
    world.retire(replayed);
    // The peer itself moves.
    let moved = call(&mut world, 3, 8);
    world.handshakes.session_confirmed(moved);
    assert_eq!(asked_at(&mut world), Some(remote(8)));
}

/// Simultaneous initiation: once a packet came under the session that the peer started, ours need
/// not be answered any more, and its slot is free.
#[test]
fn a_confirmed_session_ends_our_own_asking() {
    let mut world = World::new(vec![PeerSetup { endpoint: Some(remote(5)), ..setup(5) }]);
    assert_eq!(datagrams(&world.want(5)).len(), 1);
    let (message, _) = world.initiation(5, 1);
    let outcomes = world.tell(0, 5, &message);
    let index = only_session(&outcomes).index;
    assert_eq!(world.handshakes.slots.in_use(), 2);
    assert_eq!(datagrams(&world.wait(6)).len(), 1, "a response alone proves nothing");
    world.handshakes.session_confirmed(index);
    assert_eq!((world.handshakes.slots.in_use(), world.handshakes.deadline()), (1, None));
    assert!(world.wait(200).is_empty());
}

/// The wall clock of the gateway is set back; what we send must still be newer for the peer than all
/// before, also when the peers are configured anew meanwhile.
#[test]
fn our_own_timestamps_never_go_back_for_a_peer() {
    let peer = || PeerSetup { endpoint: Some(remote(5)), ..setup(5) };
    let mut world = World::new(vec![peer()]);
    let responder = Responder::new(&theirs(5));
    let mut last = Tai64n::default();
    for (hours_back, rekey_timeout) in [(0, 5), (10, 5), (11, 4), (0, 4), (9, 5), (12, 5)] {
        let clock = 1_800_000_000 - 3_600 * hours_back;
        world.outside.wall_clock = Duration::from_secs(clock);
        let limits =
            Limits { rekey_timeout: Duration::from_secs(rekey_timeout), ..Limits::default() };
        let listeners = vec![listener(OURS, limits)];
        world.handshakes.set_peers(listeners, vec![peer()], world.now, &mut world.outside);
        world.now = world.now.plus(Duration::from_secs(100));
        world.handshakes.timeout(world.now, &mut world.outside);
        world.outcomes();
        world.now = world.now.plus(Duration::from_secs(100));
        let outcomes = world.want(5);
        let [sent] = datagrams(&outcomes)[..] else { panic!("{outcomes:?}") };
        let label = responder.consume(&sent.bytes).unwrap().timestamp;
        assert!(label > last, "{hours_back} h back");
        last = label;
    }
}

/// CVE-2021-46873, end to end: the clock of a device is stolen, and then set right.
#[test]
fn a_device_whose_clock_was_stolen_connects_once_it_is_right() {
    const NOW: u64 = 1_800_000_000;
    let mut world = World::new(vec![setup(5)]);
    world.outside.wall_clock = Duration::from_secs(NOW);
    let (ahead, _) = world.initiation(5, 2 * NOW);
    assert_eq!(world.tell(0, 5, &ahead).len(), 3);
    world.now = world.now.plus(Duration::from_secs(1));
    assert!(world.tell(0, 5, &ahead).is_empty(), "a replay all the same");
    let (right, _) = world.initiation(5, NOW + 1);
    assert_eq!(world.tell(0, 5, &right).len(), 3);
    // A clock that is always wrong is borne for a while, and then counted.
    for n in 1..100 {
        world.now = world.now.plus(Duration::from_secs(1));
        let (ahead, _) = world.initiation(5, 2 * NOW + n);
        for outcome in world.tell(0, 5, &ahead) {
            if let Outcome::Session(_, session) = outcome {
                world.handshakes.session_retired(session.index, world.now, &mut world.outside);
            }
        }
    }
    let counters = world.handshakes.counters();
    assert_eq!((counters.replayed, counters.clock_ahead), (1, 99 - 63));
    world.now = world.now.plus(Duration::from_secs(1));
    let (right, _) = world.initiation(5, NOW + 2);
    assert_eq!(world.tell(0, 5, &right).len(), 3);
}
