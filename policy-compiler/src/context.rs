//! What is known of devices, by whom, since when and for how long.

use std::collections::BTreeMap;

use bulkhead_config::{ATTRIBUTES, AttributeKind, Config, Value, nearest};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// One thing that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// The value.
    pub value: Value,
    /// Who said so, for the reader.
    pub source: String,
    /// When.
    pub set_at: Timestamp,
    /// How long it counts; `None`: until it is set again.
    pub ttl: Option<SignedDuration>,
}

impl Fact {
    /// The first moment at which it does not count any more.
    #[must_use]
    pub fn stale_at(&self) -> Option<Timestamp> {
        self.ttl.map(|ttl| self.set_at.checked_add(ttl).unwrap_or(Timestamp::MAX))
    }

    /// Whether it counts at a moment. If that is not known, only what never goes stale does.
    #[must_use]
    pub fn counts(&self, now: Option<Timestamp>) -> bool {
        self.stale_at().is_none_or(|stale_at| now.is_some_and(|now| now < stale_at))
    }
}

/// What is known of one device. What is missing or stale is not known, which is never as good as
/// any value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Context {
    facts: BTreeMap<String, Fact>,
}

impl Context {
    /// The value of an attribute, if one counts at that moment.
    #[must_use]
    pub fn value(&self, attribute: &str, now: Option<Timestamp>) -> Option<&Value> {
        self.facts.get(attribute).filter(|fact| fact.counts(now)).map(|fact| &fact.value)
    }

    /// Everything that was ever said, stale or not.
    pub fn facts(&self) -> impl Iterator<Item = (&str, &Fact)> {
        self.facts.iter().map(|(name, fact)| (name.as_str(), fact))
    }

    /// Puts a fact in the place of the one before. Whether the attribute exists and has values of
    /// this sort was checked by [`attribute_kind`] and [`Value::read`].
    pub fn set(&mut self, attribute: &str, fact: Fact) {
        self.facts.insert(attribute.to_owned(), fact);
    }

    /// Forgets a fact.
    pub fn clear(&mut self, attribute: &str) {
        self.facts.remove(attribute);
    }

    /// The next moment after `now` at which a fact stops to count by itself.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.facts.values().filter_map(Fact::stale_at).filter(|at| *at > now).min()
    }
}

/// All that is known when a policy is asked or compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The time; `None`: not known, and no rule that depends on it is certain.
    pub now: Option<Timestamp>,
    /// By name of the device.
    pub devices: BTreeMap<String, Context>,
}

impl Facts {
    /// Nothing but the time.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { now: Some(now), devices: BTreeMap::new() }
    }
}

/// What sort of values an attribute has.
///
/// # Errors
///
/// With the nearest name, if there is no such attribute.
pub fn attribute_kind(config: &Config, name: &str) -> Result<AttributeKind, String> {
    let own = config.attributes.iter().map(|attribute| (attribute.name.as_str(), attribute.kind));
    let all: Vec<_> = ATTRIBUTES.iter().copied().chain(own).collect();
    if let Some((_, kind)) = all.iter().find(|(known, _)| *known == name) {
        return Ok(*kind);
    }
    let near = nearest(name, all.iter().map(|(known, _)| *known));
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Err(format!("there is no attribute {name:?}{near}"))
}
