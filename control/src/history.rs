//! What was in force: every applied configuration with its message, and the one that the box starts
//! with.
//!
//! ```text
//!   STATE/history/42.toml   the text, as it was when generation 42 came into force
//!   STATE/history/42.json   when, and why
//!   STATE/standing          42: what a start of bulkheadd puts in force
//! ```
//!
//! INVARIANT: `standing` names a text that is completely on the disk, or nothing is standing. It moves
//! only by renaming a file that was synchronised, so a power cut leaves the one before or the one
//! after. A generation that waits for its confirmation is in the history and does not stand: a box
//! that dies meanwhile starts with the one before.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Generations that are kept; of older ones the texts go.
const KEPT_MAX: usize = 100;

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub generation: u64,
    /// When every worker judged by it, seconds since 1970.
    pub at: u64,
    /// The operator's words, or why it came by itself.
    pub message: String,
}

/// All generations that are kept.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    pointer: PathBuf,
    entries: BTreeMap<u64, Entry>,
    standing: Option<u64>,
}

impl History {
    /// What is kept under `state_dir`, and how many files there make no sense; those are left out.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made or read, or `standing` names a text that is not there: what the
    /// box should start with is then not for us to guess.
    pub fn open(state_dir: &Path) -> io::Result<(Self, usize)> {
        let folder = state_dir.join("history");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let (mut entries, mut senseless) = (BTreeMap::new(), 0);
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            if path.extension().is_none_or(|kind| kind != "json") {
                continue;
            }
            let entry = fs::read(&path).ok().and_then(|bytes| {
                let entry: Entry = serde_json::from_slice(&bytes).ok()?;
                text_at(&folder, entry.generation).is_file().then_some(entry)
            });
            match entry {
                Some(entry) => drop(entries.insert(entry.generation, entry)),
                None => senseless += 1,
            }
        }
        let pointer = state_dir.join("standing");
        let standing = match fs::read_to_string(&pointer) {
            Ok(text) => Some(named(&text, &entries)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok((Self { folder, pointer, entries, standing }, senseless))
    }

    /// Keeps the text of a generation. It does not stand yet.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; what was kept before is still there.
    pub fn keep(&mut self, entry: Entry, text: &str) -> io::Result<()> {
        let generation = entry.generation;
        put(&text_at(&self.folder, generation), text.as_bytes())?;
        let about = serde_json::to_vec(&entry)?;
        put(&about_at(&self.folder, generation), &about)?;
        self.entries.insert(generation, entry);
        self.prune(generation);
        Ok(())
    }

    /// What the box starts with from now on.
    ///
    /// # Errors
    ///
    /// If the generation is not kept, or whatever the file system says; the one before stands then.
    pub fn stand(&mut self, generation: u64) -> io::Result<()> {
        if !self.entries.contains_key(&generation) {
            return Err(unknown(generation));
        }
        put(&self.pointer, format!("{generation}\n").as_bytes())?;
        self.standing = Some(generation);
        Ok(())
    }

    /// What the box starts with; `None`: with the configuration file.
    #[must_use]
    pub fn standing(&self) -> Option<u64> {
        self.standing
    }

    /// The text of a generation.
    ///
    /// # Errors
    ///
    /// If it is not kept, or cannot be read.
    pub fn text(&self, generation: u64) -> io::Result<String> {
        if !self.entries.contains_key(&generation) {
            return Err(unknown(generation));
        }
        fs::read_to_string(text_at(&self.folder, generation))
    }

    /// All that are kept, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.values()
    }

    /// Forgets the oldest beyond [`KEPT_MAX`], but never what stands or has just come.
    fn prune(&mut self, newest: u64) {
        let surplus = self.entries.len().saturating_sub(KEPT_MAX);
        let old: Vec<u64> = self
            .entries
            .keys()
            .copied()
            .filter(|generation| Some(*generation) != self.standing && *generation != newest)
            .take(surplus)
            .collect();
        for generation in old {
            self.entries.remove(&generation);
            // The description first: without it the text is no entry. What stays is found as
            // senseless at the next start and does no harm.
            let _ = fs::remove_file(about_at(&self.folder, generation));
            let _ = fs::remove_file(text_at(&self.folder, generation));
        }
    }
}

fn text_at(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("{generation}.toml"))
}

fn about_at(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("{generation}.json"))
}

fn unknown(generation: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("generation {generation} is not in the history"),
    )
}

/// The generation that the pointer's text names.
fn named(text: &str, entries: &BTreeMap<u64, Entry>) -> io::Result<u64> {
    let found = text.trim_end().parse().ok().filter(|generation| entries.contains_key(generation));
    found.ok_or_else(|| {
        let why = format!("names generation {:?}, which is not in the history", text.trim_end());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// Puts a whole file in place of another, so that after a power cut one of the two is there.
fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The name is in the folder, which has a cache of its own.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(generation: u64) -> Entry {
        Entry { generation, at: 1_000 + generation, message: format!("the {generation}th") }
    }

    fn open(folder: &Path) -> History {
        let (history, senseless) = History::open(folder).unwrap();
        assert_eq!(senseless, 0);
        history
    }

    #[test]
    fn a_start_finds_what_stands_and_not_what_waits_for_its_confirmation() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = open(folder.path());
        assert_eq!((history.standing(), history.entries().count()), (None, 0));
        history.keep(entry(3), "schema = 1\n").unwrap();
        assert_eq!(open(folder.path()).standing(), None, "kept is not confirmed");
        history.stand(3).unwrap();
        history.keep(entry(5), "schema = 1 # five\n").unwrap();
        let again = open(folder.path());
        assert_eq!(again.standing(), Some(3));
        assert_eq!(again.entries().cloned().collect::<Vec<_>>(), [entry(3), entry(5)]);
        assert_eq!(again.text(3).unwrap(), "schema = 1\n");
        assert_eq!(again.text(5).unwrap(), "schema = 1 # five\n");
        history.stand(5).unwrap();
        assert_eq!(open(folder.path()).standing(), Some(5));
    }

    #[test]
    fn what_is_not_kept_cannot_stand() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = open(folder.path());
        history.keep(entry(1), "").unwrap();
        history.stand(1).unwrap();
        assert_eq!(history.stand(2).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(history.text(2).unwrap_err().to_string(), "generation 2 is not in the history");
        assert_eq!(open(folder.path()).standing(), Some(1));
    }

    #[test]
    fn a_pointer_to_nothing_is_refused_and_not_guessed() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["7\n", "", "one\n"] {
            fs::write(folder.path().join("standing"), text).unwrap();
            let error = History::open(folder.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text:?}: {error}");
        }
    }

    /// A power cut between any two writes leaves the generation before standing.
    #[test]
    fn what_was_half_written_is_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = open(folder.path());
        history.keep(entry(1), "one").unwrap();
        history.stand(1).unwrap();
        let files = folder.path().join("history");
        fs::write(files.join("2.new"), "half").unwrap();
        fs::write(files.join("2.toml"), "whole, without a description").unwrap();
        fs::write(files.join("3.json"), serde_json::to_vec(&entry(3)).unwrap()).unwrap();
        fs::write(files.join("4.json"), "{\"generation\": 4").unwrap();
        fs::write(folder.path().join("standing.new"), "2").unwrap();
        let (again, senseless) = History::open(folder.path()).unwrap();
        assert_eq!((again.standing(), senseless), (Some(1), 2));
        assert_eq!(again.entries().count(), 1);
    }

    #[test]
    fn a_hundred_are_kept_and_what_stands_always() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = open(folder.path());
        history.keep(entry(1), "one").unwrap();
        history.stand(1).unwrap();
        for generation in 2..=150 {
            history.keep(entry(generation), "more").unwrap();
        }
        let again = open(folder.path());
        assert_eq!(again.entries().count(), KEPT_MAX);
        assert_eq!(again.entries().next().map(|entry| entry.generation), Some(1));
        assert_eq!(again.entries().nth(1).map(|entry| entry.generation), Some(52));
        assert_eq!(fs::read_dir(folder.path().join("history")).unwrap().count(), 2 * KEPT_MAX);
    }
}
