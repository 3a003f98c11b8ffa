//! What the policy says about a flow, read directly from the configuration.
//!
//! Written to be obvious: every rule is looked at, in the order of the file, and nothing is
//! prepared. It shares no code with the passes that make the table; the property tests and every
//! answer of [`crate::Policy`] hold the two against each other.

use core::net::IpAddr;
use std::collections::BTreeMap;

use bulkhead_config::{
    Action, Config, Device, Flow, Host, Known, Must, Name, Origin, Part, Rule, Segment, Selector,
    Services, TimeOfWeek, Value, internet,
};
use ipnet::IpNet;
use jiff::tz::TimeZoneDatabase;
use jiff::{Span, Timestamp};

use crate::{Denied, Facts, Outcome, Reading, Verdict};

/// Someone with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Someone<'c> {
    /// Who leads to the address.
    pub owner: Owner<'c>,
    /// What the address is called besides, in the order of the configuration.
    pub hosts: Vec<&'c Host>,
}

/// Who leads to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'c> {
    /// A device.
    Device(&'c Device),
    /// A segment; the address is no device's.
    Segment(&'c Segment),
    /// The device that `[internet]` names; the address is no device's and no segment's.
    Internet,
}

/// Whether `from` may open the flow.
#[must_use]
pub fn judge(
    config: &Config,
    reading: Reading,
    facts: &Facts,
    from: &Origin,
    flow: &Flow,
) -> Verdict {
    let Some(source) = origin(config, from, flow.destination) else {
        return Verdict::Deny(Denied::UnknownSource);
    };
    let Some(destination) = someone(config, flow.destination) else {
        return Verdict::Deny(Denied::UnknownDestination);
    };
    let mut allowed = None;
    let mut joined = false;
    for (index, rule) in (0..).zip(&config.rules) {
        if !reading.counts(rule) {
            continue;
        }
        let from = rule.from.iter().any(|selector| selects(config, selector, &source, &source));
        let to = rule.to.iter().any(|selector| selects(config, selector, &destination, &source));
        if !from || !to {
            continue;
        }
        let holds = condition(config, rule, &source, facts);
        let in_force = match rule.action {
            Action::Allow => holds == Outcome::Holds,
            // Not knowing is no reason to let someone pass.
            Action::Deny => holds != Outcome::Fails,
        };
        if !in_force {
            continue;
        }
        let covered = covers(config, &rule.services, flow);
        match rule.action {
            Action::Deny if covered => return Verdict::Deny(Denied::Rule(index)),
            Action::Allow if covered && allowed.is_none() => allowed = Some(index),
            Action::Allow => joined = true,
            Action::Deny => {}
        }
    }
    match allowed {
        Some(index) => Verdict::Allow(index),
        None if joined => Verdict::Deny(Denied::ServiceNotAllowed),
        None => Verdict::Deny(Denied::NoRule),
    }
}

/// Who that is, when it speaks to `destination`: a device or segment that is meant by its name
/// speaks from the first of its networks that is of the destination's family, else from its first.
#[must_use]
pub fn origin<'c>(config: &'c Config, from: &Origin, destination: IpAddr) -> Option<Someone<'c>> {
    let (owner, nets) = match from {
        Origin::Address(address) => return someone(config, *address),
        Origin::Device(name) => {
            let device = config.devices.iter().find(|device| device.name == *name)?;
            (Owner::Device(device), &device.addresses)
        }
        Origin::Segment(name) => {
            let segment = config.segments.iter().find(|segment| segment.name == *name)?;
            (Owner::Segment(segment), &segment.subnets)
        }
    };
    let net = speaks_from(nets, destination)?;
    let hosts = config.hosts.iter();
    let hosts = hosts.filter(|host| host.addresses.iter().any(|around| around.contains(&net)));
    Some(Someone { owner, hosts: hosts.collect() })
}

/// See [`origin`].
#[must_use]
pub fn speaks_from(nets: &[IpNet], destination: IpAddr) -> Option<IpNet> {
    let v4 = destination.to_canonical().is_ipv4();
    let of_family = nets.iter().find(|net| net.addr().is_ipv4() == v4);
    of_family.or_else(|| nets.first()).copied()
}

/// Who has an address: the one with the longest prefix around it, else the internet if it is a
/// public one.
#[must_use]
pub fn someone(config: &Config, address: IpAddr) -> Option<Someone<'_>> {
    // An IPv4 address that is written as IPv6 is the IPv4 address.
    let address = address.to_canonical();
    let mut owner = None;
    let mut length = None;
    for device in &config.devices {
        for net in &device.addresses {
            if net.contains(&address) && Some(net.prefix_len()) > length {
                length = Some(net.prefix_len());
                owner = Some(Owner::Device(device));
            }
        }
    }
    for segment in &config.segments {
        for net in &segment.subnets {
            if net.contains(&address) && Some(net.prefix_len()) > length {
                length = Some(net.prefix_len());
                owner = Some(Owner::Segment(segment));
            }
        }
    }
    if owner.is_none() && config.internet.is_some() {
        let public = internet::networks().iter().any(|net| net.contains(&address));
        owner = public.then_some(Owner::Internet);
    }
    let hosts = config.hosts.iter();
    let hosts = hosts.filter(|host| host.addresses.iter().any(|net| net.contains(&address)));
    Some(Someone { owner: owner?, hosts: hosts.collect() })
}

/// Whether a selector means someone, in a rule that `source` asks by.
#[must_use]
pub fn selects(
    config: &Config,
    selector: &Selector,
    someone: &Someone<'_>,
    source: &Someone<'_>,
) -> bool {
    let device = match someone.owner {
        Owner::Device(device) => Some(device),
        Owner::Segment(_) | Owner::Internet => None,
    };
    match selector {
        Selector::Any => true,
        Selector::Device(name) => device.is_some_and(|device| device.name == *name),
        Selector::User(name) => device.is_some_and(|device| device.user.as_ref() == Some(name)),
        Selector::Tag(name) => device.is_some_and(|device| device.tags.contains(name)),
        Selector::Segment(name) => {
            matches!(someone.owner, Owner::Segment(segment) if segment.name == *name)
        }
        Selector::Host(name) => someone.hosts.iter().any(|host| host.name == *name),
        Selector::Internet => someone.owner == Owner::Internet && someone.hosts.is_empty(),
        Selector::Own => match (someone.owner, source.owner) {
            (Owner::Device(theirs), Owner::Device(mine)) => {
                mine.user.is_some() && theirs.user == mine.user
            }
            (_, _) => false,
        },
        Selector::Group(name) => {
            let group = config.groups.iter().find(|group| group.name == *name);
            // Groups contain each other without circles and to a bounded depth.
            group.is_some_and(|group| {
                group.members.iter().any(|member| selects(config, member, someone, source))
            })
        }
    }
}

/// Whether the conditions of a rule hold for someone.
#[must_use]
pub fn condition(config: &Config, rule: &Rule, source: &Someone<'_>, facts: &Facts) -> Outcome {
    let parts = parts(config, rule, source, facts);
    if parts.iter().any(|(_, outcome)| *outcome == Outcome::Fails) {
        Outcome::Fails
    } else if parts.iter().any(|(_, outcome)| *outcome == Outcome::Unknown) {
        Outcome::Unknown
    } else {
        Outcome::Holds
    }
}

/// Every single condition of a rule, in words, and whether it holds for someone.
#[must_use]
pub fn parts(
    config: &Config,
    rule: &Rule,
    source: &Someone<'_>,
    facts: &Facts,
) -> Vec<(String, Outcome)> {
    let outcome = |known: Option<bool>| match known {
        Some(true) => Outcome::Holds,
        Some(false) => Outcome::Fails,
        None => Outcome::Unknown,
    };
    let mut parts = Vec::new();
    if let Some(starts) = rule.condition.starts {
        parts.push((format!("from {starts}"), outcome(facts.now.map(|now| now >= starts))));
    }
    if let Some(expires) = rule.condition.expires {
        parts.push((format!("until {expires}"), outcome(facts.now.map(|now| now < expires))));
    }
    if let Some(week) = rule.condition.time.as_ref().filter(|week| !week.always()) {
        parts.push((
            format!("time {}", week.text),
            outcome(facts.now.map(|now| in_week(week, now))),
        ));
    }
    if let Some(when) = &rule.condition.when {
        let zone = rule.condition.time.as_ref().map_or("UTC", |time| time.zone.as_str());
        for part in when.parts() {
            let values = values(config, part, source, facts, zone);
            let holds = part.holds_by_cedar(&|name| values.get(name)?.as_ref().map(Is::known));
            let is = values.iter().map(|(name, is)| match is {
                Some(is) => format!("{name} is {}", is.known()),
                None => format!("{name} is unknown"),
            });
            let is = is.collect::<Vec<_>>().join(", ");
            parts.push((format!("when {part}; {is}"), outcome(holds)));
        }
    }
    for name in &rule.condition.posture {
        let Some(posture) = config.postures.iter().find(|posture| posture.name == *name) else {
            parts.push((format!("posture {name}"), Outcome::Fails));
            continue;
        };
        for demand in &posture.demands {
            let value = known(source, &demand.attribute, facts);
            let met = value.as_ref().map(|value| match (&demand.must, value) {
                (Must::Be(wanted), value) => value == wanted,
                (Must::NotExceed(most), Value::Int(value)) => value <= most,
                (Must::Reach(least), Value::Int(value)) => value >= least,
                (Must::NotExceed(_) | Must::Reach(_), Value::Bool(_) | Value::Text(_)) => false,
            });
            let is = value.map_or("unknown".to_owned(), |value| value.to_string());
            let part = format!("posture {name}: {demand}; it is {is}");
            parts.push((part, outcome(met)));
        }
    }
    parts
}

/// What stands under a name of an expression.
enum Is {
    One(Value),
    Many(Vec<String>),
}

impl Is {
    fn known(&self) -> Known<'_> {
        match self {
            Self::One(value) => Known::from(value),
            Self::Many(texts) => Known::Texts(texts),
        }
    }
}

/// What stands under each name of a part of an expression; `None`: not known.
fn values(
    config: &Config,
    part: &Part,
    source: &Someone<'_>,
    facts: &Facts,
    zone: &str,
) -> BTreeMap<Name, Option<Is>> {
    let device = match source.owner {
        Owner::Device(device) => Some(device),
        Owner::Segment(_) | Owner::Internet => None,
    };
    let text = |text: &String| Is::One(Value::Text(text.clone()));
    let local = || {
        let zone = TimeZoneDatabase::bundled().get(zone).ok()?;
        facts.now.map(|now| now.to_zoned(zone))
    };
    let value = |name: &Name| match name {
        Name::Attribute(attribute) => known(source, attribute, facts).map(Is::One),
        Name::Weekday => local().map(|local| {
            Is::One(Value::Int(i64::from(local.weekday().since(jiff::civil::Weekday::Monday)) + 1))
        }),
        Name::Minute => local().map(|local| {
            Is::One(Value::Int(60 * i64::from(local.hour()) + i64::from(local.minute())))
        }),
        Name::Device => device.map(|device| text(&device.name)),
        Name::User => device.and_then(|device| device.user.as_ref()).map(text),
        Name::Tags => device.map(|device| Is::Many(device.tags.clone())),
        // Not by the names of its addresses: those are not the device's.
        Name::Groups => device.map(|device| {
            let someone = Someone { owner: Owner::Device(device), hosts: Vec::new() };
            let named = config.groups.iter().map(|group| &group.name);
            let is_in = |name: &&String| {
                selects(config, &Selector::Group((*name).clone()), &someone, &someone)
            };
            Is::Many(named.filter(is_in).cloned().collect())
        }),
    };
    part.names().map(|name| (name.clone(), value(name))).collect()
}

/// A fact about a device that is not stale. Of a segment and the internet nothing is known.
fn known(source: &Someone<'_>, attribute: &str, facts: &Facts) -> Option<Value> {
    let Owner::Device(device) = source.owner else { return None };
    let (_, fact) =
        facts.devices.get(&device.name)?.facts().find(|(name, _)| *name == attribute)?;
    let fresh = match (fact.ttl, facts.now) {
        (None, _) => true,
        (Some(ttl), Some(now)) => now.duration_since(fact.set_at) < ttl,
        (Some(_), None) => false,
    };
    fresh.then(|| fact.value.clone())
}

/// Whether a moment is in one of the windows: each window of each of the last two days is laid out
/// on the clock on the wall.
fn in_week(week: &TimeOfWeek, now: Timestamp) -> bool {
    let Ok(zone) = TimeZoneDatabase::bundled().get(&week.zone) else { return false };
    let wall = now.to_zoned(zone).datetime();
    let today = wall.date();
    let minutes = |time: jiff::civil::Time| i64::from(time.hour()) * 60 + i64::from(time.minute());
    [0i64, 1].into_iter().any(|ago| {
        let Ok(day) = today.checked_sub(Span::new().days(ago)) else { return false };
        let names = usize::try_from(day.weekday().to_monday_zero_offset()).unwrap_or(0);
        let since_midnight = minutes(wall.time()) + ago * 1_440;
        week.days.get(names) == Some(&true)
            && week.hours.iter().any(|(first, last)| {
                let (first, last) = (i64::from(*first), i64::from(*last));
                let last = if last < first { last + 1_440 } else { last };
                first <= since_midnight && since_midnight < last
            })
    })
}

/// Whether services cover a flow.
#[must_use]
pub fn covers(config: &Config, services: &Services, flow: &Flow) -> bool {
    match services {
        Services::Any => true,
        Services::Named(names) => config
            .services
            .iter()
            .filter(|service| names.contains(&service.name))
            .flat_map(|service| &service.ports)
            .any(|range| {
                range.protocol == flow.protocol
                    && range.first <= flow.port
                    && flow.port <= range.last
            }),
    }
}
