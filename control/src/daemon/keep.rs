//! What changes leave on the disk: written beside the loop, one write after the other, and what follows when
//! each has ended.

use std::io;

use tokio::sync::mpsc;

use super::Daemon;
use crate::changes::Followed;
use crate::history::Write;

/// A write that has ended.
pub(super) struct Written {
    pub(super) write: Write,
    pub(super) result: io::Result<()>,
}

impl Daemon {
    /// Has the next write carried out on a thread of its own, if none is: a disk may take seconds, and
    /// others lose facts meanwhile.
    pub(super) fn keep_changes(&mut self) {
        if let Some(write) = self.changes.to_write(self.clock.now()) {
            let (mut disk, written) = (self.changes.history().disk().clone(), self.written.clone());
            tokio::task::spawn_blocking(move || {
                let result = write.carry_out(&mut disk);
                // The receiver is gone only when the process goes.
                let _ = written.blocking_send(Written { write, result });
            });
        }
        self.follow_writes();
    }

    /// One has ended.
    pub(super) fn change_written(&mut self, written: Written) {
        let Written { write, result } = written;
        self.changes.written(write, result, self.clock.now());
        self.follow_writes();
    }

    /// At the end: what every worker judges by is what the next start begins with, whether or not it was
    /// acknowledged.
    pub(super) async fn keep_last_changes(&mut self, writes: &mut mpsc::Receiver<Written>) {
        // It is not put in force any more.
        self.prepared = None;
        if self.changes.is_written_beside()
            && let Some(written) = writes.recv().await
        {
            self.change_written(written);
        }
        let now = self.clock.now();
        while let Some(write) = self.changes.to_write(now) {
            let mut disk = self.changes.history().disk().clone();
            let result = write.carry_out(&mut disk);
            self.changes.written(write, result, now);
        }
        self.follow_writes();
    }

    fn follow_writes(&mut self) {
        while let Some(followed) = self.changes.poll() {
            match followed {
                Followed::Prepared(request, result) => self.prepared(request, result),
                Followed::Answer(request, answer) => self.answer(request, answer),
            }
        }
    }
}
