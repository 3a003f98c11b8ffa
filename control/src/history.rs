//! What was in force: every applied configuration with who applied it and why, and which of them the
//! box starts with.
//!
//! ```text
//!   STATE/history/42.toml    the text, as it was when generation 42 came into force
//!   STATE/history/42.json    when, by whom, why; confirmed, waiting, or rolled back
//!
//!   prepare ─▶ incoming.toml       before anything changes: a full disk refuses the apply
//!   keep ────▶ 42.toml, 42.json    every worker judges by it
//!   mark ────▶ 42.json             confirmed or rolled back
//! ```
//!
//! INVARIANT: what stands is the newest generation that is confirmed. One that waits for its
//! confirmation never stands, so a box that dies meanwhile starts with the one before.
//!
//! INVARIANT: after a power cut at any moment what stands is what stood before the call that was
//! interrupted or after it, with its whole text: `42.json` comes only when `42.toml` is on the disk,
//! and each file is replaced by renaming one that was synchronised.
//!
//! INVARIANT: if it cannot be known what stands, nothing is guessed. An older configuration may let
//! somebody in whom a newer one has removed.

mod disk;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use disk::{Disk, Folder};
pub use write::{Incoming, Write};

/// Generations that are kept; of older ones the texts go.
pub const KEPT_MAX: usize = 100;

const FOLDER: &str = "history";

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The generation of the table that first judged by this text.
    pub generation: u64,
    /// When every worker judged by it, seconds since 1970.
    pub at: u64,
    /// User id of whoever asked for it; `None`: nobody did, it was found at the start.
    pub by: Option<u32>,
    /// The operator's words; may be empty.
    pub message: String,
    /// The generation whose text this was before, if it was brought back.
    #[serde(default)]
    pub text_of: Option<u64>,
    /// What became of it.
    pub state: EntryState,
    /// Length of the text, bytes.
    pub bytes: u64,
}

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryState {
    /// The operator wants to keep it.
    Confirmed,
    /// It is in force, and will be rolled back if it is not confirmed.
    Waiting,
    /// It was not confirmed in time, or the operator took it back.
    RolledBack,
}

impl EntryState {
    /// As written in its file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Waiting => "waiting",
            Self::RolledBack => "rolled-back",
        }
    }
}

/// All generations that are kept.
#[derive(Debug)]
pub struct History<D = Folder> {
    disk: D,
    entries: BTreeMap<u64, Entry>,
}

/// Why it cannot be known what was in force.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The folder cannot be used.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is damaged that decides what stands.
    #[error(
        "{} is damaged: it may be of the configuration that was confirmed last, and an older one is \
         not put in force on a guess. Restore it from a backup; or move generation {generation} \
         away, then {} is what bulkheadd starts with", .path.display(), next(*.standing)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its generation.
        generation: u64,
        /// What stands without it.
        standing: Option<u64>,
    },
}

impl History {
    /// What is kept under `state_dir`, and the names of files there that make no sense and decide
    /// nothing; those are left out.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    pub fn open(state_dir: &Path) -> Result<(Self, Vec<String>), HistoryError> {
        let path = state_dir.join(FOLDER);
        let disk = Folder::open(&path).map_err(|source| HistoryError::Io { path, source })?;
        Self::read(disk)
    }
}

impl<D: Disk> History<D> {
    /// As [`History::open`].
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    pub fn read(mut disk: D) -> Result<(Self, Vec<String>), HistoryError> {
        let failed = |disk: &D, source| HistoryError::Io { path: disk.path().to_owned(), source };
        let names = disk.names().map_err(|source| failed(&disk, source))?;
        let (mut entries, mut damaged, mut senseless) = (BTreeMap::new(), vec![], vec![]);
        for name in names.iter().filter(|name| name.ends_with(".json")) {
            match (generation_of(name, ".json"), read_entry(&disk, name)) {
                (Some(generation), Ok(Found::Whole(entry))) if entry.generation == generation => {
                    entries.insert(generation, entry);
                }
                // Nobody starts with it.
                (Some(_), Ok(Found::WithoutText)) | (None, Ok(_)) => senseless.push(name.clone()),
                (Some(generation), Ok(_)) => damaged.push((generation, name.clone())),
                (_, Err(source)) => return Err(failed(&disk, source)),
            }
        }
        let standing = standing(&entries).map(|entry| entry.generation);
        damaged.sort_unstable();
        for (generation, name) in damaged.into_iter().rev() {
            if Some(generation) > standing {
                let path = disk.path().join(name);
                return Err(HistoryError::Damaged { path, generation, standing });
            }
            senseless.push(name);
        }
        // Steps that a crash interrupted. What cannot be removed does no harm.
        let described =
            |name: &str| names.iter().any(|other| *other == name.replace("toml", "json"));
        for name in &names {
            if name.ends_with(".new") || name.ends_with(".toml") && !described(name) {
                let _ = disk.remove(name);
            }
        }
        Ok((Self { disk, entries }, senseless))
    }

    /// What writes down what became of a generation; see [`Self::wrote`].
    ///
    /// # Errors
    ///
    /// If the generation is not kept.
    pub fn mark(&self, generation: u64, state: EntryState) -> io::Result<Write> {
        let entry = self.entries.get(&generation).ok_or_else(|| unknown(generation))?;
        Ok(Write::Mark(Entry { state, ..entry.clone() }))
    }

    /// This is on the disk. Returns what is to be written next. If a write has failed, then after a
    /// restart a state may be the one before or the one that was to be written.
    #[must_use]
    pub fn wrote(&mut self, write: Write) -> Option<Write> {
        match write {
            Write::Text(..) => None,
            Write::Keep(_, entry) => {
                let generation = entry.generation;
                self.entries.insert(generation, entry);
                let old = self.surplus(generation);
                (!old.is_empty()).then_some(Write::Forget(old))
            }
            Write::Mark(entry) => {
                self.entries.insert(entry.generation, entry);
                None
            }
            Write::Forget(old) => {
                self.entries.retain(|generation, _| !old.contains(generation));
                None
            }
        }
    }

    /// Carries out a write here and now, and what is to follow it.
    ///
    /// # Errors
    ///
    /// As [`Write::carry_out`].
    pub fn write(&mut self, write: Write) -> io::Result<()> {
        let mut next = Some(write);
        while let Some(write) = next {
            write.carry_out(&mut self.disk)?;
            next = self.wrote(write);
        }
        Ok(())
    }

    /// Where it is kept.
    #[must_use]
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// What the box starts with; `None`: with the configuration file.
    #[must_use]
    pub fn standing(&self) -> Option<&Entry> {
        standing(&self.entries)
    }

    /// One generation.
    #[must_use]
    pub fn entry(&self, generation: u64) -> Option<&Entry> {
        self.entries.get(&generation)
    }

    /// All that are kept, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.values()
    }

    /// The greatest generation that is kept; 0: none.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(generation, _)| *generation)
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
        let bytes = self.disk.read(&text_name(generation))?;
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Where the text of a generation is, for messages.
    #[must_use]
    pub fn text_path(&self, generation: u64) -> PathBuf {
        self.disk.path().join(text_name(generation))
    }

    /// The oldest beyond [`KEPT_MAX`], but never what stands, waits, or has just come.
    fn surplus(&self, newest: u64) -> Vec<u64> {
        let surplus = self.entries.len().saturating_sub(KEPT_MAX);
        let stands = self.standing().map(|entry| entry.generation);
        let goes = |entry: &&Entry| {
            let generation = Some(entry.generation);
            generation != stands && generation != Some(newest) && entry.state != EntryState::Waiting
        };
        self.entries.values().filter(goes).take(surplus).map(|entry| entry.generation).collect()
    }
}

/// What a description is good for.
enum Found {
    Whole(Entry),
    /// It does not stand, and its text is gone: a crash while it was forgotten.
    WithoutText,
    Damaged,
}

/// Errors of the disk are none of the content: they are not a reason to start with something else.
fn read_entry(disk: &impl Disk, name: &str) -> io::Result<Found> {
    let Ok(entry) = serde_json::from_slice::<Entry>(&disk.read(name)?) else {
        return Ok(Found::Damaged);
    };
    let length = match disk.length(&text_name(entry.generation)) {
        Ok(length) => Some(length),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(match entry.state {
        _ if length == Some(entry.bytes) => Found::Whole(entry),
        EntryState::Confirmed => Found::Damaged,
        EntryState::Waiting | EntryState::RolledBack => Found::WithoutText,
    })
}

fn standing(entries: &BTreeMap<u64, Entry>) -> Option<&Entry> {
    entries.values().rev().find(|entry| entry.state == EntryState::Confirmed)
}

fn text_name(generation: u64) -> String {
    format!("{generation}.toml")
}

fn entry_name(generation: u64) -> String {
    format!("{generation}.json")
}

fn generation_of(name: &str, suffix: &str) -> Option<u64> {
    name.strip_suffix(suffix)?.parse().ok()
}

fn next(standing: Option<u64>) -> String {
    match standing {
        Some(generation) => format!("generation {generation}"),
        None => "the configuration file".to_owned(),
    }
}

fn unknown(generation: u64) -> io::Error {
    let why = format!("generation {generation} is not in the history; see: bulkhead history");
    io::Error::new(io::ErrorKind::NotFound, why)
}

#[cfg(test)]
mod tests;
