//! The answer about how often each rule was used.

use bulkhead_config::{Action, Rule, RuleStage};
use serde::{Deserialize, Serialize};

/// How often the rules were used since the datapath started. Figures go with the name of a rule
/// from one configuration to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitsAnswer {
    /// For how long the datapath has counted, milliseconds.
    pub counted_ms: u64,
    /// All rules of the configuration in force, in the order of the file.
    pub rules: Vec<RuleHitsAnswer>,
    /// What was denied because no rule allows it.
    pub denied: HitAnswer,
    /// What was counted of rules that the configuration does not have any more.
    pub gone: HitAnswer,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHitsAnswer {
    /// Its id.
    pub rule: String,
    /// The file that it is in.
    pub path: String,
    /// The line on which it is defined.
    pub line: u32,
    /// What it does.
    pub effect: Effect,
    /// How often.
    #[serde(flatten)]
    pub hit: HitAnswer,
}

/// What a rule does to what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Its packets were forwarded because of it. Of several rules that allow the same, the first of
    /// the file is the one.
    Allow,
    /// Its packets were denied although another rule allows them, or none does.
    Deny,
    /// A shadow rule: no rule allows its packets, and it would have.
    WouldAllow,
    /// A shadow rule: its flows were opened, and it would have denied them. Packets are not counted.
    WouldDeny,
}

impl Effect {
    /// Of a rule.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        match (rule.action, rule.stage) {
            (Action::Allow, RuleStage::Enforce) => Self::Allow,
            (Action::Deny, RuleStage::Enforce) => Self::Deny,
            (Action::Allow, RuleStage::Shadow) => Self::WouldAllow,
            (Action::Deny, RuleStage::Shadow) => Self::WouldDeny,
        }
    }
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitAnswer {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the inner IP header on.
    pub bytes: u64,
    /// Flows that were opened.
    pub flows: u64,
    /// Since the last time, milliseconds, to the second; `None`: never.
    pub last_ms: Option<u64>,
}
