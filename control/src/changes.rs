//! Changes of the configuration: the apply that is under way, what waits for its confirmation, and
//! the way back.
//!
//! ```text
//!             prepare            published                confirm
//!   (nothing) ───────▶ under way ─────────▶ waiting ───────────────▶ (nothing)
//!       ▲                  │ refused           │ time is up, or the operator takes it back
//!       │◀─────────────────┘                   ▼
//!       └────────────────────────────────── way back ◀─┐ tried again until every worker judges
//!                    published                  └──────┘ by what was confirmed last
//! ```
//!
//! INVARIANT: what waits is in force until its time is up, also if `bulkheadd` is killed meanwhile,
//! and not a moment longer if the box was started anew: the time stands in the run folder, which is
//! in memory, and by a clock that stands only while the box is off.
//!
//! INVARIANT: that it was rolled back is on the disk before the way back begins.

mod answers;
mod marker;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_config::Config;
use bulkhead_wg::Time;
use tracing::{error, info, warn};

use crate::api::{Answer, Refusal, RefusalKind};
use crate::history::{Entry, EntryState, History};
use crate::state::RequestId;
use marker::Marker;

/// How often the way back is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// All changes.
#[derive(Debug)]
pub struct Changes {
    history: History,
    marker: Marker,
    /// The generation in the history whose text is in force.
    in_force: Option<u64>,
    under_way: Option<UnderWay>,
    waiting: Option<Waiting>,
    way_back: Option<WayBack>,
    /// What was taken back and what came, until it is answered.
    came_back: Option<(u64, u64)>,
    /// What could not be kept.
    unkept: Option<String>,
}

/// What an apply is to put in force, and what is to be kept of it.
#[derive(Debug)]
pub struct Proposal {
    /// User id of whoever asks.
    pub by: u32,
    /// The operator's words.
    pub message: String,
    /// How long it may wait for its confirmation; `None`: it needs none.
    pub confirm: Option<Duration>,
    /// The generation that had this text, if it is brought back.
    pub text_of: Option<u64>,
}

/// The three clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since this process started.
    pub now: Time,
    /// Since the box started, also while it slept.
    pub boot: Duration,
    /// Since 1970.
    pub wall: Duration,
}

#[derive(Debug)]
struct UnderWay {
    request: RequestId,
    proposal: Proposal,
    config: Arc<Config>,
    bytes: usize,
    /// Once every worker judges by it.
    generation: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    generation: u64,
    until: Time,
}

#[derive(Debug)]
struct WayBack {
    from: u64,
    to: u64,
    step: Step,
    /// Why it does not get on.
    problem: Option<String>,
    /// The operator who asked for it, until there is an answer.
    asked_by: Option<RequestId>,
}

#[derive(Debug)]
enum Step {
    Due(Time),
    Loading,
    UnderWay(RequestId, Arc<Config>),
}

impl Changes {
    /// With what is kept, for the daemon of this run folder.
    #[must_use]
    pub fn new(history: History, run_dir: &Path) -> Self {
        Self {
            history,
            marker: Marker::new(run_dir),
            in_force: None,
            under_way: None,
            waiting: None,
            way_back: None,
            came_back: None,
            unkept: None,
        }
    }

    /// What is kept.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// At the start: the generation that still waits for its confirmation, if there is one. Every
    /// other that waited is rolled back.
    pub fn resume(&mut self, moment: Moment) -> Option<u64> {
        let standing = self.standing();
        // Read before any is rolled back, which forgets the marker.
        let waited: Vec<(u64, Option<Duration>)> = self
            .history
            .entries()
            .filter(|entry| entry.state == EntryState::Waiting)
            .map(|entry| (entry.generation, self.marker.left(entry.generation, moment.boot)))
            .collect();
        for (generation, left) in waited {
            match left {
                Some(left) if Some(generation) > standing && standing.is_some() => {
                    info!(generation, ?left, "waits for its confirmation still");
                    self.waiting = Some(Waiting { generation, until: moment.now.plus(left) });
                    self.in_force = Some(generation);
                }
                Some(_) | None => {
                    warn!(
                        generation,
                        "was not confirmed before its time was up or the box went down"
                    );
                    self.mark_rolled_back(generation);
                }
            }
        }
        self.waiting.map(|waiting| waiting.generation)
    }

    /// At the start: what waited cannot be put in force any more.
    pub fn give_up(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.mark_rolled_back(waiting.generation);
        }
        self.in_force = None;
    }

    /// At the start: what was confirmed last is what begins.
    pub fn start_with_standing(&mut self) {
        self.in_force = self.standing();
    }

    /// What was confirmed last.
    #[must_use]
    pub fn standing(&self) -> Option<u64> {
        self.history.standing().map(|entry| entry.generation)
    }

    /// What waits for its confirmation.
    #[must_use]
    pub fn waiting(&self) -> Option<u64> {
        self.waiting.map(|waiting| waiting.generation)
    }

    /// Whether another change may begin.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::Waiting`].
    pub fn free(&self, now: Time) -> Result<(), Refusal> {
        let Some(Waiting { generation, until }) = self.waiting else { return Ok(()) };
        let why = format!(
            "generation {generation} waits for its confirmation, for another {} s; nothing was \
             changed. First keep it with bulkhead confirm {generation}, or take it back with bulkhead \
             rollback --of {generation}",
            until.since(now).as_secs()
        );
        Err(Refusal::new(RefusalKind::Waiting, why))
    }

    /// Writes down what is about to be put in force.
    ///
    /// # Errors
    ///
    /// If it cannot be kept, or if it could not be taken back; then it must not be put in force.
    pub fn prepare(
        &mut self,
        request: RequestId,
        proposal: Proposal,
        (config, text): (&Arc<Config>, &str),
    ) -> Result<(), Refusal> {
        if proposal.confirm.is_some() && self.standing().is_none() {
            let why = "no configuration was confirmed yet, so there is none to roll back to; \
                       nothing was changed. Apply it without --confirm";
            return Err(Refusal::new(RefusalKind::Unavailable, why));
        }
        self.write_down(text).map_err(|refusal| {
            Refusal::new(refusal.kind, format!("{refusal}; nothing was changed"))
        })?;
        let (config, bytes) = (Arc::clone(config), text.len());
        self.under_way = Some(UnderWay { request, proposal, config, bytes, generation: None });
        Ok(())
    }

    /// Keeps a text for the next start, without putting it in force.
    ///
    /// # Errors
    ///
    /// If it cannot be kept.
    pub fn keep_for_next_start(
        &mut self,
        generation: u64,
        proposal: Proposal,
        text: &str,
        moment: Moment,
    ) -> Result<(), Refusal> {
        self.write_down(text)?;
        let entry = entry(generation, Some(proposal), text.len(), EntryState::Confirmed, moment);
        self.history.keep(entry).map_err(|problem| unkept(&problem))
    }

    /// Every worker judges by `config`, and the generation of its table is this one. Comes before
    /// the answer to whoever asked for it.
    pub fn published(
        &mut self,
        generation: u64,
        (config, text): (&Arc<Config>, &str),
        moment: Moment,
    ) {
        if self.under_way.as_ref().is_some_and(|change| Arc::ptr_eq(&change.config, config)) {
            self.applied(generation, moment);
        } else if let Some(back) = self.way_back.take_if(|back| back.step.is_to(config)) {
            info!(generation, back_to = back.to, "what was confirmed last is in force again");
            self.in_force = Some(back.to);
            self.came_back = Some((back.from, back.to));
        } else if self.in_force.is_none() && self.standing().is_none() {
            // The first start of all: what works is what later starts begin with.
            let first = entry(generation, None, text.len(), EntryState::Confirmed, moment);
            match self.write_down(text).and_then(|()| self.keep(first)) {
                Ok(()) => self.in_force = Some(generation),
                Err(refusal) => self.complain(&refusal),
            }
        }
    }

    /// An answer leaves; adds what is known here to it, and notes if the change failed.
    pub fn answered(&mut self, id: RequestId, answer: &mut Answer, now: Time) {
        if let Some(change) = self.under_way.take_if(|change| change.request == id)
            && let Answer::Applied(applied) = answer
        {
            applied.configuration = change.generation.unwrap_or_default();
            applied.confirm_within_s = change.proposal.confirm.map(|time| time.as_secs());
            let warnings: Vec<_> =
                applied.warning.take().into_iter().chain(self.unkept.clone()).collect();
            applied.warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        }
        if let Answer::Applied(applied) = answer
            && let Some((from, to)) = self.came_back.take()
        {
            applied.rolled_back = Some(from);
            applied.configuration = to;
        }
        let Some(back) = &mut self.way_back else { return };
        if let (Step::UnderWay(request, _), Answer::Refused(refusal)) = (&back.step, &*answer)
            && *request == id
        {
            let refusal = refusal.clone();
            self.way_back_failed(&refusal, now);
        }
    }

    /// Keeps what waits, if it is the generation that is wanted.
    ///
    /// # Errors
    ///
    /// As [`Self::waits`]; or it cannot be written down: then it is rolled back in time unless this is
    /// tried again with success.
    pub fn confirm(&mut self, wanted: Option<u64>) -> Result<u64, Refusal> {
        let generation = self.waits(wanted, "confirmed. To keep that one: bulkhead confirm")?;
        self.history.mark(generation, EntryState::Confirmed).map_err(|problem| {
            let why = format!(
                "the confirmation cannot be written down: {problem}; generation {generation} is \
                 rolled back when its time is up, unless it is confirmed before"
            );
            Refusal::new(RefusalKind::Refused, why)
        })?;
        info!(generation, "confirmed");
        self.waiting = None;
        self.marker.forget();
        Ok(generation)
    }

    /// Whether what waits may be taken back by whoever wants that of this generation.
    ///
    /// # Errors
    ///
    /// As [`Self::waits`].
    pub fn may_take_back(&self, of: u64) -> Result<(), Refusal> {
        self.waits(Some(of), "taken back. To take that one back: bulkhead rollback --of").map(drop)
    }

    /// Takes back what waits, on behalf of `request` or because its time is up. The way back is due
    /// at once.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::NothingWaiting`].
    pub fn take_back(&mut self, request: Option<RequestId>, now: Time) -> Result<(), Refusal> {
        let (Some(waiting), Some(to)) = (self.waiting.take(), self.standing()) else {
            return Err(self.nothing_waits());
        };
        let from = waiting.generation;
        warn!(generation = from, back_to = to, "is taken back");
        self.mark_rolled_back(from);
        let step = Step::Due(now);
        self.way_back = Some(WayBack { from, to, step, problem: None, asked_by: request });
        Ok(())
    }

    /// Time has passed, and nothing else is under way: the generation that must be read and put in
    /// force now, and who has asked for it.
    pub fn due(&mut self, now: Time) -> Option<(u64, Option<RequestId>)> {
        if self.waiting.is_some_and(|waiting| waiting.until <= now) {
            // It waits, so this is never refused.
            let _ = self.take_back(None, now);
        }
        let back = self.way_back.as_mut()?;
        if !matches!(back.step, Step::Due(at) if at <= now) {
            return None;
        }
        back.step = Step::Loading;
        Some((back.to, back.asked_by.take()))
    }

    /// When to call [`Self::due`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let back = self.way_back.as_ref().and_then(|back| match back.step {
            Step::Due(at) => Some(at),
            Step::Loading | Step::UnderWay(..) => None,
        });
        self.waiting.map(|waiting| waiting.until).into_iter().chain(back).min()
    }

    /// What is due was read, and is being put in force as this request.
    pub fn way_back_begins(&mut self, request: RequestId, config: &Arc<Config>) {
        if let Some(back) = &mut self.way_back {
            back.step = Step::UnderWay(request, Arc::clone(config));
        }
    }

    /// The way back is not open; it is tried again.
    pub fn way_back_failed(&mut self, refusal: &Refusal, now: Time) {
        if let Some(back) = &mut self.way_back {
            if back.problem.is_none() {
                error!(generation = back.from, back_to = back.to, "not taken back: {refusal}");
            }
            back.problem = Some(refusal.message.clone());
            back.step = Step::Due(now.plus(RETRY_INTERVAL));
        }
    }

    /// No datapath runs; the next one gets what was confirmed last.
    pub fn way_back_ends(&mut self) {
        if let Some(back) = self.way_back.take() {
            info!(back_to = back.to, "the next datapath gets what was confirmed last");
            self.in_force = Some(back.to);
            self.came_back = Some((back.from, back.to));
        }
    }

    fn applied(&mut self, generation: u64, moment: Moment) {
        let Some(change) = &mut self.under_way else { return };
        change.generation = Some(generation);
        let (confirm, bytes) = (change.proposal.confirm, change.bytes);
        let state = if confirm.is_some() { EntryState::Waiting } else { EntryState::Confirmed };
        let entry = Entry {
            by: Some(change.proposal.by),
            message: change.proposal.message.clone(),
            text_of: change.proposal.text_of,
            ..entry(generation, None, bytes, state, moment)
        };
        self.in_force = Some(generation);
        // Whatever was to be brought back, the operator wants this now.
        self.way_back = None;
        if let Some(before) = self.waiting.take() {
            self.mark_rolled_back(before.generation);
        }
        if let Some(confirm) = confirm {
            self.waiting = Some(Waiting { generation, until: moment.now.plus(confirm) });
            if let Err(problem) = self.marker.write(generation, confirm, moment.boot) {
                warn!(%problem, "a restart of bulkheadd will roll back at once");
            }
        }
        match self.keep(entry) {
            Ok(()) => self.unkept = None,
            Err(refusal) => self.complain(&refusal),
        }
    }

    fn keep(&mut self, entry: Entry) -> Result<(), Refusal> {
        self.history.keep(entry).map_err(|problem| unkept(&problem))
    }

    fn write_down(&mut self, text: &str) -> Result<(), Refusal> {
        self.history.prepare(text).map_err(|problem| unkept(&problem))
    }

    fn complain(&mut self, refusal: &Refusal) {
        let stands = self.standing();
        let start =
            stands.map_or("the file".to_owned(), |standing| format!("generation {standing}"));
        let why = format!("what is in force is not kept, a start begins with {start}: {refusal}");
        error!("{why}");
        self.unkept = Some(why);
    }

    /// If it cannot be written down, it waits on the disk and its time is up: the same at any start.
    fn mark_rolled_back(&mut self, generation: u64) {
        self.marker.forget();
        if let Err(problem) = self.history.mark(generation, EntryState::RolledBack) {
            error!(generation, %problem, "its end cannot be written down");
        }
    }
}

impl Step {
    fn is_to(&self, config: &Arc<Config>) -> bool {
        matches!(self, Self::UnderWay(_, to) if Arc::ptr_eq(to, config))
    }
}

fn entry(
    generation: u64,
    proposal: Option<Proposal>,
    bytes: usize,
    state: EntryState,
    moment: Moment,
) -> Entry {
    let (by, message, text_of) = match proposal {
        Some(proposal) => (Some(proposal.by), proposal.message, proposal.text_of),
        None => (None, "found at the first start".to_owned(), None),
    };
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    Entry { generation, at: moment.wall.as_secs(), by, message, text_of, state, bytes }
}

fn unkept(problem: &io::Error) -> Refusal {
    let why = format!("the configuration cannot be kept in the state folder: {problem}");
    Refusal::new(RefusalKind::Refused, why)
}

#[cfg(test)]
mod tests;
