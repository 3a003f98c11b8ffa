//! A disk that takes its time over one file.

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};

use super::Rig;

/// What is written to the file goes into a pipe, and whoever opens it waits for a reader.
pub(crate) struct SlowDisk {
    pipe: PathBuf,
    reader: PathBuf,
}

impl SlowDisk {
    pub(crate) fn over(rig: &Rig, file: &str) -> Self {
        let (pipe, reader) = (rig.path(file), rig.path("reader"));
        let _ = fs::remove_file(&pipe);
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::hard_link(&pipe, &reader).unwrap();
        Self { pipe, reader }
    }

    /// The write that is under way fails, since a pipe cannot be synchronised.
    pub(crate) fn fails(&self) {
        let reader = File::open(&self.reader).unwrap();
        fs::remove_file(&self.pipe).unwrap();
        fs::remove_file(&self.reader).unwrap();
        drop(reader);
    }

    /// A write that is under way fails, if there is one; none after it does.
    pub(crate) fn recovers(&self) {
        fs::remove_file(&self.pipe).unwrap();
        open(&self.reader, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
    }
}
