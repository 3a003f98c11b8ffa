//! Interoperation with boringtun, in memory and in both roles: an implementation that shares no
//! protocol code with ours.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic"
)]

use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use bulkhead_wg::peer::{Action, Fresh};
use bulkhead_wg::{
    CookieKey, CookieSecrets, HandshakeError, Limits, Peer, PresharedKey, PrivateKey, ReceiveKey,
    ReplayWindow, Responder, Role, SendCounter, SendKey, Tai64n, Time, TransportKeys,
};

const OUR_INDEX: u32 = 0x0a00_0007;

/// Our side of a tunnel to a boringtun peer.
struct World {
    private: PrivateKey,
    peer: Peer,
    tunn: Tunn,
    now: Time,
    built: u8,
}

impl World {
    /// `psks` are ours and theirs; `theirs_limit` is how many handshake messages boringtun takes
    /// per second before it asks for cookies.
    fn new(psks: [[u8; 32]; 2], theirs_limit: u64) -> Self {
        let [ours, theirs] = [[0x11; 32], [0x22; 32]].map(PrivateKey::from_bytes);
        let their_public = theirs.public_key();
        let limiter = RateLimiter::new(&their_public.0.into(), theirs_limit);
        let tunn = Tunn::new(
            x25519::StaticSecret::from(*theirs.expose()),
            x25519::PublicKey::from(ours.public_key().0),
            (psks[1] != [0; 32]).then_some(psks[1]),
            None,
            0x0b_0c0d,
            Some(Arc::new(limiter)),
        );
        let peer = Peer::new(their_public, PresharedKey::from_bytes(psks[0]), Limits::default());
        Self { private: ours, peer, tunn, now: Time::default(), built: 0 }
    }

    fn poll(&mut self) -> Option<Action> {
        let built = &mut self.built;
        self.peer.poll(&self.private, self.now, || {
            *built += 1;
            Fresh {
                local_index: OUR_INDEX,
                timestamp: Tai64n::from_unix(Duration::from_secs(1_800_000_000)),
                entropy: [0x30 + *built; 32],
            }
        })
    }

    fn session(&mut self) -> TransportKeys {
        match self.poll() {
            Some(Action::Session(keys)) => keys,
            other => panic!("expected a session, got {other:?}"),
        }
    }

    fn message(&mut self) -> Vec<u8> {
        match self.poll() {
            Some(Action::Send(message)) => message.as_bytes().to_vec(),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// What boringtun sends in answer to a datagram from a fixed source.
    fn tell(&mut self, datagram: &[u8]) -> Result<Vec<u8>, String> {
        let mut room = [0; 2048];
        match self.tunn.decapsulate(Some([192, 0, 2, 1].into()), datagram, &mut room) {
            TunnResult::WriteToNetwork(bytes) => Ok(bytes.to_vec()),
            TunnResult::WriteToTunnelV4(bytes, _) => Ok(bytes.to_vec()),
            TunnResult::Done => Ok(vec![]),
            other => Err(format!("{other:?}")),
        }
    }

    fn their_initiation(&mut self) -> Vec<u8> {
        let mut room = [0; 2048];
        match self.tunn.format_handshake_initiation(&mut room, true) {
            TunnResult::WriteToNetwork(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// We initiate; returns our keys after boringtun has confirmed the session.
    fn initiate(&mut self) -> TransportKeys {
        self.peer.want_session(self.now, Duration::ZERO);
        let initiation = self.message();
        let response = self.tell(&initiation).unwrap();
        assert_eq!(response.len(), 92);
        self.peer.response(&response).unwrap();
        let keys = self.session();
        assert_eq!((keys.local_index, keys.role), (OUR_INDEX, Role::Initiator));
        keys
    }
}

/// A valid IPv4 packet: boringtun looks at the version, the length and the source.
fn packet(len: usize) -> Vec<u8> {
    let mut packet = vec![0xd5; len];
    packet[..2].copy_from_slice(&[0x45, 0]);
    packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet[12..16].copy_from_slice(&[10, 44, 0, 7]);
    packet
}

/// Seals like the datapath does: type 4, index, counter, ciphertext, tag.
fn seal(keys: &TransportKeys, counter: &SendCounter, plaintext: &[u8]) -> Vec<u8> {
    let counter = counter.reserve(1).unwrap();
    let mut body = plaintext.to_vec();
    let tag = SendKey::new(&keys.send).seal(counter, &mut body);
    [&[4, 0, 0, 0][..], &keys.remote_index.to_le_bytes(), &counter.to_le_bytes(), &body, &tag]
        .concat()
}

fn open(keys: &TransportKeys, window: &mut ReplayWindow, datagram: &[u8]) -> Vec<u8> {
    assert_eq!(datagram[..4], [4, 0, 0, 0]);
    assert_eq!(datagram[4..8], keys.local_index.to_le_bytes());
    let counter = u64::from_le_bytes(datagram[8..16].try_into().unwrap());
    let (body, tag) = datagram[16..].split_last_chunk::<16>().unwrap();
    let mut body = body.to_vec();
    ReceiveKey::new(&keys.receive).open(counter, &mut body, tag).unwrap();
    assert!(window.accept(counter));
    body
}

fn exchange_data(world: &mut World, keys: &TransportKeys, window: &mut ReplayWindow) {
    let counter = SendCounter::default();
    for len in [20, 64, 1400] {
        let datagram = seal(keys, &counter, &packet(len));
        assert_eq!(world.tell(&datagram).unwrap(), packet(len));
        assert!(world.tell(&datagram).is_err(), "a replay");
    }
    for len in [20, 64, 1400] {
        let mut room = [0; 2048];
        let datagram = match world.tunn.encapsulate(&packet(len), &mut room) {
            TunnResult::WriteToNetwork(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(open(keys, window, &datagram), packet(len));
    }
}

#[test]
fn we_initiate_and_data_flows_both_ways() {
    for psk in [[0; 32], [0x77; 32]] {
        let mut world = World::new([psk; 2], 100);
        let keys = world.initiate();
        exchange_data(&mut world, &keys, &mut ReplayWindow::default());
        assert!(world.poll().is_none());
        assert_eq!(world.peer.deadline(), None);
    }
}

#[test]
fn boringtun_initiates_and_data_flows_both_ways() {
    for psk in [[0; 32], [0x77; 32]] {
        let mut world = World::new([psk; 2], 100);
        let message = world.their_initiation();
        let initiation = Responder::new(&world.private).consume(&message).unwrap();
        assert_eq!(initiation.peer, *world.peer.public_key());
        world.peer.initiation(initiation, OUR_INDEX, &[0x44; 32], world.now).unwrap();
        let keys = world.session();
        assert_eq!(keys.role, Role::Responder);
        let response = world.message();
        // Boringtun confirms the session with an empty packet.
        let keepalive = world.tell(&response).unwrap();
        let mut window = ReplayWindow::default();
        assert_eq!(open(&keys, &mut window, &keepalive), []);
        exchange_data(&mut world, &keys, &mut window);
    }
}

#[test]
fn another_preshared_key_makes_no_session() {
    for psks in [[[0; 32], [0x77; 32]], [[0x77; 32], [0; 32]], [[0x77; 32], [0x78; 32]]] {
        let mut world = World::new(psks, 100);
        world.peer.want_session(world.now, Duration::ZERO);
        let initiation = world.message();
        let response = world.tell(&initiation).unwrap();
        assert_eq!(world.peer.response(&response), Err(HandshakeError::Undecryptable));
        assert!(world.poll().is_none());

        let mut world = World::new(psks, 100);
        let message = world.their_initiation();
        let initiation = Responder::new(&world.private).consume(&message).unwrap();
        world.peer.initiation(initiation, OUR_INDEX, &[0x44; 32], world.now).unwrap();
        let _ = world.session();
        let response = world.message();
        assert!(world.tell(&response).is_err());
    }
}

#[test]
fn we_answer_a_boringtun_that_wants_cookies() {
    let mut world = World::new([[0; 32]; 2], 0);
    world.peer.want_session(world.now, Duration::ZERO);
    let initiation = world.message();
    assert_eq!(initiation[132..], [0; 16], "no cookie, no MAC2");
    let cookie_reply = world.tell(&initiation).unwrap();
    assert_eq!(cookie_reply.len(), 64);
    world.peer.cookie_reply(&cookie_reply, world.now).unwrap();
    assert!(world.poll().is_none(), "a cookie does not license a burst");

    world.now = world.peer.deadline().unwrap();
    world.peer.timeout(world.now, Duration::ZERO);
    assert!(matches!(world.poll(), Some(Action::Retired(OUR_INDEX))));
    let initiation = world.message();
    let response = world.tell(&initiation).unwrap();
    assert_eq!(response.len(), 92);
    world.peer.response(&response).unwrap();
    let keys = world.session();
    exchange_data(&mut world, &keys, &mut ReplayWindow::default());
}

#[test]
fn boringtun_answers_when_we_want_cookies() {
    let mut world = World::new([[0; 32]; 2], 100);
    let source = "192.0.2.1:7".parse().unwrap();
    let key = CookieKey::of(&world.private.public_key());
    let checker = CookieSecrets::new([0x55; 32]);

    let initiation = world.their_initiation();
    assert!(!checker.verify(&initiation, source));
    let reply = checker.reply(&key, &initiation, source, [0x66; 24]).unwrap();
    assert_eq!(world.tell(&reply).unwrap(), []);

    let initiation = world.their_initiation();
    assert!(checker.verify(&initiation, source));
    assert!(!checker.verify(&initiation, "192.0.2.2:7".parse().unwrap()));
    assert!(Responder::new(&world.private).consume(&initiation).is_ok());
}

#[test]
fn sessions_follow_each_other() {
    let mut world = World::new([[0x77; 32]; 2], 100);
    let mut seen = vec![];
    for _ in 0..3 {
        let keys = world.initiate();
        exchange_data(&mut world, &keys, &mut ReplayWindow::default());
        assert!(!seen.contains(&keys.send) && keys.send != keys.receive);
        seen.extend([keys.send, keys.receive]);
        world.now = world.now.plus(Duration::from_secs(6));
    }
}
