//! An intent on trial: it needs a datapath that is set up anew, and the one before returns if that fails.
//!
//! ```text
//!   Running ── ended ──▶ gone ──▶ the next datapath ──▶ set up ──▶ its table in force
//!                          ▲                               │ no table, or refused
//!                          └──── ended, killed if silent ◀─┴──▶ (as before the trial) the table before
//! ```

use super::*;
use crate::intent::differences;

/// How long a restarted datapath may take until its workers judge by a table. Binding 64 queues
/// whose old sockets still close takes 2 s.
const RESTART_TIMEOUT: Duration = Duration::from_secs(20);

/// A configuration that needs a datapath set up anew; `previous` returns if it fails.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) request: RequestId,
    pub(super) compile_us: u64,
    pub(super) previous: Arc<Intent>,
    deadline: Time,
    /// What had to be done to the datapath before, if it did not end.
    pub(super) killed: Option<String>,
}

impl State {
    /// Takes an intent before it is confirmed: there is no datapath that could confirm it.
    pub(super) fn try_out(
        &mut self,
        request: RequestId,
        compile_us: u64,
        intent: &Arc<Intent>,
        now: Time,
    ) {
        // A table for facts, of a datapath that ends: its confirmation is none of this intent.
        self.publishing = None;
        let previous = std::mem::replace(&mut self.intent, Arc::clone(intent));
        let deadline = now.plus(RESTART_TIMEOUT);
        self.trial = Some(Trial { request, compile_us, previous, deadline, killed: None });
    }

    /// The intent on trial is in force; returns what had to be done for it that is out of the ordinary.
    pub(super) fn trial_succeeds(&mut self) -> Option<String> {
        self.trial.take().and_then(|trial| trial.killed)
    }

    pub(super) fn abandon_trial(&mut self, trial: Trial, kind: RefusalKind, why: &str) {
        self.intent = trial.previous;
        self.refuse(trial.request, kind, why);
    }

    /// The datapath was set up for an intent on trial, and has no table of it: the one before is wanted
    /// again, and the datapath can have its table only if it was set up for that as well.
    pub(super) fn back_from_trial(&mut self, now: Time) {
        let Link::Running(running) = &self.link else { return };
        if differences(&running.configuration, &self.intent.configuration).is_empty() {
            self.first_table(Why::NewDatapath, now);
        } else {
            self.does_not_fit(now);
        }
    }

    /// By when a datapath must be set up for the intent on trial; its table then has its own time.
    pub(super) fn set_up_by(&self) -> Option<Time> {
        let set_up = self.first.is_some() || self.publishing.is_some();
        let trial = self.trial.as_ref().filter(|_| !set_up);
        trial.map(|trial| trial.deadline)
    }

    pub(super) fn trial_timeout(&mut self, now: Time) {
        if self.set_up_by().is_none_or(|deadline| now < deadline) {
            return;
        }
        // Set up after all, it would be taken for one that runs the configuration before.
        if matches!(self.link, Link::Configuring { .. }) {
            self.give_up("did not set itself up", now);
        }
        if let Some(trial) = self.trial.take() {
            let why = "the datapath did not come up in time; the configuration before is restored";
            self.abandon_trial(trial, RefusalKind::Timeout, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::{apply, at, hello, intent_of, made, running, said};

    /// Told to end, for one worker instead of two.
    fn told_to_end() -> State {
        let mut state = running(true);
        let mut one_worker = intent_of(&[1, 2], 0);
        one_worker.configuration.workers = 1;
        apply(&mut state, one_worker, true, at(10));
        assert_eq!(said(&mut state), ["stop datapath"]);
        state
    }

    /// The next datapath comes; what the operator is told about the one before.
    fn warning(state: &mut State) -> Option<String> {
        state.link_up(8, at(16));
        hello(state, None, 0);
        state.from_datapath(FromDatapath::Adopted, at(16));
        state.from_datapath(FromDatapath::Configured, at(16));
        made(state, at(16));
        state.from_datapath(FromDatapath::Confirmed { generation: 2 }, at(16));
        let answer = loop {
            if let Action::Answer(5, answer) = state.poll().unwrap() {
                break *answer;
            }
        };
        let Answer::Applied(applied) = answer else { panic!("{answer:?}") };
        assert!(applied.datapath_restarted);
        applied.warning
    }

    #[test]
    fn a_datapath_that_is_deaf_is_killed_in_time_for_the_next_and_the_operator_is_told() {
        let mut state = told_to_end();
        assert_eq!(state.deadline(), Some(at(15)));
        state.timeout(at(14));
        assert_eq!(said(&mut state), [""; 0]);
        state.timeout(at(15));
        assert_eq!(said(&mut state), ["kill datapath"]);
        assert_eq!(state.deadline(), Some(at(30)), "once");
        state.link_down(at(15));
        let said = warning(&mut state).unwrap();
        assert!(said.contains("(process 7) was told to end and did not within 5 s"), "{said}");
    }

    #[test]
    fn a_datapath_that_ends_is_not_killed_and_neither_is_the_next() {
        let mut state = told_to_end();
        state.link_down(at(11));
        assert_eq!(state.deadline(), Some(at(30)));
        state.timeout(at(20));
        assert_eq!((said(&mut state), warning(&mut state)), (vec![], None));
    }

    /// It does not confirm labels either: after that nobody has its process any more.
    #[test]
    fn a_deaf_datapath_that_is_disconnected_is_killed_before() {
        let mut state = told_to_end();
        state.disconnect(at(12));
        assert_eq!(said(&mut state), ["kill datapath", "disconnect"]);
        assert!(warning(&mut state).is_some());
    }
}
