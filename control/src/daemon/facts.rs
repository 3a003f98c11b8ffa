//! The calendar and the disk, for what is known of devices.

use std::time::Duration;

use bulkhead_wg::Time;
use tracing::warn;

use super::Daemon;
use crate::clock::today;
use crate::state::Job;

/// How often it is tried to keep facts after that has failed. A disk that is full stays so for a while.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

impl Daemon {
    /// Windows open and close, facts go stale, clocks are set.
    pub(super) fn look_at_calendar(&mut self) {
        let now = self.clock.now();
        self.state.calendar(today(), now);
    }

    /// Makes a table on a thread of its own: a fact that is lost meanwhile does not wait for it.
    pub(super) fn compile(&self, job: Job) {
        let compiled = self.compiled_for_facts.clone();
        tokio::task::spawn_blocking(move || {
            // The receiver is gone only when the process goes.
            let _ = compiled.blocking_send(job.compile());
        });
    }

    /// Writes what is known, if it changed.
    pub(super) fn keep_facts(&mut self, now: Time) {
        let Some(knowledge) = self.state.unkept() else { return };
        if self.facts_retry_at.is_some_and(|retry_at| now < retry_at) {
            // Whoever waits for the disk is told that it does not take anything.
            return self.state.not_kept();
        }
        let written = self.fact_files.write(knowledge).map_err(|problem| problem.to_string());
        self.facts_retry_at = None;
        if let Err(problem) = &written {
            warn!(problem, "facts about devices are not kept; tried again");
            self.facts_retry_at = Some(now.plus(RETRY_INTERVAL));
        }
        self.state.kept(written);
    }
}
