//! What is answered about changes.

use bulkhead_wg::Time;

use super::{Changes, WayBack};
use crate::api::{ConfigurationAnswer, HistoryAnswer, HistoryEntryAnswer, WaitingAnswer};
use crate::history::Entry;

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
