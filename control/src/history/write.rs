//! What is to be written to the history. It is carried out where it holds up nobody, and the history knows
//! of it only once it is on the disk.

use std::io;
use std::sync::Arc;

use super::{Disk, Entry, entry_name, text_name};

/// Where a text is before it is that of a generation. Two, so that what the first start finds and what an
/// operator applies meanwhile are not taken for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// What was asked for.
    Change,
    /// What was found at the first start of all.
    Found,
}

impl Incoming {
    fn name(self) -> &'static str {
        match self {
            Self::Change => "incoming.toml",
            Self::Found => "found.toml",
        }
    }
}

/// One of the steps that each leave the disk as it was or with the whole of it.
#[derive(Clone, Debug)]
pub enum Write {
    /// A text that is about to be put in force.
    Text(Incoming, Arc<str>),
    /// The text that was written last is that of a generation.
    Keep(Incoming, Entry),
    /// What became of a generation whose text is kept.
    Mark(Entry),
    /// These generations are too many. Whatever of them cannot be removed does no harm.
    Forget(Vec<u64>),
}

impl Write {
    /// Does it, and waits for the disk.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; what was kept before is still there.
    pub fn carry_out(&self, disk: &mut impl Disk) -> io::Result<()> {
        match self {
            Self::Text(incoming, text) => disk.write(incoming.name(), text.as_bytes()),
            Self::Keep(incoming, entry) => {
                disk.rename(incoming.name(), &text_name(entry.generation))?;
                disk.settle()?;
                describe(disk, entry)
            }
            Self::Mark(entry) => describe(disk, entry),
            Self::Forget(old) => {
                for generation in old {
                    // The description first: a text without one is removed at the next start.
                    let _ = disk.remove(&entry_name(*generation));
                    let _ = disk.remove(&text_name(*generation));
                }
                Ok(())
            }
        }
    }
}

fn describe(disk: &mut impl Disk, entry: &Entry) -> io::Result<()> {
    let name = entry_name(entry.generation);
    let beside = format!("{}.new", entry.generation);
    disk.write(&beside, &serde_json::to_vec(entry)?)?;
    disk.rename(&beside, &name)?;
    disk.settle()
}
