//! Facts on their way to the disk. It may be slow, so they are written beside the event loop, at most
//! one write at a time.
//!
//! INVARIANT: whoever waits for the disk is answered by a write that began when its facts were known.
//! One that began before has not got them, whenever it ends.

use crate::knowledge::Drawers;
use crate::state::State;

impl State {
    /// What is to be kept now, if something changed and nothing is being kept; how that ends is to be
    /// said to [`Self::kept`].
    pub fn to_keep(&mut self) -> Option<Drawers> {
        if self.is_keeping() || self.context.knowledge.is_kept() {
            return None;
        }
        self.context.keeping = Some(self.context.knowledge.version());
        Some(self.context.knowledge.take_unkept())
    }

    /// Whether something is being kept.
    #[must_use]
    pub fn is_keeping(&self) -> bool {
        self.context.keeping.is_some()
    }

    /// What was [to be kept](Self::to_keep) is kept, or why it is not. What changed meanwhile is to be
    /// kept next, and so is what could not be.
    pub fn kept(&mut self, result: Result<(), String>) {
        let Some(version) = self.context.keeping.take() else { return };
        match result {
            Ok(()) => {
                self.context.knowledge.kept();
                self.context.not_kept = None;
                self.context.waiting.kept(version);
            }
            Err(problem) => {
                self.context.knowledge.not_kept();
                self.context.waiting.not_kept(version, &problem);
                self.context.not_kept = Some(problem);
            }
        }
        self.answer_waiting();
    }

    /// Nothing is kept for a while, because the last attempt has failed.
    pub fn rests(&mut self) {
        if let Some(problem) = &self.context.not_kept {
            self.context.waiting.not_kept(self.context.knowledge.version(), problem);
            self.answer_waiting();
        }
    }
}
