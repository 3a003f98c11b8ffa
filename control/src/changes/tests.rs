use super::*;
use crate::history::Write;
use std::fs;
use std::path::PathBuf;

/// The state folder and the run folder of a daemon, and what it would ask of its state.
pub(super) struct Box {
    pub(super) folder: tempfile::TempDir,
    pub(super) config: Arc<Config>,
}

impl Box {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("run")).unwrap();
        Self { folder, config: crate::intent::Intent::empty().config }
    }

    /// A start of the daemon.
    pub(super) fn start(&self) -> Changes {
        let (history, senseless) = History::open(&self.folder.path().join("state")).unwrap();
        assert!(senseless.is_empty());
        Changes::new(history, &self.folder.path().join("run"))
    }

    pub(super) fn marker(&self) -> PathBuf {
        self.folder.path().join("run").join("waiting.json")
    }

    /// Put in force by every worker, and answered.
    pub(super) fn apply(
        &self,
        changes: &mut Changes,
        generation: u64,
        confirm: Option<u64>,
        at: u64,
    ) -> AppliedAnswer {
        // Each text that is read is another configuration.
        let config = Arc::new((*self.config).clone());
        let confirm = confirm.map(Duration::from_secs);
        let proposal = Proposal { by: 7, message: "why".to_owned(), confirm, text_of: None };
        let text = format!("text of {generation}");
        changes.may_wait(&proposal).unwrap();
        changes.prepare(1, &text);
        let said = writes(changes, at);
        assert!(matches!(said[..], [Followed::Prepared(1, Ok(()))]), "{said:?}");
        changes.begins(1, proposal, (&config, &text));
        changes.published(generation, (&config, &text), moment(at));
        let early = changes.answered(1, Answer::Applied(AppliedAnswer::default()), moment(at).now);
        assert!(early.is_none(), "not on the disk: {early:?}");
        applied(writes(changes, at))
    }
}

/// Everything that is to be written is, and nothing else happens meanwhile.
pub(super) fn writes(changes: &mut Changes, seconds: u64) -> Vec<Followed> {
    while let Some(write) = changes.to_write(at(seconds)) {
        writes_one(changes, write, seconds);
    }
    std::iter::from_fn(|| changes.poll()).collect()
}

pub(super) fn writes_one(changes: &mut Changes, write: Write, seconds: u64) {
    let mut disk = changes.history().disk().clone();
    let result = write.carry_out(&mut disk);
    changes.written(write, result, at(seconds));
}

/// What one is answered, if one is.
pub(super) fn answer(mut followed: Vec<Followed>) -> Answer {
    match followed.pop() {
        Some(Followed::Answer(_, answer)) if followed.is_empty() => answer,
        other => panic!("{other:?} after {followed:?}"),
    }
}

fn applied(followed: Vec<Followed>) -> AppliedAnswer {
    let answer = answer(followed);
    let Answer::Applied(applied) = answer else { panic!("{answer:?}") };
    applied
}

pub(super) fn refused(followed: Vec<Followed>) -> Refusal {
    let answer = answer(followed);
    let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
    refusal
}

fn confirms(changes: &mut Changes, wanted: Option<u64>, seconds: u64) -> Result<u64, Refusal> {
    changes.confirm(8, wanted, at(seconds))?;
    let answer = answer(writes(changes, seconds));
    let Answer::Confirmed { generation } = answer else { panic!("{answer:?}") };
    Ok(generation)
}

/// What is due once the disk has what comes before it.
pub(super) fn due(changes: &mut Changes, seconds: u64) -> Option<(u64, Option<RequestId>)> {
    let early = changes.due(at(seconds));
    assert_eq!(writes(changes, seconds).len(), 0);
    early.or_else(|| changes.due(at(seconds)))
}

/// The box started 1,000 seconds before the daemon.
pub(super) fn moment(seconds: u64) -> Moment {
    let now = Time(Duration::from_secs(seconds));
    Moment {
        now,
        boot: Duration::from_secs(1_000 + seconds),
        wall: Duration::from_secs(1_700_000_000 + seconds),
    }
}

pub(super) fn at(seconds: u64) -> Time {
    Time(Duration::from_secs(seconds))
}

#[test]
fn an_apply_stands_at_once_and_one_that_waits_when_it_is_confirmed() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    let applied = gateway.apply(&mut changes, 3, None, 0);
    assert_eq!((applied.configuration, applied.confirm_within_s), (3, None));
    assert_eq!((changes.standing(), changes.waiting(), changes.deadline()), (Some(3), None, None));
    let applied = gateway.apply(&mut changes, 5, Some(60), 10);
    assert_eq!((applied.configuration, applied.confirm_within_s), (5, Some(60)));
    assert_eq!((changes.standing(), changes.waiting()), (Some(3), Some(5)));
    assert_eq!(changes.deadline(), Some(at(70)));
    assert_eq!(changes.due(at(69)), None);
    assert_eq!(changes.free(at(10)).unwrap_err().kind, RefusalKind::Waiting);
    assert_eq!(confirms(&mut changes, Some(5), 69).unwrap(), 5);
    assert_eq!((changes.standing(), changes.deadline()), (Some(5), None));
    assert!(!gateway.marker().exists());
    assert_eq!(confirms(&mut changes, None, 70).unwrap_err().kind, RefusalKind::NothingWaiting);
    assert_eq!(gateway.start().standing(), Some(5));
    let entry = changes.history().entry(5).unwrap();
    assert_eq!((entry.by, entry.at, entry.message.as_str()), (Some(7), 1_700_000_010, "why"));
}

/// Two operators: the first has applied 2, the second has taken it back and applied 3.
#[test]
fn whoever_names_one_generation_neither_keeps_nor_takes_back_another() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    gateway.apply(&mut changes, 1, None, 0);
    gateway.apply(&mut changes, 2, Some(60), 0);
    changes.take_back(9, at(1)).unwrap();
    assert_eq!(due(&mut changes, 1), Some((1, Some(9))));
    gateway.apply(&mut changes, 3, Some(60), 2);
    for wanted in [1, 2, 4] {
        let refused = confirms(&mut changes, Some(wanted), 3).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::NothingWaiting, "{refused}");
        let names = format!("it is generation 3 that waits for its confirmation, not {wanted}");
        assert!(refused.message.starts_with(&names), "{refused}");
    }
    for of in [1, 2, 4] {
        let refused = changes.may_take_back(of).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::NothingWaiting, "{refused}");
        let way_out = "nothing was taken back. To take that one back: bulkhead rollback --of 3";
        assert!(refused.message.ends_with(way_out), "{refused}");
    }
    assert_eq!(changes.may_take_back(3), Ok(()));
    assert_eq!((changes.waiting(), changes.standing()), (Some(3), Some(1)), "nothing was kept");
    assert_eq!(gateway.start().resume(moment(3)), Some(3), "nor on the disk");
    assert_eq!(confirms(&mut changes, None, 3).unwrap(), 3, "whatever waits");
    assert_eq!(changes.may_take_back(3).unwrap_err().kind, RefusalKind::NothingWaiting);
}

#[test]
fn there_is_no_waiting_before_something_stands() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    let confirm = Some(Duration::from_secs(1));
    let proposal = Proposal { by: 0, message: String::new(), confirm, text_of: None };
    let refused = changes.may_wait(&proposal).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Unavailable);
    // What the first start finds stands as soon as it works, and only the first.
    changes.published(4, (&gateway.config, "first"), moment(0));
    changes.published(5, (&gateway.config, "first"), moment(0));
    assert_eq!(writes(&mut changes, 0).len(), 0);
    changes.published(6, (&gateway.config, "first"), moment(1));
    assert_eq!(writes(&mut changes, 1).len(), 0);
    assert_eq!((changes.standing(), changes.history().newest()), (Some(4), 4));
    assert_eq!(changes.history().text(4).unwrap(), "first");
}

#[test]
fn the_way_back_is_tried_until_it_leads_there() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    gateway.apply(&mut changes, 1, None, 0);
    gateway.apply(&mut changes, 2, Some(60), 0);
    assert_eq!(due(&mut changes, 60), Some((1, None)));
    // On the disk before anything else happens.
    assert_eq!(gateway.start().history().entry(2).unwrap().state, EntryState::RolledBack);
    assert_eq!((changes.due(at(60)), changes.deadline()), (None, None), "it is under way");
    let refusal = Refusal::new(RefusalKind::Timeout, "no");
    changes.way_back_failed(&refusal, at(61));
    assert_eq!((changes.due(at(62)), changes.deadline()), (None, Some(at(63))));
    assert_eq!(changes.due(at(63)), Some((1, None)));
    let config = Arc::new((*gateway.config).clone());
    changes.way_back_begins(9, &config);
    let degraded: Vec<_> = changes.degraded().collect();
    assert!(degraded[0].contains("generation 2 was not confirmed and is still in force"));
    changes.answered(8, Answer::Refused(refusal.clone()), at(64));
    assert_eq!(changes.deadline(), None, "somebody else's");
    changes.answered(9, Answer::Refused(refusal), at(64));
    assert_eq!(changes.due(at(66)), Some((1, None)));
    changes.way_back_begins(10, &config);
    changes.published(7, (&config, "text of 1"), moment(66));
    let answer = changes.answered(10, Answer::Applied(AppliedAnswer::default()), at(66));
    let Some(Answer::Applied(applied)) = answer else { panic!("{answer:?}") };
    assert_eq!((applied.rolled_back, applied.configuration), (Some(2), 1));
    assert_eq!((changes.answer(at(66)).in_force, changes.degraded().count()), (Some(1), 0));
    let refused = confirms(&mut changes, None, 66).unwrap_err().to_string();
    assert!(refused.contains("generation 2 was rolled back"), "{refused}");
}

#[test]
fn what_waits_survives_the_daemon_for_as_long_as_it_was_to_wait() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    gateway.apply(&mut changes, 1, None, 0);
    gateway.apply(&mut changes, 2, Some(60), 0);
    drop(changes);
    // The next daemon counts from its own start.
    let later = |boot| Moment { now: at(3), boot: Duration::from_secs(boot), wall: Duration::ZERO };
    let mut changes = gateway.start();
    assert_eq!(changes.resume(later(1_040)), Some(2));
    assert_eq!((changes.deadline(), changes.answer(at(3)).in_force), (Some(at(23)), Some(2)));
    drop(changes);
    let mut changes = gateway.start();
    assert_eq!(changes.resume(later(1_060)), None, "its time is up");
    assert_eq!(changes.history().entry(2).unwrap().state, EntryState::RolledBack);
    assert_eq!(gateway.start().resume(later(1_001)), None, "for good");
}

#[test]
fn what_waits_does_not_survive_the_box() {
    let later = |boot| Moment { now: at(3), boot: Duration::from_secs(boot), wall: Duration::ZERO };
    for (marker, why) in [
        (None, "the run folder is in memory"),
        (Some("{\"generation\":2,"), "torn"),
        (Some("{\"generation\":1,\"until_ms\":9000000,\"confirm_ms\":60000}"), "another's"),
    ] {
        let gateway = Box::new();
        let mut changes = gateway.start();
        gateway.apply(&mut changes, 1, None, 0);
        gateway.apply(&mut changes, 2, Some(60), 0);
        match marker {
            None => fs::remove_file(gateway.marker()).unwrap(),
            Some(text) => fs::write(gateway.marker(), text).unwrap(),
        }
        let mut changes = gateway.start();
        assert_eq!((changes.resume(later(1_001)), changes.standing()), (None, Some(1)), "{why}");
    }
    // A run folder that is not in memory: the clock of the new boot is far behind.
    let gateway = Box::new();
    let mut changes = gateway.start();
    gateway.apply(&mut changes, 1, None, 0);
    gateway.apply(&mut changes, 2, Some(60), 0);
    let mut changes = gateway.start();
    assert_eq!(changes.resume(later(5)), Some(2));
    assert_eq!(changes.deadline(), Some(at(63)), "not longer than it was asked for");
}

#[test]
fn what_cannot_be_loaded_any_more_does_not_wait_for_its_time() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    gateway.apply(&mut changes, 1, None, 0);
    gateway.apply(&mut changes, 2, Some(60), 0);
    let mut changes = gateway.start();
    assert_eq!(changes.resume(moment(1)), Some(2));
    changes.give_up();
    changes.start_with_standing();
    assert_eq!((changes.waiting(), changes.answer(at(1)).in_force), (None, Some(1)));
    assert_eq!(gateway.start().resume(moment(1)), None);
}

#[test]
fn a_new_apply_takes_the_place_of_what_waits_and_of_the_way_back() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    gateway.apply(&mut changes, 1, None, 0);
    gateway.apply(&mut changes, 2, Some(60), 0);
    gateway.apply(&mut changes, 3, None, 1);
    assert_eq!((changes.waiting(), changes.standing()), (None, Some(3)));
    assert_eq!(changes.history().entry(2).unwrap().state, EntryState::RolledBack);
    gateway.apply(&mut changes, 4, Some(60), 2);
    changes.take_back(5, at(3)).unwrap();
    assert_eq!(due(&mut changes, 3), Some((3, Some(5))));
    changes.way_back_failed(&Refusal::new(RefusalKind::NotKept, "gone"), at(3));
    gateway.apply(&mut changes, 6, None, 4);
    assert_eq!((changes.deadline(), changes.degraded().count()), (None, 0));
}

#[test]
fn a_full_disk_refuses_before_anything_changes_and_is_said_after() {
    let gateway = Box::new();
    let mut changes = gateway.start();
    gateway.apply(&mut changes, 1, None, 0);
    let folder = gateway.folder.path().join("state/history");
    fs::create_dir(folder.join("incoming.toml")).unwrap();
    let proposal = || Proposal { by: 0, message: String::new(), confirm: None, text_of: None };
    let prepared = |changes: &mut Changes| {
        changes.prepare(1, "text");
        match writes(changes, 1).pop() {
            Some(Followed::Prepared(1, result)) => result,
            other => panic!("{other:?}"),
        }
    };
    let refused = prepared(&mut changes).unwrap_err();
    assert!(refused.message.ends_with("nothing was changed"), "{refused}");
    fs::remove_dir(folder.join("incoming.toml")).unwrap();
    // It fills up between the two writes.
    let config = Arc::new((*gateway.config).clone());
    prepared(&mut changes).unwrap();
    changes.begins(1, proposal(), (&config, "text"));
    fs::create_dir(folder.join("2.new")).unwrap();
    changes.published(2, (&config, "text"), moment(1));
    let mut answer =
        AppliedAnswer { warning: Some("it was deaf".to_owned()), ..Default::default() };
    answer.generation = 2;
    assert!(changes.answered(1, Answer::Applied(answer), at(1)).is_none());
    let warning = applied(writes(&mut changes, 1)).warning.unwrap();
    let unkept = warning.strip_prefix("it was deaf; ").unwrap();
    assert!(unkept.contains("a start begins with generation 1"), "{unkept}");
    assert_eq!(changes.degraded().collect::<Vec<_>>(), [unkept]);
    fs::remove_dir(folder.join("2.new")).unwrap();
    gateway.apply(&mut changes, 3, None, 2);
    assert_eq!((changes.degraded().count(), changes.standing()), (0, Some(3)));
}
