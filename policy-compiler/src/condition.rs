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

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bulkhead_config::{Action, Config, Known, Must, Name, Part, Value, When};
use jiff::Timestamp;
use serde::Serialize;

use crate::Context;
use crate::asker::{Asker, Askers};
use crate::clock::Clock;
use crate::wall::{Seen, Wall};

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
    /// Filled if an expression looks at who asks.
    askers: Option<Askers>,
}

#[derive(Debug)]
struct Prepared {
    /// Attribute and demand.
    demands: Vec<(String, Must)>,
    clock: Clock,
    when: Option<When>,
    wall: Option<Wall>,
    denies: bool,
}

/// What the time says to a condition, whatever else it depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tick {
    holds: bool,
    seen: Seen,
}

impl Conditions {
    /// Gathers them, also those of shadow rules: what such a rule would do depends on them.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut conditions = Self::default();
        let mut known: HashMap<(&bulkhead_config::Condition, Action), ConditionId> = HashMap::new();
        for rule in &config.rules {
            if rule.condition.always() {
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
        let parts = conditions.list.iter().filter_map(|condition| condition.when.as_ref());
        let personal = parts.flat_map(When::parts).flat_map(Part::names).any(Name::of_principal);
        if personal {
            conditions.askers = Some(Askers::of(config));
        }
        conditions
    }

    fn add(&mut self, config: &Config, id: ConditionId, rule: &bulkhead_config::Rule) {
        let mut demands = Vec::new();
        let mut touched = BTreeSet::new();
        for name in &rule.condition.posture {
            let posture = config.postures.iter().find(|posture| posture.name == *name);
            for demand in posture.map_or(&[][..], |posture| &posture.demands) {
                touched.insert(demand.attribute.as_str());
                demands.push((demand.attribute.clone(), demand.must.clone()));
            }
        }
        let when = rule.condition.when.clone();
        for name in when.iter().flat_map(When::parts).flat_map(Part::names) {
            if let Name::Attribute(attribute) = name {
                touched.insert(attribute);
            }
        }
        for attribute in touched {
            self.touched_by.entry(attribute.to_owned()).or_default().push(id);
        }
        let (clock, wall) = (Clock::of(&rule.condition), Wall::of(&rule.condition));
        let denies = rule.action == Action::Deny;
        self.list.push(Prepared { demands, clock, when, wall, denies });
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
        (0..).zip(&self.list).filter(|(_, condition)| condition.ticks()).map(|(id, _)| id)
    }

    /// Whether the outcome of some condition is another for each device, whatever is known of it.
    #[must_use]
    pub const fn are_personal(&self) -> bool {
        self.askers.is_some()
    }

    /// Whether a condition holds for someone: a device by name, or who is none.
    #[must_use]
    pub fn outcome(
        &self,
        id: ConditionId,
        device: Option<&str>,
        context: &Context,
        now: Option<Timestamp>,
    ) -> Outcome {
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
        let so_far = demands.fold(clock, Outcome::and);
        let Some(when) = &condition.when else { return so_far };
        let asker = device.zip(self.askers.as_ref()).and_then(|(name, askers)| askers.get(name));
        let wall = condition.wall.as_ref().zip(now).map(|(wall, now)| wall.read(now));
        let knowing = |name: &Name| known(name, asker, wall, context, now);
        let parts = when.parts().iter();
        parts
            .map(|part| part.holds(&knowing).map_or(Outcome::Unknown, Outcome::of))
            .fold(so_far, Outcome::and)
    }

    /// Whether a condition is as it should be for someone: for a rule that allows that it holds, for
    /// one that denies that it certainly does not.
    #[must_use]
    pub fn held(
        &self,
        id: ConditionId,
        device: Option<&str>,
        context: &Context,
        now: Option<Timestamp>,
    ) -> bool {
        let denies = self.at(id).is_some_and(|condition| condition.denies);
        let wanted = if denies { Outcome::Fails } else { Outcome::Holds };
        self.outcome(id, device, context, now) == wanted
    }

    /// All conditions that are as they should be for someone.
    #[must_use]
    pub fn evaluate(
        &self,
        device: Option<&str>,
        context: &Context,
        now: Option<Timestamp>,
    ) -> Held {
        let mut held = Held::default();
        for (id, _) in (0..).zip(&self.list) {
            if self.held(id, device, context, now) {
                held.set(id, true);
            }
        }
        held
    }

    /// What the time says to a condition, whatever else it depends on.
    pub(crate) fn tick(&self, id: ConditionId, now: Option<Timestamp>) -> Tick {
        let Some((condition, now)) = self.at(id).zip(now) else { return Tick::default() };
        let seen = condition.wall.as_ref().map(|wall| wall.seen(now)).unwrap_or_default();
        Tick { holds: condition.clock.holds(now), seen }
    }

    /// The next moment after `now` at which the time alone may change the outcome of some condition.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let of_clocks = self.list.iter().filter_map(|condition| condition.clock.next_change(now));
        let walls = self.list.iter().filter_map(|condition| condition.wall.as_ref());
        of_clocks.chain(walls.filter_map(|wall| wall.next_change(now))).min()
    }

    fn at(&self, id: ConditionId) -> Option<&Prepared> {
        usize::try_from(id).ok().and_then(|at| self.list.get(at))
    }
}

impl Prepared {
    /// Whether it depends on the time at all.
    const fn ticks(&self) -> bool {
        self.clock.ticks() || self.wall.is_some()
    }
}

/// What stands under a name of an expression.
fn known<'k>(
    name: &Name,
    asker: Option<&'k Asker>,
    wall: Option<(i64, i64)>,
    context: &'k Context,
    now: Option<Timestamp>,
) -> Option<Known<'k>> {
    match name {
        Name::Attribute(attribute) => context.value(attribute, now).map(Known::from),
        Name::Weekday => wall.map(|(weekday, _)| Known::Int(weekday)),
        Name::Minute => wall.map(|(_, minute)| Known::Int(minute)),
        Name::Device | Name::User | Name::Groups | Name::Tags => asker?.known(name),
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
