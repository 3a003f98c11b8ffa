//! What an apply comes to, and what is in force when it fails.

use super::*;

#[test]
fn whatever_ends_an_apply_the_intent_before_stays() {
    let old = intent_of(&[1, 2], 0).devices.len();
    // The datapath refuses.
    let mut state = running(false);
    apply(&mut state, intent_of(&[1], 1), false, at(1));
    said(&mut state);
    let reason = "defect".to_owned();
    state.from_datapath(FromDatapath::TableRefused { generation: 2, reason }, at(1));
    assert_eq!(said(&mut state), ["answer 5: Refused"]);
    assert_eq!((state.intent.devices.len(), state.generation()), (old, 1));

    // It does not confirm in time: it is asked anew, from the greeting on.
    let mut state = running(false);
    apply(&mut state, intent_of(&[1], 1), false, at(1));
    said(&mut state);
    assert_eq!(state.deadline(), Some(at(6)));
    state.timeout(at(5));
    assert!(said(&mut state).is_empty());
    state.timeout(at(6));
    assert_eq!(said(&mut state), ["answer 5: Timeout", "disconnect"]);
    // It had taken the table all the same: the one before is brought back.
    let ours = state.intent.configuration.clone();
    adopt(&mut state, ours, &[1, 2], 2);
    let said_then = made(&mut state, at(6));
    assert!(said_then.contains(&"table 3".to_owned()), "{said_then:?}");
    assert_eq!(state.intent.devices.len(), old);

    // It goes away.
    let mut state = running(false);
    apply(&mut state, intent_of(&[1], 1), false, at(1));
    said(&mut state);
    state.link_down(at(1));
    assert_eq!(said(&mut state), ["answer 5: Unavailable"]);
    assert_eq!(state.intent.devices.len(), old);

    // A confirmation of something else is none.
    let mut state = running(false);
    apply(&mut state, intent_of(&[1], 1), false, at(1));
    said(&mut state);
    state.from_datapath(FromDatapath::Confirmed { generation: 1 }, at(1));
    assert!(said(&mut state).is_empty() && state.is_busy());

    // The policy does not compile.
    let state = running(false);
    let mut bad = intent_of(&[1], 1);
    bad.policy = Arc::new(Fake { rules: 1, invalid: true });
    assert_eq!(plan(&state, bad).unwrap_err().kind, RefusalKind::Invalid);
}

/// Gateway key rotation: the listeners change with an apply, before its table, without a restart.
#[test]
fn listeners_change_with_the_table_and_come_back_if_it_is_refused() {
    let with = |keys: &[u8]| {
        let mut intent = intent_of(&[1, 2], 1);
        intent.configuration.listeners = keys.iter().map(|key| listener(*key)).collect();
        intent
    };
    let mut state = running(false);
    apply(&mut state, with(&[9, 10]), false, at(1));
    assert_eq!(said(&mut state), ["listen [9, 10]", "table 2"]);
    let reason = "defect".to_owned();
    state.from_datapath(FromDatapath::TableRefused { generation: 2, reason }, at(1));
    assert_eq!(said(&mut state), ["listen [9]", "answer 5: Refused"]);

    apply(&mut state, with(&[10]), false, at(2));
    assert_eq!(said(&mut state), ["listen [10]", "table 3"]);
    state.from_datapath(FromDatapath::Confirmed { generation: 3 }, at(2));
    assert!(said(&mut state).contains(&"answer 5: applied 3".to_owned()));

    // A control process that comes later finds other keys than the file has, and says so.
    let mut state = State::new(with(&[11]), false, Record::default());
    adopt(&mut state, with(&[10]).configuration, &[1, 2], 3);
    let found = made(&mut state, at(2));
    let place = found.iter().position(|line| line == "listen [11]").unwrap();
    assert_eq!(found[place + 1], "table 4", "{found:?}");

    // Another UDP port is in the XDP program.
    let mut state = running(false);
    let mut other = with(&[9]);
    other.configuration.listeners[0].port = 51_821;
    apply(&mut state, other, false, at(3));
    assert_eq!(said(&mut state), ["answer 5: RestartNeeded"]);
}

#[test]
fn an_apply_is_refused_when_it_cannot_be_carried_out() {
    let other = || {
        let mut intent = intent_of(&[1, 2], 0);
        intent.configuration.workers = 1;
        intent
    };
    for (intent, restart, starts, want) in [
        (other(), false, false, "answer 5: RestartNeeded"),
        (other(), false, true, "answer 5: RestartNeeded"),
        (other(), true, false, "answer 5: RestartNeeded"),
        (other(), true, true, "stop datapath"),
        (intent_of(&[1, 2], 1), false, false, "table 2"),
    ] {
        let mut state = running(starts);
        apply(&mut state, intent, restart, at(1));
        assert_eq!(said(&mut state), [want]);
    }
    let mut state = running(false);
    apply(&mut state, intent_of(&[1, 2], 1), false, at(1));
    apply(&mut state, intent_of(&[1, 2], 2), false, at(1));
    assert_eq!(said(&mut state), ["table 2", "answer 5: Busy"]);
    let mut state = State::new(intent_of(&[1], 0), false, Record::default());
    apply(&mut state, intent_of(&[1], 1), false, at(1));
    assert_eq!(said(&mut state), ["outer", "answer 5: Unavailable"]);
}

#[test]
fn a_restart_that_fails_brings_the_configuration_before_back() {
    for refused in [false, true] {
        let mut state = running(true);
        let mut intent = intent_of(&[1, 2], 1);
        intent.configuration.workers = 1;
        apply(&mut state, intent, true, at(1));
        assert_eq!(said(&mut state), ["stop datapath"]);
        state.link_down(at(2));
        assert!(said(&mut state).is_empty(), "the operator waits on");
        state.link_up(8, at(0));
        hello(&mut state, None, 0);
        state.from_datapath(FromDatapath::Adopted, at(2));
        assert_eq!(said(&mut state), ["hello", "configure 1"]);
        if refused {
            let reason = "eth9: no such device".to_owned();
            state.from_datapath(FromDatapath::ConfigurationRefused { reason }, at(2));
            assert_eq!(said(&mut state), ["answer 5: Refused", "configure 2"]);
        } else {
            state.from_datapath(FromDatapath::Configured, at(2));
            assert!(made(&mut state, at(2)).contains(&"table 2".to_owned()));
            state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(2));
            assert!(said(&mut state).contains(&"answer 5: applied 2".to_owned()));
            assert_eq!(state.intent.configuration.workers, 1);
        }
        assert!(state.trial.is_none());
    }
    // Nothing comes back at all.
    let mut state = running(true);
    apply(&mut state, intent_of(&[1, 2], 1), true, at(1));
    state.link_down(at(2));
    said(&mut state);
    state.timeout(state.deadline().unwrap());
    assert_eq!(said(&mut state), ["answer 5: Timeout"]);
}

#[test]
fn a_refused_configuration_is_tried_again_and_can_be_mended() {
    let mut state = State::new(intent_of(&[1], 0), false, Record::default());
    state.link_up(7, at(0));
    hello(&mut state, None, 0);
    state.from_datapath(FromDatapath::Adopted, at(0));
    said(&mut state);
    let reason = || "eth0: no such device".to_owned();
    state.from_datapath(FromDatapath::ConfigurationRefused { reason: reason() }, at(10));
    assert_eq!(state.deadline(), Some(at(12)));
    state.timeout(at(12));
    assert_eq!(said(&mut state), ["configure 2"]);
    state.from_datapath(FromDatapath::ConfigurationRefused { reason: reason() }, at(12));
    state.request(3, Request::Status {}, HandshakeCounters::default(), at(12));
    let [answer] = &said(&mut state)[..] else { panic!() };
    assert!(answer.contains("eth0: no such device"), "{answer}");
    let mut mended = intent_of(&[1], 0);
    mended.configuration.workers = 1;
    apply(&mut state, mended, false, at(13));
    assert_eq!(said(&mut state), ["configure 1"]);
    state.from_datapath(FromDatapath::Configured, at(13));
    made(&mut state, at(13));
    state.from_datapath(FromDatapath::Confirmed { generation: 1 }, at(13));
    assert!(said(&mut state).contains(&"answer 5: applied 1".to_owned()));
}
