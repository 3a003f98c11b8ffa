//! Peers: their indices, keys, addresses and names.

use super::*;

#[test]
fn an_index_is_reused_only_after_its_removal() {
    let mut state = running(false);
    apply(&mut state, intent_of(&[2, 3], 1), false, at(1));
    assert_eq!(said(&mut state), ["peer 3@2", "table 2"]);
    let full = plan(&state, intent_of(&[2, 4], 1)).unwrap_err();
    assert_eq!(full.kind, RefusalKind::Invalid, "all three indices are in use until then");
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    let want =
        ["remove @0", "thread: peers [(2, 1), (3, 2)]", "outer", "record 2", "answer 5: applied 2"];
    assert_eq!(said(&mut state), want);
    apply(&mut state, intent_of(&[2, 3, 4], 1), false, at(2));
    assert_eq!(said(&mut state), ["peer 4@0", "table 3"]);
}

/// Endpoints by name, with a resolver of the test's: looked up when the peers are set, again when a
/// handshake has failed, and given to the handshakes if it is another than before.
#[test]
fn an_endpoint_by_name_is_looked_up_and_found_again_after_failed_handshakes() {
    let mut state = running(false);
    let mut intent = intent_of(&[1, 2], 1);
    let name = Name { host: "site.example".to_owned(), port: 51_820 };
    intent.devices[1].endpoint_name = Some(name.clone());
    apply(&mut state, intent.clone(), false, at(1));
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    said(&mut state);
    assert_eq!(state.deadline(), Some(at(1)));
    state.timeout(at(1));
    assert_eq!(said(&mut state), ["look up site.example for 2"]);
    let home: SocketAddr = "192.0.2.7:51820".parse().unwrap();
    state.looked_up(key(2), &name, &[home], at(2));
    assert_eq!(said(&mut state), ["thread: 2 at 192.0.2.7:51820"]);
    assert_eq!(state.deadline(), None);
    // It moves; nobody answers at the old place.
    let unanswered = |state: &mut State| {
        let (epoch, outcome) = (state.epoch, Outcome::Unanswered(key(2)));
        state.from_handshakes(Report { epoch, outcome });
    };
    unanswered(&mut state);
    state.timeout(at(100));
    assert_eq!(said(&mut state), ["look up site.example for 2"]);
    state.looked_up(key(2), &name, &[home], at(100));
    assert!(said(&mut state).is_empty(), "the same place is no news");
    unanswered(&mut state);
    state.timeout(at(200));
    said(&mut state);
    state.looked_up(key(2), &name, &["198.51.100.9:51820".parse().unwrap()], at(200));
    assert_eq!(said(&mut state), ["thread: 2 at 198.51.100.9:51820"]);
    // A name that is not found is asked for again, and an apply does not forget what was found.
    apply(&mut state, intent, false, at(201));
    state.from_datapath(FromDatapath::Confirmed { generation: 3 }, at(201));
    state.timeout(at(201));
    assert!(!said(&mut state).iter().any(|line| line.starts_with("look up")));
}

/// Goal: a device that was removed never speaks as the one that got its index.
/// Method: keys of its last handshake arrive after each step of the exchange.
#[test]
fn keys_of_a_removed_peer_do_not_become_a_session_of_its_successor() {
    let session = |state: &mut State| {
        let place = bulkhead_link::Endpoint {
            remote: "192.0.2.1:9".parse().unwrap(),
            local: "192.0.2.2:9".parse().unwrap(),
            port: 0,
            vlan: None,
            remote_mac: [2; 6],
            local_mac: [4; 6],
        };
        let session = Session {
            peer: 0,
            index: bulkhead_link::SessionIndex(33),
            remote_index: 1,
            initiator: false,
            endpoint: place,
            listener: [9; 32],
            terms: TERMS,
            keys: bulkhead_link::SessionKeys { send: [1; 32], receive: [2; 32] },
        };
        let epoch = state.epoch;
        state.from_handshakes(Report { epoch, outcome: Outcome::Session(key(1), session) });
        said(state).iter().any(|line| line.starts_with("send Session"))
    };
    let mut state = running(false);
    assert!(session(&mut state), "device 1 has index 0");
    apply(&mut state, intent_of(&[2], 1), false, at(1));
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    said(&mut state);
    assert!(!session(&mut state), "removed");
    apply(&mut state, intent_of(&[2, 3], 1), false, at(2));
    assert_eq!(said(&mut state), ["peer 3@0", "table 3"]);
    assert!(!session(&mut state), "index 0 is device 3 now");
}

#[test]
fn new_addresses_are_answered_from_at_once_and_told_to_the_next_datapath() {
    let own = || OwnAddresses {
        ports: BTreeMap::from([(0, vec!["192.0.2.7".parse().unwrap()])]),
        missing: vec![],
    };
    let mut state = running(false);
    state.own_addresses(&own());
    assert_eq!(said(&mut state), ["outer"]);
    state.own_addresses(&own());
    assert!(said(&mut state).is_empty());
    assert_eq!(state.intent.configuration.addresses, own().all());
    // The one that runs is not asked to restart for it, but it is said.
    let same = Intent::clone(&state.intent);
    apply(&mut state, same, false, at(1));
    assert_eq!(said(&mut state), ["table 2"]);
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    said(&mut state);
    state.request(3, Request::Status {}, HandshakeCounters::default(), at(2));
    state.timeout(at(4));
    assert!(said(&mut state).concat().contains("the addresses of the box changed"));
}
