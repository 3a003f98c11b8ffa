//! What is known of devices, and the labels that follow from it.
//!
//! ```text
//!   set, clear, time ──▶ Knowledge ──▶ Aligned ──▶ Relabel ──▶ … every worker … ──▶ Relabelled ─┐
//!                            │            └── more than the table can say ──▶ table ─▶ Confirmed ┤
//!                            └──────────────────────────── disk ────────────────────────▶ kept ┴▶ answer
//! ```
//!
//! INVARIANT: an answer without trouble means that every worker judges by the facts, and that a
//! restart does not forget them. The wire comes before the disk and before the compiler: what is
//! taken away is taken away at once.

mod keep;
mod waiting;

use std::collections::BTreeSet;

use bulkhead_config::Config;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::aligned::{Aligned, Owed};
use crate::api::{
    ContextAnswer, ContextChangedAnswer, DeviceContextAnswer, Diagnostic, FactAnswer, FactChange,
    RuleAnswer,
};
use crate::intent::differences;
use crate::knowledge::{Devices, Knowledge, Said, as_json};
use waiting::Waiting;

/// Labels in one message. Each has at most eight bytes; a message has a megabyte.
const RELABEL_MAX: usize = 65_536;

/// A clock that shows so much less than it should was set back. Less may be the time between the
/// reading of two clocks.
const SET_BACK_MIN: SignedDuration = SignedDuration::from_millis(100);

/// Mistakes that are named in one answer. Who makes more makes the same one again.
const DIAGNOSTICS_MAX: usize = 1_000;

/// What is known, and who waits for it to be in force.
#[derive(Debug, Default)]
pub(super) struct ContextState {
    pub(super) knowledge: Knowledge,
    /// The time by the calendar and by our own clock, when they were read last.
    seen: Option<(Timestamp, Time)>,
    /// Under the newest table that the datapath was sent.
    pub(super) aligned: Option<Aligned>,
    /// Messages that are not confirmed, by token.
    relabels: BTreeMap<u64, Time>,
    /// Whether a new table would give rights back.
    pub(super) wants_table: bool,
    /// Whether one is being made.
    pub(super) compiling: bool,
    /// How many in a row were outdated when they were made.
    pub(super) outdated: u32,
    waiting: Waiting,
    /// The knowledge that is being kept.
    keeping: Option<u64>,
    /// What was lost before we started.
    lost: Vec<String>,
    /// Why the last attempt to keep it failed.
    not_kept: Option<String>,
}

impl State {
    /// Takes what earlier processes kept, and sentences about what they lost. To be called before
    /// anything else.
    #[must_use]
    pub fn remembering(mut self, knowledge: Knowledge, lost: Vec<String>) -> Self {
        self.context.knowledge = knowledge;
        self.context.lost = lost;
        self
    }

    /// The time by the calendar. To be called before anything that happens at that time is told.
    pub fn calendar(&mut self, today: Timestamp, now: Time) {
        let before = self.context.seen.replace((today, now));
        let mut owed = Owed::default();
        if let Some((then, at)) = before {
            let passed = SignedDuration::try_from(now.since(at)).unwrap_or(SignedDuration::MAX);
            let back = then.saturating_add(passed).unwrap_or(Timestamp::MAX).duration_since(today);
            if back > SET_BACK_MIN {
                warn!(seconds = back.as_secs(), "the clock was set back");
                self.context.knowledge.set_back(back);
                self.align_all(&mut owed);
            }
        }
        if let Some(aligned) = &mut self.context.aligned {
            aligned.tick(today, &mut owed);
        }
        self.relabel(owed, now);
    }

    /// The next moment of the calendar at which [`Self::calendar`] changes something by itself; may
    /// have passed.
    #[must_use]
    pub fn next_change(&self) -> Option<Timestamp> {
        self.context.aligned.as_ref().and_then(Aligned::next_change)
    }

    /// Orders the table that gives rights back, if one is wanted and nothing else is under way.
    pub fn follow(&mut self) {
        let free = self.publishing.is_none() && self.trial.is_none() && !self.context.compiling;
        if self.context.wants_table && free && self.context.aligned.is_some() {
            self.context.wants_table = false;
            self.compile_for_facts();
        }
    }

    /// Someone says what is known of devices.
    pub(super) fn context_set(
        &mut self,
        id: RequestId,
        changes: &[FactChange],
        written: bool,
        only_check: bool,
        now: Time,
    ) {
        match self.read(changes, written) {
            Ok(said) if only_check => self.answer(id, Answer::ContextChanged(count(&said))),
            Ok(said) => self.set(id, said, now),
            Err(refusal) => self.answer(id, Answer::Refused(refusal)),
        }
    }

    /// Someone says that nothing is known of a device, or not these attributes.
    pub(super) fn context_clear(
        &mut self,
        id: RequestId,
        device: &str,
        attributes: &[String],
        now: Time,
    ) {
        if let Err(refusal) = self.clear(id, device, attributes, now) {
            self.answer(id, Answer::Refused(refusal));
        }
    }

    /// Someone asks what is known.
    pub(super) fn context_show(&mut self, id: RequestId, device: Option<&str>) {
        let answer = self.show(device).map_or_else(Answer::Refused, Answer::Context);
        self.answer(id, answer);
    }

    /// All of it is good, or nothing is taken.
    fn read(&self, changes: &[FactChange], written: bool) -> Result<Vec<Said>, Refusal> {
        let config = self.newest_config();
        let devices = Devices::of(config);
        let today = self.today();
        let (mut all, mut diagnostics, mut bad) = (vec![], vec![], 0);
        for (number, change) in (1..).zip(changes) {
            match Said::read(config, &devices, change, written, today) {
                Ok(said) => all.push(said),
                Err(problems) => {
                    bad += 1;
                    diagnostics.push(mistake(number, &problems.join("; ")));
                }
            }
            if bad == DIAGNOSTICS_MAX {
                break;
            }
        }
        if changes.is_empty() {
            return Err(Refusal::new(RefusalKind::BadRequest, "there is nothing to set"));
        }
        if diagnostics.is_empty() {
            return Ok(all);
        }
        let message = match (diagnostics.as_slice(), changes.len()) {
            ([only], 1) => only.problem.clone(),
            (_, _) => format!("{bad} of {} changes are bad; nothing was changed", changes.len()),
        };
        Err(Refusal { kind: RefusalKind::BadRequest, message, diagnostics })
    }

    fn set(&mut self, id: RequestId, all: Vec<Said>, now: Time) {
        let answer = count(&all);
        let devices: BTreeSet<String> = all.iter().map(|said| said.device().to_owned()).collect();
        for said in all {
            self.context.knowledge.set(said);
        }
        self.changed(id, answer, &devices, now);
    }

    fn clear(
        &mut self,
        id: RequestId,
        device: &str,
        attributes: &[String],
        now: Time,
    ) -> Result<(), Refusal> {
        let bad = |problem: String| Refusal::new(RefusalKind::BadRequest, problem);
        let config = Arc::clone(self.newest_config());
        let name = Devices::of(&config).find(device).map_err(bad)?.name.clone();
        for attribute in attributes {
            bulkhead_policy_compiler::attribute_kind(&config, attribute).map_err(bad)?;
        }
        let facts = self.context.knowledge.clear(&name, attributes);
        let answer = ContextChangedAnswer { devices: 1, facts, ..ContextChangedAnswer::default() };
        self.changed(id, answer, &BTreeSet::from([name]), now);
        Ok(())
    }

    /// Brings the labels in line, and answers when that is in force and kept.
    fn changed(
        &mut self,
        id: RequestId,
        mut answer: ContextChangedAnswer,
        devices: &BTreeSet<String>,
        now: Time,
    ) {
        let mut owed = Owed::default();
        let today = self.today();
        match &mut self.context.aligned {
            Some(aligned) => {
                for device in devices {
                    aligned.align(device, &self.context.knowledge, today, &mut owed);
                }
            }
            None if self.first.is_some() => {}
            None => answer.trouble.push(self.why_not_in_force().to_owned()),
        }
        answer.relabelled = owed.labels.len();
        let table = owed.recompile || self.first.is_some();
        let tokens = self.relabel(owed, now);
        let knowledge = &self.context.knowledge;
        let disk = (!knowledge.is_kept()).then_some(knowledge.version());
        self.context.waiting.add(id, now, tokens, table, disk, answer);
        self.answer_waiting();
    }

    fn why_not_in_force(&self) -> &'static str {
        match &self.link {
            Link::Running(running)
                if differences(&running.configuration, &self.intent.configuration).is_empty() =>
            {
                "not in force: no table can be made, see bulkhead status"
            }
            Link::Running(_) => {
                "not in force: the datapath runs a policy for other ports and must be restarted"
            }
            Link::Down | Link::Greeting(_) | Link::Configuring { .. } | Link::Refused { .. } => {
                "not in force yet: no datapath is set up; its first table will be made with it"
            }
        }
    }

    fn show(&self, device: Option<&str>) -> Result<ContextAnswer, Refusal> {
        let config = self.newest_config();
        let now = self.today();
        let wanted = device.map(|device| Devices::of(config).find(device)).transpose();
        let wanted = wanted.map_err(|problem| Refusal::new(RefusalKind::BadRequest, problem))?;
        let all = config.devices.iter();
        let asked = all.filter(|one| wanted.is_none_or(|wanted| wanted.name == one.name));
        let shown = asked.map(|device| DeviceContextAnswer {
            device: device.name.clone(),
            facts: self
                .context
                .knowledge
                .of(config, device)
                .facts()
                .map(|(attribute, fact)| FactAnswer {
                    attribute: attribute.to_owned(),
                    value: as_json(&fact.value),
                    source: fact.source.clone(),
                    set_at: fact.set_at,
                    until: fact.stale_at(),
                    counts: fact.counts(Some(now)),
                })
                .collect(),
            labels: self.labels_of(&device.name),
            rules: if wanted.is_some() { self.rules_of(&device.name) } else { vec![] },
        });
        let known = |one: &DeviceContextAnswer| wanted.is_some() || !one.facts.is_empty();
        Ok(ContextAnswer { now, devices: shown.filter(known).collect() })
    }

    /// The labels of a device under the newest table that was sent.
    pub(super) fn labels_of(&self, device: &str) -> Vec<u16> {
        let aligned = self.context.aligned.as_ref();
        let labels = aligned.map(|aligned| aligned.standing().labels_of(device));
        labels.into_iter().flatten().map(|label| label.0).collect()
    }

    fn rules_of(&self, device: &str) -> Vec<RuleAnswer> {
        let Some(aligned) = &self.context.aligned else { return vec![] };
        let config = aligned.config();
        let rules = aligned.standing().rules_of(config, device).into_iter();
        let named = rules.filter_map(|(number, in_effect)| {
            let rule = usize::try_from(number).ok().and_then(|at| config.rules.get(at))?;
            Some(RuleAnswer { id: rule.id.clone(), in_effect })
        });
        named.collect()
    }

    /// Tells the datapath; returns the tokens by which it confirms.
    fn relabel(&mut self, owed: Owed, now: Time) -> BTreeSet<u64> {
        self.context.wants_table |= owed.recompile;
        let Some(aligned) = &self.context.aligned else { return BTreeSet::new() };
        let generation = aligned.standing().generation();
        let all: Vec<(u32, u16)> = owed.labels.into_iter().collect();
        let mut tokens = BTreeSet::new();
        for labels in all.chunks(RELABEL_MAX) {
            self.token += 1;
            let (token, labels) = (self.token, labels.to_vec());
            self.send(ToDatapath::Relabel { token, generation, labels });
            self.context.relabels.insert(token, now);
            tokens.insert(token);
        }
        tokens
    }

    fn align_all(&mut self, owed: &mut Owed) {
        let today = self.today();
        if let Some(aligned) = &mut self.context.aligned {
            aligned.align_all(&self.context.knowledge, today, owed);
        }
    }

    /// Brings a plan that was made elsewhere in line with what is known by now.
    pub(super) fn overtaken(&self, plan: &mut Plan) -> Owed {
        let mut owed = Owed::default();
        if let Some(aligned) = &mut plan.aligned {
            aligned.align_all(&self.context.knowledge, self.today(), &mut owed);
            plan.version = self.context.knowledge.version();
        }
        owed
    }

    /// A table was sent that was compiled with what was known as `version`.
    pub(super) fn table_sent(
        &mut self,
        aligned: Aligned,
        version: u64,
        now: Time,
    ) -> Option<Aligned> {
        let generation = aligned.standing().generation();
        let before = self.context.aligned.replace(aligned);
        self.context.wants_table = false;
        self.context.waiting.table_sent(generation);
        if version != self.context.knowledge.version() {
            let mut owed = Owed::default();
            self.align_all(&mut owed);
            self.owe_to_all(owed, now);
        }
        before
    }

    /// The table that was sent last is not in force: the one before is.
    pub(super) fn table_failed(&mut self, before: Option<Aligned>, why: &str, now: Time) {
        if before.is_none() {
            self.context_without_first_table(why);
        }
        self.context.aligned = before;
        // Answers to those would be about a table that there is not.
        self.context.relabels.clear();
        self.context.waiting.forget_messages();
        self.context.waiting.no_table(why);
        let mut owed = Owed::default();
        self.align_all(&mut owed);
        self.owe_to_all(owed, now);
        self.answer_waiting();
    }

    /// No table can be made of what is known. It is tried again when something else is known.
    pub(super) fn context_without_table(&mut self, why: &str) {
        self.context.wants_table = false;
        self.context.waiting.no_table(why);
        self.answer_waiting();
    }

    /// There will be none under which anything that is known would count.
    pub(super) fn context_without_first_table(&mut self, why: &str) {
        self.context.waiting.no_datapath(&format!("not in force: there is no table for it: {why}"));
        self.answer_waiting();
    }

    /// Everyone who waits for anything waits for these labels too.
    pub(super) fn owe_to_all(&mut self, owed: Owed, now: Time) {
        let table = owed.recompile;
        let tokens = self.relabel(owed, now);
        self.context.waiting.add_to_all(&tokens, table);
    }

    /// Every worker judges by a generation.
    pub(super) fn table_in_force(&mut self, generation: u64) {
        self.context.waiting.table_in_force(generation);
        self.answer_waiting();
    }

    pub(super) fn relabelled(&mut self, token: u64) {
        // Otherwise it was sent under a table that was refused, or by a process before us.
        if self.context.relabels.remove(&token).is_some() {
            self.context.waiting.confirmed(token);
            self.answer_waiting();
        }
    }

    /// Does not happen. What could be taken away was; a new table makes the rest right.
    pub(super) fn relabel_refused(&mut self, token: u64, reason: &str) {
        if self.context.relabels.remove(&token).is_none() {
            return;
        }
        error!(token, reason, "the datapath refused labels; it gets a new table");
        self.context.wants_table = true;
        self.context.waiting.refused(token);
    }

    /// The datapath is gone.
    pub(super) fn context_without_datapath(&mut self) {
        self.context.aligned = None;
        self.context.relabels.clear();
        self.context.wants_table = false;
        self.context.waiting.no_datapath(
            "the datapath went away before it confirmed; its next table will be made with it",
        );
        self.answer_waiting();
    }

    /// Labels that are not confirmed by then are not confirmed.
    pub(super) fn relabel_deadline(&self) -> Option<Time> {
        self.context.relabels.values().min().map(|sent_at| sent_at.plus(CONFIRM_TIMEOUT))
    }

    /// What is not as it should be.
    pub(super) fn context_problems(&self) -> impl Iterator<Item = String> {
        let not_kept = self.context.not_kept.as_ref();
        let not_kept =
            not_kept.map(|problem| format!("facts about devices cannot be kept: {problem}"));
        self.context.lost.iter().cloned().chain(not_kept)
    }

    fn answer_waiting(&mut self) {
        for (id, since, mut answer) in self.context.waiting.ready() {
            answer.generation = self.generation();
            let now = self.context.seen.map_or(since, |(_, now)| now);
            answer.confirm_us = now.since(since).as_micros().try_into().unwrap_or(u64::MAX);
            self.answer(id, Answer::ContextChanged(answer));
        }
    }

    /// Of the newest table that was sent, or of what is to be.
    fn newest_config(&self) -> &Arc<Config> {
        self.context.aligned.as_ref().map_or(&self.intent.config, Aligned::config)
    }

    /// What is known of devices now, for questions that are answered elsewhere.
    #[must_use]
    pub fn known(&self) -> (Knowledge, Timestamp) {
        (self.context.knowledge.clone(), self.today())
    }

    pub(super) fn today(&self) -> Timestamp {
        self.context.seen.map_or(Timestamp::UNIX_EPOCH, |(today, _)| today)
    }
}

fn count(all: &[Said]) -> ContextChangedAnswer {
    let devices: BTreeSet<&str> = all.iter().map(Said::device).collect();
    ContextChangedAnswer {
        devices: devices.len(),
        facts: all.iter().map(Said::len).sum(),
        ..ContextChangedAnswer::default()
    }
}

fn mistake(number: u32, problem: &str) -> Diagnostic {
    Diagnostic {
        path: String::new(),
        line: number,
        column: 0,
        problem: problem.to_owned(),
        text: format!("{number}: {problem}"),
    }
}

#[cfg(test)]
pub(super) mod tests;
