//! What is answered about changes.

use bulkhead_wg::Time;

use super::way_back::WayBack;
use super::{Changes, Waiting};
use crate::api::{
    ConfigurationAnswer, HistoryAnswer, HistoryEntryAnswer, Refusal, RefusalKind, WaitingAnswer,
};
use crate::history::{Entry, EntryState};

impl Changes {
    /// Why the gateway is not as it should be.
    pub fn degraded(&self) -> impl Iterator<Item = String> {
        let back = self.way_back.as_ref().and_then(|back| {
            let WayBack { from, to, problem, .. } = back;
            let problem = problem.as_ref()?;
            Some(format!(
                "generation {from} was not confirmed and is still in force, because generation {to} \
                 cannot be put back: {problem}"
            ))
        });
        back.into_iter().chain(self.unkept.clone())
    }

    /// What runs, stands and waits; without the file.
    #[must_use]
    pub fn answer(&self, now: Time) -> ConfigurationAnswer {
        let waiting = self.waiting.and_then(|waiting| {
            let left = waiting.until.since(now).as_millis();
            Some(WaitingAnswer {
                generation: waiting.generation,
                left_ms: u64::try_from(left).unwrap_or(u64::MAX),
                back_to: self.standing()?,
            })
        });
        ConfigurationAnswer {
            in_force: self.in_force,
            standing: self.standing(),
            waiting,
            taking_back: self.way_back.as_ref().map(|back| back.from),
            ..ConfigurationAnswer::default()
        }
    }

    /// What waits, if it is the generation that is wanted: whoever names one has not looked at
    /// another. `not_done`: what became of none, and the command that does it to the one that waits.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::NothingWaiting`], also if another does: trying again could not help.
    pub(super) fn waits(&self, wanted: Option<u64>, not_done: &str) -> Result<u64, Refusal> {
        let Some(Waiting { generation, .. }) = self.waiting else {
            return Err(self.nothing_waits());
        };
        let Some(wanted) = wanted.filter(|wanted| *wanted != generation) else {
            return Ok(generation);
        };
        let why = format!(
            "it is generation {generation} that waits for its confirmation, not {wanted}; nothing was \
             {not_done} {generation}"
        );
        Err(Refusal::new(RefusalKind::NothingWaiting, why))
    }

    pub(super) fn nothing_waits(&self) -> Refusal {
        let last = self.history.entries().next_back();
        let taken = last.filter(|entry| entry.state == EntryState::RolledBack);
        let more = taken.map_or_else(String::new, |entry| {
            format!("; generation {} was rolled back", entry.generation)
        });
        let why = format!("nothing waits for its confirmation{more}");
        Refusal::new(RefusalKind::NothingWaiting, why)
    }

    /// All generations that are kept.
    #[must_use]
    pub fn all(&self) -> HistoryAnswer {
        let standing = self.standing();
        let entry = |entry: &Entry| HistoryEntryAnswer {
            generation: entry.generation,
            at: entry.at,
            by: entry.by,
            message: entry.message.clone(),
            text_of: entry.text_of,
            state: entry.state.name().to_owned(),
            in_force: self.in_force == Some(entry.generation),
            standing: standing == Some(entry.generation),
        };
        HistoryAnswer { entries: self.history.entries().map(entry).collect() }
    }
}
