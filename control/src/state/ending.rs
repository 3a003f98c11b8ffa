//! The end of a datapath that is told to end because it must be set up anew.
//!
//! ```text
//!   Running ── told to end ──▶ gone ──▶ the supervisor starts another, which gets what is wanted
//!      └── deaf ── killed ─────▲
//! ```
//!
//! INVARIANT: a datapath with another set-up than what is to be in force does not stay, if we can start
//! another. It could get no table, and would judge for ever by what nobody wants or by nothing.

use super::*;
use crate::intent::differences;
use crate::supervisor::END_TIMEOUT;

impl State {
    /// Tells the datapath to end.
    pub(super) fn stop_datapath(&mut self, now: Time) {
        self.end_by = Some(now.plus(END_TIMEOUT));
        self.actions.push_back(Action::StopDatapath);
    }

    /// One that was told to end and is there yet is killed: no other can be set up beside it, and once it is
    /// disconnected nobody could end it.
    pub(super) fn kill_deaf_datapath(&mut self) {
        if self.end_by.take().is_none() {
            return;
        }
        let (pid, seconds) = (self.pid().unwrap_or_default(), END_TIMEOUT.as_secs());
        let why = format!(
            "the datapath (process {pid}) was told to end and did not within {seconds} s, so it was \
             killed; it hung, and its last words are in the log"
        );
        warn!("{why}");
        if let Some(trial) = &mut self.trial {
            trial.killed = Some(why);
        }
        self.actions.push_back(Action::KillDatapath);
    }

    pub(super) fn ending_timeout(&mut self, now: Time) {
        if self.end_by.is_some_and(|end_by| now >= end_by) {
            self.kill_deaf_datapath();
        }
    }

    /// The datapath that runs cannot have what is wanted: a table for other ports must not reach it, a
    /// segment would be elsewhere.
    pub(super) fn does_not_fit(&mut self, now: Time) {
        if self.starts_datapath {
            self.stop_datapath(now);
        }
        for line in self.set_up_otherwise() {
            warn!("{line}");
        }
    }

    /// What an operator must know of a datapath that runs with another set-up than is wanted: how they
    /// differ, what judges now, and what becomes of that. Nothing if it fits.
    pub(super) fn set_up_otherwise(&self) -> Vec<String> {
        let Link::Running(Running { pid, configuration, generation }) = &self.link else {
            return vec![];
        };
        let found = differences(configuration, &self.intent.configuration);
        if found.is_empty() {
            return found;
        }
        let judges = match generation {
            0 => "lets nothing pass: it has no table".to_owned(),
            _ => format!(
                "judges by generation {generation}, made for another configuration than the one that is \
                 to be in force"
            ),
        };
        let what = if self.starts_datapath {
            format!("was told to end, and another is started; until then it {judges}")
        } else {
            format!(
                "{judges}; it gets no table before it is restarted: systemctl restart \
                 bulkhead-datapath"
            )
        };
        let why = found.iter().map(|one| format!("the datapath must be restarted: {one}"));
        why.chain([format!("the datapath (process {pid}) {what}")]).collect()
    }
}

#[cfg(test)]
mod tests;
