//! What in a policy is probably not meant.
//!
//! A finding about a rule is exact: it is found by looking at every pair of endpoints that the rule
//! joins and every service that it is about, not by comparing texts. Of other rules only those count
//! that hold whenever this one does: with no condition, or with the same one.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_config::{Action, Condition, Config, RuleStage, Segment, Selector, Services};
use bulkhead_table::limits::LABELS_MAX;
use jiff::Timestamp;
use serde::Serialize;

use crate::Reading;
use crate::classes::{Classes, Term};
use crate::compile::{CompileError, CompileErrors};
use crate::condition::{Conditions, Held};
use crate::endpoint::Endpoints;
use crate::resolve::{Directory, Identity, Resolved};
use crate::span::{ServiceSpan, join, without};
use crate::usage::Usage;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of which sort.
    pub kind: FindingKind,
    /// What it is about: `rule web`, `group hr`.
    pub about: String,
    /// The line on which that is defined.
    pub line: u32,
    /// What is wrong, as a sentence about it.
    pub problem: String,
    /// What else it is about, of findings about two things.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<Other>,
}

/// The second thing that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Other {
    /// As [`Finding::about`].
    pub about: String,
    /// The line on which that is defined.
    pub line: u32,
}

/// Sorts of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A group without endpoints.
    EmptyGroup,
    /// A segment behind the same port with the same tag as another: on one wire hosts of the one can
    /// take addresses of the other.
    SharedWire,
    /// A rule that is over.
    Expired,
    /// A rule that joins no two endpoints.
    NeverMatching,
    /// A rule all of whose flows are denied by others, or a denial of what nothing allows.
    Shadowed,
    /// A rule all of whose flows others allow, or deny, as well.
    Redundant,
    /// A rule that was not used for long, by recorded traffic.
    Unused,
    /// A rule that allows more than half of everything, or everything to everybody.
    TooWide,
}

/// All findings, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// The file.
    pub path: String,
    /// Empty: nothing was found.
    pub findings: Vec<Finding>,
}

/// Looks for what is probably not meant. `now` decides what has expired; what was not used is found if
/// `usage` says what was.
///
/// # Errors
///
/// If the rules tell too many endpoints apart.
pub fn lint(
    config: &Config,
    now: Timestamp,
    usage: Option<&Usage>,
) -> Result<Findings, CompileErrors> {
    let mut identity = Identity::of(config);
    let resolved = Resolved::of(config, &mut identity, Reading::Shadowed);
    let endpoints = &identity.endpoints;
    let nothing = Held::default();
    // Without conditions, so that every rule is in force where it is looked at.
    let classes = Classes::of(&resolved, &Conditions::default(), |_| &nothing, LABELS_MAX)
        .map_err(|excess| CompileErrors::one(CompileError::of(config, excess)))?;
    let lint = Lint { config, endpoints, resolved: &resolved, classes: &classes };
    let mut findings = lint.groups();
    findings.extend(lint.wires());
    findings.extend(lint.rules(now));
    findings.extend(usage.map(|usage| usage.unused(config, now)).unwrap_or_default());
    findings.sort_by_key(|finding| (finding.line, finding.kind));
    Ok(Findings { path: config.path.clone(), findings })
}

struct Lint<'a> {
    config: &'a Config,
    endpoints: &'a Endpoints,
    resolved: &'a Resolved,
    classes: &'a Classes,
}

/// What all pairs of labels that a rule joins say of it.
#[derive(Clone, Copy, Default)]
struct Seen {
    pairs: bool,
    /// Some of its services are denied by no other rule.
    open: bool,
    /// Some of its services are allowed by no other rule.
    alone: bool,
    /// Some of its services are allowed by some other rule.
    allowed: bool,
    /// Some of its services are denied by no other denial.
    denied_alone: bool,
}

impl Lint<'_> {
    fn groups(&self) -> Vec<Finding> {
        let directory = Directory::of(self.config, self.endpoints);
        let empty = |group: &&bulkhead_config::Group| {
            directory.members(&Selector::Group(group.name.clone())).is_empty()
        };
        let finding = |group: &bulkhead_config::Group| Finding {
            kind: FindingKind::EmptyGroup,
            about: format!("group {}", group.name),
            line: group.place.line,
            problem: "it has no endpoints, so rules about it join nobody".to_owned(),
            other: None,
        };
        self.config.groups.iter().filter(empty).map(finding).collect()
    }

    /// Each segment whose wire one further up in the file has already, with the first of them.
    fn wires(&self) -> Vec<Finding> {
        let mut segments: Vec<_> = self.config.segments.iter().collect();
        segments.sort_by_key(|segment| segment.place);
        let mut wires: BTreeMap<(u8, Option<u16>), &Segment> = BTreeMap::new();
        let mut findings = Vec::new();
        for segment in segments {
            let first = *wires.entry((segment.port, segment.vlan)).or_insert(segment);
            if first.name == segment.name {
                continue;
            }
            let tag =
                segment.vlan.map_or_else(|| "no VLAN".to_owned(), |tag| format!("VLAN {tag}"));
            let port = self.config.ports.get(usize::from(segment.port));
            let port = port.map_or("", |port| port.name.as_str());
            let (about, line) = (format!("segment {}", first.name), first.place.line);
            findings.push(Finding {
                kind: FindingKind::SharedWire,
                about: format!("segment {}", segment.name),
                line: segment.place.line,
                problem: format!(
                    "it has port {port} and {tag}, as {about} at line {line} has: hosts of one can \
                     take addresses of the other"
                ),
                other: Some(Other { about, line }),
            });
        }
        findings
    }

    fn rules(&self, now: Timestamp) -> Vec<Finding> {
        let seen = self.look();
        let mut findings = Vec::new();
        for (rule, seen) in self.config.rules.iter().zip(seen) {
            let mut find = |kind, problem: &str| {
                findings.push(Finding {
                    kind,
                    about: format!("rule {}", rule.id),
                    line: rule.place.line,
                    problem: problem.to_owned(),
                    other: None,
                });
            };
            if rule.condition.expires.is_some_and(|expires| expires <= now) {
                find(FindingKind::Expired, "it is over");
                continue;
            }
            match rule.action {
                _ if !seen.pairs => {
                    find(FindingKind::NeverMatching, "it joins no two endpoints");
                }
                Action::Allow if !seen.open => {
                    find(FindingKind::Shadowed, "other rules deny all that it allows");
                }
                Action::Allow if !seen.alone => {
                    find(FindingKind::Redundant, "other rules allow all that it allows");
                }
                Action::Deny if !seen.allowed => {
                    find(FindingKind::Shadowed, "no rule allows any of what it denies");
                }
                Action::Deny if !seen.denied_alone => {
                    find(FindingKind::Redundant, "other rules deny all that it denies");
                }
                Action::Allow | Action::Deny => {}
            }
            if rule.action == Action::Allow
                && let Some(problem) = self.too_wide(rule)
            {
                find(FindingKind::TooWide, problem);
            }
        }
        findings
    }

    fn too_wide(&self, rule: &bulkhead_config::Rule) -> Option<&'static str> {
        let directory = Directory::of(self.config, self.endpoints);
        let many = |selectors: &[Selector]| {
            let members = selectors.iter().flat_map(|selector| directory.members(selector));
            2 * members.collect::<BTreeSet<_>>().len() > self.endpoints.list.len()
        };
        let everybody = |selectors: &[Selector]| {
            selectors.contains(&Selector::Any) || selectors.contains(&Selector::Internet)
        };
        if rule.services == Services::Any && (everybody(&rule.from) || everybody(&rule.to)) {
            return Some("it is about any service with anybody");
        }
        let large = self.endpoints.list.len() > 4;
        if large && many(&rule.from) && many(&rule.to) {
            return Some("it joins more than half of all endpoints with more than half of them");
        }
        None
    }

    /// Looks at every pair of labels that some rule joins.
    fn look(&self) -> Vec<Seen> {
        let mut seen = vec![Seen::default(); self.config.rules.len()];
        let mut destinations: BTreeMap<Term, Vec<usize>> = BTreeMap::new();
        for (label, terms) in self.classes.terms.iter().enumerate() {
            for term in &terms.to {
                destinations.entry(*term).or_default().push(label);
            }
        }
        let mut looked_at: BTreeSet<Vec<u32>> = BTreeSet::new();
        for terms in &self.classes.terms {
            let mut cells: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            for term in &terms.from {
                for label in destinations.get(term).map_or(&[][..], Vec::as_slice) {
                    let list = cells.entry(*label).or_default();
                    if list.last() != Some(&term.0) {
                        list.push(term.0);
                    }
                }
            }
            for list in cells.into_values() {
                if !looked_at.contains(&list) {
                    self.look_at(&list, &mut seen);
                    looked_at.insert(list);
                }
            }
        }
        seen
    }

    /// Looks at the rules that join one pair of labels.
    fn look_at(&self, list: &[u32], seen: &mut [Seen]) {
        let always = Condition::default();
        let enforced = |rule: &bulkhead_config::Rule| rule.stage == RuleStage::Enforce;
        for index in list {
            let (Some(rule), Some(seen)) = (at(&self.config.rules, *index), at_mut(seen, *index))
            else {
                continue;
            };
            let others = |action: Action, sure: bool| -> Vec<ServiceSpan> {
                let counts = |other: &&u32| {
                    let other_rule = at(&self.config.rules, **other);
                    *other != index
                        && other_rule.is_some_and(|other| {
                            let holds =
                                other.condition == always || other.condition == rule.condition;
                            other.action == action && enforced(other) && (holds || !sure)
                        })
                };
                join(list.iter().filter(counts).flat_map(|other| self.services(*other)).collect())
            };
            let own = join(self.services(*index));
            seen.pairs |= !own.is_empty();
            let denied = others(Action::Deny, true);
            let left = without(&own, &denied);
            seen.open |= !left.is_empty();
            seen.denied_alone |= !left.is_empty();
            // A redundant pair would each point at the other: only the later one is reported.
            let mut allowed = Vec::new();
            for other in list.iter().filter(|other| *other != index) {
                let Some(other_rule) = at(&self.config.rules, *other) else { continue };
                let same = other_rule.condition == rule.condition;
                let holds = other_rule.condition == always || same;
                let twin = same && self.services(*other) == self.services(*index);
                if other_rule.action == Action::Allow
                    && enforced(other_rule)
                    && holds
                    && !(twin && other > index)
                {
                    allowed.extend(self.services(*other));
                }
            }
            seen.alone |= !without(&left, &join(allowed)).is_empty();
            let any = others(Action::Allow, false);
            seen.allowed |= without(&own, &any) != own;
        }
    }

    fn services(&self, rule: u32) -> Vec<ServiceSpan> {
        let services = at(&self.resolved.rules, rule).map_or(&[][..], |rule| &rule.services);
        services.iter().map(|(first, last)| ServiceSpan { first: *first, last: *last }).collect()
    }
}

fn at<T>(items: &[T], index: u32) -> Option<&T> {
    usize::try_from(index).ok().and_then(|index| items.get(index))
}

fn at_mut<T>(items: &mut [T], index: u32) -> Option<&mut T> {
    usize::try_from(index).ok().and_then(|index| items.get_mut(index))
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.findings.is_empty() {
            return writeln!(f, "nothing found");
        }
        self.findings.iter().try_for_each(|finding| {
            let Finding { about, line, problem, .. } = finding;
            writeln!(f, "{}:{line}: {about}: {problem}", self.path)
        })
    }
}
