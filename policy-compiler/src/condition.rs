//! The conditions of all rules, each once, and what of them holds for whom.
//!
//! ```text
//!   context of a device ─┐
//!   time ────────────────┴─▶ outcome of each condition ─▶ Held: a bit for each ─▶ label
//! ```
//!
//! A bit that is set never takes a right away: for a rule that allows it means that the condition
//! holds, for one that denies that it certainly does not. So fewer bits are fewer rights, and a
//! device of which nothing is known has none of them.

use std::collections::{BTreeMap, HashMap};

use bulkhead_config::{Action, Config, Must, Value};
use jiff::Timestamp;
use serde::Serialize;

use crate::clock::Clock;
use crate::{Context, Reading};

/// Position of a condition in [`Conditions`].
pub type ConditionId = u32;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It does.
    Holds,
    /// It does not.
    Fails,
    /// Something that it depends on is not known.
    Unknown,
}

impl Outcome {
    /// Both must hold. One that fails decides, whatever else is not known.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Fails, _) | (_, Self::Fails) => Self::Fails,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Holds, Self::Holds) => Self::Holds,
        }
    }

    const fn of(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::Fails }
    }
}

/// The conditions that are as they should be for someone: a set of [`ConditionId`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    words: Vec<u64>,
}

impl Held {
    /// Whether a condition is in it.
    #[must_use]
    pub fn has(&self, id: ConditionId) -> bool {
        let (word, bit) = place(id);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Puts a condition in, or takes it out.
    pub fn set(&mut self, id: ConditionId, held: bool) {
        let (word, bit) = place(id);
        if held && self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        if let Some(word) = self.words.get_mut(word) {
            *word = if held { *word | bit } else { *word & !bit };
        }
        // Equal sets are equal values.
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }
}

fn place(id: ConditionId) -> (usize, u64) {
    (usize::try_from(id / 64).unwrap_or(usize::MAX), 1 << (id % 64))
}

/// All conditions of a configuration. Rules with the same condition and action share one.
#[derive(Debug, Default)]
pub struct Conditions {
    list: Vec<Prepared>,
    /// By rule.
    of_rules: Vec<Option<ConditionId>>,
    touched_by: BTreeMap<String, Vec<ConditionId>>,
}

#[derive(Debug)]
struct Prepared {
    /// Attribute and demand.
    demands: Vec<(String, Must)>,
    clock: Clock,
    denies: bool,
}

impl Conditions {
    /// Gathers them. Rules that do not count have none.
    #[must_use]
    pub fn of(config: &Config, reading: Reading) -> Self {
        let mut conditions = Self::default();
        let mut known: HashMap<(&bulkhead_config::Condition, Action), ConditionId> = HashMap::new();
        for rule in &config.rules {
            if rule.condition.always() || !reading.counts(rule) {
                conditions.of_rules.push(None);
                continue;
            }
            let next = ConditionId::try_from(conditions.list.len()).unwrap_or(ConditionId::MAX);
            let id = *known.entry((&rule.condition, rule.action)).or_insert(next);
            conditions.of_rules.push(Some(id));
            if id == next {
                conditions.add(config, id, rule);
            }
        }
        conditions
    }

    fn add(&mut self, config: &Config, id: ConditionId, rule: &bulkhead_config::Rule) {
        let mut demands = Vec::new();
        for name in &rule.condition.posture {
            let posture = config.postures.iter().find(|posture| posture.name == *name);
            for demand in posture.map_or(&[][..], |posture| &posture.demands) {
                let touched = self.touched_by.entry(demand.attribute.clone()).or_default();
                if touched.last() != Some(&id) {
                    touched.push(id);
                }
                demands.push((demand.attribute.clone(), demand.must.clone()));
            }
        }
        let clock = Clock::of(&rule.condition);
        self.list.push(Prepared { demands, clock, denies: rule.action == Action::Deny });
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether no rule has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The condition of a rule; none if it always holds.
    #[must_use]
    pub fn of_rule(&self, rule: u32) -> Option<ConditionId> {
        usize::try_from(rule).ok().and_then(|at| self.of_rules.get(at)).copied().flatten()
    }

    /// What an attribute touches: the only conditions whose outcome may be another after it changed.
    #[must_use]
    pub fn touching(&self, attribute: &str) -> &[ConditionId] {
        self.touched_by.get(attribute).map_or(&[], Vec::as_slice)
    }

    /// The conditions that depend on the time.
    pub fn ticking(&self) -> impl Iterator<Item = ConditionId> {
        (0..).zip(&self.list).filter(|(_, condition)| condition.clock.ticks()).map(|(id, _)| id)
    }

    /// Whether a condition holds for someone.
    #[must_use]
    pub fn outcome(&self, id: ConditionId, context: &Context, now: Option<Timestamp>) -> Outcome {
        let Some(condition) = self.at(id) else { return Outcome::Unknown };
        let clock = match now {
            _ if !condition.clock.ticks() => Outcome::Holds,
            Some(now) => Outcome::of(condition.clock.holds(now)),
            None => Outcome::Unknown,
        };
        let demands = condition.demands.iter().map(|(attribute, must)| {
            let value = context.value(attribute, now);
            value.map_or(Outcome::Unknown, |value| Outcome::of(meets(must, value)))
        });
        demands.fold(clock, Outcome::and)
    }

    /// Whether a condition is as it should be for someone: for a rule that allows that it holds, for
    /// one that denies that it certainly does not.
    #[must_use]
    pub fn held(&self, id: ConditionId, context: &Context, now: Option<Timestamp>) -> bool {
        let denies = self.at(id).is_some_and(|condition| condition.denies);
        let wanted = if denies { Outcome::Fails } else { Outcome::Holds };
        self.outcome(id, context, now) == wanted
    }

    /// All conditions that are as they should be for someone.
    #[must_use]
    pub fn evaluate(&self, context: &Context, now: Option<Timestamp>) -> Held {
        let mut held = Held::default();
        for (id, _) in (0..).zip(&self.list) {
            if self.held(id, context, now) {
                held.set(id, true);
            }
        }
        held
    }

    /// What the time says to a condition, whatever else it depends on.
    pub(crate) fn clock_holds(&self, id: ConditionId, now: Option<Timestamp>) -> bool {
        self.at(id).zip(now).is_some_and(|(condition, now)| condition.clock.holds(now))
    }

    /// The next moment after `now` at which the time alone changes the outcome of some condition.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.list.iter().filter_map(|condition| condition.clock.next_change(now)).min()
    }

    fn at(&self, id: ConditionId) -> Option<&Prepared> {
        usize::try_from(id).ok().and_then(|at| self.list.get(at))
    }
}

fn meets(must: &Must, value: &Value) -> bool {
    match (must, value) {
        (Must::Be(wanted), value) => wanted == value,
        (Must::NotExceed(most), Value::Int(value)) => value <= most,
        (Must::Reach(least), Value::Int(value)) => value >= least,
        (Must::NotExceed(_) | Must::Reach(_), Value::Bool(_) | Value::Text(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_decides_and_what_is_unknown_never_holds() {
        use Outcome::{Fails, Holds, Unknown};
        for (a, b, want) in [
            (Holds, Holds, Holds),
            (Holds, Unknown, Unknown),
            (Unknown, Unknown, Unknown),
            (Holds, Fails, Fails),
            (Unknown, Fails, Fails),
            (Fails, Fails, Fails),
        ] {
            assert_eq!((a.and(b), b.and(a)), (want, want));
        }
    }

    #[test]
    fn a_set_that_lost_everything_is_the_empty_set() {
        let mut held = Held::default();
        for id in [0, 63, 64, 1_000] {
            assert!(!held.has(id));
            held.set(id, true);
            assert!(held.has(id) && !held.has(id + 1));
        }
        for id in [1_000, 0, 64, 63, 5] {
            held.set(id, false);
        }
        assert_eq!(held, Held::default());
    }
}
