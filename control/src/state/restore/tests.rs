use super::*;
use crate::state::tests::{apply, at, hello, intent_of, made, plan, running, said};

/// What was confirmed last: two workers. Every text that is read is another intent.
fn before() -> Intent {
    intent_of(&[1, 2], 0)
}

/// What waits for its confirmation; only a datapath that is set up anew can have it.
fn one_worker() -> Intent {
    let mut intent = before();
    intent.configuration.workers = 1;
    intent
}

fn restore(state: &mut State, now: Time) -> bool {
    let plan = plan(state, before()).unwrap();
    state.restore(6, plan, 0, now)
}

fn workers(state: &State) -> u8 {
    state.intent.configuration.workers
}

/// A datapath that was just started connects.
fn connects(state: &mut State, now: Time) {
    state.link_up(8, now);
    hello(state, None, 0);
    state.from_datapath(FromDatapath::Adopted, now);
}

fn refuses(state: &mut State, now: Time) {
    let reason = "eth0: no such device".to_owned();
    state.from_datapath(FromDatapath::ConfigurationRefused { reason }, now);
}

/// Every worker judges by a table, the first that the datapath gets.
fn comes_up(state: &mut State, generation: u64, now: Time) -> Vec<String> {
    state.from_datapath(FromDatapath::Configured, now);
    let sent = made(state, now);
    assert!(sent.contains(&format!("table {generation}")), "{sent:?}");
    state.from_datapath(FromDatapath::Confirmed { generation }, now);
    said(state)
}

/// The apply has restarted the datapath, and generation 2 waits.
fn waits() -> State {
    let mut state = running(true);
    apply(&mut state, one_worker(), true, at(1));
    state.link_down(at(2));
    connects(&mut state, at(2));
    assert_eq!(said(&mut state), ["stop datapath", "hello", "configure 1"]);
    assert!(comes_up(&mut state, 2, at(2)).contains(&"answer 5: applied 2".to_owned()));
    state
}

#[test]
fn the_way_back_restarts_the_datapath_as_the_apply_did() {
    let mut state = waits();
    assert!(!restore(&mut state, at(10)));
    assert_eq!((said(&mut state), state.is_busy()), (vec!["stop datapath".to_owned()], true));
    state.link_down(at(11));
    assert_eq!(said(&mut state), [""; 0], "whoever asked waits on");
    connects(&mut state, at(11));
    assert_eq!(said(&mut state), ["hello", "configure 2"]);
    let end = comes_up(&mut state, 3, at(11));
    assert!(end.contains(&"record 3".to_owned()), "{end:?}");
    assert!(end.contains(&"answer 6: applied 3".to_owned()), "{end:?}");
    assert_eq!((workers(&state), state.is_busy(), state.deadline()), (2, false, None));
}

/// A network device has gone meanwhile: what waited is in force again, and the way back is open for
/// the next attempt.
#[test]
fn a_way_back_that_the_new_datapath_refuses_can_be_tried_again() {
    let mut state = waits();
    restore(&mut state, at(10));
    state.link_down(at(11));
    connects(&mut state, at(11));
    said(&mut state);
    refuses(&mut state, at(11));
    assert_eq!(said(&mut state), ["answer 6: Refused", "configure 1"]);
    assert!(state.is_setting_up(), "the next attempt waits for its end");
    assert!(comes_up(&mut state, 3, at(12)).contains(&"record 3".to_owned()));
    assert_eq!(workers(&state), 1);
    restore(&mut state, at(13));
    assert_eq!(said(&mut state), ["stop datapath"]);
}

#[test]
fn a_way_back_without_a_new_datapath_in_time_leads_to_the_next_one() {
    let mut state = waits();
    restore(&mut state, at(10));
    state.link_down(at(11));
    state.timeout(at(30));
    assert_eq!(said(&mut state), ["stop datapath", "answer 6: Timeout"]);
    assert!(restore(&mut state, at(32)), "nothing runs");
    assert_eq!((said(&mut state), workers(&state)), (vec!["outer".to_owned()], 2));
    connects(&mut state, at(60));
    assert_eq!(said(&mut state), ["hello", "configure 2"]);
    comes_up(&mut state, 3, at(60));
    assert_eq!(workers(&state), 2);
}

/// The datapath takes longer to set up what it was told than it has. Then it would come up as
/// something else than what is restored, and get a table that was made for other ports.
#[test]
fn a_datapath_that_is_not_set_up_in_time_is_not_taken_for_another() {
    for starts_datapath in [true, false] {
        let mut state = running(starts_datapath);
        state.link_down(at(1));
        connects(&mut state, at(1));
        refuses(&mut state, at(1));
        said(&mut state);
        apply(&mut state, one_worker(), false, at(2));
        assert_eq!(said(&mut state), ["configure 1"]);
        state.timeout(at(22));
        let end = said(&mut state);
        assert!(end.contains(&"answer 5: Timeout".to_owned()), "{end:?}");
        assert!(end.contains(&"disconnect".to_owned()), "{end:?}");
        assert_eq!(end[0] == "kill datapath", starts_datapath, "{end:?}");
        state.from_datapath(FromDatapath::Configured, at(23));
        assert_eq!((said(&mut state), workers(&state)), (vec![], 2), "nobody hears it any more");
    }
}

/// The table of a datapath that came up at the last moment is under way when the time is up: what it
/// is told last is what it does, and what the operator is told.
#[test]
fn a_datapath_that_comes_up_at_the_last_moment_is_either_in_time_or_not() {
    let mut state = waits();
    restore(&mut state, at(10));
    state.link_down(at(11));
    connects(&mut state, at(11));
    state.from_datapath(FromDatapath::Configured, at(29));
    made(&mut state, at(29));
    state.timeout(at(30));
    assert_eq!(
        (said(&mut state), state.deadline()),
        (vec![], Some(at(34))),
        "the table's own time"
    );
    state.from_datapath(FromDatapath::Confirmed { generation: 3 }, at(31));
    assert!(said(&mut state).contains(&"answer 6: applied 3".to_owned()));
    assert_eq!(workers(&state), 2);

    let mut state = waits();
    restore(&mut state, at(10));
    state.link_down(at(11));
    connects(&mut state, at(11));
    state.from_datapath(FromDatapath::Configured, at(29));
    made(&mut state, at(29));
    state.timeout(at(34));
    assert_eq!(said(&mut state), ["answer 6: Timeout", "kill datapath", "disconnect"]);
    assert_eq!((workers(&state), state.is_busy()), (1, false), "tried again");
}

/// A table for facts is on its way when the datapath is told to end, and is confirmed before it does.
#[test]
fn a_table_for_facts_does_not_end_the_wait_for_a_new_datapath() {
    let mut state = running(true);
    let plan = state.plan_generation(&Arc::clone(&state.intent), 2);
    state.compiled(state.epoch, plan, at(1));
    assert_eq!(said(&mut state), ["table 2"]);
    apply(&mut state, one_worker(), true, at(1));
    assert_eq!(said(&mut state), ["stop datapath"]);
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    state.link_down(at(2));
    connects(&mut state, at(2));
    assert_eq!(said(&mut state), ["hello", "configure 1"]);
    assert!(comes_up(&mut state, 3, at(2)).contains(&"answer 5: applied 3".to_owned()));
}

/// One configuration at a time: of two the datapath takes the first, and its answer to that would be
/// taken for one to the second.
#[test]
fn nothing_is_put_in_force_while_a_datapath_is_being_set_up() {
    for back in [false, true] {
        let mut state = State::new(one_worker(), true, Record::default());
        connects(&mut state, at(0));
        said(&mut state);
        if back {
            assert!(!restore(&mut state, at(1)));
            assert_eq!(said(&mut state), ["answer 6: Busy"]);
        } else {
            apply(&mut state, before(), false, at(1));
            assert_eq!(said(&mut state), ["answer 5: Busy"]);
        }
        assert_eq!((workers(&state), state.is_busy()), (1, false), "as before");
        comes_up(&mut state, 1, at(2));
        restore(&mut state, at(3));
        assert_eq!(said(&mut state), ["stop datapath"], "the next attempt");
    }
}

/// The datapath refuses what waits, since a network device has gone; the way back leads to what it
/// takes.
#[test]
fn the_way_back_mends_a_configuration_that_was_refused() {
    for starts_datapath in [true, false] {
        let mut state = State::new(one_worker(), starts_datapath, Record::default());
        connects(&mut state, at(0));
        refuses(&mut state, at(0));
        said(&mut state);
        assert!(!restore(&mut state, at(1)));
        assert_eq!(said(&mut state), ["configure 2"], "nothing runs that would have to end first");
        let end = comes_up(&mut state, 1, at(1));
        assert!(end.contains(&"answer 6: applied 1".to_owned()), "{end:?}");
        assert_eq!((workers(&state), state.deadline()), (2, None));
    }
    // That one is refused too: both are tried again, in turn.
    let mut state = State::new(one_worker(), false, Record::default());
    connects(&mut state, at(0));
    refuses(&mut state, at(0));
    restore(&mut state, at(1));
    said(&mut state);
    refuses(&mut state, at(1));
    assert_eq!(said(&mut state), ["answer 6: Refused", "configure 1"]);
    refuses(&mut state, at(1));
    assert_eq!((workers(&state), state.deadline()), (1, Some(at(3))));
    restore(&mut state, at(2));
    assert_eq!(said(&mut state), ["configure 2"]);
}

/// A datapath hangs before its first word, or over its configuration. What waits is in force for as
/// long as that is waited for, so it has an end, and everybody is told.
#[test]
fn a_datapath_that_hangs_before_it_is_set_up_is_given_up_for_the_next_one() {
    for (starts_datapath, greets) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut state = State::new(one_worker(), starts_datapath, Record::default());
        if greets {
            connects(&mut state, at(5));
        } else {
            state.link_up(8, at(5));
        }
        said(&mut state);
        assert_eq!(state.deadline(), Some(at(25)));
        state.timeout(at(24));
        assert_eq!((said(&mut state), state.is_setting_up()), (vec![], true));
        state.timeout(at(25));
        let end = ["kill datapath", "disconnect"];
        let end = if starts_datapath { &end[..] } else { &end[1..] };
        assert_eq!(said(&mut state), end);
        assert_eq!(state.deadline(), None);

        state.request(7, Request::Status {}, HandshakeCounters::default(), at(26));
        let status = said(&mut state).remove(0);
        let what = if greets { "did not set itself up" } else { "did not say what it runs" };
        let told = format!("the datapath (process 8) {what} within 20 s");
        assert!(status.contains(&told), "{status}");
        assert!(restore(&mut state, at(26)), "the way back is open");
        connects(&mut state, at(27));
        assert!(state.alarm.is_some(), "it may hang again");
        assert!(said(&mut state).contains(&"configure 2".to_owned()));
        comes_up(&mut state, 1, at(27));
        assert_eq!((state.alarm.as_ref(), workers(&state)), (None, 2));
    }
}

/// Greeting and set-up have their time each, also one that is told another configuration.
#[test]
fn a_datapath_that_gets_on_is_not_given_up() {
    let mut state = State::new(one_worker(), true, Record::default());
    state.link_up(8, at(0));
    hello(&mut state, None, 0);
    state.from_datapath(FromDatapath::Adopted, at(19));
    assert_eq!(state.deadline(), Some(at(39)));
    refuses(&mut state, at(38));
    assert_eq!(state.deadline(), Some(at(40)), "it is tried again");
    state.timeout(at(40));
    assert_eq!(state.deadline(), Some(at(60)));
    comes_up(&mut state, 1, at(59));
    assert_eq!(state.deadline(), None);
}
