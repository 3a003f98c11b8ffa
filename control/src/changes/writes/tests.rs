use super::*;
use crate::api::AppliedAnswer;
use crate::changes::Proposal;
use crate::changes::tests::{Box, answer, at, due, moment, refused, writes, writes_one};
use std::fs;
use std::time::Duration;

/// Generation 1 stands, and 2 waits until 60 s.
fn waits() -> (Box, Changes) {
    let gateway = Box::new();
    let mut changes = gateway.start();
    gateway.apply(&mut changes, 1, None, 0);
    gateway.apply(&mut changes, 2, Some(60), 0);
    (gateway, changes)
}

fn proposal(confirm: Option<u64>) -> Proposal {
    let confirm = confirm.map(Duration::from_secs);
    Proposal { by: 7, message: String::new(), confirm, text_of: None }
}

/// Put in force by every worker, and not on the disk.
fn published(gateway: &Box, changes: &mut Changes, generation: u64, confirm: Option<u64>, at: u64) {
    let config = Arc::new((*gateway.config).clone());
    let text = format!("text of {generation}");
    changes.begins(generation, proposal(confirm), (&config, &text));
    changes.published(generation, (&config, &text), moment(at));
    let applied = Answer::Applied(AppliedAnswer::default());
    assert!(changes.answered(generation, applied, moment(at).now).is_none());
}

/// Another box with what is on the disk of this one.
fn after_power_cut(gateway: &Box) -> Box {
    let other = Box::new();
    let folder = |one: &Box| one.folder.path().join("state/history");
    fs::create_dir_all(folder(&other)).unwrap();
    for file in fs::read_dir(folder(gateway)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder(&other).join(file.file_name())).unwrap();
    }
    other
}

#[test]
fn a_confirmation_that_the_disk_takes_its_time_over_was_in_time() {
    let (gateway, mut changes) = waits();
    changes.confirm(8, Some(2), at(59)).unwrap();
    let write = changes.to_write(at(59)).unwrap();
    assert!(changes.to_write(at(59)).is_none(), "one at a time");
    assert_eq!((changes.due(at(70)), changes.deadline()), (None, None), "its end is an event");
    assert_eq!(changes.take_back(9, at(70)).unwrap_err().kind, RefusalKind::Busy);
    assert_eq!(changes.confirm(9, None, at(70)).unwrap_err().kind, RefusalKind::Busy);
    assert!(
        changes.poll().is_none() && gateway.marker().exists(),
        "a power cut would roll it back"
    );
    writes_one(&mut changes, write, 70);
    let answer = answer(writes(&mut changes, 70));
    assert!(matches!(answer, Answer::Confirmed { generation: 2 }), "{answer:?}");
    assert_eq!(
        (changes.waiting(), changes.standing(), due(&mut changes, 70)),
        (None, Some(2), None)
    );
    assert!(!gateway.marker().exists());
}

#[test]
fn a_confirmation_that_is_not_written_down_before_the_time_is_up_was_none() {
    let (gateway, mut changes) = waits();
    changes.confirm(8, None, at(59)).unwrap();
    let write = changes.to_write(at(59)).unwrap();
    changes.written(write, Err(io::Error::other("full")), at(70));
    let refused = refused(writes(&mut changes, 70)).to_string();
    assert!(
        refused.contains("cannot be written down: full; generation 2 is rolled back"),
        "{refused}"
    );
    assert_eq!(due(&mut changes, 70), Some((1, None)));
    assert_eq!(gateway.start().history().entry(2).unwrap().state, EntryState::RolledBack);
}

#[test]
fn a_confirmation_that_cannot_be_written_down_may_be_tried_again() {
    let (gateway, mut changes) = waits();
    changes.confirm(8, None, at(40)).unwrap();
    let write = changes.to_write(at(40)).unwrap();
    changes.written(write, Err(io::Error::other("full")), at(41));
    refused(writes(&mut changes, 41));
    changes.confirm(8, None, at(42)).unwrap();
    assert!(matches!(answer(writes(&mut changes, 42)), Answer::Confirmed { generation: 2 }));
    assert_eq!(gateway.start().standing(), Some(2));
}

/// An operator keeps what another leaves for an older text.
#[test]
fn what_is_being_confirmed_when_something_else_comes_into_force_is_confirmed() {
    let (gateway, mut changes) = waits();
    changes.prepare(3, "text of 3");
    writes(&mut changes, 1);
    changes.confirm(8, None, at(1)).unwrap();
    published(&gateway, &mut changes, 3, None, 1);
    let mut followed = writes(&mut changes, 2);
    let applied = followed.pop().unwrap();
    assert!(matches!(answer(followed), Answer::Confirmed { generation: 2 }));
    assert!(matches!(answer(vec![applied]), Answer::Applied(_)));
    let next = gateway.start();
    assert_eq!(next.history().entry(2).unwrap().state, EntryState::Confirmed);
    assert_eq!(next.standing(), Some(3));
}

#[test]
fn the_way_back_begins_when_it_is_written_down_or_cannot_be() {
    for result in [Ok(()), Err(io::Error::other("full"))] {
        let (_gateway, mut changes) = waits();
        assert_eq!(changes.due(at(60)), None);
        let write = changes.to_write(at(60)).unwrap();
        assert!(matches!(&write, Write::Mark(entry) if entry.state == EntryState::RolledBack));
        assert_eq!((changes.due(at(65)), changes.deadline()), (None, None));
        changes.written(write, result, at(66));
        assert_eq!((changes.deadline(), changes.due(at(66))), (Some(at(66)), Some((1, None))));
    }
}

/// Goal: never back to what stood before what stands. Method: 2 is in force and confirmed, and on its way
/// to the disk, when 3 waits for its confirmation and is taken back.
#[test]
fn the_way_back_leads_to_what_stands_also_if_that_was_on_its_way_to_the_disk() {
    for asked in [false, true] {
        let gateway = Box::new();
        let mut changes = gateway.start();
        gateway.apply(&mut changes, 1, None, 0);
        changes.prepare(2, "text of 2");
        writes(&mut changes, 0);
        published(&gateway, &mut changes, 2, None, 1);
        let keep = changes.to_write(at(1)).unwrap();
        changes.prepare(3, "text of 3");
        published(&gateway, &mut changes, 3, Some(5), 2);
        if asked {
            changes.take_back(9, at(3)).unwrap();
            assert_eq!(changes.confirm(8, None, at(3)).unwrap_err().kind, RefusalKind::Busy);
        } else {
            let late = changes.confirm(8, None, at(7)).unwrap_err();
            assert_eq!(late.kind, RefusalKind::NothingWaiting, "its time is up");
        }
        assert_eq!(changes.due(at(8)), None);
        writes_one(&mut changes, keep, 9);
        writes(&mut changes, 9);
        assert_eq!(due(&mut changes, 9), Some((2, asked.then_some(9))));
    }
}

#[test]
fn an_apply_is_answered_when_it_is_kept_and_a_start_before_begins_with_the_one_before() {
    let (gateway, mut changes) = waits();
    changes.prepare(3, "text of 3");
    writes(&mut changes, 1);
    published(&gateway, &mut changes, 3, None, 1);
    assert_eq!((changes.waiting(), changes.answer(at(1)).in_force), (None, Some(3)));
    // What waited goes first, then what takes its place.
    let write = changes.to_write(at(1)).unwrap();
    assert!(changes.to_write(at(1)).is_none(), "one at a time");
    writes_one(&mut changes, write, 2);
    assert!(changes.poll().is_none() && changes.standing() == Some(1));
    let mut next = after_power_cut(&gateway).start();
    assert_eq!((next.resume(moment(2)), next.standing()), (None, Some(1)));
    let write = changes.to_write(at(2)).unwrap();
    writes_one(&mut changes, write, 2);
    assert!(matches!(answer(writes(&mut changes, 2)), Answer::Applied(_)));
    assert_eq!(gateway.start().standing(), Some(3));
}

#[test]
fn whoever_waits_for_the_way_back_is_told_if_something_else_is_in_force_first() {
    let (gateway, mut changes) = waits();
    changes.prepare(3, "text of 3");
    writes(&mut changes, 1);
    changes.take_back(9, at(1)).unwrap();
    published(&gateway, &mut changes, 3, None, 1);
    let mut followed = writes(&mut changes, 1);
    assert!(matches!(answer(vec![followed.remove(0)]), Answer::Refused(_)));
    assert!(matches!(answer(followed), Answer::Applied(_)));
}

#[test]
fn what_is_kept_for_the_next_start_is_answered_when_it_stands() {
    let (gateway, mut changes) = waits();
    let folder = gateway.folder.path().join("state/history");
    fs::create_dir(folder.join("incoming.toml")).unwrap();
    changes.keep_for_next_start((5, 3), proposal(None), "smaller", moment(1));
    refused(writes(&mut changes, 1));
    assert_eq!(changes.standing(), Some(1));
    fs::remove_dir(folder.join("incoming.toml")).unwrap();
    changes.keep_for_next_start((5, 4), proposal(None), "smaller", moment(1));
    let write = changes.to_write(at(1)).unwrap();
    writes_one(&mut changes, write, 1);
    assert!(changes.poll().is_none());
    assert!(matches!(answer(writes(&mut changes, 1)), Answer::Kept { generation: 4 }));
    assert_eq!(gateway.start().history().text(4).unwrap(), "smaller");
}

/// The first start of all finds a text while an operator has another one prepared.
#[test]
fn what_is_found_and_what_is_asked_for_are_not_taken_for_each_other() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    changes.prepare(3, "text of 3");
    changes.published(1, (&gateway.config, "found"), moment(0));
    writes(&mut changes, 0);
    published(&gateway, &mut changes, 3, None, 1);
    writes(&mut changes, 1);
    let next = gateway.start();
    assert_eq!(
        (next.history().text(1).unwrap(), next.history().text(3).unwrap()),
        ("found".into(), "text of 3".into())
    );
    assert_eq!((next.standing(), changes.answer(at(1)).in_force), (Some(3), Some(3)));
}

/// The first start of all finds a text that the disk does not take, and later does.
#[test]
fn what_is_found_and_kept_after_all_is_nothing_to_worry_about() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    changes.published(1, (&gateway.config, "found"), moment(0));
    let write = changes.to_write(at(0)).unwrap();
    changes.written(write, Err(io::ErrorKind::StorageFull.into()), at(0));
    assert_eq!(changes.degraded().count(), 1);
    changes.published(1, (&gateway.config, "found"), moment(1));
    writes(&mut changes, 1);
    assert_eq!((changes.degraded().count(), changes.standing()), (0, Some(1)));
}
