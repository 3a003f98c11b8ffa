//! Where every endpoint stands, and what changes it.
//!
//! ```text
//!   compile ──▶ Labels ──┐                     a fact, a moment
//!   facts ───────────────┴─▶ Standing ◀──────────────────────────
//!                               └─▶ Relabel for each endpoint whose label is another now
//! ```
//!
//! A change is a list of [`Relabel`], to be applied to the table of [`Standing::generation`]; no table
//! is made for it. Where the table has no label for what holds now, the endpoint gets the label of
//! the most that holds and the table knows, and [`Changes::recompile`] asks for a new table.
//!
//! INVARIANT: the label of an endpoint never stands for a condition that does not hold.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_config::Config;
use bulkhead_table::{EndpointId, LabelId};
use jiff::Timestamp;
use serde::Serialize;

use crate::condition::{ConditionId, Conditions, Held, Tick};
use crate::labels::Labels;
use crate::{Context, Fact, Facts};

/// One endpoint has another label now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Relabel {
    /// Which, in the numbering of the table.
    pub endpoint: u32,
    /// The label, of the same table.
    pub label: u16,
}

/// What follows from a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// New labels, by endpoint, each endpoint once.
    pub relabels: Vec<Relabel>,
    /// Whether some endpoint holds more than the table can say, so that a new table would give it
    /// rights back. Nobody has too many.
    pub recompile: bool,
}

/// The standing of every endpoint under one table.
#[derive(Debug)]
pub struct Standing {
    generation: u64,
    conditions: Conditions,
    labels: Labels,
    facts: Facts,
    /// What the time says to conditions that depend on it, for a device of which nothing else is
    /// known: only its changes matter.
    ticks: BTreeMap<ConditionId, Tick>,
    /// Device by name: its endpoints.
    endpoints_of: BTreeMap<String, Vec<EndpointId>>,
    /// Endpoint by number, 0 included.
    standing: Vec<Place>,
    /// When facts of devices stop to count.
    deadlines: BTreeSet<(Timestamp, String)>,
}

/// The standing of one endpoint.
#[derive(Debug)]
struct Place {
    held: Held,
    label: LabelId,
    /// Whether the label stands for all that holds.
    exact: bool,
}

/// Changes under way: of several labels for an endpoint the last counts.
#[derive(Default)]
struct Pending {
    labels: BTreeMap<u32, LabelId>,
    recompile: bool,
}

impl Pending {
    fn done(self) -> Changes {
        let relabel = |(endpoint, label): (u32, LabelId)| Relabel { endpoint, label: label.0 };
        Changes {
            relabels: self.labels.into_iter().map(relabel).collect(),
            recompile: self.recompile,
        }
    }
}

impl Standing {
    /// The standing that a table was compiled with: `labels` and `facts` are those of the compile.
    #[must_use]
    pub fn new(config: &Config, labels: Labels, facts: Facts, generation: u64) -> Self {
        let conditions = Conditions::of(config);
        let nobody = Context::default();
        let ticks = conditions.ticking().map(|id| (id, conditions.tick(id, facts.now)));
        let mut endpoints_of: BTreeMap<String, Vec<EndpointId>> = BTreeMap::new();
        let mut standing = Vec::new();
        let mut evaluated: BTreeMap<String, Held> = BTreeMap::new();
        let of_nobody = conditions.evaluate(None, &nobody, facts.now);
        for (endpoint, device) in labels.endpoints() {
            let held = match device {
                Some(name) => {
                    endpoints_of.entry(name.to_owned()).or_default().push(endpoint);
                    let context = facts.devices.get(name);
                    if context.is_some() || conditions.are_personal() {
                        let context = context.unwrap_or(&nobody);
                        let all = || conditions.evaluate(Some(name), context, facts.now);
                        evaluated.entry(name.to_owned()).or_insert_with(all).clone()
                    } else {
                        of_nobody.clone()
                    }
                }
                None => of_nobody.clone(),
            };
            let (label, exact) = labels.choose(endpoint, &held);
            standing.push(Place { held, label, exact });
        }
        let now = facts.now.unwrap_or(Timestamp::MIN);
        let deadlines = facts.devices.iter();
        let deadlines = deadlines.flat_map(|(device, context)| {
            context.facts().filter_map(|(_, fact)| fact.stale_at()).map(|at| (at, device.clone()))
        });
        let deadlines = deadlines.filter(|(at, _)| *at > now).collect();
        let ticks = ticks.collect();
        Self { generation, ticks, conditions, labels, facts, endpoints_of, standing, deadlines }
    }

    /// The table that the labels are of.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What is known, for the next compile.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The label of an endpoint; label 0 for one that does not exist.
    #[must_use]
    pub fn label(&self, endpoint: EndpointId) -> LabelId {
        self.at(endpoint).map_or(LabelId(0), |place| place.label)
    }

    /// The labels of a device, in the order of its endpoints.
    #[must_use]
    pub fn labels_of(&self, device: &str) -> Vec<LabelId> {
        let endpoints = self.endpoints_of.get(device).into_iter().flatten();
        endpoints.map(|endpoint| self.label(*endpoint)).collect()
    }

    /// The rules with a condition that are about a device, by their number, and whether each has its
    /// effect on it now: one that allows because its condition holds, one that denies because that is
    /// not certain to fail.
    #[must_use]
    pub fn rules_of(&self, config: &Config, device: &str) -> Vec<(u32, bool)> {
        let endpoints = self.endpoints_of.get(device).map_or(&[][..], Vec::as_slice);
        let numbered = (0..).zip(&config.rules);
        let found = numbered.filter_map(|(number, rule)| {
            let id = self.conditions.of_rule(number)?;
            let about = endpoints.iter().find(|endpoint| self.labels.depends(**endpoint, id))?;
            let held = self.at(*about).is_some_and(|place| place.held.has(id));
            Some((number, held == (rule.action == bulkhead_config::Action::Allow)))
        });
        found.collect()
    }

    /// Takes a fact about a device, at a moment. Only the conditions that the attribute touches are
    /// evaluated. A device that the configuration does not have keeps its facts for a later one.
    pub fn learn(&mut self, device: &str, attribute: &str, fact: Fact, now: Timestamp) -> Changes {
        let mut changes = Pending::default();
        self.pass(now, &mut changes);
        if let Some(stale_at) = fact.stale_at().filter(|at| *at > now) {
            self.deadlines.insert((stale_at, device.to_owned()));
        }
        self.facts.devices.entry(device.to_owned()).or_default().set(attribute, fact);
        let touched = self.conditions.touching(attribute).to_vec();
        self.evaluate(device, &touched, &mut changes);
        changes.done()
    }

    /// Forgets a fact about a device, at a moment.
    pub fn forget(&mut self, device: &str, attribute: &str, now: Timestamp) -> Changes {
        let mut changes = Pending::default();
        self.pass(now, &mut changes);
        if let Some(context) = self.facts.devices.get_mut(device) {
            context.clear(attribute);
        }
        let touched = self.conditions.touching(attribute).to_vec();
        self.evaluate(device, &touched, &mut changes);
        changes.done()
    }

    /// Lets the time pass: what windows, expiries and times to live change by themselves. A clock
    /// that was set back gives the answers of the time that it shows.
    pub fn tick(&mut self, now: Timestamp) -> Changes {
        let mut changes = Pending::default();
        self.pass(now, &mut changes);
        changes.done()
    }

    fn pass(&mut self, now: Timestamp, changes: &mut Pending) {
        // A batch of facts is of one moment, and only its first has to look at all windows.
        if self.facts.now == Some(now) {
            return;
        }
        let back = self.facts.now.is_some_and(|before| now < before);
        self.facts.now = Some(now);
        let mut turned = Vec::new();
        for (id, tick) in &mut self.ticks {
            let now = self.conditions.tick(*id, Some(now));
            if core::mem::replace(tick, now) != now {
                turned.push(*id);
            }
        }
        if !turned.is_empty() {
            for endpoint in 0..self.standing.len() {
                self.evaluate_endpoint(endpoint, &turned, changes);
            }
        }
        let mut stale = BTreeSet::new();
        while let Some((at, device)) = self.deadlines.first().cloned() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            stale.insert(device);
        }
        if back {
            // What went stale may count again; there is no list of that.
            stale.extend(self.facts.devices.keys().cloned());
        }
        let all: Vec<ConditionId> = (0..).take(self.conditions.len()).collect();
        for device in stale {
            self.evaluate(&device, &all, changes);
        }
    }

    /// The next moment after `now` at which [`Self::tick`] may change something. `None`: only a fact
    /// can.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let deadline = self.deadlines.iter().map(|(at, _)| *at).find(|at| *at > now);
        deadline.into_iter().chain(self.conditions.next_change(now)).min()
    }

    fn evaluate(&mut self, device: &str, ids: &[ConditionId], changes: &mut Pending) {
        for endpoint in self.endpoints_of.get(device).cloned().unwrap_or_default() {
            let endpoint = usize::try_from(endpoint.0).unwrap_or(usize::MAX);
            self.evaluate_endpoint(endpoint, ids, changes);
        }
    }

    fn evaluate_endpoint(&mut self, at: usize, ids: &[ConditionId], changes: &mut Pending) {
        let Ok(number) = u32::try_from(at) else { return };
        let endpoint = EndpointId(number);
        let Some(Place { held, label, exact }) = self.standing.get_mut(at) else { return };
        let nobody = Context::default();
        let device = self.labels.device(endpoint);
        let context = device.and_then(|name| self.facts.devices.get(name)).unwrap_or(&nobody);
        let mut changed = false;
        for id in ids.iter().filter(|id| self.labels.depends(endpoint, **id)) {
            let holds = self.conditions.held(*id, device, context, self.facts.now);
            changed |= holds != held.has(*id);
            held.set(*id, holds);
        }
        if !changed {
            return;
        }
        let (found, is_exact) = self.labels.choose(endpoint, held);
        *exact = is_exact;
        changes.recompile |= !is_exact;
        if found != *label {
            *label = found;
            changes.labels.insert(number, found);
        }
    }

    fn at(&self, endpoint: EndpointId) -> Option<&Place> {
        usize::try_from(endpoint.0).ok().and_then(|at| self.standing.get(at))
    }
}
