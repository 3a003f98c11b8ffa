//! Who can reach whom: exact sets, read from the table's draft.

use core::fmt;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_config::{Config, Flow, Selector, nearest};
use bulkhead_table::{LabelId, Run, Service};
use serde::Serialize;

use crate::compile::{CompileErrors, Compiled, compile_with, numbered_peers};
use crate::endpoint::{Actor, Endpoints};
use crate::explain::RuleRef;
use crate::policy::QuestionError;
use crate::resolve::Directory;
use crate::span::{ServiceSpan, spans};
use crate::summary::{Roll, Summary};
use crate::{Facts, Reading};

/// The answer to "who can reach this" or "what can this reach".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// What was asked.
    pub asked: String,
    /// Disjoint: no pair of endpoints is in two of them. The largest first.
    pub rows: Vec<ReachRow>,
}

/// Everybody of `from` may reach everybody of `to` with all of `services`, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReachRow {
    /// Who may open a flow.
    pub from: Summary,
    /// To whom.
    pub to: Summary,
    /// About what.
    pub services: Vec<ServiceSpan>,
    /// The rules that allow it, in the order of the file.
    pub rules: Vec<RuleRef>,
}

/// Everybody who can reach `to`: an address, `kind:name`, `any` or `internet`, and optionally a
/// service (`10.20.1.5 tcp/443`).
///
/// # Errors
///
/// If the question cannot be understood or the policy does not compile.
pub fn who_can(config: &Config, facts: &Facts, to: &str) -> Result<Reach, QuestionError> {
    let map = Map::of(config, facts)?;
    let (who, service) = match to.split_once(' ') {
        Some((who, service)) => (who, Some(read_service(service.trim(), who)?)),
        None => (to, None),
    };
    let to_set = map.actors(who)?;
    let rows = map.rows(&map.everybody(), &to_set, service, Side::To);
    Ok(Reach { asked: format!("who can reach {to}"), rows })
}

/// Everything that `from` can reach: an address, `kind:name`, `any` or `internet`.
///
/// # Errors
///
/// If the question cannot be understood or the policy does not compile.
pub fn reach(config: &Config, facts: &Facts, from: &str) -> Result<Reach, QuestionError> {
    let map = Map::of(config, facts)?;
    let rows = map.rows(&map.actors(from)?, &map.everybody(), None, Side::From);
    Ok(Reach { asked: format!("what {from} can reach"), rows })
}

fn read_service(service: &str, who: &str) -> Result<Service, QuestionError> {
    // An address of the family that goes with the service: only the service is looked at.
    let address = if service.starts_with("icmpv6") { "::1" } else { "127.0.0.1" };
    let flow: Result<Flow, _> = format!("{address} {service}").parse();
    let found = format!("{who} {service}");
    let flow = flow.map_err(|reason| QuestionError::To { found, reason })?;
    Ok(Service::new(flow.protocol, flow.port))
}

/// The side of a question that was asked about, whose endpoints are told apart first.
#[derive(Clone, Copy)]
enum Side {
    From,
    To,
}

struct Map<'c> {
    config: &'c Config,
    endpoints: Endpoints,
    compiled: Compiled,
    roll: Roll,
}

impl<'c> Map<'c> {
    fn of(config: &'c Config, facts: &Facts) -> Result<Self, CompileErrors> {
        let compiled = compile_with(config, &numbered_peers(config), 1, Reading::Enforced, facts)?;
        let endpoints = Endpoints::of(config);
        let roll = Roll::of(config, &endpoints);
        Ok(Self { config, endpoints, compiled, roll })
    }

    fn everybody(&self) -> BTreeSet<Actor> {
        (0..).take(self.endpoints.list.len()).collect()
    }

    fn actors(&self, who: &str) -> Result<BTreeSet<Actor>, QuestionError> {
        if let Ok(address) = who.parse::<IpAddr>() {
            let address = address.to_canonical();
            let around = self.endpoints.prefixes.iter().filter(|(net, _)| net.contains(&address));
            let longest = around.max_by_key(|(net, _)| net.prefix_len());
            return Ok(longest.map(|(_, actor)| *actor).into_iter().collect());
        }
        let selector = selector(self.config, who)?;
        let directory = Directory::of(self.config, &self.endpoints);
        Ok(directory.members(&selector).into_iter().collect())
    }

    fn label(&self, actor: Actor) -> LabelId {
        let at = usize::try_from(actor).ok().and_then(|at| at.checked_add(1));
        let endpoint = at.and_then(|at| self.compiled.draft.endpoints.get(at));
        endpoint.map_or(LabelId(0), |endpoint| endpoint.label)
    }

    fn by_label(&self, actors: &BTreeSet<Actor>) -> BTreeMap<LabelId, BTreeSet<Actor>> {
        let mut by_label: BTreeMap<LabelId, BTreeSet<Actor>> = BTreeMap::new();
        for actor in actors {
            by_label.entry(self.label(*actor)).or_default().insert(*actor);
        }
        by_label
    }

    fn rows(
        &self,
        from: &BTreeSet<Actor>,
        to: &BTreeSet<Actor>,
        service: Option<Service>,
        side: Side,
    ) -> Vec<ReachRow> {
        let (from, to) = (self.by_label(from), self.by_label(to));
        let none = Arc::default();
        let mut rows = Vec::new();
        let (asked, others) = match side {
            Side::From => (&from, &to),
            Side::To => (&to, &from),
        };
        for (label, asked_set) in asked {
            // Those with the same runs are one row.
            let mut by_runs: BTreeMap<Vec<Run>, BTreeSet<Actor>> = BTreeMap::new();
            for (other, set) in others {
                let cell = match side {
                    Side::From => (*label, *other),
                    Side::To => (*other, *label),
                };
                let runs = self.compiled.draft.cells.get(&cell).unwrap_or(&none).iter();
                let asked = |run: &&Run| {
                    service.is_none_or(|service| run.first <= service && service <= run.last)
                };
                let runs: Vec<Run> = runs.filter(asked).copied().collect();
                if !runs.is_empty() {
                    by_runs.entry(runs).or_default().extend(set);
                }
            }
            for (runs, set) in by_runs {
                let (from, to) = match side {
                    Side::From => (asked_set, &set),
                    Side::To => (&set, asked_set),
                };
                rows.push((from.len() * to.len(), self.row(from, to, &runs, service)));
            }
        }
        rows.sort_by_key(|(size, _)| core::cmp::Reverse(*size));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn row(
        &self,
        from: &BTreeSet<Actor>,
        to: &BTreeSet<Actor>,
        runs: &[Run],
        service: Option<Service>,
    ) -> ReachRow {
        let numbers: BTreeSet<u32> = runs.iter().map(|run| run.rule.0).collect();
        let rules = numbers.into_iter().filter_map(|number| {
            let at = usize::try_from(number).ok()?;
            self.config.rules.get(at).map(RuleRef::of)
        });
        let services = match service {
            Some(one) => vec![ServiceSpan { first: one, last: one }],
            None => spans(runs),
        };
        let (from, to) = (self.roll.summary(from), self.roll.summary(to));
        ReachRow { from, to, services, rules: rules.collect() }
    }
}

/// Reads whom a question is about.
fn selector(config: &Config, who: &str) -> Result<Selector, QuestionError> {
    let bad = |problem: String| QuestionError::Who { found: who.to_owned(), problem };
    match who {
        "any" => return Ok(Selector::Any),
        "internet" => return Ok(Selector::Internet),
        _ => {}
    }
    let Some((kind, name)) = who.split_once(':') else {
        return Err(bad("neither an address nor kind:name".to_owned()));
    };
    let owned = name.to_owned();
    let (known, selector): (Vec<&str>, _) = match kind {
        "user" => (names(&config.users, |user| &user.name), Selector::User(owned)),
        "device" => (names(&config.devices, |device| &device.name), Selector::Device(owned)),
        "tag" => (names(&config.tags, |tag| &tag.name), Selector::Tag(owned)),
        "group" => (names(&config.groups, |group| &group.name), Selector::Group(owned)),
        "segment" => (names(&config.segments, |segment| &segment.name), Selector::Segment(owned)),
        "host" => (names(&config.hosts, |host| &host.name), Selector::Host(owned)),
        _ => return Err(bad(format!("there is no kind {kind:?}"))),
    };
    if known.contains(&name) {
        return Ok(selector);
    }
    let near = nearest(name, known).map(|near| format!("; did you mean {kind}:{near}?"));
    Err(bad(format!("there is no {kind} {name:?}{}", near.unwrap_or_default())))
}

fn names<T>(items: &[T], name: impl Fn(&T) -> &String) -> Vec<&str> {
    items.iter().map(|item| name(item).as_str()).collect()
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.asked)?;
        if self.rows.is_empty() {
            return writeln!(f, "  nothing is allowed");
        }
        for ReachRow { from, to, services, rules } in &self.rows {
            writeln!(f, "  from     {from}")?;
            writeln!(f, "  to       {to}")?;
            writeln!(f, "  services {}", list(services))?;
            writeln!(f, "  by       {}\n", list(rules))?;
        }
        Ok(())
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
