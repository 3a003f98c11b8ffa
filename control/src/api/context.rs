//! Requests and answers about what is known of devices.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is said of one device. One line of `bulkhead context set --stdin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactChange {
    /// `device:NAME`, or the name alone.
    pub device: String,
    /// By attribute: true or false, a whole number, or a text.
    pub set: BTreeMap<String, serde_json::Value>,
    /// How long it counts, such as `1h` or `30m`; without it: until it is set again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Who says so, for the reader; `cli` or `api` if nobody is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Facts were set or cleared. Empty [`Self::trouble`]: every worker judges by them, and a restart
/// does not forget them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextChangedAnswer {
    /// How many devices were named.
    pub devices: usize,
    /// How many facts were set or cleared.
    pub facts: usize,
    /// Endpoints that have another label now.
    pub relabelled: usize,
    /// The generation whose table every worker judges by; 0: none, everything is denied.
    pub generation: u64,
    /// From the request to the confirmation of the last worker, microseconds.
    pub confirm_us: u64,
    /// What is not as it should be.
    pub trouble: Vec<String>,
}

/// What is known of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextAnswer {
    /// The time by which rules are judged.
    pub now: Timestamp,
    /// Those of which something is known, in the order of their names; one that was asked for also
    /// if nothing is.
    pub devices: Vec<DeviceContextAnswer>,
}

/// What is known of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceContextAnswer {
    /// Its name.
    pub device: String,
    /// In the order of the attributes.
    pub facts: Vec<FactAnswer>,
    /// Its labels in the newest table that the datapath was sent; empty: there is none.
    #[serde(default)]
    pub labels: Vec<u16>,
    /// The rules with a condition that are about it; only if it was asked for, and a table was sent.
    #[serde(default)]
    pub rules: Vec<RuleAnswer>,
}

/// A rule with a condition, for one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleAnswer {
    /// Its id.
    pub id: String,
    /// Whether it has its effect now: one that allows because its condition holds, one that denies
    /// because that is not certain to fail.
    pub in_effect: bool,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactAnswer {
    /// Of what.
    pub attribute: String,
    /// Its value.
    pub value: serde_json::Value,
    /// Who said so.
    pub source: String,
    /// When.
    pub set_at: Timestamp,
    /// Until when it counts; `None`: until it is set again.
    pub until: Option<Timestamp>,
    /// Whether it counts now. One that does not is as good as none.
    pub counts: bool,
}
