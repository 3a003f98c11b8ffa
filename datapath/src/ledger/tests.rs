use super::*;
use bulkhead_engine::Accepted;
use bulkhead_link::{Configuration, SessionKeys};

const WORKERS: usize = 2;

fn configuration() -> Configuration {
    Configuration {
        ports: vec![],
        workers: 2,
        cpus: vec![],
        listeners: vec![],
        addresses: vec![],
        frames_per_worker: 64,
        ring_entries: 64,
        sessions_max: 16,
        peers_max: 4,
        flows_per_worker: 64,
        flows: bulkhead_link::FlowSetup::default(),
    }
}

fn ledger() -> (Ledger, Arc<[PeerCell]>) {
    let cells: Arc<[PeerCell]> = (0..4).map(|_| PeerCell::default()).collect();
    let mut ledger = Ledger::new(&configuration(), Arc::clone(&cells));
    ledger.peer(peer(1, 11)).unwrap();
    (ledger, cells)
}

fn peer(index: u32, key: u8) -> link::Peer {
    link::Peer { index, public_key: [key; 32], keepalive: None }
}

fn session(slot: u32, initiator: bool) -> link::Session {
    link::Session {
        peer: 1,
        index: SessionIndex::new(1, 0, slot),
        remote_index: 77,
        initiator,
        endpoint: Endpoint {
            remote: "192.0.2.7:4000".parse().unwrap(),
            local: "192.0.2.1:51820".parse().unwrap(),
            port: 0,
            vlan: None,
            remote_mac: [2; 6],
            local_mac: [4; 6],
        },
        terms: link::Terms {
            tunnel_mtu: 1_420,
            timers: link::Timers::default(),
            dscp: link::Dscp::Clear,
        },
        listener: [9; 32],
        keys: SessionKeys { send: [1; 32], receive: [2; 32] },
    }
}

/// What the orders come to, in words.
fn words(orders: &[Order]) -> Vec<String> {
    let word = |order: &Order| match order {
        Order::Worker(worker, Command::Install(session, window)) => {
            let window = if window.is_some() { "+window" } else { "" };
            format!("{worker}: install {}{window}", session.index.slot())
        }
        Order::Worker(worker, Command::Listeners(_)) => format!("{worker}: listeners"),
        Order::Worker(worker, Command::Cookies(_)) => format!("{worker}: cookies"),
        Order::Worker(worker, Command::Remove(index)) => {
            format!("{worker}: remove {}", index.slot())
        }
        Order::Worker(worker, Command::Keepalive(peer)) => {
            format!("{worker}: keepalive {}", peer.0)
        }
        Order::Worker(_, Command::Table(_) | Command::Fence(_) | Command::Neighbour(..)) => {
            "unexpected".to_owned()
        }
        Order::Tell(FromDatapath::SessionConfirmed { index }) => {
            format!("confirmed {}", index.slot())
        }
        Order::Tell(FromDatapath::SessionRetired { index }) => format!("retired {}", index.slot()),
        Order::Tell(FromDatapath::SessionWanted { peer }) => format!("wanted {peer}"),
        Order::Tell(_) => "unexpected".to_owned(),
    };
    orders.iter().map(word).collect()
}

#[test]
fn a_session_goes_to_every_worker_and_its_window_to_one() {
    let (mut ledger, cells) = ledger();
    let orders = ledger.install(&session(3, false), 1_000).unwrap();
    assert_eq!(words(&orders), ["0: install 3", "1: install 3+window"]);
    assert_eq!(cells[1].sending(), None, "the responder waits for the first packet");
    assert_eq!(cells[1].place(), None, "nor is the peer proven to be there");
    ledger.install(&session(4, true), 1_000).unwrap();
    assert_eq!(cells[1].place().unwrap().remote_port, 4000);
    assert_eq!(cells[1].sending(), Some((4, 2)), "the initiator may send at once");
}

#[test]
fn what_names_no_place_is_refused_and_changes_nothing() {
    let (mut ledger, cells) = ledger();
    let mut refused = |change: fn(&mut link::Session)| {
        let mut new = session(3, true);
        change(&mut new);
        ledger.install(&new, 1_000).map(|orders| words(&orders)).unwrap_err()
    };
    assert_eq!(refused(|new| new.peer = 2), LedgerError::UnknownPeer(2));
    let outside = SessionIndex::new(1, 0, 16);
    assert_eq!(
        refused(|new| new.index = SessionIndex::new(1, 0, 16)),
        LedgerError::SessionIndex(outside)
    );
    let nobody = SessionIndex::new(2, 0, 1);
    assert_eq!(
        refused(|new| new.index = SessionIndex::new(2, 0, 1)),
        LedgerError::SessionIndex(nobody)
    );
    assert_eq!(ledger.peer(peer(4, 1)), Err(LedgerError::PeerIndex { index: 4, max: 4 }));
    assert_eq!(ledger.peer(peer(1, 99)), Err(LedgerError::OtherKey(1)));
    assert_eq!(ledger.peer(peer(1, 11)), Ok(()), "the same again is an update");
    assert_eq!((cells[1].sending(), ledger.status(0).count()), (None, 0));
}

#[test]
fn a_slot_has_one_tenant_and_a_peer_a_current_and_a_previous_session() {
    let (mut ledger, _) = ledger();
    for slot in [1, 2] {
        let orders = ledger.install(&session(slot, true), 1_000).unwrap();
        assert_eq!(orders.len(), WORKERS, "nothing goes yet");
    }
    let orders = ledger.install(&session(3, true), 1_000).unwrap();
    let want = ["0: remove 1", "1: remove 1", "retired 1", "0: install 3", "1: install 3+window"];
    assert_eq!(words(&orders), want);
    let mut salted = session(2, true);
    salted.index = SessionIndex::new(1, 9, 2);
    let orders = ledger.install(&salted, 1_000).unwrap();
    assert_eq!(words(&orders)[..3], ["0: remove 2", "1: remove 2", "retired 2"]);
}

/// current, previous, next: a handshake that the peer started makes a next, which takes the place of
/// a next only; its first packet makes it current, and only that retires anything that was in use.
#[test]
fn an_unconfirmed_session_costs_a_confirmed_one_nothing() {
    let (mut ledger, cells) = ledger();
    let confirm = |ledger: &Ledger, slot: usize| {
        let all = ledger.sessions.values();
        let entry = all.map(|entry| &entry.session).find(|session| session.index.slot() == slot);
        entry.unwrap().activity.confirmed.store(true, Ordering::Relaxed);
    };
    let held = |ledger: &Ledger| -> Vec<usize> {
        ledger.sessions.keys().map(|index| index.slot()).collect()
    };
    ledger.install(&session(1, true), 1_000).unwrap();
    ledger.install(&session(2, true), 1_000).unwrap();
    ledger.tick(1_100); // the initiator's first packets
    let place = cells[1].place();
    // A flood of handshakes that nothing follows, from anywhere.
    for slot in [3, 4, 5, 6] {
        let mut elsewhere = session(slot, false);
        elsewhere.endpoint.remote = "203.0.113.66:6".parse().unwrap();
        ledger.install(&elsewhere, 2_000).unwrap();
        assert_eq!(held(&ledger), [1, 2, slot as usize]);
    }
    assert_eq!(cells[1].place(), place, "nor does it move the peer");
    assert!(words(&ledger.tick(2_100)).is_empty(), "nothing is confirmed");
    confirm(&ledger, 6);
    let want = ["confirmed 6", "0: remove 1", "1: remove 1", "retired 1"];
    assert_eq!(words(&ledger.tick(2_200)), want);
    assert!(words(&ledger.tick(2_300)).is_empty(), "told once");
    // Ours and theirs cross: the next stays, because its first packet may be under way.
    ledger.install(&session(7, false), 3_000).unwrap();
    ledger.install(&session(8, true), 3_000).unwrap();
    assert_eq!(held(&ledger), [6, 7, 8]);
    confirm(&ledger, 7);
    assert_eq!(words(&ledger.tick(3_100))[0], "confirmed 7");
    assert_eq!(held(&ledger), [7, 8]);
}

#[test]
fn a_session_is_wanted_only_while_none_can_be_used() {
    let (mut ledger, _) = ledger();
    let wanted = |ledger: &Ledger, now| ledger.wanted(PeerIndex(1), now).is_some();
    assert!(wanted(&ledger, 1_000));
    ledger.install(&session(1, false), 1_000).unwrap();
    assert!(wanted(&ledger, 1_000), "not confirmed: nothing may be sent with it");
    ledger.install(&session(2, true), 1_000).unwrap();
    assert!(!wanted(&ledger, 180_999));
    assert!(wanted(&ledger, 181_000), "expired");
}

#[test]
fn an_idle_session_ends_after_reject_after_time() {
    let (mut ledger, _) = ledger();
    ledger.install(&session(1, false), 1_000).unwrap();
    assert_eq!(words(&ledger.tick(180_900)), Vec::<String>::new());
    assert_eq!(words(&ledger.tick(181_000)), ["0: remove 1", "1: remove 1", "retired 1"]);
    assert_eq!(words(&ledger.tick(181_100)), Vec::<String>::new(), "once");
}

fn accepted(counter: u64, bytes: u64) -> Accepted {
    let mut run = Accepted::default();
    run.add(counter, bytes);
    run
}

#[test]
fn received_data_is_acknowledged_by_a_keepalive_of_the_owner() {
    let (mut ledger, _) = ledger();
    ledger.install(&session(1, false), 1_000).unwrap();
    let activity = |ledger: &Ledger| Arc::clone(&ledger.sessions.values().next().unwrap().session);
    activity(&ledger).activity.confirmed.store(true, Ordering::Relaxed);
    activity(&ledger).activity.received(&accepted(0, 100), 2_000);
    assert_eq!(words(&ledger.tick(2_100)), ["confirmed 1"]);
    assert_eq!(words(&ledger.tick(12_100)), ["1: keepalive 1"]);
}

#[test]
fn an_initiators_session_in_use_asks_for_its_successor_and_the_old_one_is_silent() {
    let (mut ledger, _) = ledger();
    ledger.install(&session(1, true), 1_000).unwrap();
    let first = Arc::clone(&ledger.sessions.values().next().unwrap().session);
    first.activity.sent(bulkhead_link::Counted { packets: 1, bytes: 9 }, 121_100);
    first.activity.received(&accepted(0, 9), 121_200);
    assert_eq!(words(&ledger.tick(121_300)), ["wanted 1"]);
    ledger.install(&session(2, true), 121_400).unwrap();
    first.activity.sent(bulkhead_link::Counted { packets: 1, bytes: 9 }, 127_000);
    let orders = words(&ledger.tick(127_100));
    assert!(!orders.contains(&"wanted 1".to_owned()), "{orders:?}");
}

#[test]
fn a_peers_bytes_and_last_handshake_outlive_its_sessions_but_not_itself() {
    let (mut ledger, _) = ledger();
    for (slot, at) in [(1, 1_000), (2, 2_000)] {
        ledger.install(&session(slot, true), at).unwrap();
        let session =
            &ledger.sessions.values().find(|e| e.session.created_ms == at).unwrap().session;
        session.activity.received(&accepted(0, 100), at);
        session.activity.sent(bulkhead_link::Counted { packets: 2, bytes: 50 }, at);
    }
    assert_eq!(ledger.past(3_000).count(), 0);
    ledger.tick(181_000);
    let counted = |packets, bytes| bulkhead_link::Counted { packets, bytes };
    let first = ledger.past(181_000).collect::<Vec<_>>();
    let age = Duration::from_millis;
    let (received, sent) = (counted(1, 100), counted(2, 50));
    assert_eq!(first, [link::PeerPast { peer: 1, handshake_age: age(180_000), received, sent }]);
    ledger.tick(182_000);
    let (received, sent) = (counted(2, 200), counted(4, 100));
    let both = ledger.past(192_000).collect::<Vec<_>>();
    assert_eq!(both, [link::PeerPast { peer: 1, handshake_age: age(190_000), received, sent }]);
    ledger.remove_peer(1);
    assert_eq!(ledger.past(192_000).count(), 0, "its successor has another key");
}

#[test]
fn a_removed_peer_takes_its_keys_along() {
    let (mut ledger, cells) = ledger();
    ledger.install(&session(1, true), 1_000).unwrap();
    let orders = ledger.remove_peer(1);
    assert_eq!(words(&orders), ["0: remove 1", "1: remove 1", "retired 1"]);
    assert_eq!(cells[1].sending(), None);
    assert_eq!(ledger.install(&session(1, true), 1_000).err(), Some(LedgerError::UnknownPeer(1)));
    assert_eq!(ledger.greeting(0).count(), 0);
}

/// The slow twin looks at every session.
#[test]
fn the_sessions_of_a_peer_and_of_a_slot_are_those_that_a_search_finds() {
    let (mut ledger, _) = ledger();
    for (index, key) in [(2, 12), (3, 13)] {
        ledger.peer(peer(index, key)).unwrap();
    }
    let mut seed = 1_u32;
    let mut sizes = BTreeSet::new();
    for step in 0..2_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (whose, slot, version) = (1 + (seed >> 8) % 3, (seed >> 12) % 8, (seed >> 16) % 4);
        if seed >> 29 == 0 {
            drop(ledger.remove_peer(whose));
            ledger.peer(peer(whose, 10 + u8::try_from(whose).unwrap())).unwrap();
        } else {
            let index = SessionIndex::new(1, u8::try_from(version).unwrap(), slot);
            let new = link::Session { peer: whose, index, ..session(slot, seed >> 31 == 0) };
            ledger.install(&new, step).unwrap();
        }
        let by_peer = ledger.sessions.iter().map(|(index, held)| (held.session.peer.0, *index));
        assert_eq!(ledger.by_peer, by_peer.collect());
        let by_slot = ledger.sessions.keys().map(|index| (index.slot(), *index));
        assert_eq!(ledger.by_slot, by_slot.collect(), "a slot has one tenant");
        sizes.insert(ledger.sessions.len());
    }
    assert!(sizes.len() > 4, "{sizes:?}");
}
