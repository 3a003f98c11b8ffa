//! The configuration changes: apply, confirm, roll back, and what is asked about it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Daemon;
use super::inputs::{Attempt, Change, Compiled, Loaded, Purpose};
use super::start::{Origin, load};
use crate::api::{
    Answer, AppliedAnswer, CONFIRM_S_MAX, FileAnswer, MESSAGE_MAX, Refusal, RefusalKind, Request,
    StatusAnswer, TextAnswer,
};
use crate::changes::{Moment, Proposal};
use crate::clock::{boot_clock, wall_clock};
use crate::dry_run::dry_run;
use crate::state::{Checked, Job, Plan, RequestId};

impl Daemon {
    /// Takes a request that is about changes; gives back any other.
    pub(super) fn change_asked(
        &mut self,
        id: RequestId,
        by: u32,
        request: Request,
    ) -> Option<Request> {
        let done = match request {
            Request::Apply { restart_datapath, message, confirm_s, next_start } => {
                let wish = Wish { by, message, confirm_s, restart_datapath };
                self.apply_asked(id, wish, next_start)
            }
            Request::DryRun {} => {
                self.dry_run(id);
                Ok(())
            }
            Request::Confirm { generation } => {
                self.changes.confirm(id, generation, self.clock.now())
            }
            Request::Rollback { generation, of, restart_datapath, message, confirm_s } => {
                let wish = Wish { by, message, confirm_s, restart_datapath };
                let may = of.map_or(Ok(()), |of| self.changes.may_take_back(of));
                may.and_then(|()| self.rollback_asked(id, generation, wish))
            }
            Request::History {} => {
                self.answer(id, Answer::History(self.changes.all()));
                Ok(())
            }
            Request::HistoryText { generation } => self.text(generation).map(|text| {
                self.answer(id, Answer::Text(TextAnswer { generation, text }));
            }),
            other @ (Request::Status {}
            | Request::Counters {}
            | Request::Peers {}
            | Request::Hits {}
            | Request::ContextSet { .. }
            | Request::ContextClear { .. }
            | Request::ContextShow { .. }) => {
                return Some(other);
            }
        };
        if let Err(refusal) = done {
            warn!("refused: {refusal}");
            self.answer(id, Answer::Refused(refusal));
        }
        None
    }

    /// Something was read that is to be put in force, or to be kept.
    pub(super) fn loaded(&mut self, loaded: Loaded) {
        let Loaded { request, intent, purpose } = loaded;
        match (intent, purpose) {
            (Ok(intent), Purpose::Change(change)) => match self.state.job_for(&Arc::new(intent)) {
                Ok(job) => {
                    let attempt = Attempt { request, change, compile_us: 0, in_vain: 0 };
                    self.compile_change(attempt, job);
                }
                Err(refusal) => self.not_changed(request, &change, refusal),
            },
            (Ok(intent), Purpose::NextStart(proposal)) => {
                self.loading = false;
                self.keep_for_next_start(request, &intent.text, proposal);
            }
            (Err(refusal), Purpose::Change(change)) => self.not_changed(request, &change, refusal),
            (Err(refusal), Purpose::NextStart(_)) => {
                self.loading = false;
                self.answer_refused(request, refusal);
            }
        }
    }

    /// On a thread of its own: what is lost meanwhile is taken away at once, under the table that is
    /// in force.
    fn compile_change(&self, attempt: Attempt, job: Job) {
        info!(in_vain = attempt.in_vain, "compiles what was read");
        let (compiled, clock) = (self.compiled.clone(), self.clock);
        tokio::task::spawn_blocking(move || {
            let before = clock.now();
            let plan = job.compile();
            let took = clock.now().since(before).as_micros();
            let compile_us = u64::try_from(took).unwrap_or(u64::MAX);
            info!(compile_us, "what was read is compiled");
            let attempt = Attempt { compile_us, ..attempt };
            // The receiver is gone only when the process goes.
            let _ = compiled.blocking_send(Compiled { attempt, plan });
        });
    }

    /// What was read is compiled. An apply is written down before it is put in force.
    pub(super) fn compiled(&mut self, compiled: Compiled) {
        let Compiled { attempt, plan } = compiled;
        let Some((attempt, plan)) = self.up_to_date(attempt, plan) else { return };
        match &attempt.change {
            Change::Apply { .. } => {
                self.changes.prepare(attempt.request, &plan.intent().text);
                self.prepared = Some((attempt, plan));
            }
            Change::WayBack => self.go_back(&attempt, plan),
        }
    }

    /// An apply is written down, or cannot be. It is put in force, unless too much has happened meanwhile.
    pub(super) fn prepared(&mut self, request: RequestId, result: Result<(), Refusal>) {
        let Some((attempt, plan)) = self.prepared.take_if(|(one, _)| one.request == request) else {
            return;
        };
        let plan = result.map(|()| plan);
        let Some((attempt, plan)) = self.up_to_date(attempt, plan) else { return };
        let Attempt { change, compile_us, .. } = attempt;
        let Change::Apply { proposal, restart_datapath } = change else { return };
        self.loading = false;
        let intent = Arc::clone(plan.intent());
        self.changes.begins(request, proposal, (&intent.config, &intent.text));
        self.state.apply(request, plan, compile_us, restart_datapath, self.clock.now());
    }

    /// Whether it may be put in force as it is; if not, it is made again, or refused.
    fn up_to_date(
        &mut self,
        attempt: Attempt,
        plan: Result<Plan, Refusal>,
    ) -> Option<(Attempt, Plan)> {
        let may = match &attempt.change {
            Change::Apply { proposal, .. } => self.leads_back(proposal),
            Change::WayBack => Ok(()),
        };
        let plan = plan.and_then(|plan| may.map(|()| plan));
        match plan.and_then(|plan| self.state.checked(plan, attempt.in_vain)) {
            Ok(Checked::Current(plan)) => return Some((attempt, *plan)),
            Ok(Checked::Outdated(job)) => {
                let in_vain = attempt.in_vain + 1;
                self.compile_change(Attempt { in_vain, ..attempt }, *job);
            }
            Err(refusal) => self.not_changed(attempt.request, &attempt.change, refusal),
        }
        None
    }

    fn go_back(&mut self, attempt: &Attempt, plan: Plan) {
        let (request, now) = (attempt.request, self.clock.now());
        self.loading = false;
        self.changes.way_back_begins(request, &plan.intent().config);
        if self.state.restore(request, plan, attempt.compile_us, now) {
            self.changes.way_back_ends();
            let answer = Answer::Applied(AppliedAnswer::default());
            if let Some(answer) = self.changes.answered(request, answer, now) {
                self.answer(request, answer);
            }
        }
    }

    /// It cannot be read, or not compiled.
    fn not_changed(&mut self, request: RequestId, change: &Change, refusal: Refusal) {
        self.loading = false;
        if matches!(change, Change::WayBack) {
            self.changes.way_back_failed(&refusal, self.clock.now());
        }
        self.answer_refused(request, refusal);
    }

    fn answer_refused(&mut self, request: RequestId, refusal: Refusal) {
        warn!("apply refused: {refusal}");
        self.answer(request, Answer::Refused(refusal));
    }

    /// What is due by the time, unless something is under way: its end comes here again.
    pub(super) fn follow_changes(&mut self) {
        if !self.may_go_back() {
            return;
        }
        let Some((generation, asked_by)) = self.changes.due(self.clock.now()) else { return };
        let request = asked_by.unwrap_or_else(|| self.next_request());
        match self.kept(generation) {
            Ok(origin) => self.load(request, origin, Purpose::Change(Change::WayBack)),
            Err(refusal) => {
                self.changes.way_back_failed(&refusal, self.clock.now());
                self.answer(request, Answer::Refused(refusal));
            }
        }
    }

    /// When to call [`Self::follow_changes`] next.
    pub(super) fn changes_deadline(&self) -> Option<bulkhead_wg::Time> {
        self.changes.deadline().filter(|_| self.may_go_back())
    }

    /// If not, then whatever is under way ends with an event.
    fn may_go_back(&self) -> bool {
        !self.loading && !self.state.is_busy() && !self.state.is_setting_up()
    }

    /// Every worker judges by the intent of the state, in a table of this generation.
    pub(super) fn published(&mut self, generation: u64) {
        let intent = Arc::clone(self.state.intent());
        let moment = self.moment();
        self.changes.published(generation, (&intent.config, &intent.text), moment);
        // They were read with the text; they may have changed since.
        self.ask_addresses();
    }

    /// Adds what is known here to an answer. `None`: it waits for the disk.
    pub(super) fn answered(&mut self, id: RequestId, answer: Answer) -> Option<Answer> {
        let mut answer = self.changes.answered(id, answer, self.clock.now())?;
        if let Answer::Status(status) = &mut answer {
            self.add_configuration(status);
            self.add_flow_log(status);
        }
        Some(answer)
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.clock.now(), boot: boot_clock(), wall: wall_clock() }
    }

    fn apply_asked(&mut self, id: RequestId, wish: Wish, next_start: bool) -> Result<(), Refusal> {
        let restart_datapath = wish.restart_datapath;
        let proposal = wish.proposal(None)?;
        self.free()?;
        let purpose = if !next_start {
            Purpose::Change(Change::Apply { proposal, restart_datapath })
        } else if proposal.confirm.is_none() && !restart_datapath {
            Purpose::NextStart(proposal)
        } else {
            let why = "what is kept for the next start neither waits for a confirmation nor \
                       restarts the datapath";
            return Err(Refusal::new(RefusalKind::BadRequest, why));
        };
        let (path, state_dir) = (self.config.clone(), self.state_dir.clone());
        self.load(id, Origin::File { path, state_dir }, purpose);
        Ok(())
    }

    fn rollback_asked(
        &mut self,
        id: RequestId,
        generation: Option<u64>,
        wish: Wish,
    ) -> Result<(), Refusal> {
        let waits = self.changes.waiting().is_some();
        let Some(generation) =
            generation.filter(|generation| !waits || Some(*generation) != self.changes.standing())
        else {
            // What comes next is due at once; see `follow_changes`.
            return self.changes.take_back(id, self.clock.now());
        };
        let restart_datapath = wish.restart_datapath;
        let proposal = wish.proposal(Some(generation))?;
        // Away from what waits is always allowed; to something that waits itself is not.
        if proposal.confirm.is_some() {
            self.free()?;
        }
        self.not_busy()?;
        let origin = self.kept(generation)?;
        let change = Change::Apply { proposal, restart_datapath };
        self.load(id, origin, Purpose::Change(change));
        Ok(())
    }

    fn keep_for_next_start(&mut self, request: RequestId, text: &str, proposal: Proposal) {
        let generation = self.state.take_generation();
        let moment = self.moment();
        self.changes.keep_for_next_start((request, generation), proposal, text, moment);
    }

    fn load(&mut self, request: RequestId, origin: Origin, purpose: Purpose) {
        self.loading = true;
        let loaded = self.loaded.clone();
        tokio::spawn(async move {
            let intent = load(origin).await;
            // The receiver is gone only when the process goes.
            let _ = loaded.send(Loaded { request, intent, purpose }).await;
        });
    }

    /// Comparing two large policies takes seconds: on a thread of its own, one after the other.
    fn dry_run(&mut self, id: RequestId) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        let (path, intent) = (self.config.clone(), Arc::clone(self.state.intent()));
        let (turn, known) = (Arc::clone(&self.dry_runs), self.state.known());
        tokio::spawn(async move {
            let _turn = turn.lock().await;
            let work = tokio::task::spawn_blocking(move || dry_run(&path, &intent, &known));
            let answer = match work.await {
                Ok(Ok(found)) => Answer::DryRun(Box::new(found)),
                Ok(Err(refusal)) => Answer::Refused(refusal),
                Err(error) => {
                    Answer::Refused(Refusal::new(RefusalKind::Unavailable, error.to_string()))
                }
            };
            // Whoever asked may have gone.
            let _ = waiting.send(answer);
        });
    }

    /// Whether a change may begin now.
    fn free(&self) -> Result<(), Refusal> {
        self.changes.free(self.clock.now())?;
        self.not_busy()
    }

    fn not_busy(&self) -> Result<(), Refusal> {
        if self.loading || self.state.is_busy() {
            let why = "another apply is under way; nothing was changed, try again";
            return Err(Refusal::new(RefusalKind::Busy, why));
        }
        Ok(())
    }

    /// What mends a gateway must not be taken back: on a box where another starts the datapath, the one
    /// that runs by then takes nothing else, and the way back would be tried for ever.
    fn leads_back(&self, proposal: &Proposal) -> Result<(), Refusal> {
        self.changes.may_wait(proposal)?;
        let Some(reason) = self.state.refused().filter(|_| proposal.confirm.is_some()) else {
            return Ok(());
        };
        let why = format!(
            "the datapath has refused the configuration before ({reason}), so nothing is forwarded \
             and there is nothing to roll back to; nothing was changed. Apply it without --confirm"
        );
        Err(Refusal::new(RefusalKind::Unavailable, why))
    }

    fn text(&self, generation: u64) -> Result<String, Refusal> {
        self.changes
            .history()
            .text(generation)
            .map_err(|problem| Refusal::new(RefusalKind::NotKept, problem.to_string()))
    }

    fn kept(&self, generation: u64) -> Result<Origin, Refusal> {
        let text = self.text(generation)?.into();
        let shown = self.changes.history().text_path(generation);
        Ok(Origin::Kept { text, shown, config: self.config.clone() })
    }

    fn next_request(&mut self) -> RequestId {
        self.request += 1;
        self.request
    }

    fn add_flow_log(&self, status: &mut StatusAnswer) {
        self.flow_log.tell(&mut status.flow_log);
        let problem = status.flow_log.problem.iter();
        status.degraded.extend(problem.map(|why| format!("the flow log is not written: {why}")));
    }

    fn add_configuration(&mut self, status: &mut StatusAnswer) {
        let mut configuration = self.changes.answer(self.clock.now());
        let in_force = Arc::clone(&self.state.intent().text);
        configuration.file = self.file.compare(&self.config, &in_force);
        status.configuration = Some(configuration);
        status.degraded.extend(self.changes.degraded());
    }
}

/// How an operator wants it.
struct Wish {
    by: u32,
    message: String,
    confirm_s: Option<u64>,
    restart_datapath: bool,
}

impl Wish {
    fn proposal(self, text_of: Option<u64>) -> Result<Proposal, Refusal> {
        let Self { by, message, confirm_s, restart_datapath: _ } = self;
        let bad = |why: String| Err(Refusal::new(RefusalKind::BadRequest, why));
        if message.len() > MESSAGE_MAX || message.chars().any(char::is_control) {
            return bad(format!("a message is one line of at most {MESSAGE_MAX} bytes"));
        }
        if confirm_s.is_some_and(|seconds| !(1..=CONFIRM_S_MAX).contains(&seconds)) {
            return bad(format!("a confirmation is waited for 1 to {CONFIRM_S_MAX} seconds"));
        }
        Ok(Proposal { by, message, confirm: confirm_s.map(Duration::from_secs), text_of })
    }
}

/// The configuration file, read again only if it looks changed.
#[derive(Debug, Default)]
pub(super) struct FileLook {
    last: Option<(Stamp, Arc<str>, FileAnswer)>,
}

/// Changes when a file is written to or replaced: device, inode, size, and time of change.
type Stamp = (u64, u64, u64, i64, i64);

impl FileLook {
    /// Whether the file says what is in force.
    pub(super) fn compare(&mut self, path: &Path, in_force: &Arc<str>) -> FileAnswer {
        let Ok(facts) = fs::metadata(path) else { return FileAnswer::Unreadable };
        let stamp = stamp(&facts);
        if let Some((seen, text, answer)) = &self.last
            && (*seen, Arc::as_ptr(text)) == (stamp, Arc::as_ptr(in_force))
        {
            return *answer;
        }
        let answer = match bulkhead_config::Config::text(path) {
            Ok(text) if *text == **in_force => FileAnswer::Same,
            Ok(_) => FileAnswer::Differs,
            Err(_) => FileAnswer::Unreadable,
        };
        self.last = Some((stamp, Arc::clone(in_force), answer));
        answer
    }
}

fn stamp(facts: &Metadata) -> Stamp {
    (facts.dev(), facts.ino(), facts.size(), facts.ctime(), facts.ctime_nsec())
}
