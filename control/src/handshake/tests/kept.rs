//! Peers that are to be connected whether or not there is anything to send.

use super::*;

#[test]
fn a_kept_peer_is_called_at_the_start_and_again_after_the_end_of_its_session() {
    let kept = PeerSetup {
        endpoint: Some(remote(7)),
        keepalive: Some(Duration::from_secs(25)),
        ..setup(5)
    };
    let mut world = World::new(vec![kept, setup(6)]);
    assert!(world.outcomes().is_empty());
    let outcomes = world.wait(0);
    assert_eq!(datagrams(&outcomes).len(), 1);
    // Nobody answers: every 5 s again, then given up after 90 s, then again after the keepalive.
    let mut sent = 0;
    for _ in 0..18 {
        sent += datagrams(&world.wait(5)).len();
    }
    assert_eq!((sent, world.handshakes.counters().given_up), (17, 1));
    assert_eq!(world.handshakes.slots.in_use(), 0, "no index leaks");
    assert!(world.wait(24).is_empty());
    assert_eq!(datagrams(&world.wait(1)).len(), 1);

    let (message, _) = world.initiation(5, 1);
    let outcomes = world.tell(0, 7, &message);
    let index = only_session(&outcomes).index;
    assert!(world.retire(SessionIndex(index.0 ^ 1)).is_empty());
}

#[test]
fn a_new_datapath_makes_us_call_whoever_had_a_session() {
    let mut world = World::new(vec![setup(5), setup(6)]);
    let (message, _) = world.initiation(5, 1);
    world.tell(0, 9, &message);
    world.now = world.now.plus(Duration::from_secs(10));
    world.handshakes.adopt(8, 4, &[], world.now, &mut world.outside);
    let outcomes = world.outcomes();
    let [sent] = datagrams(&outcomes)[..] else { panic!("{outcomes:?}") };
    assert_eq!((sent.remote, sent.local), (remote(9), Some(from(9).local)));
}

/// The gateway dials out: a peer that is kept connected and is down for half a day is called for ever, and
/// connected within its pause of coming back.
#[test]
fn a_kept_peer_that_was_down_for_long_is_connected_within_its_pause() {
    const PAUSE: Duration = Duration::from_secs(25);
    const DOWN: Duration = Duration::from_secs(43_200);
    let kept = PeerSetup { endpoint: Some(remote(7)), keepalive: Some(PAUSE), ..setup(5) };
    let mut world = World::new(vec![kept, setup(6)]);
    let (start, mut calls, mut last) = (world.now, 0, None);
    let mut longest = Duration::ZERO;
    // From deadline to deadline: half a day in no time.
    while world.now.since(start) < DOWN {
        world.now = world.handshakes.deadline().expect("it is called for ever");
        world.handshakes.timeout(world.now, &mut world.outside);
        for sent in datagrams(&world.outcomes()) {
            longest = longest.max(last.map_or(Duration::ZERO, |at| world.now.since(at)));
            last = Some(world.now);
            assert_eq!(sent.remote, remote(7), "a peer with no endpoint waits silently");
            calls += 1;
        }
    }
    // Unanswered calls for 90 s, then a pause.
    assert!(calls > 43_200 / 125 * 17, "{calls}");
    assert!(longest <= PAUSE + Duration::from_secs(10), "{longest:?}");
    assert_eq!(world.handshakes.slots.in_use(), 1, "one call is under way, no index leaks");
    // It is back: the next call is answered.
    let mut answer = None;
    while answer.is_none() {
        world.now = world.handshakes.deadline().unwrap();
        world.handshakes.timeout(world.now, &mut world.outside);
        answer = datagrams(&world.outcomes()).first().map(|sent| sent.bytes.clone());
    }
    let initiation = Responder::new(&theirs(5)).consume(&answer.unwrap()).unwrap();
    let (response, _) = initiation.respond(&PresharedKey::default(), 9, &[9; 32]).unwrap();
    assert_eq!(only_session(&world.tell(0, 7, &response)).peer, 5);
    assert_eq!(world.handshakes.deadline(), None, "connected: nothing is asked for");
}

/// Endpoints by name: a peer that answers no more is looked for where its name points now, a peer with
/// a session is left where it is.
#[test]
fn a_peer_is_called_where_its_name_points_unless_it_has_a_session() {
    let public = theirs(5).public_key();
    let mut world = World::new(vec![setup(5)]);
    assert!(world.want(5).is_empty(), "a peer with no endpoint waits silently");
    assert_eq!(world.handshakes.counters().no_endpoint, 1);
    let find = |world: &mut World, host| {
        world.handshakes.endpoint_found(&public, remote(host), world.now, &mut world.outside);
    };
    find(&mut world, 7);
    let outcomes = world.want(5);
    assert_eq!(datagrams(&outcomes)[0].remote, remote(7));
    // It gives up, says so, and is told of another place.
    let unanswered = |outcomes: &[Outcome]| {
        outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Unanswered(peer) if *peer == public))
    };
    assert!((0..20).any(|_| unanswered(&world.wait(5))));
    find(&mut world, 8);
    let initiation = datagrams(&world.want(5))[0].bytes.clone();
    let read = Responder::new(&theirs(5)).consume(&initiation).unwrap();
    let (response, _) = read.respond(&PresharedKey::default(), 9, &[9; 32]).unwrap();
    let index = only_session(&world.tell(0, 8, &response)).index;
    // With a session it is where it was heard.
    find(&mut world, 9);
    world.now = world.now.plus(Duration::from_secs(10));
    assert_eq!(datagrams(&world.want(5))[0].remote, remote(8));
    // Without one it is where its name points.
    world.wait(100);
    world.retire(index);
    find(&mut world, 10);
    assert_eq!(datagrams(&world.want(5))[0].remote, remote(10));
}
