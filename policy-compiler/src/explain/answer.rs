//! What an explanation says, and how it reads on a terminal.

use core::fmt;

use bulkhead_config::{Action, Rule, RuleStage};
use serde::Serialize;

use crate::{Denied, Outcome, Verdict};

/// The answer to a question, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Who asks.
    pub from: Party,
    /// To whom.
    pub to: Party,
    /// Protocol and port.
    pub service: String,
    /// The answer.
    pub verdict: Verdict,
    /// What the verdict would be if the shadow rules were in force, if that is another.
    pub shadow: Option<Verdict>,
    /// The rule that allows or denies it.
    pub rule: Option<RuleRef>,
    /// Why that rule covers the source, the destination and the service, in this order.
    pub because: Vec<String>,
    /// Every rule in force or in shadow that is about this flow, in the order of the file, with its
    /// conditions.
    pub took_part: Vec<TookPart>,
    /// A smallest set of changes that would turn the verdict around; empty if nobody has one of the
    /// addresses.
    pub flips: Vec<String>,
    /// If denied: rules that would allow it if one thing were different, the nearest first.
    pub nearest: Vec<NearRule>,
}

/// A rule that is about the flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TookPart {
    /// The rule.
    pub rule: RuleRef,
    /// What it does.
    pub action: Action,
    /// Whether it counts.
    pub stage: RuleStage,
    /// Whether its conditions hold.
    pub holds: Outcome,
    /// Each condition in words, and whether it holds.
    pub conditions: Vec<(String, Outcome)>,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Party {
    /// As asked.
    pub asked: String,
    /// `device:NAME`, `segment:NAME` or `internet`; none if nobody has the address.
    pub endpoint: Option<String>,
    /// The hosts whose networks the address is in.
    pub hosts: Vec<String>,
    /// The line on which that is defined.
    pub line: Option<u32>,
}

/// A rule and its place in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// Its id.
    pub id: String,
    /// Its line.
    pub line: u32,
    /// The file, if it is not known from elsewhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
}

/// A rule that does not allow the flow, and what it lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearRule {
    /// The rule.
    pub rule: RuleRef,
    /// What would have to be different, as sentences about the rule.
    pub lacks: Vec<String>,
}

impl RuleRef {
    pub(crate) fn of(rule: &Rule) -> Self {
        Self { id: rule.id.clone(), line: rule.place.line, file: String::new() }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} (line {})", self.id, self.line)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(endpoint) = &self.endpoint else {
            return write!(f, "{}, which nobody has", self.asked);
        };
        if *endpoint == self.asked {
            f.write_str(endpoint)?;
        } else {
            write!(f, "{}, which is {endpoint}", self.asked)?;
        }
        if let Some(line) = self.line {
            write!(f, " (line {line})")?;
        }
        self.hosts.iter().try_for_each(|host| write!(f, " and host:{host}"))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = match self.verdict {
            Verdict::Allow(_) => "allowed",
            Verdict::Deny(_) => "denied",
        };
        writeln!(f, "{allowed}: {} to {} {}", self.from.asked, self.to.asked, self.service)?;
        writeln!(f, "  from     {}", self.from)?;
        writeln!(f, "  to       {}", self.to)?;
        if let Some(rule) = &self.rule {
            writeln!(f, "  by       {rule}")?;
        }
        if let Verdict::Deny(denied) = self.verdict
            && self.rule.is_none()
        {
            // The table knows the labels of now only: to it such a rule is not there.
            let conditional = self.took_part.iter().any(|part| {
                (part.action, part.stage) == (Action::Allow, RuleStage::Enforce)
                    && part.holds != Outcome::Holds
            });
            if conditional && matches!(denied, Denied::NoRule | Denied::ServiceNotAllowed) {
                let why = "a rule would allow it, but its conditions are not known to hold";
                writeln!(f, "  because  {why}")?;
            } else {
                writeln!(f, "  because  {denied}")?;
            }
        }
        for (index, reason) in self.because.iter().enumerate() {
            let label = if index == 0 { "because" } else { "" };
            writeln!(f, "  {label:7}  {reason}")?;
        }
        match self.shadow {
            Some(Verdict::Allow(_)) => {
                writeln!(f, "  shadow   it would be allowed if the shadow rules were in force")?;
            }
            Some(Verdict::Deny(_)) => {
                writeln!(f, "  shadow   it would be denied if the shadow rules were in force")?;
            }
            None => {}
        }
        for part in self.took_part.iter().filter(|part| !part.conditions.is_empty()) {
            let what = match (part.action, part.stage) {
                (Action::Allow, RuleStage::Enforce) => "allows",
                (Action::Deny, RuleStage::Enforce) => "denies",
                (Action::Allow, RuleStage::Shadow) => "would allow",
                (Action::Deny, RuleStage::Shadow) => "would deny",
            };
            writeln!(f, "  if       {} {what} it:", part.rule)?;
            for (condition, outcome) in &part.conditions {
                writeln!(f, "             {}", sentence(condition, *outcome))?;
            }
        }
        for near in &self.nearest {
            writeln!(f, "  nearest  {}: {}", near.rule, near.lacks.join("; "))?;
        }
        if matches!(self.verdict, Verdict::Deny(Denied::UnknownSource | Denied::UnknownDestination))
        {
            writeln!(f, "  help     addresses belong to a [device.NAME] or a [segment.NAME]")?;
        }
        Ok(())
    }
}

/// A condition and whether it holds, in words.
pub(super) fn sentence(part: &str, outcome: Outcome) -> String {
    match outcome {
        Outcome::Holds => format!("it holds: {part}"),
        Outcome::Fails => format!("it does not hold: {part}"),
        Outcome::Unknown => format!("it is not known to hold: {part}"),
    }
}
