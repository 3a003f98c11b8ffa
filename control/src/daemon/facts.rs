//! The calendar and the disk, for what is known of devices.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_wg::Time;
use tokio::sync::mpsc;
use tracing::warn;

use super::Daemon;
use crate::clock::today;
use crate::fact_files::FactFiles;
use crate::knowledge::Drawers;

/// How often it is tried to keep facts after that has failed. A disk that is full stays so for a while.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How a write of facts ended.
pub(super) type Written = Result<(), String>;

/// Where facts are kept.
pub(super) struct FactKeeper {
    files: Arc<FactFiles>,
    /// At most one write is under way.
    written: mpsc::Sender<Written>,
    /// When what could not be kept is tried again.
    retry_at: Option<Time>,
}

impl FactKeeper {
    pub(super) fn new(files: FactFiles, written: mpsc::Sender<Written>) -> Self {
        Self { files: Arc::new(files), written, retry_at: None }
    }

    /// When to call [`Daemon::keep_facts`] next.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.retry_at
    }

    /// On a thread of its own: a disk may take seconds, and others lose facts meanwhile.
    fn write(&self, drawers: Drawers) {
        let (files, written) = (Arc::clone(&self.files), self.written.clone());
        tokio::task::spawn_blocking(move || {
            let result = files.write(drawers).map_err(|problem| problem.to_string());
            // The receiver is gone only when the process goes.
            let _ = written.blocking_send(result);
        });
    }
}

impl Daemon {
    /// Windows open and close, facts go stale, clocks are set.
    pub(super) fn look_at_calendar(&mut self) {
        let now = self.clock.now();
        self.state.calendar(today(), now);
    }

    /// Has what is known written, if it changed. Comes after the datapath was told.
    pub(super) fn keep_facts(&mut self, now: Time) {
        if self.facts.retry_at.is_some_and(|retry_at| now < retry_at) {
            // Whoever waits for the disk is told that it does not take anything.
            return self.state.rests();
        }
        if let Some(drawers) = self.state.to_keep() {
            self.facts.retry_at = None;
            self.facts.write(drawers);
        }
    }

    /// A write has ended.
    pub(super) fn facts_written(&mut self, written: Written) {
        if let Err(problem) = &written {
            warn!(problem, "facts about devices are not kept; tried again");
            self.facts.retry_at = Some(self.clock.now().plus(RETRY_INTERVAL));
        }
        self.state.kept(written);
    }

    /// At the end: what the datapath was told is not forgotten, whether or not it was acknowledged.
    pub(super) async fn keep_last_facts(&mut self, writes: &mut mpsc::Receiver<Written>) {
        if self.state.is_keeping()
            && let Some(written) = writes.recv().await
        {
            self.state.kept(written);
        }
        if let Some(drawers) = self.state.to_keep()
            && let Err(problem) = self.facts.files.write(drawers)
        {
            warn!(%problem, "facts about devices are not kept");
        }
    }
}
