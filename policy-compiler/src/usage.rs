//! Which rules were used, by recorded traffic.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_config::{Config, Rule};
use jiff::Timestamp;

use crate::lint::{Finding, FindingKind};

/// When rules were used last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// From when on it was counted: of what was before nothing is known.
    pub counted_since: Timestamp,
    /// Who was not used since then is a finding.
    pub unused_since: Timestamp,
    /// The rules that were counted, by their ids. Nothing is said of others: they are new.
    pub known: BTreeSet<String>,
    /// When each was used last; not there: never since it is counted.
    pub last: BTreeMap<String, Timestamp>,
}

impl Usage {
    /// The rules that were not used. One that is over has its own finding.
    pub(crate) fn unused(&self, config: &Config, now: Timestamp) -> Vec<Finding> {
        let over = |rule: &&Rule| rule.condition.expires.is_some_and(|expires| expires <= now);
        let counted = |rule: &&Rule| self.known.contains(&rule.id);
        let finding = |rule: &Rule| {
            let problem = match self.last.get(&rule.id) {
                Some(last) if *last >= self.unused_since => return None,
                Some(last) => format!("it was used last at {last:.0}"),
                None => {
                    let since = self.unused_since.max(self.counted_since);
                    format!("it was not used since {since:.0}")
                }
            };
            Some(Finding {
                kind: FindingKind::Unused,
                about: format!("rule {}", rule.id),
                line: rule.place.line,
                problem,
                other: None,
            })
        };
        let rules = config.rules.iter().filter(counted);
        rules.filter(|rule| !over(rule)).filter_map(finding).collect()
    }
}
