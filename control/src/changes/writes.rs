//! What is to be kept of changes, on its way to the disk. That may be slow, so it is written beside the
//! event loop: one write at a time, in the order in which things happened.
//!
//! INVARIANT: whoever waits for the disk is answered by the end of the write that has what it is about, and
//! what only a write allows (the table of an apply, the way back) begins with the end of that.
//!
//! INVARIANT: what stands is not asked for while a write is on its way: a way back that began then could
//! lead to what stood before it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bulkhead_wg::Time;
use tracing::{error, info};

use super::{Changes, unkept};
use crate::api::{Answer, Refusal, RefusalKind};
use crate::history::{Entry, EntryState, Incoming, Write};
use crate::state::RequestId;

/// Something that follows when a write has ended.
#[derive(Debug)]
pub enum Followed {
    /// The text of an apply is written down, so it may be put in force; or not.
    Prepared(RequestId, Result<(), Refusal>),
    /// Somebody waits for it.
    Answer(RequestId, Answer),
}

/// The writes that are to come, and the one that is under way.
#[derive(Debug, Default)]
pub(super) struct Writes {
    queue: VecDeque<(Wanted, Then)>,
    under_way: Option<Then>,
}

/// What is to be written.
#[derive(Debug)]
enum Wanted {
    Write(Write),
    /// Its entry is looked up when its turn comes: it may be on its way itself.
    Mark(u64, EntryState),
}

/// What it is written for.
#[derive(Debug)]
pub(super) enum Then {
    /// To put it in force, for this request.
    Prepare(RequestId),
    /// It is in force; whoever asked may wait.
    Applied,
    /// The text of it is to be followed by this.
    Keep(Incoming, Entry, Kept),
    /// Both are written.
    Kept(u64, Kept),
    Confirm(RequestId, u64),
    RollBack(u64),
    /// Nobody waits for it.
    Nothing,
}

/// Why a text is kept that no apply puts in force.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// An operator wants it for the next start.
    NextStart(RequestId),
    /// It was found at the first start.
    Found,
}

impl Changes {
    /// What is to be written now, if there is something and nothing is being written; how that ends is to
    /// be said to [`Self::written`].
    pub fn to_write(&mut self, now: Time) -> Option<Write> {
        while self.writes.under_way.is_none() {
            let (wanted, then) = self.writes.queue.pop_front()?;
            let write = match wanted {
                Wanted::Write(write) => Ok(write),
                Wanted::Mark(generation, state) => self.history.mark(generation, state),
            };
            match write {
                Ok(write) => {
                    self.writes.under_way = Some(then);
                    return Some(write);
                }
                Err(problem) => self.failed(then, &problem, now),
            }
        }
        None
    }

    /// Whether a write has begun and its end was not said.
    #[must_use]
    pub fn is_written_beside(&self) -> bool {
        self.writes.under_way.is_some()
    }

    /// Whether what stands may be about to change.
    pub(super) fn is_writing(&self) -> bool {
        self.writes.under_way.is_some() || !self.writes.queue.is_empty()
    }

    /// What was [to be written](Self::to_write) is on the disk, or why it is not.
    pub fn written(&mut self, write: Write, result: io::Result<()>, now: Time) {
        let Some(then) = self.writes.under_way.take() else { return };
        if let Err(problem) = result {
            return self.failed(then, &problem, now);
        }
        if let Some(next) = self.history.wrote(write) {
            self.writes.queue.push_front((Wanted::Write(next), Then::Nothing));
        }
        match then {
            Then::Prepare(request) => self.follow(Followed::Prepared(request, Ok(()))),
            Then::Applied => {
                self.unkept = None;
                self.release();
            }
            Then::Keep(incoming, entry, kept) => {
                let then = Then::Kept(entry.generation, kept);
                let keep = Wanted::Write(Write::Keep(incoming, entry));
                self.writes.queue.push_front((keep, then));
            }
            Then::Kept(generation, Kept::Found) => {
                (self.keeping_found, self.unkept) = (false, None);
                self.in_force.get_or_insert(generation);
            }
            Then::Kept(generation, Kept::NextStart(request)) => {
                self.follow(Followed::Answer(request, Answer::Kept { generation }));
            }
            Then::Confirm(request, generation) => {
                info!(generation, "confirmed");
                if self.waiting.take_if(|waiting| waiting.generation == generation).is_some() {
                    self.marker.forget();
                }
                self.follow(Followed::Answer(request, Answer::Confirmed { generation }));
            }
            Then::RollBack(from) => self.may_go_back(from, now),
            Then::Nothing => {}
        }
    }

    /// What follows from what was written, one after the other.
    pub fn poll(&mut self) -> Option<Followed> {
        self.followed.pop_front()
    }

    fn failed(&mut self, then: Then, problem: &io::Error, now: Time) {
        let refusal = unkept(problem);
        match then {
            Then::Prepare(request) => {
                let why = format!("{refusal}; nothing was changed");
                let refusal = Refusal::new(refusal.kind, why);
                self.follow(Followed::Prepared(request, Err(refusal)));
            }
            Then::Applied => {
                self.complain(&refusal);
                self.release();
            }
            Then::Keep(.., Kept::Found) | Then::Kept(_, Kept::Found) => {
                self.keeping_found = false;
                self.complain(&refusal);
            }
            Then::Keep(.., Kept::NextStart(request)) | Then::Kept(_, Kept::NextStart(request)) => {
                self.follow(Followed::Answer(request, Answer::Refused(refusal)));
            }
            Then::Confirm(request, generation) => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.confirming = false;
                }
                let why = format!(
                    "the confirmation cannot be written down: {problem}; generation {generation} is \
                     rolled back when its time is up, unless it is confirmed before"
                );
                let refusal = Refusal::new(RefusalKind::Refused, why);
                self.follow(Followed::Answer(request, Answer::Refused(refusal)));
            }
            // It waits on the disk and its time is up: the same at any start.
            Then::RollBack(generation) => {
                error!(generation, %problem, "its end cannot be written down");
                self.may_go_back(generation, now);
            }
            // An old one that is kept for longer.
            Then::Nothing => {}
        }
    }

    /// Writes a text down before it is put in force, so that a disk that is full or read-only is noticed
    /// while nothing has changed yet.
    pub(super) fn write_text(&mut self, incoming: Incoming, text: &str, then: Then) {
        let write = Write::Text(incoming, Arc::from(text));
        self.writes.queue.push_back((Wanted::Write(write), then));
    }

    pub(super) fn write_applied(&mut self, entry: Entry) {
        let write = Write::Keep(Incoming::Change, entry);
        self.writes.queue.push_back((Wanted::Write(write), Then::Applied));
    }

    pub(super) fn write_mark(&mut self, generation: u64, state: EntryState, then: Then) {
        self.writes.queue.push_back((Wanted::Mark(generation, state), then));
    }

    pub(super) fn follow(&mut self, followed: Followed) {
        self.followed.push_back(followed);
    }

    /// What an apply came to is known, on the disk too.
    fn release(&mut self) {
        let Some((request, mut applied)) = self.held_back.take() else { return };
        let warnings: Vec<String> =
            applied.warning.take().into_iter().chain(self.unkept.clone()).collect();
        applied.warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        self.follow(Followed::Answer(request, Answer::Applied(applied)));
    }
}

#[cfg(test)]
mod tests;
