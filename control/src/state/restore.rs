//! Back to what was confirmed last: the same way as an apply, but it must also lead there when no
//! datapath runs, and it may restart one that cannot change while it runs.

use super::*;
use crate::intent::differences;

impl State {
    /// No table of an earlier process of ours may have had a greater generation than the next one.
    pub fn generation_at_least(&mut self, generation: u64) {
        self.generation_max = self.generation_max.max(generation);
    }

    /// A generation that no table has had or will have.
    pub fn take_generation(&mut self) -> u64 {
        self.generation_max += 1;
        self.generation_max
    }

    /// Whether a datapath is being greeted or set up. It ends with a message, with the link, or with
    /// the time for it.
    #[must_use]
    pub fn is_setting_up(&self) -> bool {
        matches!(self.link, Link::Greeting(_) | Link::Configuring { .. })
    }

    /// Why the datapath has refused its configuration, if it has: nothing is forwarded.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        match &self.link {
            Link::Refused { reason, .. } => Some(reason),
            Link::Down | Link::Greeting(_) | Link::Configuring { .. } | Link::Running(_) => None,
        }
    }

    /// Puts a plan in force as [`Self::apply`] does, and answers `request`. `true`: no datapath runs,
    /// so there is no answer; the next one gets it.
    pub fn restore(&mut self, request: RequestId, plan: Plan, compile_us: u64, now: Time) -> bool {
        let restart = match &self.link {
            Link::Down if !self.is_busy() => {
                self.intent = plan.intent;
                self.outer();
                return true;
            }
            // As the apply before it must have done.
            Link::Running(running) => {
                let found = differences(&running.configuration, &plan.intent.configuration);
                self.starts_datapath && !found.is_empty()
            }
            Link::Down | Link::Greeting(_) | Link::Configuring { .. } | Link::Refused { .. } => {
                false
            }
        };
        self.apply(request, plan, compile_us, restart, now);
        false
    }
}

#[cfg(test)]
mod tests;
