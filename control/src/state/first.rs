//! The first table of a datapath that was set up or taken over. It is made beside the event loop, as
//! every other is; meanwhile one that was set up lets nothing pass, and one that was taken over judges by
//! what it has.
//!
//! ```text
//!   Configured ────────────────────────────────────────▶ First ── made ──▶ publish, labels behind it
//!   Adopted ──▶ what it has may be ours? ── made, not ───▲
//!                                       └── made, it is ──▶ kept
//! ```
//!
//! INVARIANT: while it is being made nothing else is put in force, and no index of a peer is given away
//! but by it.
//!
//! INVARIANT: what is lost while it is being made is not acknowledged before every worker judges by it
//! and by the labels directly behind it. It is not made again for that, as others are: nothing could be
//! taken away sooner than with it.

use bulkhead_policy_compiler::Conditions;

use super::*;

/// A first table that is not made yet.
#[derive(Debug)]
pub(super) struct First {
    why: Why,
    generation: u64,
    /// Whether this is what the datapath judges by already, maybe.
    found: bool,
    /// One that is made for a datapath that has gone is waited for: however often datapaths die, one table
    /// at a time is made.
    ordered: bool,
}

impl State {
    /// After a take-over: keeps the table that is in force if it is ours, else brings ours.
    pub(super) fn resume(&mut self, pid: u32, generation: u64, now: Time) {
        let ours = (self.record.generation, self.record.pid) == (generation, pid);
        let peers = self.peers_of(&self.intent).is_ok_and(|peers| peers == self.announced);
        let listens = self.listens(&self.intent.configuration.listeners);
        // Labels are not part of the greeting: only a table without conditions is known by its digest.
        let plain = Conditions::of(&self.intent.config).is_empty();
        if generation > 0 && ours && peers && listens && plain {
            let (why, found) = (Why::TakeOver, true);
            self.first = Some(First { why, generation, found, ordered: false });
            self.order_first(now);
        } else {
            self.first_table(Why::TakeOver, now);
        }
    }

    /// Orders the first table. The peers are announced before it is made, so that they can shake hands
    /// and nobody else is given their indices; and it has a number that nothing else will have, so that
    /// what was compiled with other indices is outdated.
    pub(super) fn first_table(&mut self, why: Why, now: Time) {
        let generation = self.take_generation();
        self.first = Some(First { why, generation, found: false, ordered: false });
        match self.peers_of(&self.intent) {
            Ok(peers) => {
                self.announce(&peers);
                self.order_first(now);
            }
            Err(refusal) => self.no_first_table(refusal, now),
        }
    }

    /// Has it made, if it is wanted and nothing is being made.
    pub(super) fn order_first(&mut self, now: Time) {
        let Some(first) = self.first.as_mut().filter(|first| !first.ordered) else { return };
        if self.context.compiling {
            return;
        }
        first.ordered = true;
        let (generation, intent) = (first.generation, Arc::clone(&self.intent));
        match self.job(&intent, generation) {
            Ok(job) => self.order_table(job),
            Err(refusal) => self.no_first_table(refusal, now),
        }
    }

    /// It is made, or cannot be.
    pub(super) fn first_made(&mut self, first: First, plan: Result<Plan, Refusal>, now: Time) {
        let mut plan = match plan {
            Ok(plan) => plan,
            Err(refusal) => return self.no_first_table(refusal, now),
        };
        if first.found && plan.blob.digest == self.record.digest {
            return self.keep_found(plan, now);
        }
        if first.found || !Arc::ptr_eq(&plan.intent.config, &self.intent.config) {
            return self.first_table(first.why, now);
        }
        // The box may have other addresses by now, which are nothing to the table.
        plan.intent = Arc::clone(&self.intent);
        let owed = self.overtaken(&mut plan);
        let request = self.trial.as_ref().map(|trial| (trial.request, trial.compile_us));
        self.publish(plan, request, first.why, now);
        self.owe_to_all(owed, now);
    }

    /// What the datapath judges by is what we would send.
    fn keep_found(&mut self, plan: Plan, now: Time) {
        info!(generation = plan.generation, "its policy is the one of the file");
        // For the history, which an earlier release did not have.
        self.actions.push_back(Action::Record(self.record.clone()));
        let (generation, version) = (plan.generation, plan.version);
        if let Some(aligned) = plan.aligned {
            self.table_sent(aligned, version, now);
        }
        self.table_in_force(generation);
    }

    /// It compiled when it was read; only peers_max of a datapath that was taken over is new.
    fn no_first_table(&mut self, refusal: Refusal, now: Time) {
        error!("{refusal}");
        self.first = None;
        self.context_without_first_table(&refusal.message);
        let (kind, why) = (refusal.kind, refusal.message.clone());
        self.alarm = Some(refusal.message);
        if let Some(trial) = self.trial.take() {
            self.abandon_trial(trial, kind, &why);
            self.back_from_trial(now);
        }
    }
}

#[cfg(test)]
mod tests;
