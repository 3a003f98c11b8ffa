use super::*;
use crate::state::tests::{adopt, apply, at, hello, intent_of, made, plan, running, said};

fn one_worker() -> Intent {
    let mut intent = intent_of(&[1, 3], 1);
    intent.configuration.workers = 1;
    intent
}

/// The next datapath greets.
fn connects(state: &mut State, configuration: Option<Configuration>, now: Time) {
    state.link_up(8, now);
    hello(state, configuration, 0);
    state.from_datapath(FromDatapath::Adopted, now);
}

/// An apply has restarted the datapath, which is set up for `intent` and has no table yet.
fn set_up_for(intent: Intent) -> State {
    let mut state = running(true);
    apply(&mut state, intent, true, at(1));
    state.link_down(at(2));
    connects(&mut state, None, at(2));
    state.from_datapath(FromDatapath::Configured, at(2));
    state
}

fn table_refused(state: &mut State, generation: u64, now: Time) {
    let reason = "defect".to_owned();
    state.from_datapath(FromDatapath::TableRefused { generation, reason }, now);
}

/// What was in force before the apply is in the datapath that comes next.
fn next_is_as_before(state: &mut State) {
    state.link_down(at(10));
    said(state);
    assert!(!state.is_busy());
    connects(state, None, at(10));
    assert_eq!(said(state), ["hello", "configure 2"]);
    state.from_datapath(FromDatapath::Configured, at(10));
    let sent = made(state, at(10));
    let table = sent.iter().find(|one| one.starts_with("table ")).expect("a table");
    let generation = table["table ".len()..].parse().unwrap();
    state.from_datapath(FromDatapath::Confirmed { generation }, at(10));
    assert!(said(state).contains(&format!("record {generation}")));
    assert_eq!((state.intent.configuration.workers, state.generation()), (2, generation));
    assert_eq!((state.is_busy(), state.deadline(), &state.alarm), (false, None, &None));
}

fn status(state: &mut State, now: Time) -> String {
    state.request(7, Request::Status {}, HandshakeCounters::default(), now);
    state.timeout(now.plus(QUESTION_TIMEOUT));
    said(state).pop().unwrap()
}

#[test]
fn a_datapath_that_refuses_the_first_table_of_a_trial_does_not_keep_its_set_up() {
    let mut state = set_up_for(one_worker());
    made(&mut state, at(2));
    table_refused(&mut state, 2, at(2));
    let end = said(&mut state);
    assert!(end.contains(&"answer 5: Refused".to_owned()), "{end:?}");
    assert_eq!(end.last().map(String::as_str), Some("stop datapath"), "{end:?}");
    assert_eq!(state.intent.configuration.workers, 2);
    next_is_as_before(&mut state);
}

#[test]
fn a_datapath_that_does_not_confirm_the_first_table_of_a_trial_is_killed() {
    let mut state = set_up_for(one_worker());
    made(&mut state, at(2));
    state.timeout(at(7));
    assert_eq!(said(&mut state), ["answer 5: Timeout", "kill datapath", "disconnect"]);
    next_is_as_before(&mut state);
}

#[test]
fn a_trial_whose_first_table_cannot_be_made_ends_at_once() {
    let mut state = set_up_for(one_worker());
    said(&mut state);
    let refusal = Refusal::new(RefusalKind::Invalid, "too large");
    state.compiled(state.epoch, Err(refusal), at(3));
    assert_eq!(said(&mut state), ["answer 5: Invalid", "stop datapath"]);
    next_is_as_before(&mut state);
}

/// Only the rules are others: the one that is set up can have those before.
#[test]
fn a_trial_with_the_same_set_up_gives_way_to_the_table_before() {
    let mut state = set_up_for(intent_of(&[1, 3], 1));
    made(&mut state, at(2));
    table_refused(&mut state, 2, at(2));
    let sent = made(&mut state, at(2));
    assert!(sent.contains(&"answer 5: Refused".to_owned()), "{sent:?}");
    assert!(sent.contains(&"table 3".to_owned()), "{sent:?}");
    state.from_datapath(FromDatapath::Confirmed { generation: 3 }, at(3));
    let end = said(&mut state);
    assert!(end.contains(&"remove @1".to_owned()), "of device 3: {end:?}");
    assert_eq!((state.intent.devices.len(), state.is_busy(), &state.alarm), (2, false, &None));
    // That one is refused as well: there is nothing left to go back to.
    let mut state = set_up_for(intent_of(&[1, 3], 1));
    made(&mut state, at(2));
    table_refused(&mut state, 2, at(2));
    made(&mut state, at(2));
    table_refused(&mut state, 3, at(2));
    assert_eq!((made(&mut state, at(2)), state.is_busy()), (vec![], false));
}

/// A new `bulkheadd` begins with what was confirmed last, and finds a datapath that an apply without
/// confirmation has set up.
#[test]
fn a_datapath_with_another_set_up_than_what_stands_is_restarted() {
    let mut state = State::new(intent_of(&[1, 2], 0), true, Record::default());
    said(&mut state);
    adopt(&mut state, one_worker().configuration, &[1, 3], 43);
    let sent = made(&mut state, at(0));
    assert_eq!(sent.last().map(String::as_str), Some("stop datapath"), "{sent:?}");
    assert!(state.is_busy(), "a table now would be for another datapath");
    assert_eq!(state.deadline(), Some(at(5)));
    next_is_as_before(&mut state);
}

#[test]
fn one_that_does_not_end_then_is_killed() {
    let mut state = State::new(intent_of(&[1, 2], 0), true, Record::default());
    adopt(&mut state, one_worker().configuration, &[1, 3], 43);
    said(&mut state);
    let told = status(&mut state, at(1));
    assert!(told.contains("(process 7) was told to end"), "{told}");
    state.timeout(at(4));
    assert_eq!(said(&mut state), [""; 0]);
    state.timeout(at(5));
    assert_eq!(said(&mut state), ["kill datapath"]);
    next_is_as_before(&mut state);
}

/// The link of one that was told to end breaks before it has.
#[test]
fn one_that_comes_back_instead_of_ending_is_told_again() {
    let mut state = running(true);
    let before = state.intent.configuration.clone();
    apply(&mut state, one_worker(), true, at(1));
    state.link_down(at(2));
    said(&mut state);
    adopt(&mut state, before, &[1, 2], 1);
    let sent = made(&mut state, at(2));
    assert_eq!(sent.last().map(String::as_str), Some("stop datapath"), "{sent:?}");
    state.link_down(at(3));
    assert_eq!(said(&mut state), [""; 0], "the operator waits on");
    connects(&mut state, None, at(3));
    assert_eq!(said(&mut state), ["hello", "configure 1"]);
}

/// Another process owns the datapath.
#[test]
fn where_it_cannot_be_restarted_the_operator_is_told_what_judges_and_what_to_do() {
    for (generation, judges) in [
        (43, "judges by generation 43, made for another configuration"),
        (0, "lets nothing pass: it has no table"),
    ] {
        let mut state = State::new(intent_of(&[1, 2], 0), false, Record::default());
        adopt(&mut state, one_worker().configuration, &[1, 3], generation);
        let sent = made(&mut state, at(0));
        assert!(!sent.iter().any(|one| one.contains("datapath") || one.contains("table")));
        assert!(!state.is_busy());
        let told = status(&mut state, at(1));
        assert!(told.contains(judges), "{told}");
        assert!(told.contains("(process 7)"), "{told}");
        assert!(told.contains("systemctl restart bulkhead-datapath"), "{told}");
        assert!(told.contains("gateway.workers: the datapath runs 1, the file says 2"), "{told}");
    }
}

/// What the datapath runs is known when its greeting is complete.
#[test]
fn a_way_back_waits_for_the_end_of_a_greeting() {
    let mut state = State::new(one_worker(), true, Record::default());
    state.link_up(8, at(0));
    let back = plan(&state, intent_of(&[1, 2], 0)).unwrap();
    said(&mut state);
    assert!(!state.restore(6, back, 0, at(0)), "not yet");
    assert_eq!(said(&mut state), ["answer 6: Busy"]);
    assert_eq!(state.intent.configuration.workers, 1);
}
