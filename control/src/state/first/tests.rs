use super::*;
use crate::aligned::tests::config;
use crate::mirror::OwnAddresses;
use crate::state::context::tests::{ask, change, said};
use crate::state::tests::{adopt, apply, at, hello, intent_of, made, ordered, plan, running};
use jiff::Timestamp;

fn with_conditions() -> Intent {
    Intent::new(config(), OwnAddresses::default())
}

/// Before the first greeting, with anna managed.
fn anna_is_managed() -> State {
    let mut state = State::new(with_conditions(), false, Record::default());
    state.calendar(Timestamp::UNIX_EPOCH, at(0));
    let trouble = ["answer 1: facts 1, 1 trouble"];
    assert_eq!(ask(&mut state, 1, change("anna", true), at(0)), trouble, "no datapath");
    state
}

/// A datapath comes and is set up.
fn comes(state: &mut State) {
    state.link_up(7, at(0));
    hello(state, None, 0);
    state.from_datapath(FromDatapath::Adopted, at(0));
    state.from_datapath(FromDatapath::Configured, at(0));
}

fn is_made(state: &mut State, job: Job, now: Time) {
    state.compiled(job.epoch(), job.compile(), now);
}

fn confirmed(state: &mut State, generation: u64, now: Time) -> Vec<String> {
    state.from_datapath(FromDatapath::Confirmed { generation }, now);
    said(state)
}

fn relabelled(state: &mut State, sent: &str) -> Vec<String> {
    let number = sent.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty());
    let token = number.unwrap().parse().unwrap();
    state.from_datapath(FromDatapath::Relabelled { token }, at(2));
    said(state)
}

#[test]
fn what_is_lost_while_it_is_made_is_taken_away_directly_behind_it_and_acknowledged_then() {
    let mut state = anna_is_managed();
    comes(&mut state);
    let (_, job) = ordered(&mut state);
    assert_eq!(ask(&mut state, 2, change("anna", false), at(1)), [""; 0], "nothing is in force");
    is_made(&mut state, job, at(2));
    let sent = said(&mut state);
    assert_eq!((sent.len(), &*sent[0]), (2, "table 1"), "{sent:?}");
    assert!(sent[1].contains("Relabel") && sent[1].contains("generation: 1"), "{sent:?}");
    assert_eq!(confirmed(&mut state, 1, at(2)), [""; 0], "the labels are not");
    assert_eq!(relabelled(&mut state, &sent[1]), ["answer 2: facts 1"]);
}

#[test]
fn what_is_given_while_it_is_made_does_not_hold_it_up_and_is_answered_with_the_next() {
    let mut state = anna_is_managed();
    comes(&mut state);
    let (_, job) = ordered(&mut state);
    assert_eq!(ask(&mut state, 2, change("bert", true), at(1)), [""; 0]);
    let mut nothing = change("zoe", true);
    if let Request::ContextSet { changes, .. } = &mut nothing {
        changes[0].set = BTreeMap::from([("disk_encrypted".to_owned(), true.into())]);
    }
    assert_eq!(ask(&mut state, 3, nothing, at(1)), [""; 0], "nothing is in force");
    is_made(&mut state, job, at(2));
    assert_eq!(said(&mut state), ["table 1"]);
    confirmed(&mut state, 1, at(2));
    state.follow();
    assert_eq!(made(&mut state, at(2)), ["compile", "table 2"]);
    assert_eq!(confirmed(&mut state, 2, at(2)), ["answer 2: facts 1", "answer 3: facts 1"]);
}

/// The window of a rule closes while the table is made, and nothing else is known.
#[test]
fn the_time_that_passes_while_it_is_made_is_told_directly_behind_it() {
    let minutes = |minutes| Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_mins(minutes);
    let mut state = anna_is_managed();
    state.calendar(minutes(12), at(720));
    comes(&mut state);
    let (_, job) = ordered(&mut state);
    state.calendar(minutes(21), at(1_260));
    is_made(&mut state, job, at(1_260));
    let sent = said(&mut state);
    assert_eq!((sent.len(), &*sent[0]), (2, "table 1"), "{sent:?}");
    assert!(sent[1].contains("Relabel"), "{sent:?}");
}

/// Indices of peers are those of a datapath, and a table of another never reaches it. One at a time is
/// made, however often datapaths die.
#[test]
fn what_was_made_for_a_datapath_that_has_gone_is_made_again_for_the_next() {
    let mut state = anna_is_managed();
    comes(&mut state);
    let (_, first) = ordered(&mut state);
    let lost = ask(&mut state, 2, change("anna", false), at(1));
    assert_eq!(lost, [""; 0]);
    state.link_down(at(1));
    assert_eq!(said(&mut state), ["answer 2: facts 1, 1 trouble"]);
    assert!(!state.is_busy());
    comes(&mut state);
    let sent = made(&mut state, at(1));
    assert!(!sent.contains(&"compile".to_owned()), "one at a time: {sent:?}");
    assert_eq!(sent.iter().filter(|one| one.starts_with("peer")).count(), 3, "{sent:?}");
    is_made(&mut state, first, at(2));
    let (before, second) = ordered(&mut state);
    assert_eq!(before, [""; 0]);
    is_made(&mut state, second, at(3));
    assert_eq!(said(&mut state), ["table 2"], "and no labels after it");
    assert_eq!(state.deadline(), Some(at(8)));

    // A table for facts is being made when the datapath goes.
    confirmed(&mut state, 2, at(3));
    ask(&mut state, 3, change("bert", true), at(3));
    state.follow();
    let (_, facts) = ordered(&mut state);
    state.link_down(at(4));
    comes(&mut state);
    made(&mut state, at(4));
    is_made(&mut state, facts, at(5));
    let (_, third) = ordered(&mut state);
    is_made(&mut state, third, at(5));
    assert_eq!(said(&mut state), ["table 3"]);
    confirmed(&mut state, 3, at(5));
    state.follow();
    assert_eq!(said(&mut state), [""; 0], "nobody lacks anything");
}

/// Goal: no index stands for two keys. Method: an apply was read and compiled before the peers of the
/// first table were announced, and another after; the table comes to nothing.
#[test]
fn an_apply_that_was_compiled_before_its_peers_were_announced_is_outdated() {
    let index = |plan: &Plan, device| plan.peers[&PublicKey([device; 32])].index;
    let mut state = State::new(intent_of(&[1, 2], 0), false, Record::default());
    state.link_up(7, at(0));
    hello(&mut state, None, 0);
    state.from_datapath(FromDatapath::Adopted, at(0));
    let before = plan(&state, intent_of(&[1, 3], 1)).unwrap();
    state.from_datapath(FromDatapath::Configured, at(0));
    let (sent, job) = ordered(&mut state);
    assert!(sent.contains(&"peer 2@1".to_owned()), "{sent:?}");
    let after = plan(&state, intent_of(&[1, 3], 1)).unwrap();
    assert_eq!((index(&before, 3), index(&after, 3)), (1, 2));
    state.compiled(job.epoch(), Err(Refusal::new(RefusalKind::Invalid, "a test")), at(0));
    assert!(matches!(state.checked(before, 0).unwrap(), Checked::Outdated(_)));
    assert!(matches!(state.checked(after, 0).unwrap(), Checked::Current(_)));
}

#[test]
fn while_it_is_made_nothing_else_is_put_in_force_and_no_time_is_up() {
    // For an operator who waits for a restart.
    let mut state = running(true);
    let mut one_worker = intent_of(&[1, 2], 0);
    one_worker.configuration.workers = 1;
    apply(&mut state, one_worker, true, at(1));
    state.link_down(at(2));
    state.link_up(8, at(2));
    hello(&mut state, None, 0);
    state.from_datapath(FromDatapath::Adopted, at(2));
    state.from_datapath(FromDatapath::Configured, at(20));
    let (_, job) = ordered(&mut state);
    assert_eq!((state.is_busy(), state.deadline()), (true, None));
    state.timeout(at(60));
    let other = plan(&state, intent_of(&[1], 1)).unwrap();
    state.apply(9, other, 0, false, at(60));
    assert_eq!(said(&mut state), ["answer 9: Busy"]);
    is_made(&mut state, job, at(61));
    assert_eq!(said(&mut state), ["table 2"]);
    assert_eq!(confirmed(&mut state, 2, at(61)), ["answer 5: applied 2"]);
}

#[test]
fn addresses_that_change_while_it_is_made_stay_changed() {
    let own = OwnAddresses {
        ports: BTreeMap::from([(0, vec!["192.0.2.7".parse().unwrap()])]),
        missing: vec![],
    };
    let mut state = State::new(intent_of(&[1, 2], 0), false, Record::default());
    comes(&mut state);
    let (_, job) = ordered(&mut state);
    state.own_addresses(&own);
    is_made(&mut state, job, at(1));
    assert_eq!(said(&mut state), ["table 1"]);
    confirmed(&mut state, 1, at(1));
    assert_eq!(state.intent.configuration.addresses, own.all());
}

/// What a datapath judges by that is taken over, if this is the table of the last process.
fn ours() -> (State, Intent) {
    let intent = intent_of(&[1, 2], 0);
    let state = State::new(intent.clone(), false, Record::default());
    let digest = state.plan_generation(&Arc::new(intent.clone()), 4).unwrap().blob.digest;
    let record = Record { generation: 4, digest, pid: 7 };
    (State::new(intent.clone(), false, record), intent)
}

#[test]
fn what_is_said_about_devices_after_a_take_over_needs_no_table() {
    let (mut state, intent) = ours();
    adopt(&mut state, intent.configuration, &[1, 2], 4);
    let (_, job) = ordered(&mut state);
    assert!(state.is_busy(), "it may have to be replaced");
    is_made(&mut state, job, at(1));
    assert_eq!(said(&mut state), [""; 0], "it is kept");
    assert!(!state.is_busy() && state.context.aligned.is_some());
}

#[test]
fn a_table_that_is_not_ours_is_replaced_by_one_that_is_made_beside_the_loop_as_well() {
    let (mut state, intent) = ours();
    state.record.digest = [0; 16];
    adopt(&mut state, intent.configuration, &[1, 2], 4);
    let (_, compared) = ordered(&mut state);
    is_made(&mut state, compared, at(1));
    let (_, brought) = ordered(&mut state);
    assert!(state.is_busy());
    is_made(&mut state, brought, at(2));
    assert_eq!(said(&mut state), ["table 5"]);
}

#[test]
fn if_it_cannot_be_made_or_is_refused_whoever_waits_is_told() {
    let mut state = anna_is_managed();
    comes(&mut state);
    let (_, job) = ordered(&mut state);
    ask(&mut state, 2, change("anna", false), at(1));
    let refusal = Refusal::new(RefusalKind::Invalid, "too large");
    state.compiled(job.epoch(), Err(refusal), at(2));
    assert_eq!(said(&mut state), ["answer 2: facts 1, 1 trouble"]);
    assert_eq!((state.is_busy(), state.alarm.as_deref()), (false, Some("too large")));
    let trouble = ["answer 3: facts 1, 1 trouble"];
    assert_eq!(ask(&mut state, 3, change("anna", true), at(2)), trouble);

    let mut state = anna_is_managed();
    comes(&mut state);
    let (_, job) = ordered(&mut state);
    ask(&mut state, 2, change("anna", false), at(1));
    is_made(&mut state, job, at(2));
    said(&mut state);
    let reason = "a test".to_owned();
    state.from_datapath(FromDatapath::TableRefused { generation: 1, reason }, at(2));
    assert_eq!(said(&mut state), ["answer 2: facts 1, 1 trouble"]);
}
