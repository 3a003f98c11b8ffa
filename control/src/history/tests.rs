use super::*;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn entry(generation: u64, text: &str, state: EntryState) -> Entry {
    let bytes = text.len() as u64;
    let message = format!("the {generation}th");
    Entry { generation, at: 1_000 + generation, by: Some(0), message, text_of: None, state, bytes }
}

fn open(folder: &Path) -> History {
    let (history, senseless) = History::open(folder).unwrap();
    assert_eq!(senseless, Vec::<String>::new());
    history
}

fn keep<D: Disk>(history: &mut History<D>, generation: u64, state: EntryState) -> io::Result<()> {
    let text = text_for(generation);
    let entry = entry(generation, &text, state);
    history.write(Write::Text(Incoming::Change, text.into()))?;
    history.write(Write::Keep(Incoming::Change, entry))
}

fn mark<D: Disk>(history: &mut History<D>, generation: u64, state: EntryState) -> io::Result<()> {
    let write = history.mark(generation, state)?;
    history.write(write)
}

/// Of another length for each.
fn text_for(generation: u64) -> String {
    format!("schema = 1 # {}\n", "x".repeat(usize::try_from(generation).unwrap()))
}

fn stands<D: Disk>(history: &History<D>) -> Option<u64> {
    history.standing().map(|entry| entry.generation)
}

use EntryState::{Confirmed, RolledBack, Waiting};

#[test]
fn what_stands_is_the_newest_that_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path());
    assert_eq!((stands(&history), history.newest()), (None, 0));
    keep(&mut history, 3, Confirmed).unwrap();
    keep(&mut history, 5, Waiting).unwrap();
    assert_eq!(stands(&open(folder.path())), Some(3), "kept is not confirmed");
    mark(&mut history, 5, RolledBack).unwrap();
    keep(&mut history, 6, Waiting).unwrap();
    mark(&mut history, 6, Confirmed).unwrap();
    let again = open(folder.path());
    assert_eq!((stands(&again), again.newest()), (Some(6), 6));
    let states: Vec<_> = again.entries().map(|entry| (entry.generation, entry.state)).collect();
    assert_eq!(states, [(3, Confirmed), (5, RolledBack), (6, Confirmed)]);
    assert_eq!(again.text(5).unwrap(), text_for(5));
    let unknown = again.text(4).unwrap_err().to_string();
    assert!(unknown.starts_with("generation 4 is not in the history"), "{unknown}");
    assert!(history.mark(4, Confirmed).is_err());
}

#[test]
fn the_folder_and_its_files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path());
    keep(&mut history, 1, Confirmed).unwrap();
    history.write(Write::Text(Incoming::Change, "next".into())).unwrap();
    history.write(Write::Text(Incoming::Found, "found".into())).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files = folder.path().join("history");
    assert_eq!(mode(&files), 0o700);
    for name in ["1.toml", "1.json", "incoming.toml", "found.toml"] {
        assert_eq!(mode(&files.join(name)), 0o600, "{name}");
    }
}

#[test]
fn damage_that_decides_what_stands_is_refused_and_not_guessed() {
    let damage: [(&str, &[u8]); 4] =
        [("2.json", b""), ("2.json", b"{\"generation\": 2"), ("2.toml", b"sch"), ("9.json", b"?")];
    for (name, content) in damage {
        let folder = tempfile::tempdir().unwrap();
        let mut history = open(folder.path());
        keep(&mut history, 1, Confirmed).unwrap();
        keep(&mut history, 2, Confirmed).unwrap();
        let path = folder.path().join("history").join(name);
        fs::write(&path, content).unwrap();
        let refused = History::open(folder.path()).unwrap_err().to_string();
        let generation = name.split('.').next().unwrap();
        assert!(refused.contains(&format!("{generation}.json is damaged")), "{refused}");
        let left = if generation == "2" { 1 } else { 2 };
        assert!(refused.contains(&format!("generation {left} is what")), "{refused}");
        // The way out that the message names.
        for file in [format!("{generation}.json"), format!("{generation}.toml")] {
            let _ = fs::remove_file(folder.path().join("history").join(file));
        }
        assert_eq!(stands(&open(folder.path())), Some(left));
    }
}

#[test]
fn a_text_that_is_gone_is_damage_too_and_its_absence_alone_never_brings_back_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path());
    keep(&mut history, 1, Confirmed).unwrap();
    fs::remove_file(folder.path().join("history/1.toml")).unwrap();
    let refused = History::open(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("then the configuration file is what"), "{refused}");
}

#[test]
fn damage_that_decides_nothing_is_left_out_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path());
    keep(&mut history, 1, Confirmed).unwrap();
    keep(&mut history, 2, Confirmed).unwrap();
    keep(&mut history, 3, RolledBack).unwrap();
    let files = folder.path().join("history");
    fs::write(files.join("1.json"), "torn").unwrap();
    fs::remove_file(files.join("3.toml")).unwrap();
    fs::write(files.join("notes.json"), "{}").unwrap();
    fs::write(files.join("4.toml"), "whole, without a description").unwrap();
    fs::write(files.join("5.new"), "half").unwrap();
    let (again, mut senseless) = History::open(folder.path()).unwrap();
    senseless.sort();
    assert_eq!(senseless, ["1.json", "3.json", "notes.json"]);
    assert_eq!((stands(&again), again.entries().count()), (Some(2), 1));
    assert!(!files.join("4.toml").exists() && !files.join("5.new").exists(), "of a crash");
}

#[test]
fn a_hundred_are_kept_and_what_stands_or_waits_always() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path());
    keep(&mut history, 1, Confirmed).unwrap();
    keep(&mut history, 2, Waiting).unwrap();
    for generation in 3..=150 {
        keep(&mut history, generation, RolledBack).unwrap();
    }
    let again = open(folder.path());
    let kept: Vec<_> = again.entries().map(|entry| entry.generation).collect();
    assert_eq!(kept.len(), KEPT_MAX);
    assert_eq!((kept[..3].to_vec(), kept[99]), (vec![1, 2, 53], 150));
    assert_eq!(fs::read_dir(folder.path().join("history")).unwrap().count(), 2 * KEPT_MAX);
}

/// A folder whose power can be cut: names are on the disk only after `settle`; before it, any of
/// their changes may be, in any combination.
#[derive(Clone, Debug, Default)]
struct Tray {
    contents: Vec<Vec<u8>>,
    /// As the running system sees it.
    names: BTreeMap<String, usize>,
    /// As a start would find it.
    settled: BTreeMap<String, usize>,
    changes: Vec<Vec<(String, Option<usize>)>>,
    /// Steps until the power is cut.
    left: Cell<usize>,
    /// Of 256: how much of a write gets onto the disk when the power is cut in it.
    torn: usize,
}

impl Tray {
    fn step(&self) -> io::Result<()> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 0 { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    fn change(&mut self, change: Vec<(String, Option<usize>)>) {
        for (name, content) in &change {
            match content {
                Some(content) => drop(self.names.insert(name.clone(), *content)),
                None => drop(self.names.remove(name)),
            }
        }
        self.changes.push(change);
    }

    /// What is found when the power is back; the bits say which changes had reached the disk.
    fn after_power_cut(&self, mut bits: u64) -> Self {
        let mut found = self.settled.clone();
        for change in &self.changes {
            for (name, content) in change.iter().filter(|_| bits & 1 == 1) {
                match content {
                    Some(content) => drop(found.insert(name.clone(), *content)),
                    None => drop(found.remove(name)),
                }
            }
            bits = bits.rotate_right(1);
        }
        let contents = self.contents.clone();
        let left = Cell::new(usize::MAX);
        Self { contents, names: found.clone(), settled: found, left, ..Self::default() }
    }

    fn content(&self, name: &str) -> io::Result<&Vec<u8>> {
        self.names.get(name).map(|at| &self.contents[*at]).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Disk for Tray {
    fn write(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let step = self.step();
        let part = if step.is_ok() { content } else { &content[..content.len() * self.torn / 256] };
        // A file that has the name is written over; it is the same file.
        if let Some(at) = self.names.get(name) {
            self.contents[*at] = part.to_vec();
        } else {
            self.contents.push(part.to_vec());
            self.change(vec![(name.to_owned(), Some(self.contents.len() - 1))]);
        }
        step
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let content = self.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        self.change(vec![(to.to_owned(), Some(content)), (from.to_owned(), None)]);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        self.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        self.step()?;
        self.settled = self.names.clone();
        self.changes.clear();
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.content(name).cloned()
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.content(name).map(|content| content.len() as u64)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }

    fn path(&self) -> &Path {
        Path::new("tray")
    }
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Keep(EntryState),
    /// The newest that waits, if any does.
    Mark(EntryState),
}

fn carry_out(history: &mut History<Tray>, call: Call) -> io::Result<()> {
    match call {
        Call::Keep(state) => keep(history, history.newest() + 1, state),
        Call::Mark(state) => {
            let waits = |entry: &&Entry| entry.state == Waiting;
            let found = history.entries().rev().find(waits).map(|entry| entry.generation);
            found.map_or(Ok(()), |generation| mark(history, generation, state))
        }
    }
}

/// The property of the module, with the power cut in every step of every sort of call.
#[test]
fn a_power_cut_at_any_step_leaves_what_stood_before_or_after_with_its_whole_text() {
    let call = prop_oneof![
        Just(Call::Keep(Confirmed)),
        Just(Call::Keep(Waiting)),
        Just(Call::Mark(Confirmed)),
        Just(Call::Mark(RolledBack)),
    ];
    let calls = proptest::collection::vec(call, 1..12);
    let (before_met, after_met, torn_met, lost_met) =
        (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let met = |which: &Cell<u32>| which.set(which.get() + 1);
    let mut runner = TestRunner::new(Config::with_cases(2_000));
    let outcome = runner.run(&(calls, 0..90_usize, 0..257_usize, any::<u64>()), |input| {
        let (calls, steps, torn, bits) = input;
        let tray = Tray { left: Cell::new(steps), torn, ..Tray::default() };
        let (mut history, _) = History::read(tray).unwrap();
        let mut before = None;
        let mut cut = None;
        for call in &calls {
            before = stands(&history);
            if carry_out(&mut history, *call).is_err() {
                cut = Some(*call);
                break;
            }
        }
        let after = match cut {
            None => stands(&history),
            Some(call) => {
                // What it would have become.
                let mut twin =
                    History { disk: history.disk.clone(), entries: history.entries.clone() };
                twin.disk.left.set(usize::MAX);
                // Its preparation may be the step that was cut; then it is made again.
                carry_out(&mut twin, call).unwrap();
                stands(&twin)
            }
        };
        let before = if cut.is_some() { before } else { after };
        let found = history.disk.after_power_cut(bits);
        if found.changes.is_empty() && !history.disk.changes.is_empty() && bits & 1 == 0 {
            met(&lost_met);
        }
        let half = |(name, content): (&String, &usize)| {
            name.ends_with(".new")
                && serde_json::from_slice::<Entry>(&found.contents[*content]).is_err()
        };
        if found.names.iter().any(half) {
            met(&torn_met);
        }
        let (again, senseless) = History::read(found).expect("never damaged by a power cut");
        prop_assert_eq!(senseless, Vec::<String>::new());
        let stands_now = stands(&again);
        prop_assert!(stands_now == before || stands_now == after, "{stands_now:?}");
        if before != after {
            met(if stands_now == before { &before_met } else { &after_met });
        }
        if let Some(generation) = stands_now {
            prop_assert_eq!(again.text(generation).unwrap(), text_for(generation));
        }
        // Nothing that was kept before the call that was cut is lost or mixed up.
        for (generation, entry) in &history.entries {
            let kept = again.entry(*generation);
            prop_assert!(kept.is_some_and(|kept| kept.bytes == entry.bytes), "{generation}");
            prop_assert_eq!(again.text(*generation).unwrap(), text_for(*generation));
        }
        Ok(())
    });
    outcome.unwrap();
    for (what, met) in [
        ("the one before", &before_met),
        ("the one after", &after_met),
        ("a torn file", &torn_met),
        ("a lost name", &lost_met),
    ] {
        assert!(met.get() > 5, "{what} was met {} times", met.get());
    }
}

/// As above, but the disk only fails once, and the process goes on.
#[test]
fn a_disk_that_fails_at_any_step_costs_that_call_only() {
    for steps in 0..60 {
        let (mut history, _) = History::read(Tray::default()).unwrap();
        history.disk.left.set(steps);
        let mut failed = 0;
        for call in [Confirmed, Waiting, Confirmed, Waiting, Confirmed].map(Call::Keep) {
            if carry_out(&mut history, call).is_err() {
                failed += 1;
                history.disk.left.set(usize::MAX);
                carry_out(&mut history, call).expect("the next try");
            }
        }
        assert_eq!(failed, u32::from(steps < 30), "five calls of six steps");
        assert_eq!(stands(&history), Some(5));
        let (again, senseless) = History::read(history.disk.clone()).unwrap();
        assert_eq!((stands(&again), senseless.len()), (Some(5), 0));
        assert_eq!(again.entries, history.entries);
    }
}
