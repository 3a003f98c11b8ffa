//! What is known of devices: by whom, since when, for how long. Facts only; what they mean is the
//! policy's business.
//!
//! INVARIANT: a fact counts for the key that it was said of. A device that comes back with another
//! key, under the old name, is one of which nothing is known.
//!
//! INVARIANT: a fact with a time to live never counts longer than that, whatever the clock does. A
//! clock that is set back takes the facts with it (see [`Knowledge::set_back`]); one that is set
//! forward ends them early.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_config::{Config, Device, Value, nearest};
use bulkhead_policy_compiler::{Context, Fact, Facts, attribute_kind};
use bulkhead_wg::PublicKey;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::FactChange;

/// The longest time to live. What is older was said of another world.
const TTL_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);
/// The longest text, of a value or a source, bytes.
const TEXT_MAX: usize = 256;

/// Facts of all devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knowledge {
    drawers: BTreeMap<u8, BTreeMap<String, Known>>,
    /// The drawers that have changed since they were taken to be kept.
    dirty: BTreeSet<u8>,
    /// The drawers that were taken to be kept, and are not kept yet.
    being_kept: BTreeSet<u8>,
    /// Counts changes.
    version: u64,
}

/// What is known of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    key: PublicKey,
    context: Context,
}

/// Facts that were found good for a configuration, of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    device: String,
    key: PublicKey,
    facts: Vec<(String, Fact)>,
}

/// Drawers as they are kept, each with the devices in it.
pub type Drawers = Vec<(u8, BTreeMap<String, KeptDevice>)>;

/// A device as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDevice {
    /// Its key, base64.
    pub public_key: String,
    /// By attribute.
    pub facts: BTreeMap<String, KeptFact>,
}

/// A fact as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptFact {
    value: serde_json::Value,
    source: String,
    set_at: Timestamp,
    /// Seconds.
    ttl: Option<i64>,
}

impl Said {
    /// Checks what is to be said of a device. `written`: values are texts as the command line has
    /// them, to be read as the attribute demands.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, each with the nearest name that there is.
    pub fn read(
        config: &Config,
        devices: &Devices<'_>,
        change: &FactChange,
        written: bool,
        now: Timestamp,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let device = devices.find(&change.device).map_err(|problem| problems.push(problem)).ok();
        let ttl = change.ttl.as_deref().map(time_to_live).transpose();
        let ttl = ttl.map_err(|problem| problems.push(problem)).ok().flatten();
        let source = change.source.as_deref().unwrap_or(if written { "cli" } else { "api" });
        if !is_text(source) || source.is_empty() {
            problems.push(format!("source {source:?} is not 1 to {TEXT_MAX} bytes of one line"));
        }
        if change.set.is_empty() {
            problems.push("it sets nothing".to_owned());
        }
        let mut facts = Vec::new();
        for (attribute, value) in &change.set {
            match read_value(config, attribute, value, written) {
                Ok(value) => {
                    let source = source.to_owned();
                    facts.push((attribute.clone(), Fact { value, source, set_at: now, ttl }));
                }
                Err(problem) => problems.push(problem),
            }
        }
        match device {
            Some(device) if problems.is_empty() => {
                let (device, key) = (device.name.clone(), PublicKey(device.public_key.0));
                Ok(Self { device, key, facts })
            }
            Some(_) | None => Err(problems),
        }
    }

    /// Of whom.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// How many facts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// Whether there is no fact. Never, for one that was [read](Self::read).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }
}

impl Knowledge {
    /// What was kept. A fact with a time to live that was set after `now` is left out: the clock was
    /// set back meanwhile, and nobody knows how long ago it was. So is what is stale, and what makes
    /// no sense; returns how much made none.
    #[must_use]
    pub fn restored(
        kept: impl IntoIterator<Item = (String, KeptDevice)>,
        now: Timestamp,
    ) -> (Self, usize) {
        let mut knowledge = Self::default();
        let mut senseless = 0;
        for (name, device) in kept {
            let Ok(key) = device.public_key.parse() else {
                senseless += device.facts.len();
                continue;
            };
            let mut known = Known { key, context: Context::default() };
            for (attribute, fact) in device.facts {
                match fact.read() {
                    Some(fact) if fact.ttl.is_some() && fact.set_at > now => {}
                    Some(fact) if fact.counts(Some(now)) => known.context.set(&attribute, fact),
                    Some(_) => {}
                    None => senseless += 1,
                }
            }
            knowledge.drawers.entry(drawer_of(&name)).or_default().insert(name, known);
        }
        (knowledge, senseless)
    }

    /// Counts changes: the same number, the same knowledge.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What a policy is compiled with: of the devices of `config` that have the key that it was said
    /// of, what is of the sort that `config` gives the attribute.
    #[must_use]
    pub fn facts(&self, config: &Config, now: Timestamp) -> Facts {
        let mut facts = Facts::at(now);
        for device in &config.devices {
            let context = self.of(config, device);
            if context.facts().next().is_some() {
                facts.devices.insert(device.name.clone(), context);
            }
        }
        facts
    }

    /// What is known of a device of `config`, stale or not.
    #[must_use]
    pub fn of(&self, config: &Config, device: &Device) -> Context {
        let mut context = Context::default();
        let drawer = self.drawers.get(&drawer_of(&device.name));
        let known = drawer.and_then(|drawer| drawer.get(&device.name));
        let known = known.filter(|known| known.key.0 == device.public_key.0);
        for (attribute, fact) in known.iter().flat_map(|known| known.context.facts()) {
            if attribute_kind(config, attribute).is_ok_and(|kind| kind == fact.value.kind()) {
                context.set(attribute, fact.clone());
            }
        }
        context
    }

    /// Takes what is said of a device.
    pub fn set(&mut self, said: Said) {
        let Said { device, key, facts } = said;
        self.touch(drawer_of(&device));
        let drawer = self.drawers.entry(drawer_of(&device)).or_default();
        let unknown = || Known { key, context: Context::default() };
        let known = drawer.entry(device).or_insert_with(unknown);
        if known.key != key {
            *known = unknown();
        }
        for (attribute, fact) in facts {
            known.context.set(&attribute, fact);
        }
    }

    /// Forgets some attributes of a device, or all of them if none is named. Returns how many facts
    /// that were.
    pub fn clear(&mut self, device: &str, attributes: &[String]) -> usize {
        let Some(drawer) = self.drawers.get_mut(&drawer_of(device)) else { return 0 };
        let Some(known) = drawer.get_mut(device) else { return 0 };
        let before = known.context.facts().count();
        for attribute in attributes {
            known.context.clear(attribute);
        }
        let left = if attributes.is_empty() { 0 } else { known.context.facts().count() };
        if left == 0 {
            drawer.remove(device);
        }
        if left < before {
            self.touch(drawer_of(device));
        }
        before - left
    }

    /// The clock was set back by so much: so were the moments at which facts with a time to live were
    /// set. They end when they would have ended.
    pub fn set_back(&mut self, by: SignedDuration) {
        let mut touched = BTreeSet::new();
        for (number, drawer) in &mut self.drawers {
            for known in drawer.values_mut() {
                let mortal = known.context.facts().filter(|(_, fact)| fact.ttl.is_some());
                let mortal: Vec<(String, Fact)> =
                    mortal.map(|(attribute, fact)| (attribute.to_owned(), fact.clone())).collect();
                for (attribute, mut fact) in mortal {
                    fact.set_at = fact.set_at.checked_sub(by).unwrap_or(Timestamp::MIN);
                    known.context.set(&attribute, fact);
                    touched.insert(*number);
                }
            }
        }
        touched.into_iter().for_each(|drawer| self.touch(drawer));
    }

    /// Takes the drawers that are not kept, as they are now. It is to be said whether they are
    /// [kept](Self::kept) or [not](Self::not_kept) before others are taken.
    #[must_use]
    pub fn take_unkept(&mut self) -> Drawers {
        self.being_kept.append(&mut self.dirty);
        let content = |drawer: &u8| {
            let devices = self.drawers.get(drawer).into_iter().flatten();
            devices.map(|(name, known)| (name.clone(), KeptDevice::of(known))).collect()
        };
        self.being_kept.iter().map(|drawer| (*drawer, content(drawer))).collect()
    }

    /// Whether everything is kept as it is now.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.dirty.is_empty() && self.being_kept.is_empty()
    }

    /// What was taken is kept, as it was then.
    pub fn kept(&mut self) {
        self.being_kept.clear();
    }

    /// What was taken is not kept.
    pub fn not_kept(&mut self) {
        self.dirty.append(&mut self.being_kept);
    }

    fn touch(&mut self, drawer: u8) {
        self.version += 1;
        self.dirty.insert(drawer);
    }
}

/// The devices of a configuration, by name.
#[derive(Debug)]
pub struct Devices<'c>(BTreeMap<&'c str, &'c Device>);

impl<'c> Devices<'c> {
    /// Sorts them.
    #[must_use]
    pub fn of(config: &'c Config) -> Self {
        Self(config.devices.iter().map(|device| (device.name.as_str(), device)).collect())
    }

    /// The device that is meant by `device:NAME` or the name alone.
    ///
    /// # Errors
    ///
    /// With the nearest name, if there is none.
    pub fn find(&self, asked: &str) -> Result<&'c Device, String> {
        let name = asked.strip_prefix("device:").unwrap_or(asked);
        if let Some(found) = self.0.get(name) {
            return Ok(found);
        }
        let near = nearest(name, self.0.keys().copied());
        let near = near.map(|near| format!("; did you mean device:{near}?")).unwrap_or_default();
        Err(format!("the policy in force has no device {name:?}{near}"))
    }
}

/// Of 256 parts of what is known, the one that a device is in. A change writes one part and not
/// everything: with 100,000 devices that is 400 of them.
#[must_use]
pub fn drawer_of(device: &str) -> u8 {
    // FNV-1a. Names come from the configuration: nobody picks them to fill one drawer.
    let hash = device
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_le_bytes()[0]
}

fn time_to_live(text: &str) -> Result<SignedDuration, String> {
    let ttl = text.parse::<SignedDuration>().ok();
    let ttl = ttl.filter(|ttl| *ttl >= SignedDuration::from_secs(1) && *ttl <= TTL_MAX);
    ttl.ok_or_else(|| {
        format!("ttl {text:?} is no time from 1s to 366 days, such as 90s, 30m or 1h")
    })
}

fn read_value(
    config: &Config,
    attribute: &str,
    value: &serde_json::Value,
    written: bool,
) -> Result<Value, String> {
    let kind = attribute_kind(config, attribute)?;
    let found = match value.as_str() {
        Some(text) if written => Value::read(kind, text),
        Some(_) | None => of_json(value).filter(|found| found.kind() == kind),
    };
    let found = found.ok_or_else(|| format!("{attribute} is {kind}, not {value}"))?;
    match &found {
        Value::Text(text) if !is_text(text) => {
            Err(format!("{attribute} is longer than {TEXT_MAX} bytes, or not one line"))
        }
        Value::Bool(_) | Value::Int(_) | Value::Text(_) => Ok(found),
    }
}

/// A value as the API has it; `None`: it cannot be one.
#[must_use]
pub fn of_json(value: &serde_json::Value) -> Option<Value> {
    match value {
        serde_json::Value::Bool(value) => Some(Value::Bool(*value)),
        serde_json::Value::Number(number) => number.as_i64().map(Value::Int),
        serde_json::Value::String(text) => Some(Value::Text(text.clone())),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            None
        }
    }
}

/// A value in the form of the API.
#[must_use]
pub fn as_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Text(text) => text.as_str().into(),
    }
}

fn is_text(text: &str) -> bool {
    text.len() <= TEXT_MAX && !text.chars().any(char::is_control)
}

impl KeptDevice {
    fn of(known: &Known) -> Self {
        let facts = known.context.facts();
        let facts = facts.map(|(name, fact)| (name.to_owned(), KeptFact::of(fact))).collect();
        Self { public_key: known.key.to_string(), facts }
    }
}

impl KeptFact {
    fn of(fact: &Fact) -> Self {
        Self {
            value: as_json(&fact.value),
            source: fact.source.clone(),
            set_at: fact.set_at,
            ttl: fact.ttl.map(|ttl| ttl.as_secs()),
        }
    }

    fn read(self) -> Option<Fact> {
        let ttl = self.ttl.map(SignedDuration::from_secs);
        let value = of_json(&self.value)?;
        Some(Fact { value, source: self.source, set_at: self.set_at, ttl })
    }
}

#[cfg(test)]
pub(crate) mod tests;
