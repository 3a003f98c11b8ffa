use super::*;
use crate::aligned::tests::config;
use crate::knowledge::Drawers;
use crate::mirror::OwnAddresses;
use crate::state::apply::OUTDATED_MAX;
use crate::state::tests::{at, hello, made, ordered, said as asked};

pub(in crate::state) fn change(device: &str, managed: bool) -> Request {
    let set = BTreeMap::from([("managed".to_owned(), managed.into())]);
    let change = FactChange { device: device.to_owned(), set, ttl: None, source: None };
    Request::ContextSet { changes: vec![change], written: false, only_check: false }
}

pub(in crate::state) fn ask(
    state: &mut State,
    id: RequestId,
    request: Request,
    now: Time,
) -> Vec<String> {
    state.request(id, request, HandshakeCounters::default(), now);
    if state.to_keep().is_some() {
        state.kept(Ok(()));
    }
    said(state)
}

/// What is asked for, without what is about peers and addresses.
pub(in crate::state) fn said(state: &mut State) -> Vec<String> {
    let mut all = asked(state);
    all.retain(|one| {
        !["outer", "watch", "thread", "peer", "record"].iter().any(|kind| one.starts_with(kind))
    });
    all
}

fn running() -> State {
    let intent = Intent::new(config(), OwnAddresses::default());
    let mut state = State::new(intent, false, Record::default());
    state.calendar(Timestamp::UNIX_EPOCH, at(0));
    state.link_up(7, at(0));
    hello(&mut state, None, 0);
    state.from_datapath(FromDatapath::Adopted, at(0));
    state.from_datapath(FromDatapath::Configured, at(0));
    made(&mut state, at(0));
    state.from_datapath(FromDatapath::Confirmed { generation: 1 }, at(0));
    said(&mut state);
    state
}

/// The job that is ordered next.
fn job(state: &mut State) -> Job {
    state.follow();
    ordered(state).1
}

fn is_made(state: &mut State, plan: Plan, now: Time) {
    state.compiled(plan.epoch, Ok(plan), now);
}

#[test]
fn what_is_given_is_answered_when_its_table_is_in_force_and_what_is_taken_does_not_wait_for_it() {
    let mut state = running();
    assert_eq!(ask(&mut state, 1, change("anna", true), at(1)), [""; 0]);
    let first = job(&mut state);
    state.follow();
    assert_eq!(said(&mut state), [""; 0], "one at a time");
    let plan = first.compile().unwrap();
    // It is taken away again, and bert is given something, before the table is sent.
    let answer = ["answer 2: facts 1"];
    assert_eq!(ask(&mut state, 2, change("anna", false), at(1)), answer, "no label has it");
    assert_eq!(ask(&mut state, 3, change("bert", true), at(1)), [""; 0]);
    is_made(&mut state, plan, at(2));
    assert_eq!(said(&mut state), [""; 0], "with it anna would have it again");
    let plan = job(&mut state).compile().unwrap();
    is_made(&mut state, plan, at(2));
    assert_eq!(said(&mut state), ["table 2"]);
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(2));
    assert_eq!(said(&mut state), ["answer 1: facts 1", "answer 3: facts 1"]);
    state.follow();
    assert_eq!(said(&mut state), [""; 0], "nobody lacks anything");
}

#[test]
fn facts_that_change_faster_than_tables_are_made_hold_up_a_table_four_times_at_most() {
    let mut state = running();
    ask(&mut state, 1, change("bert", true), at(1));
    let mut made = 0;
    while !said(&mut state).contains(&"table 2".to_owned()) {
        // Something that the table in the making has and that is taken away before it is made.
        ask(&mut state, 2 + made, change("anna", true), at(1));
        let plan = job(&mut state).compile().unwrap();
        ask(&mut state, 2 + made, change("anna", false), at(1));
        is_made(&mut state, plan, at(1));
        made += 1;
    }
    assert_eq!(made, 4);
}

#[test]
fn a_table_that_was_overtaken_is_made_again() {
    let mut state = running();
    ask(&mut state, 1, change("anna", true), at(1));
    let plan = job(&mut state).compile().unwrap();
    let intent = Intent::new(config(), OwnAddresses::default());
    let apply = crate::state::tests::plan(&state, intent).unwrap();
    state.apply(5, apply, 0, false, at(1));
    assert_eq!(said(&mut state), ["table 2"]);
    is_made(&mut state, plan, at(1));
    assert_eq!(said(&mut state), [""; 0], "it is older than the one that is under way");
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    assert!(said(&mut state).contains(&"answer 5: applied 2".to_owned()));
    let plan = job(&mut state).compile().unwrap();
    is_made(&mut state, plan, at(1));
    assert_eq!(said(&mut state), ["table 3"]);
    state.from_datapath(FromDatapath::Confirmed { generation: 3 }, at(1));
    assert!(!state.is_busy());
}

/// A device has what it was given, under generation 2, and this is the job of an apply.
fn given(device: &str) -> (State, Job) {
    let mut state = running();
    ask(&mut state, 1, change(device, true), at(1));
    let plan = job(&mut state).compile().unwrap();
    is_made(&mut state, plan, at(1));
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    said(&mut state);
    let intent = Arc::new(Intent::new(config(), OwnAddresses::default()));
    let job = state.job_for(&intent).unwrap();
    (state, job)
}

fn outdated(state: &State, job: Job, in_vain: u32) -> Result<Job, Box<Plan>> {
    match state.checked(job.compile().unwrap(), in_vain).unwrap() {
        Checked::Outdated(job) => Ok(*job),
        Checked::Current(plan) => Err(plan),
    }
}

/// Goal: nobody waits for the compiler who takes something away, and the table that it makes does not
/// give it back.
#[test]
fn what_is_taken_away_while_a_change_is_compiled_is_acknowledged_before_the_change() {
    let (mut state, job) = given("anna");
    let sent = ask(&mut state, 2, change("anna", false), at(2));
    assert!(sent.len() == 1 && sent[0].contains("Relabel"), "{sent:?}");
    let token = *state.context.relabels.keys().next().unwrap();
    state.from_datapath(FromDatapath::Relabelled { token }, at(2));
    assert_eq!(said(&mut state), ["answer 2: facts 1"]);
    let job = outdated(&state, job, 0).expect("with it anna would have it again");
    let plan = outdated(&state, job, 1).expect_err("nothing happened meanwhile");
    state.apply(5, *plan, 0, false, at(3));
    assert_eq!(said(&mut state), ["table 3"], "and no labels after it");
    state.from_datapath(FromDatapath::Confirmed { generation: 3 }, at(3));
    assert_eq!(said(&mut state), ["answer 5: applied 3"]);
    state.follow();
    assert_eq!(said(&mut state), [""; 0], "nobody lacks anything");
}

#[test]
fn what_is_given_while_a_change_is_compiled_comes_with_it_and_what_is_nothing_to_it_is_no_reason() {
    let (mut state, job) = given("anna");
    let mut nothing = change("bert", true);
    if let Request::ContextSet { changes, .. } = &mut nothing {
        changes[0].set = BTreeMap::from([("disk_encrypted".to_owned(), true.into())]);
    }
    assert_eq!(ask(&mut state, 2, nothing, at(2)), ["answer 2: facts 1"]);
    let plan = outdated(&state, job, 0).expect_err("no rule asks for it");
    ask(&mut state, 3, change("bert", true), at(2));
    let job = state.job_for(plan.intent()).unwrap();
    let plan = outdated(&state, job, 0).expect_err("it was known before");
    state.apply(5, *plan, 0, false, at(3));
    assert_eq!(said(&mut state), ["table 3"]);
    state.from_datapath(FromDatapath::Confirmed { generation: 3 }, at(3));
    assert_eq!(said(&mut state), ["answer 3: facts 1", "answer 5: applied 3"]);
}

#[test]
fn facts_that_change_faster_than_a_change_is_compiled_hold_it_up_three_times_at_most() {
    let (mut state, mut job) = given("anna");
    let mut in_vain = 0;
    let plan = loop {
        ask(&mut state, 10, change("anna", in_vain % 2 == 1), at(2));
        match outdated(&state, job, in_vain) {
            Ok(again) => (job, in_vain) = (again, in_vain + 1),
            Err(plan) => break plan,
        }
    };
    assert_eq!(in_vain, OUTDATED_MAX);
    said(&mut state);
    state.apply(5, *plan, 0, false, at(3));
    assert_eq!(said(&mut state), ["table 3"], "made of what is known, so no labels after it");
}

/// Indices of peers are those of a datapath, and numbers of tables rise.
#[test]
fn a_change_that_was_compiled_for_another_datapath_or_before_another_table_is_compiled_again() {
    let (mut state, job) = given("anna");
    state.link_down(at(2));
    state.link_up(8, at(0));
    let job = outdated(&state, job, 0).expect("that datapath has gone");
    hello(&mut state, None, 0);
    state.from_datapath(FromDatapath::Adopted, at(2));
    state.from_datapath(FromDatapath::Configured, at(2));
    made(&mut state, at(2));
    let job = outdated(&state, job, 0).expect("it was of none, and there is a table 3");
    state.from_datapath(FromDatapath::Confirmed { generation: 3 }, at(2));
    let plan = outdated(&state, job, 0).expect_err("nothing is new");
    let job = state.job_for(plan.intent()).unwrap();
    // A table for facts was being made already.
    let facts = state.plan_generation(&Arc::clone(&state.intent), 4);
    is_made(&mut state, facts.unwrap(), at(2));
    let job = outdated(&state, job, 0).expect("there is a table 4");
    let plan = outdated(&state, job, 0).expect_err("nothing is new");
    said(&mut state);
    state.apply(5, *plan, 0, false, at(3));
    assert_eq!(said(&mut state), ["table 5"]);
}

#[test]
fn labels_that_are_not_confirmed_in_time_end_the_connection_and_are_said_not_to_be_in_force() {
    let mut state = running();
    ask(&mut state, 1, change("anna", true), at(1));
    let plan = job(&mut state).compile().unwrap();
    is_made(&mut state, plan, at(1));
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    said(&mut state);
    let sent = ask(&mut state, 2, change("anna", false), at(10));
    assert!(sent.len() == 1 && sent[0].contains("Relabel"), "{sent:?}");
    assert_eq!(state.deadline(), Some(at(15)));
    state.timeout(at(14));
    assert_eq!(said(&mut state), [""; 0]);
    state.timeout(at(15));
    assert_eq!(said(&mut state), ["disconnect", "answer 2: facts 1, 1 trouble"]);
}

#[test]
fn labels_that_are_refused_are_made_right_by_a_new_table() {
    let mut state = running();
    ask(&mut state, 1, change("anna", true), at(1));
    let plan = job(&mut state).compile().unwrap();
    is_made(&mut state, plan, at(1));
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    said(&mut state);
    ask(&mut state, 2, change("anna", false), at(2));
    let token = *state.context.relabels.keys().next().unwrap();
    let reason = "a test".to_owned();
    state.from_datapath(FromDatapath::RelabelRefused { token, reason }, at(2));
    assert_eq!(said(&mut state), [""; 0]);
    let plan = job(&mut state).compile().unwrap();
    is_made(&mut state, plan, at(2));
    assert_eq!(said(&mut state), ["table 3"]);
    state.from_datapath(FromDatapath::Confirmed { generation: 3 }, at(2));
    assert!(said(&mut state).contains(&"answer 2: facts 1".to_owned()));
}

/// Times to live end when they would have ended, and a window that opens again is open again.
#[test]
fn a_clock_that_is_set_back_is_noticed_and_takes_the_facts_with_it() {
    let mut state = running();
    let day = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
    state.calendar(day(100_000), at(1));
    let mut request = change("anna", true);
    if let Request::ContextSet { changes, .. } = &mut request {
        changes[0].ttl = Some("1h".to_owned());
    }
    ask(&mut state, 1, request, at(1));
    let until = |state: &State| {
        let shown = state.show(Some("anna")).unwrap();
        shown.devices[0].facts[0].until.unwrap()
    };
    assert_eq!(until(&state), day(103_600));
    state.calendar(day(100_600), at(601));
    assert!(state.to_keep().is_none() && until(&state) == day(103_600), "it only went on");
    state.calendar(day(50_010), at(611));
    assert_eq!(until(&state), day(50_010 + 3_600 - 610));
    assert!(state.to_keep().is_some(), "and that is kept");
}

/// Asked while the disk is at work; anna and zoe have what they lose here. Returns the token of the
/// message to the datapath.
fn loses(state: &mut State, id: RequestId, device: &str) -> u64 {
    state.request(id, change(device, false), HandshakeCounters::default(), at(2));
    let sent = said(state);
    assert!(sent.len() == 1 && sent[0].contains("Relabel"), "{sent:?}");
    *state.context.relabels.keys().next_back().unwrap()
}

/// Anna and zoe are managed, under a table that knows it.
fn both_given() -> State {
    let mut state = running();
    ask(&mut state, 1, change("anna", true), at(1));
    ask(&mut state, 2, change("zoe", true), at(1));
    let plan = job(&mut state).compile().unwrap();
    is_made(&mut state, plan, at(1));
    state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(1));
    said(&mut state);
    state
}

fn names(drawers: Option<Drawers>) -> Vec<String> {
    drawers.into_iter().flatten().flat_map(|(_, devices)| devices.into_keys()).collect()
}

/// Goal: the disk holds up nobody's revocation, and an end of a write acknowledges what was written.
#[test]
fn what_is_said_while_the_disk_is_at_work_is_told_at_once_and_answered_by_a_write_of_its_own() {
    let mut state = both_given();
    let anna = loses(&mut state, 3, "anna");
    assert_eq!(names(state.to_keep()), ["anna"]);
    let zoe = loses(&mut state, 4, "zoe");
    assert!(state.to_keep().is_none(), "one write at a time");
    for token in [anna, zoe] {
        state.from_datapath(FromDatapath::Relabelled { token }, at(2));
    }
    assert_eq!(said(&mut state), [""; 0], "in force, and a power cut would forget it");
    state.kept(Ok(()));
    assert_eq!(said(&mut state), ["answer 3: facts 1"]);
    assert_eq!(names(state.to_keep()), ["zoe"]);
    state.kept(Ok(()));
    assert_eq!(said(&mut state), ["answer 4: facts 1"]);
    assert!(state.to_keep().is_none(), "everything is kept");
}

#[test]
fn a_write_that_fails_is_said_and_done_again_with_what_came_meanwhile() {
    let mut state = both_given();
    let anna = loses(&mut state, 3, "anna");
    assert_eq!(names(state.to_keep()), ["anna"]);
    let zoe = loses(&mut state, 4, "zoe");
    for token in [anna, zoe] {
        state.from_datapath(FromDatapath::Relabelled { token }, at(2));
    }
    state.kept(Err("full".to_owned()));
    assert_eq!(said(&mut state), ["answer 3: facts 1, 1 trouble"], "4 was not tried");
    state.rests();
    assert_eq!(said(&mut state), ["answer 4: facts 1, 1 trouble"]);
    assert_eq!(state.context_problems().count(), 1);
    let mut both = names(state.to_keep());
    both.sort();
    assert_eq!(both, ["anna", "zoe"]);
    state.kept(Ok(()));
    assert_eq!((said(&mut state), state.context_problems().count()), (vec![], 0));
    assert!(state.to_keep().is_none(), "everything is kept");
}
