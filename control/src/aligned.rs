//! The standing of all endpoints under one table, kept in line with what is known.
//!
//! INVARIANT: after [`Aligned::align`] the standing knows of a device what [`Knowledge`] has of it, no
//! more and no less, and [`Owed`] has every label that is another now.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_config::Config;
use bulkhead_policy_compiler::{Changes, Context, Facts, Labels, Standing};
use jiff::Timestamp;

use crate::knowledge::Knowledge;

/// A standing with the configuration that its table was made from.
#[derive(Debug)]
pub struct Aligned {
    config: Arc<Config>,
    /// Device by name: its place in the configuration.
    places: BTreeMap<String, usize>,
    standing: Standing,
    /// The last moment that was looked at.
    seen: Timestamp,
    /// What [`Self::next_change`] is; `None`: to be found out. The daemon asks at every event.
    next: Cell<Option<Option<Timestamp>>>,
}

/// What the datapath must be told: the last label of each endpoint counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// By endpoint.
    pub labels: BTreeMap<u32, u16>,
    /// Whether a new table would give rights back.
    pub recompile: bool,
}

impl Owed {
    /// Whether the datapath knows everything.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.labels.is_empty() && !self.recompile
    }

    fn add(&mut self, changes: Changes) {
        self.recompile |= changes.recompile;
        let labels = changes.relabels.into_iter().map(|one| (one.endpoint, one.label));
        self.labels.extend(labels);
    }
}

impl Aligned {
    /// The standing under a table that was compiled from `config` and `facts`.
    #[must_use]
    pub fn new(config: Arc<Config>, labels: Labels, facts: Facts, generation: u64) -> Self {
        let now = facts.now.unwrap_or(Timestamp::MIN);
        let standing = Standing::new(&config, labels, facts, generation);
        let names = config.devices.iter().map(|device| device.name.clone());
        let places = names.zip(0..).collect();
        Self { config, places, standing, seen: now, next: Cell::new(None) }
    }

    /// What the table was made from.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The standing.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The next moment at which the time alone may change something; may have passed.
    #[must_use]
    pub fn next_change(&self) -> Option<Timestamp> {
        let next = self.next.get().unwrap_or_else(|| self.standing.next_change(self.seen));
        self.next.set(Some(next));
        next
    }

    /// Lets the time pass, if something may change with it. It may also go back.
    pub fn tick(&mut self, now: Timestamp, owed: &mut Owed) {
        if now < self.seen || self.next_change().is_some_and(|at| at <= now) {
            owed.add(self.standing.tick(now));
            self.seen = now;
            self.next.set(None);
        }
    }

    /// Takes over what is known of one device.
    pub fn align(&mut self, device: &str, knowledge: &Knowledge, now: Timestamp, owed: &mut Owed) {
        let place = self.places.get(device);
        let found = place.and_then(|at| self.config.devices.get(*at));
        let wanted = found.map(|found| knowledge.of(&self.config, found)).unwrap_or_default();
        self.take(device, &wanted, now, owed);
    }

    /// As [`Self::align`], of all devices.
    pub fn align_all(&mut self, knowledge: &Knowledge, now: Timestamp, owed: &mut Owed) {
        let wanted = knowledge.facts(&self.config, now).devices;
        let had = self.standing.facts().devices.keys();
        let names: BTreeSet<String> = wanted.keys().chain(had).cloned().collect();
        let nothing = Context::default();
        for device in names {
            self.take(&device, wanted.get(&device).unwrap_or(&nothing), now, owed);
        }
        self.tick(now, owed);
    }

    fn take(&mut self, device: &str, wanted: &Context, now: Timestamp, owed: &mut Owed) {
        let nothing = Context::default();
        let had = self.standing.facts().devices.get(device).unwrap_or(&nothing);
        if had == wanted {
            return;
        }
        let kept = |name: &str| wanted.facts().any(|(other, _)| other == name);
        let gone: Vec<String> =
            had.facts().map(|(name, _)| name.to_owned()).filter(|name| !kept(name)).collect();
        let new: Vec<_> = wanted
            .facts()
            .filter(|fact| !had.facts().any(|other| other == *fact))
            .map(|(name, fact)| (name.to_owned(), fact.clone()))
            .collect();
        for attribute in gone {
            owed.add(self.standing.forget(device, &attribute, now));
        }
        for (attribute, fact) in new {
            owed.add(self.standing.learn(device, &attribute, fact, now));
        }
        self.seen = now;
        self.next.set(None);
    }
}

#[cfg(test)]
pub(crate) mod tests;
