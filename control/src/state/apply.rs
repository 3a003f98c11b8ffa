//! Putting an intent in force: peers, then the table, then what only its confirmation allows.

use bulkhead_link::Listener;

use super::*;
use crate::api::AppliedAnswer;
use crate::intent::differences;

/// Tables in a row that were outdated when they were made, before one is made while nothing else is
/// done.
pub(super) const OUTDATED_MAX: u32 = 3;

impl State {
    /// What is to be compiled to put `intent` in force, elsewhere: [`Self::checked`] takes what comes of
    /// it. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::Invalid`].
    pub fn job_for(&self, intent: &Arc<Intent>) -> Result<Job, Refusal> {
        self.job(intent, self.generation_max + 1)
    }

    /// A plan was made while other things happened, and before it in vain so often. It is outdated if
    /// it is of another datapath, if another table was sent, or if it would give anyone a label that
    /// is not the right one any more. If that happens every time, it is made here, where nothing
    /// happens meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Self::job_for`].
    pub fn checked(&self, mut plan: Plan, in_vain: u32) -> Result<Checked, Refusal> {
        let same_datapath = plan.epoch == self.epoch && plan.generation > self.generation_max;
        if same_datapath && self.overtaken(&mut plan).is_nothing() {
            return Ok(Checked::Current(Box::new(plan)));
        }
        let job = self.job_for(&plan.intent)?;
        if in_vain < OUTDATED_MAX {
            return Ok(Checked::Outdated(Box::new(job)));
        }
        Ok(Checked::Current(Box::new(job.compile()?)))
    }

    pub(super) fn plan_generation(
        &self,
        intent: &Arc<Intent>,
        generation: u64,
    ) -> Result<Plan, Refusal> {
        self.job(intent, generation)?.compile()
    }

    pub(super) fn job(&self, intent: &Arc<Intent>, generation: u64) -> Result<Job, Refusal> {
        let peers = self.peers_of(intent)?;
        let knowledge = &self.context.knowledge;
        let facts = knowledge.facts(&intent.config, self.today());
        let (intent, version) = (Arc::clone(intent), knowledge.version());
        let (compiler, epoch) = (self.compiler.clone(), self.epoch);
        Ok(Job { intent, compiler, generation, epoch, peers, facts, version })
    }

    /// All devices with their indices: those that the datapath knows them by, and free ones.
    pub(super) fn peers_of(&self, intent: &Intent) -> Result<BTreeMap<PublicKey, Peer>, Refusal> {
        let peers_max = match &self.link {
            Link::Running(running) => running.configuration.peers_max,
            Link::Down | Link::Greeting(_) | Link::Configuring { .. } | Link::Refused { .. } => {
                intent.configuration.peers_max
            }
        };
        let mut taken: Vec<u32> = self.announced.values().map(|peer| peer.index).collect();
        taken.sort_unstable();
        let mut free = (0..peers_max).filter(|index| taken.binary_search(index).is_err());
        let mut peers = BTreeMap::new();
        for device in &intent.devices {
            let known = self.announced.get(&device.public_key).map(|peer| peer.index);
            let index = known.or_else(|| free.next()).ok_or_else(|| {
                let why = format!(
                    "all {peers_max} of gateway.peers_max are in use, with the devices that this \
                     file removes; apply the removal first"
                );
                Refusal::new(RefusalKind::Invalid, why)
            })?;
            let (public_key, keepalive) = (device.public_key.0, device.keepalive);
            peers.insert(device.public_key, Peer { index, public_key, keepalive });
        }
        Ok(peers)
    }

    /// Whether an apply is under way, or a datapath is about to end. A table for facts alone is none:
    /// another may overtake it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let publishing = self.publishing.as_ref();
        let published = publishing.is_some_and(|publishing| publishing.why != Why::Facts);
        let ending = self.end_by.is_some();
        self.trial.is_some() || self.first.is_some() || published || ending
    }

    /// Puts a plan in force; answers `request` when every worker judges by it, or when it is certain
    /// that none will.
    pub fn apply(
        &mut self,
        request: RequestId,
        plan: Plan,
        compile_us: u64,
        restart_datapath: bool,
        now: Time,
    ) {
        if self.is_busy() {
            let why = "another table is being put in force; nothing was changed, try again";
            return self.refuse(request, RefusalKind::Busy, why);
        }
        match &self.link {
            Link::Down => {
                let why = "no datapath is connected; nothing was changed";
                self.refuse(request, RefusalKind::Unavailable, why);
            }
            // What it runs is not known yet; and one configuration at a time, since its answer does not say
            // to which it is one.
            Link::Greeting(_) | Link::Configuring { .. } => {
                let why = "a datapath is being set up; nothing was changed, try again";
                self.refuse(request, RefusalKind::Busy, why);
            }
            // Nothing runs, so there is nothing that a restart would interrupt.
            Link::Refused { pid, .. } => {
                let pid = *pid;
                self.try_out(request, compile_us, &plan.intent, now);
                self.configure(pid, now);
            }
            Link::Running(_) if restart_datapath && !self.starts_datapath => {
                let why = "this bulkheadd does not start the datapath by itself (--datapath); \
                           check and keep the file with: bulkhead apply --next-start, then: \
                           systemctl restart bulkhead-datapath bulkheadd";
                self.refuse(request, RefusalKind::RestartNeeded, why);
            }
            Link::Running(_) if restart_datapath => {
                info!("the datapath is restarted because the operator asked for it");
                self.try_out(request, compile_us, &plan.intent, now);
                self.stop_datapath(now);
            }
            Link::Running(running) => {
                let found = differences(&running.configuration, &plan.intent.configuration);
                if found.is_empty() {
                    self.publish(plan, Some((request, compile_us)), Why::Apply, now);
                } else {
                    let why = format!(
                        "valid, but the datapath must be restarted for it, which interrupts \
                         traffic: bulkhead apply --restart-datapath\n  {}",
                        found.join("\n  ")
                    );
                    self.refuse(request, RefusalKind::RestartNeeded, &why);
                }
            }
        }
    }

    /// Orders a table of the intent in force with more of what is known.
    pub(super) fn compile_for_facts(&mut self) {
        let intent = Arc::clone(&self.intent);
        match self.job(&intent, self.generation_max + 1) {
            Ok(job) => self.order_table(job),
            Err(refusal) => self.no_table_for_facts(refusal),
        }
    }

    pub(super) fn order_table(&mut self, job: Job) {
        self.context.compiling = true;
        self.actions.push_back(Action::Compile(Box::new(job)));
    }

    /// What came of [`Action::Compile`], for the datapath of this epoch. For one that has gone nothing
    /// is made any more.
    pub fn compiled(&mut self, epoch: u64, plan: Result<Plan, Refusal>, now: Time) {
        self.context.compiling = false;
        if epoch != self.epoch {
            self.order_first(now);
        } else if let Some(first) = self.first.take() {
            self.first_made(first, plan, now);
        } else {
            self.made_for_facts(plan, now);
        }
    }

    /// If something else was sent meanwhile, or it would give anyone a label that it has no more, it is
    /// of no use and ordered again: what was acknowledged to be taken away must not come back with a
    /// table, not even for the moment until the next message.
    fn made_for_facts(&mut self, plan: Result<Plan, Refusal>, now: Time) {
        let mut plan = match plan {
            Ok(plan) => plan,
            Err(refusal) => return self.no_table_for_facts(refusal),
        };
        let running = matches!(self.link, Link::Running(_));
        let free = running && self.publishing.is_none() && self.trial.is_none();
        let newest = plan.generation > self.generation_max;
        self.context.wants_table = true;
        if !free || !newest || !Arc::ptr_eq(&plan.intent, &self.intent) {
            return;
        }
        let owed = self.overtaken(&mut plan);
        if owed.labels.is_empty() {
            self.context.outdated = 0;
            self.publish(plan, None, Why::Facts, now);
            self.owe_to_all(owed, now);
        } else if self.context.outdated < OUTDATED_MAX {
            self.context.outdated += 1;
        } else {
            // Facts change faster than tables are made: here nothing can change meanwhile.
            let intent = Arc::clone(&self.intent);
            let plan = self.plan_generation(&intent, self.generation_max + 1);
            self.context.outdated = 0;
            self.made_for_facts(plan, now);
        }
    }

    fn no_table_for_facts(&mut self, refusal: Refusal) {
        error!("no table for what is known: {refusal}");
        self.context_without_table(&refusal.message);
        self.alarm = Some(refusal.message);
    }

    pub(super) fn publish(
        &mut self,
        mut plan: Plan,
        request: Option<(RequestId, u64)>,
        why: Why,
        now: Time,
    ) {
        self.generation_max = self.generation_max.max(plan.generation);
        self.announce(&plan.peers);
        self.listen(&plan.intent.configuration.listeners);
        let (generation, blob) = (plan.generation, plan.blob.clone());
        self.actions.push_back(Action::Table { generation, blob });
        let version = plan.version;
        let before = plan.aligned.take().and_then(|aligned| self.table_sent(aligned, version, now));
        self.publishing = Some(Publishing { plan, sent_at: now, request, why, before });
    }

    /// Tells the datapath of the peers that it does not know.
    pub(super) fn announce(&mut self, peers: &BTreeMap<PublicKey, Peer>) {
        for (key, peer) in peers {
            if self.announced.get(key) != Some(peer) {
                self.actions.push_back(Action::Send(ToDatapath::Peer(peer.clone())));
                self.announced.insert(*key, peer.clone());
            }
        }
    }

    /// A table leaves, maybe long after it was ordered: one that was outdated too often is made while
    /// everything else waits. From now on its confirmation is waited for.
    pub fn table_leaves(&mut self, generation: u64, now: Time) {
        let due = self.publishing.as_mut().filter(|table| table.plan.generation == generation);
        if let Some(publishing) = due {
            publishing.sent_at = now;
        }
    }

    /// Whether the datapath listens so.
    pub(super) fn listens(&self, wanted: &[Listener]) -> bool {
        matches!(&self.link, Link::Running(running) if running.configuration.listeners == wanted)
    }

    /// Tells the datapath to listen so, if it does not. Goes before the table, so that every worker
    /// that has confirmed the table listens.
    ///
    /// Until the table is confirmed the handshake thread has the listeners before. So a listener
    /// that goes stops a moment early, and one that comes hears its first messages for nothing;
    /// they are sent again after REKEY_TIMEOUT. Sessions notice neither.
    fn listen(&mut self, wanted: &[Listener]) {
        let Link::Running(running) = &mut self.link else { return };
        if running.configuration.listeners != wanted {
            running.configuration.listeners = wanted.to_vec();
            self.send(ToDatapath::Listeners(wanted.to_vec()));
        }
    }

    pub(super) fn confirmed(&mut self, generation: u64, now: Time) {
        let Link::Running(running) = &mut self.link else { return };
        running.generation = generation;
        let pid = running.pid;
        let due = |publishing: &mut Publishing| publishing.plan.generation == generation;
        let Some(publishing) = self.publishing.take_if(due) else { return };
        let Publishing { plan, sent_at, request, why, .. } = publishing;
        let before = Arc::clone(&self.intent);
        self.intent = Arc::clone(&plan.intent);
        self.alarm = None;
        let warning = self.trial_succeeds();
        let gone: Vec<PublicKey> =
            self.announced.keys().filter(|key| !plan.peers.contains_key(key)).copied().collect();
        for key in &gone {
            if let Some(peer) = self.announced.remove(key) {
                self.send(ToDatapath::RemovePeer { peer: peer.index });
            }
        }
        self.order_peers(&plan.intent, now);
        self.outer();
        self.record = Record { generation, digest: plan.blob.digest, pid };
        self.actions.push_back(Action::Record(self.record.clone()));
        if before.segments != plan.intent.segments {
            self.watch();
        }
        let publish_us = now.since(sent_at).as_micros().try_into().unwrap_or(u64::MAX);
        info!(generation, publish_us, peers = plan.peers.len(), "every worker judges by it");
        self.table_in_force(generation);
        let Some((id, compile_us)) = request else { return };
        let knew: Vec<_> = before.devices.iter().map(|device| device.public_key).collect();
        let applied = AppliedAnswer {
            generation,
            compile_us,
            publish_us,
            table_bytes: plan.blob.bytes.len().try_into().unwrap_or(u64::MAX),
            peers_added: plan.peers.keys().filter(|key| !knew.contains(key)).count(),
            peers_removed: gone.len(),
            datapath_restarted: why == Why::NewDatapath,
            warning,
            ..AppliedAnswer::default()
        };
        self.answer(id, Answer::Applied(applied));
    }

    pub(super) fn table_refused(&mut self, generation: u64, reason: &str, now: Time) {
        error!(generation, reason, "the datapath refused the table");
        let due = |publishing: &mut Publishing| publishing.plan.generation == generation;
        let Some(mut publishing) = self.publishing.take_if(due) else { return };
        // Takes back what was announced for it.
        for (key, peer) in publishing.plan.peers.clone() {
            let wanted = self.intent.devices.iter().find(|device| device.public_key == key);
            match wanted {
                None => {
                    self.announced.remove(&key);
                    self.send(ToDatapath::RemovePeer { peer: peer.index });
                }
                Some(device) if device.keepalive != peer.keepalive => {
                    let before = Peer { keepalive: device.keepalive, ..peer };
                    self.announced.insert(key, before.clone());
                    self.send(ToDatapath::Peer(before));
                }
                Some(_) => {}
            }
        }
        let before = self.intent.configuration.listeners.clone();
        self.listen(&before);
        let outcome = match &self.trial {
            Some(_) => "the configuration before is being restored",
            None => "nothing was changed",
        };
        let why = format!("the datapath refused the table: {reason}; {outcome}");
        let was_trial = self.refuse_apply(&publishing, RefusalKind::Refused, &why);
        self.alarm = Some(format!("the datapath refused table {generation}: {reason}"));
        self.table_failed(publishing.before.take(), "the datapath refused it", now);
        if was_trial {
            self.back_from_trial(now);
        }
    }

    /// `true`: it was of the intent on trial, and the one before is wanted again.
    pub(super) fn refuse_apply(
        &mut self,
        publishing: &Publishing,
        kind: RefusalKind,
        why: &str,
    ) -> bool {
        let Some((id, _)) = publishing.request else { return false };
        let trial = self.trial.take_if(|trial| trial.request == id);
        let was_trial = trial.is_some();
        if let Some(trial) = trial {
            self.intent = trial.previous;
        }
        self.refuse(id, kind, why);
        was_trial
    }
}
