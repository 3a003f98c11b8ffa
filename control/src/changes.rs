//! Changes of the configuration: the apply that is under way, what waits for its confirmation, and
//! the way back.
//!
//! ```text
//!        prepare, begins         published                confirm
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
//! All of it is kept by [`writes`], beside the event loop.

mod answers;
mod marker;
mod way_back;
mod writes;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_config::Config;
use bulkhead_wg::Time;
use tracing::{error, info, warn};

use crate::api::{Answer, AppliedAnswer, Refusal, RefusalKind};
use crate::history::{Entry, EntryState, History, Incoming};
use crate::state::RequestId;
use marker::Marker;
use way_back::{Step, WayBack};
pub use writes::Followed;
use writes::{Kept, Then, Writes};

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
    writes: Writes,
    followed: VecDeque<Followed>,
    /// An answer that waits for the disk.
    held_back: Option<(RequestId, AppliedAnswer)>,
    /// Whether what the first start found is on its way to the disk.
    keeping_found: bool,
}

/// What an apply is to put in force, and what is to be kept of it.
#[derive(Clone, Debug)]
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
    /// Its confirmation is on its way to the disk: it was in time, whenever that ends.
    confirming: bool,
    /// The operator who has asked to take it back.
    asked_by: Option<RequestId>,
}

impl Waiting {
    fn new(generation: u64, until: Time) -> Self {
        Self { generation, until, confirming: false, asked_by: None }
    }

    /// Whether an operator may still decide.
    fn is_open(&self) -> Result<(), Refusal> {
        let generation = self.generation;
        let what = match (self.confirming, self.asked_by) {
            (false, None) => return Ok(()),
            (true, _) => "confirmed",
            (false, Some(_)) => "taken back",
        };
        let why =
            format!("generation {generation} is being {what}, which takes the disk some time");
        Err(Refusal::new(RefusalKind::Busy, why))
    }
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
            writes: Writes::default(),
            followed: VecDeque::new(),
            held_back: None,
            keeping_found: false,
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
                    self.waiting = Some(Waiting::new(generation, moment.now.plus(left)));
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
        let Some(Waiting { generation, until, .. }) = self.waiting else { return Ok(()) };
        let why = format!(
            "generation {generation} waits for its confirmation, for another {} s; nothing was \
             changed. First keep it with bulkhead confirm {generation}, or take it back with bulkhead \
             rollback --of {generation}",
            until.since(now).as_secs()
        );
        Err(Refusal::new(RefusalKind::Waiting, why))
    }

    /// Whether it could be taken back, if it is to wait for its confirmation.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::Unavailable`].
    pub fn may_wait(&self, proposal: &Proposal) -> Result<(), Refusal> {
        if proposal.confirm.is_none() {
            return Ok(());
        }
        let why = match (self.standing(), self.in_force) {
            (None, _) => "no configuration was confirmed yet, so there is none to roll back to; \
                          nothing was changed. Apply it without --confirm"
                .to_owned(),
            // What is kept comes later than what is in force; a change that waits, or is taken back, is in
            // force and comes later than what stands.
            (Some(to), Some(now)) if to > now => format!(
                "generation {to} is kept for the next start and was never in force, so nobody has \
                 seen that it works, and it is what would be rolled back to; nothing was changed. \
                 Restart first, or apply without --confirm"
            ),
            (Some(_), _) => return Ok(()),
        };
        Err(Refusal::new(RefusalKind::Unavailable, why))
    }

    /// Has a text written down that is about to be put in force. Whether it may be follows as
    /// [`Followed::Prepared`].
    pub fn prepare(&mut self, request: RequestId, text: &str) {
        self.write_text(Incoming::Change, text, Then::Prepare(request));
    }

    /// What was prepared last is being put in force.
    pub fn begins(
        &mut self,
        request: RequestId,
        proposal: Proposal,
        (config, text): (&Arc<Config>, &str),
    ) {
        let (config, bytes) = (Arc::clone(config), text.len());
        self.under_way = Some(UnderWay { request, proposal, config, bytes, generation: None });
    }

    /// Keeps a text for the next start, without putting it in force. The answer follows.
    pub fn keep_for_next_start(
        &mut self,
        (request, generation): (RequestId, u64),
        proposal: Proposal,
        text: &str,
        moment: Moment,
    ) {
        let entry = entry(generation, Some(proposal), text.len(), EntryState::Confirmed, moment);
        let then = Then::Keep(Incoming::Change, entry, Kept::NextStart(request));
        self.write_text(Incoming::Change, text, then);
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
        } else if self.in_force.is_none() && self.standing().is_none() && !self.keeping_found {
            // The first start of all: what works is what later starts begin with.
            self.keeping_found = true;
            let first = entry(generation, None, text.len(), EntryState::Confirmed, moment);
            let then = Then::Keep(Incoming::Found, first, Kept::Found);
            self.write_text(Incoming::Found, text, then);
        }
    }

    /// An answer leaves; adds what is known here to it, and notes if the change failed. `None`: it waits
    /// for the disk, and follows as [`Followed::Answer`].
    pub fn answered(&mut self, id: RequestId, answer: Answer, now: Time) -> Option<Answer> {
        let change = self.under_way.take_if(|change| change.request == id);
        let step = self.way_back.as_ref().map(|back| &back.step);
        if let (Some(Step::UnderWay(request, _)), Answer::Refused(refusal)) = (step, &answer)
            && *request == id
        {
            self.way_back_failed(refusal, now);
        }
        let Answer::Applied(mut applied) = answer else { return Some(answer) };
        if let Some((from, to)) = self.came_back.take() {
            applied.rolled_back = Some(from);
            applied.configuration = to;
        }
        // Otherwise it is not of a change, and nothing of it is on its way to the disk.
        let kept = change.and_then(|change| Some((change.generation?, change.proposal)));
        let Some((generation, proposal)) = kept else { return Some(Answer::Applied(applied)) };
        applied.configuration = generation;
        applied.confirm_within_s = proposal.confirm.map(|time| time.as_secs());
        self.held_back = Some((id, applied));
        None
    }

    /// Keeps what waits, if it is the generation that is wanted. The answer follows: if it cannot be
    /// written down, then it is rolled back in time unless this is tried again with success.
    ///
    /// # Errors
    ///
    /// As [`Self::waits`]; [`RefusalKind::Busy`] if another operator was first.
    pub fn confirm(
        &mut self,
        request: RequestId,
        wanted: Option<u64>,
        now: Time,
    ) -> Result<(), Refusal> {
        let generation = self.waits(wanted, "confirmed. To keep that one: bulkhead confirm")?;
        if let Some(waiting) = &mut self.waiting {
            waiting.is_open()?;
            // The disk is at work, or the way back would have begun.
            if waiting.until <= now {
                let why = format!("the time of generation {generation} is up: it is taken back");
                return Err(Refusal::new(RefusalKind::NothingWaiting, why));
            }
            waiting.confirming = true;
        }
        info!(generation, "its confirmation is being written down");
        let then = Then::Confirm(request, generation);
        self.write_mark(generation, EntryState::Confirmed, then);
        Ok(())
    }

    /// Whether what waits may be taken back by whoever wants that of this generation.
    ///
    /// # Errors
    ///
    /// As [`Self::waits`].
    pub fn may_take_back(&self, of: u64) -> Result<(), Refusal> {
        self.waits(Some(of), "taken back. To take that one back: bulkhead rollback --of").map(drop)
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
        self.no_way_back();
        if let Some(before) = self.waiting.take().filter(|before| !before.confirming) {
            self.marker.forget();
            self.write_mark(
                before.generation,
                EntryState::RolledBack,
                Then::RollBack(before.generation),
            );
        }
        if let Some(confirm) = confirm {
            self.waiting = Some(Waiting::new(generation, moment.now.plus(confirm)));
            if let Err(problem) = self.marker.write(generation, confirm, moment.boot) {
                warn!(%problem, "a restart of bulkheadd will roll back at once");
            }
        }
        self.write_applied(entry);
    }

    fn complain(&mut self, refusal: &Refusal) {
        let stands = self.standing();
        let start =
            stands.map_or("the file".to_owned(), |standing| format!("generation {standing}"));
        let why = format!("what is in force is not kept, a start begins with {start}: {refusal}");
        error!("{why}");
        self.unkept = Some(why);
    }

    /// At the start, while nothing waits for it. If it cannot be written down, it waits on the disk and its
    /// time is up: the same at any start.
    fn mark_rolled_back(&mut self, generation: u64) {
        self.marker.forget();
        let mark = self.history.mark(generation, EntryState::RolledBack);
        if let Err(problem) = mark.and_then(|mark| self.history.write(mark)) {
            error!(generation, %problem, "its end cannot be written down");
        }
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
