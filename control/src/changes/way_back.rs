//! The way back to what was confirmed last.
//!
//! INVARIANT: that something was rolled back is on the disk before the way back from it begins.

use std::sync::Arc;

use bulkhead_config::Config;
use bulkhead_wg::Time;
use tracing::{error, info, warn};

use super::writes::Then;
use super::{Changes, RETRY_INTERVAL, Waiting};
use crate::api::{Answer, Refusal};
use crate::history::EntryState;
use crate::state::RequestId;

/// One that is not at its end.
#[derive(Debug)]
pub(super) struct WayBack {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) step: Step,
    /// Why it does not get on.
    pub(super) problem: Option<String>,
    /// The operator who asked for it, until there is an answer.
    asked_by: Option<RequestId>,
}

#[derive(Debug)]
pub(super) enum Step {
    /// It is being written down.
    Marking,
    Due(Time),
    Loading,
    UnderWay(RequestId, Arc<Config>),
}

impl Step {
    pub(super) fn is_to(&self, config: &Arc<Config>) -> bool {
        matches!(self, Self::UnderWay(_, to) if Arc::ptr_eq(to, config))
    }
}

impl Changes {
    /// Takes back what waits, on behalf of `request`. The way back begins as soon as it is known where to.
    ///
    /// # Errors
    ///
    /// [`crate::api::RefusalKind::NothingWaiting`]; [`crate::api::RefusalKind::Busy`] if another operator was first.
    pub fn take_back(&mut self, request: RequestId, now: Time) -> Result<(), Refusal> {
        let Some(waiting) = &mut self.waiting else { return Err(self.nothing_waits()) };
        waiting.is_open()?;
        waiting.until = waiting.until.min(now);
        waiting.asked_by = Some(request);
        Ok(())
    }

    /// Time has passed, and nothing else is under way: the generation that must be read and put in
    /// force now, and who has asked for it.
    pub fn due(&mut self, now: Time) -> Option<(u64, Option<RequestId>)> {
        if self.is_writing() {
            return None;
        }
        if self.waiting.is_some_and(|waiting| waiting.until <= now) {
            self.begin_way_back();
        }
        let back = self.way_back.as_mut()?;
        if !matches!(back.step, Step::Due(at) if at <= now) {
            return None;
        }
        back.step = Step::Loading;
        Some((back.to, back.asked_by.take()))
    }

    /// When to call [`Self::due`] next. While something is being written, its end is an event.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        if self.is_writing() {
            return None;
        }
        let back = self.way_back.as_ref().and_then(|back| match back.step {
            Step::Due(at) => Some(at),
            Step::Marking | Step::Loading | Step::UnderWay(..) => None,
        });
        self.waiting.map(|waiting| waiting.until).into_iter().chain(back).min()
    }

    fn begin_way_back(&mut self) {
        let Some(Waiting { generation: from, asked_by, .. }) = self.waiting.take() else { return };
        // Nothing waits before something stands.
        let Some(to) = self.standing() else { return };
        warn!(generation = from, back_to = to, "is taken back");
        self.marker.forget();
        self.write_mark(from, EntryState::RolledBack, Then::RollBack(from));
        self.way_back = Some(WayBack { from, to, step: Step::Marking, problem: None, asked_by });
    }

    /// It is written down, or cannot be.
    pub(super) fn may_go_back(&mut self, from: u64, now: Time) {
        let begins = |back: &&mut WayBack| back.from == from && matches!(back.step, Step::Marking);
        if let Some(back) = self.way_back.as_mut().filter(begins) {
            back.step = Step::Due(now);
        }
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

    /// Something else is in force that an operator wants: whoever waits for the way back is told.
    pub(super) fn no_way_back(&mut self) {
        let back = self.way_back.take().and_then(|back| back.asked_by);
        let waited = self.waiting.and_then(|waiting| waiting.asked_by);
        for request in back.into_iter().chain(waited) {
            let refusal = self.nothing_waits();
            self.follow(super::Followed::Answer(request, Answer::Refused(refusal)));
        }
    }
}
