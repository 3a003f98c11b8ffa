//! Several keys of our own, and who may call which.

use super::*;

/// Gateway key rotation: the key of yesterday and the key of tomorrow are both answered while devices
/// move, each device from the key that it used last; then the old key goes, and nothing else.
#[test]
fn two_keys_are_accepted_while_devices_move() {
    const TOMORROW: [u8; 32] = [0x22; 32];
    let public = |private| PrivateKey::from_bytes(private).public_key();
    let mut world = World::new(vec![setup(5), setup(6)]);
    let both = || vec![listener(OURS, Limits::default()), listener(TOMORROW, Limits::default())];
    let all = || vec![setup(5), setup(6)];
    for peer in [5, 6] {
        let (message, _) = world.initiation(peer, 1);
        assert_eq!(world.tell(0, peer, &message).len(), 3, "the old key");
    }
    world.handshakes.set_peers(both(), all(), world.now, &mut world.outside);
    assert!(world.outcomes().is_empty(), "nobody is disturbed");

    // A wish goes to the key that the device knows.
    let outcomes = world.want(5);
    let [sent] = datagrams(&outcomes)[..] else { panic!("{outcomes:?}") };
    let asked = Responder::new(&theirs(5)).consume(&sent.bytes).unwrap();
    assert_eq!(asked.peer, public(OURS));

    // It moves, and the old initiation of ours is still awaited: both are the same device.
    world.now = world.now.plus(Duration::from_secs(1));
    let (message, mut pending) = world.initiation_to(TOMORROW, 5, 2);
    let outcomes = world.tell_at(TOMORROW, 0, 7, &message);
    let response = datagrams(&outcomes)[0].bytes.clone();
    let keys = pending.consume(&response).unwrap();
    let index = only_session(&outcomes).index;
    assert_eq!(SessionIndex(keys.remote_index), index);
    world.handshakes.session_confirmed(index);
    world.now = world.now.plus(Duration::from_secs(10));
    let outcomes = world.want(5);
    let [sent] = datagrams(&outcomes)[..] else { panic!("{outcomes:?}") };
    let asked = Responder::new(&theirs(5)).consume(&sent.bytes).unwrap();
    assert_eq!(asked.peer, public(TOMORROW), "it is spoken to where it speaks");
    // What it made before is old at every key.
    let (earlier, _) = world.initiation(5, 1);
    assert!(world.tell(0, 5, &earlier).is_empty());
    assert_eq!(world.handshakes.counters().replayed, 1);

    // The old key goes. Device 5 is asked from the new one, device 6 too: nothing else is left.
    world.handshakes.set_peers(
        vec![listener(TOMORROW, Limits::default())],
        all(),
        world.now,
        &mut world.outside,
    );
    world.now = world.now.plus(Duration::from_secs(10));
    for peer in [5, 6] {
        let outcomes = world.want(peer);
        let [sent] = datagrams(&outcomes)[..] else { panic!("{outcomes:?}") };
        let asked = Responder::new(&theirs(u8::try_from(peer).unwrap())).consume(&sent.bytes);
        assert_eq!(asked.unwrap().peer, public(TOMORROW));
    }
    let (message, _) = world.initiation(6, 9);
    assert!(world.tell(0, 6, &message).is_empty(), "the old key is nobody's");
    let (message, _) = world.initiation_to(TOMORROW, 6, 9);
    assert_eq!(world.tell_at(TOMORROW, 0, 6, &message).len(), 3);
}

#[test]
fn a_device_that_names_its_listener_is_a_stranger_at_the_others() {
    const OTHER: [u8; 32] = [0x22; 32];
    let only = PeerSetup {
        listener: Some(PrivateKey::from_bytes(OTHER).public_key()),
        endpoint: Some(remote(5)),
        ..setup(5)
    };
    let mut world = World::new(vec![]);
    let mut other = listener(OTHER, Limits::default());
    other.udp_port = 51_821;
    let both = vec![listener(OURS, Limits::default()), other];
    world.handshakes.set_peers(both, vec![only, setup(6)], world.now, &mut world.outside);
    let (message, _) = world.initiation(5, 1);
    assert!(world.tell(0, 5, &message).is_empty());
    assert_eq!(world.handshakes.counters().unknown_peer, 1);
    // Before it has spoken it is spoken to from its own listener, others from the first.
    let outcomes = world.want(5);
    let [sent] = datagrams(&outcomes)[..] else { panic!("{outcomes:?}") };
    assert_eq!((sent.local, sent.udp_port), (None, 51_821));
    let asked = Responder::new(&theirs(5)).consume(&sent.bytes).unwrap();
    assert_eq!(asked.peer, PrivateKey::from_bytes(OTHER).public_key());
    let (message, _) = world.initiation_to(OTHER, 5, 1);
    assert_eq!(world.tell_at(OTHER, 0, 5, &message).len(), 3);
}

#[test]
fn a_message_to_a_key_that_went_while_it_was_under_way_is_refused() {
    let mut world = World::new(vec![setup(5)]);
    let (message, _) = world.initiation(5, 1);
    assert!(world.tell_at([0x33; 32], 0, 5, &message).is_empty());
    // Nor does it help to name a key that the message is not for.
    let two = vec![listener(OURS, Limits::default()), listener([0x33; 32], Limits::default())];
    world.handshakes.set_peers(two, vec![setup(5)], world.now, &mut world.outside);
    assert!(world.tell_at([0x33; 32], 0, 5, &message).is_empty());
    assert_eq!(world.handshakes.counters().invalid, 2);
    assert_eq!(world.tell(0, 5, &message).len(), 3);
}
