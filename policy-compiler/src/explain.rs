//! Why a flow is allowed or denied: the rule and its line, or the rules that come nearest.

mod answer;

use core::fmt;
use core::net::IpAddr;

use bulkhead_config::{Action, Config, Flow, Origin, Rule, Selector, Services, Value, nearest};
use jiff::Timestamp;

use crate::oracle::{self, Owner, Someone};
use crate::policy::{Policy, QuestionError};
use crate::{Denied, Fact, Facts, Outcome, Reading, Verdict, attribute_kind};

use answer::sentence;
pub use answer::{Explanation, NearRule, Party, RuleRef, TookPart};

/// Rules that an explanation names at most. More would be a listing of the policy.
const NEAREST_MAX: usize = 3;

/// Explains what happens to a flow from `from` (`device:NAME`, `segment:NAME` or an address) to
/// `to` (`10.20.1.5 tcp/443`).
///
/// # Errors
///
/// If the question cannot be understood, or the policy does not compile.
pub fn explain(config: &Config, from: &str, to: &str) -> Result<Explanation, QuestionError> {
    explain_given(config, &Facts::default(), from, to)
}

/// As [`explain`], with what is known.
///
/// # Errors
///
/// As [`explain`].
pub fn explain_given(
    config: &Config,
    facts: &Facts,
    from: &str,
    to: &str,
) -> Result<Explanation, QuestionError> {
    let (from, flow) = question(config, from, to)?;
    Policy::with(config, facts.clone())?.explain(&from, &flow)
}

/// What a question takes as given of the device that asks (`name=value`), at a moment.
///
/// # Errors
///
/// If the one who asks or an attribute does not exist, is given twice, or has no such value.
pub fn given(
    config: &Config,
    from: &str,
    given: &[String],
    now: Timestamp,
) -> Result<Facts, QuestionError> {
    let mut facts = Facts::at(now);
    let origin = match from.parse::<IpAddr>() {
        Ok(address) => Origin::Address(address.to_canonical()),
        Err(_) => named_origin(config, from)?,
    };
    let device = oracle::origin(config, &origin, [0, 0, 0, 0].into());
    let device = device.and_then(|asks| match asks.owner {
        Owner::Device(device) => Some(device.name.clone()),
        Owner::Segment(_) | Owner::Internet => None,
    });
    for text in given {
        let bad = |problem: String| QuestionError::Given { found: text.clone(), problem };
        let split = text.split_once('=');
        let (name, value) = split.ok_or_else(|| bad("accepted is NAME=VALUE".to_owned()))?;
        let kind = attribute_kind(config, name).map_err(bad)?;
        let value = Value::read(kind, value).ok_or_else(|| bad(format!("accepted is {kind}")))?;
        let device = device.clone().ok_or_else(|| bad(format!("{from} is no device")))?;
        let fact = Fact { value, source: "given".to_owned(), set_at: now, ttl: None };
        facts.devices.entry(device).or_default().set(name, fact);
    }
    Ok(facts)
}

impl Policy<'_> {
    /// Explains what happens to a flow.
    ///
    /// # Errors
    ///
    /// [`QuestionError::Disagreement`], as [`Policy::judge`].
    pub fn explain(&self, from: &Origin, flow: &Flow) -> Result<Explanation, QuestionError> {
        let config = self.config;
        let verdict = self.judge(from, flow)?;
        let shadow = self.shadow(from, flow)?.filter(|shadow| *shadow != verdict);
        let source = oracle::origin(config, from, flow.destination);
        let destination = oracle::someone(config, flow.destination);
        let deciding = match verdict {
            Verdict::Allow(index) | Verdict::Deny(Denied::Rule(index)) => {
                usize::try_from(index).ok().and_then(|index| config.rules.get(index))
            }
            Verdict::Deny(_) => None,
        };
        let (from, to) = (
            party(from.to_string(), source.as_ref()),
            party(flow.destination.to_string(), destination.as_ref()),
        );
        let case = source.zip(destination).map(|(source, destination)| Case {
            config,
            source,
            destination,
            flow,
            facts: &self.facts,
        });
        Ok(Explanation {
            from,
            to,
            service: service_name(flow),
            verdict,
            shadow,
            rule: deciding.map(RuleRef::of),
            because: match (&case, deciding) {
                (Some(case), Some(rule)) => case.because(rule),
                (_, _) => Vec::new(),
            },
            took_part: case.as_ref().map(Case::took_part).unwrap_or_default(),
            flips: case.as_ref().map(|case| case.flips(verdict)).unwrap_or_default(),
            nearest: match (&case, deciding) {
                (Some(case), None) => case.nearest(),
                (_, _) => Vec::new(),
            },
        })
    }
}

/// Reads a question as the command line gives it.
///
/// # Errors
///
/// What cannot be understood.
fn question(config: &Config, from: &str, to: &str) -> Result<(Origin, Flow), QuestionError> {
    let origin = match from.parse::<IpAddr>() {
        Ok(address) => Origin::Address(address.to_canonical()),
        Err(_) => named_origin(config, from)?,
    };
    let flow = to.parse().map_err(|reason| QuestionError::To { found: to.to_owned(), reason })?;
    Ok((origin, flow))
}

fn named_origin(config: &Config, from: &str) -> Result<Origin, QuestionError> {
    let bad = |problem: String| QuestionError::From { found: from.to_owned(), problem };
    let known = |names: &mut dyn Iterator<Item = &String>, name: &str, kind: &str| {
        let names: Vec<&str> = names.map(String::as_str).collect();
        if names.contains(&name) {
            return Ok(name.to_owned());
        }
        let near = nearest(name, names).map(|near| format!("; did you mean {kind}:{near}?"));
        Err(bad(format!("there is no {kind} {name:?}{}", near.unwrap_or_default())))
    };
    match from.split_once(':') {
        Some(("device", name)) => {
            let mut names = config.devices.iter().map(|device| &device.name);
            known(&mut names, name, "device").map(Origin::Device)
        }
        Some(("segment", name)) => {
            let mut names = config.segments.iter().map(|segment| &segment.name);
            known(&mut names, name, "segment").map(Origin::Segment)
        }
        None if config.devices.iter().any(|device| device.name == from) => {
            Err(bad(format!("the kind is missing; did you mean device:{from}?")))
        }
        None if config.segments.iter().any(|segment| segment.name == from) => {
            Err(bad(format!("the kind is missing; did you mean segment:{from}?")))
        }
        Some(_) | None => Err(bad("nobody who could send a packet".to_owned())),
    }
}

/// A question whose two ends are known.
struct Case<'a> {
    config: &'a Config,
    source: Someone<'a>,
    destination: Someone<'a>,
    flow: &'a Flow,
    facts: &'a Facts,
}

impl Case<'_> {
    fn because(&self, rule: &Rule) -> Vec<String> {
        let source = self.ways(&rule.from, &self.source);
        let destination = self.ways(&rule.to, &self.destination);
        let service = service_name(self.flow);
        let covered = match &rule.services {
            Services::Any => format!("{service} is one of any service"),
            Services::Named(names) => {
                let covers = |name: &&String| {
                    let alone = Services::Named(vec![(*name).clone()]);
                    oracle::covers(self.config, &alone, self.flow)
                };
                let names: Vec<_> = names.iter().filter(covers).map(String::as_str).collect();
                format!("{service} is in {}", names.join(" and "))
            }
        };
        vec![format!("it is from {source}"), format!("it is to {destination}"), covered]
    }

    /// By which selectors someone is meant.
    fn ways(&self, selectors: &[Selector], someone: &Someone<'_>) -> String {
        let ways: Vec<String> = selectors
            .iter()
            .filter(|selector| self.means(selector, someone))
            .map(|selector| {
                let mut way = selector.to_string();
                let mut inner = self.membership(selector, someone);
                while let Some(member) = inner {
                    way.push_str(", which has ");
                    way.push_str(&member.to_string());
                    inner = self.membership(member, someone);
                }
                way
            })
            .collect();
        ways.join(" and ")
    }

    fn means(&self, selector: &Selector, someone: &Someone<'_>) -> bool {
        oracle::selects(self.config, selector, someone, &self.source)
    }

    /// The member by which someone belongs to a group.
    fn membership(&self, selector: &Selector, someone: &Someone<'_>) -> Option<&Selector> {
        let Selector::Group(name) = selector else { return None };
        let group = self.config.groups.iter().find(|group| group.name == *name)?;
        group.members.iter().find(|member| self.means(member, someone))
    }

    /// The rules that lack least. Of those that lack one thing, the service comes first: the two
    /// ends are who the operator asked about.
    fn nearest(&self) -> Vec<NearRule> {
        let mut ranked: Vec<(usize, usize, NearRule)> = Vec::new();
        let counts = |rule: &&Rule| Reading::Enforced.counts(rule) && rule.action == Action::Allow;
        for rule in self.config.rules.iter().filter(counts) {
            let lacks = self.lacks(rule);
            let unmet = self.unmet(rule);
            let (ends, rank) = match &lacks {
                [Some(_), Some(_), Some(_)] => continue,
                [None, None, None] if unmet.is_empty() => continue,
                // The rule is the right one, and its conditions are all that is missing.
                [None, None, None] => (0, 0),
                [None, None, Some(_)] => (1, 1),
                [Some(_), None, None] => (1, 2),
                [None, Some(_), None] => (1, 3),
                [None, Some(_), Some(_)] => (2, 4),
                [Some(_), None, Some(_)] => (2, 5),
                [Some(_), Some(_), None] => (2, 6),
            };
            let count = ends + unmet.len();
            let lacks = lacks.into_iter().flatten().chain(unmet).collect();
            ranked.push((count, rank, NearRule { rule: RuleRef::of(rule), lacks }));
        }
        // Stable: rules of one rank stay in the order of the file.
        ranked.sort_by_key(|(count, rank, _)| (*count, *rank));
        let least = ranked.first().map_or(0, |(count, ..)| *count);
        let best = ranked.into_iter().take_while(|(count, ..)| *count == least);
        best.take(NEAREST_MAX).map(|(_, _, near)| near).collect()
    }

    /// The conditions of a rule that are not certain, as sentences.
    fn unmet(&self, rule: &Rule) -> Vec<String> {
        let parts = oracle::parts(self.config, rule, &self.source, self.facts);
        let unmet = parts.into_iter().filter(|(_, outcome)| *outcome != Outcome::Holds);
        unmet.map(|(part, outcome)| sentence(&part, outcome)).collect()
    }

    fn is_about(&self, rule: &Rule) -> bool {
        self.lacks(rule).iter().all(Option::is_none)
    }

    fn took_part(&self) -> Vec<TookPart> {
        let about = self.config.rules.iter().filter(|rule| self.is_about(rule));
        about
            .map(|rule| TookPart {
                rule: RuleRef { file: self.config.path.clone(), ..RuleRef::of(rule) },
                action: rule.action,
                stage: rule.stage,
                holds: oracle::condition(self.config, rule, &self.source, self.facts),
                conditions: oracle::parts(self.config, rule, &self.source, self.facts),
            })
            .collect()
    }

    /// A smallest set of changes that turns the verdict around.
    ///
    /// To deny what is allowed, every rule that allows it must stop, which takes one change each. To
    /// allow what is denied, every rule that denies it must stop, one change each, and if no rule
    /// allows it the one that lacks least must get all that it lacks.
    fn flips(&self, verdict: Verdict) -> Vec<String> {
        let rules = self.config.rules.iter().filter(|rule| Reading::Enforced.counts(rule));
        let about: Vec<&Rule> = rules.clone().filter(|rule| self.is_about(rule)).collect();
        let holds = |rule: &Rule| oracle::condition(self.config, rule, &self.source, self.facts);
        let allows = |rule: &&&Rule| rule.action == Action::Allow && holds(rule) == Outcome::Holds;
        let denies = |rule: &&&Rule| rule.action == Action::Deny && holds(rule) != Outcome::Fails;
        if let Verdict::Allow(_) = verdict {
            return about.iter().filter(allows).map(|rule| self.stop(rule)).collect();
        }
        let mut flips: Vec<String> =
            about.iter().filter(denies).map(|rule| self.stop(rule)).collect();
        if !about.iter().any(|rule| allows(&rule)) {
            let lacking = rules.filter(|rule| rule.action == Action::Allow).map(|rule| {
                let lacks = self.lacks(rule).into_iter().flatten().chain(self.unmet(rule));
                (rule, lacks.collect::<Vec<_>>())
            });
            match lacking.min_by_key(|(_, lacks)| lacks.len()) {
                Some((rule, lacks)) => flips.extend(
                    lacks.into_iter().map(|lack| format!("not any more: rule {}: {lack}", rule.id)),
                ),
                None => flips.push("a rule that allows it".to_owned()),
            }
        }
        flips
    }

    /// The one change by which a rule stops to be about the flow.
    fn stop(&self, rule: &Rule) -> String {
        let parts = oracle::parts(self.config, rule, &self.source, self.facts);
        let held = parts.into_iter().find(|(_, outcome)| *outcome != Outcome::Fails);
        match held {
            Some((part, _)) => format!("rule {}: not {part}", rule.id),
            None => format!("without rule {} (line {})", rule.id, rule.place.line),
        }
    }

    /// What a rule lacks: source, destination, service.
    fn lacks(&self, rule: &Rule) -> [Option<String>; 3] {
        let selects = |selectors: &[Selector], someone| {
            selectors.iter().any(|selector| self.means(selector, someone))
        };
        let from = selects(&rule.from, &self.source);
        let to = selects(&rule.to, &self.destination);
        let services = oracle::covers(self.config, &rule.services, self.flow);
        let name = owner_name(self.source.owner);
        let other = owner_name(self.destination.owner);
        [
            (!from).then(|| format!("it is from {}, which {name} is not", list(&rule.from))),
            (!to).then(|| format!("it is to {}, which {other} is not", list(&rule.to))),
            (!services).then(|| self.services_of(rule)),
        ]
    }

    fn services_of(&self, rule: &Rule) -> String {
        let names = match &rule.services {
            Services::Any => return "it is about any service".to_owned(),
            Services::Named(names) => names,
        };
        let described: Vec<String> = names
            .iter()
            .map(|name| {
                let service = self.config.services.iter().find(|service| service.name == *name);
                let ports = service.map_or(&[][..], |service| &service.ports);
                format!("{name} ({})", list(ports))
            })
            .collect();
        format!("it is about {}, not {}", described.join(" and "), service_name(self.flow))
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn service_name(flow: &Flow) -> String {
    let text = flow.to_string();
    text.split_once(' ').map_or(text.clone(), |(_, service)| service.to_owned())
}

fn owner_name(owner: Owner<'_>) -> String {
    match owner {
        Owner::Device(device) => format!("device:{}", device.name),
        Owner::Segment(segment) => format!("segment:{}", segment.name),
        Owner::Internet => "internet".to_owned(),
    }
}

fn party(asked: String, someone: Option<&Someone<'_>>) -> Party {
    let place = someone.and_then(|someone| match someone.owner {
        Owner::Device(device) => Some(device.place),
        Owner::Segment(segment) => Some(segment.place),
        Owner::Internet => None,
    });
    let hosts = someone.map_or(&[][..], |someone| &someone.hosts);
    Party {
        asked,
        endpoint: someone.map(|someone| owner_name(someone.owner)),
        line: place.map(|place| place.line),
        hosts: hosts.iter().map(|host| host.name.clone()).collect(),
    }
}
