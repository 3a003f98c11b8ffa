//! Names to numbers: whom each rule speaks of.
//!
//! A selector that names nothing selects nobody. The configuration refuses such a one; were it
//! ever to get here, it would allow nothing.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_config::{Config, Selector, Services};
use bulkhead_table::Service;

/// Position of an endpoint: the devices in the order of the configuration, then the segments.
pub(crate) type Actor = usize;

/// A rule without names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Who may open a flow.
    pub(crate) from: BTreeSet<Actor>,
    /// To whom.
    pub(crate) to: BTreeSet<Actor>,
    /// Inclusive ranges; they may overlap.
    pub(crate) services: Vec<(Service, Service)>,
}

/// All rules, in the order of the file.
pub(crate) fn rules(config: &Config) -> Vec<Resolved> {
    let directory = Directory::of(config);
    config
        .rules
        .iter()
        .map(|rule| Resolved {
            from: directory.actors(&rule.from),
            to: directory.actors(&rule.to),
            services: directory.services(&rule.services),
        })
        .collect()
}

/// Who belongs to which name.
struct Directory<'c> {
    actors: BTreeMap<&'c Selector, BTreeSet<Actor>>,
    services: BTreeMap<&'c str, Vec<(Service, Service)>>,
}

impl<'c> Directory<'c> {
    /// Looks up what the rules mention, and only that.
    fn of(config: &'c Config) -> Self {
        let by_name = Members::of(config);
        let mut actors = BTreeMap::new();
        for rule in &config.rules {
            for selector in rule.from.iter().chain(&rule.to) {
                actors.entry(selector).or_insert_with(|| by_name.of_selector(selector));
            }
        }
        let range = |range: &bulkhead_config::ServiceRange| {
            (Service::new(range.protocol, range.first), Service::new(range.protocol, range.last))
        };
        let services = config.services.iter();
        let services = services
            .map(|service| (service.name.as_str(), service.ports.iter().map(range).collect()))
            .collect();
        Self { actors, services }
    }

    fn actors(&self, selectors: &[Selector]) -> BTreeSet<Actor> {
        selectors
            .iter()
            .filter_map(|selector| self.actors.get(selector))
            .flatten()
            .copied()
            .collect()
    }

    fn services(&self, services: &Services) -> Vec<(Service, Service)> {
        match services {
            Services::Any => vec![(Service::MIN, Service::MAX)],
            Services::Named(names) => names
                .iter()
                .filter_map(|name| self.services.get(name.as_str()))
                .flatten()
                .copied()
                .collect(),
        }
    }
}

/// The endpoints of each user, tag, group, device and segment.
#[derive(Default)]
struct Members<'c> {
    users: BTreeMap<&'c str, BTreeSet<Actor>>,
    tags: BTreeMap<&'c str, BTreeSet<Actor>>,
    groups: BTreeMap<&'c str, &'c [Selector]>,
    devices: BTreeMap<&'c str, Actor>,
    segments: BTreeMap<&'c str, Actor>,
}

impl<'c> Members<'c> {
    fn of(config: &'c Config) -> Self {
        let mut members = Self::default();
        for (actor, device) in config.devices.iter().enumerate() {
            members.devices.insert(&device.name, actor);
            if let Some(user) = &device.user {
                members.users.entry(user).or_default().insert(actor);
            }
            for tag in &device.tags {
                members.tags.entry(tag).or_default().insert(actor);
            }
        }
        for (index, segment) in config.segments.iter().enumerate() {
            members.segments.insert(&segment.name, config.devices.len() + index);
        }
        for group in &config.groups {
            members.groups.insert(&group.name, &group.members);
        }
        members
    }

    fn of_selector(&self, selector: &Selector) -> BTreeSet<Actor> {
        match selector {
            Selector::Group(name) => {
                let members = self.groups.get(name.as_str()).copied().unwrap_or_default();
                members.iter().flat_map(|member| self.of_member(member)).collect()
            }
            Selector::User(_) | Selector::Device(_) | Selector::Tag(_) | Selector::Segment(_) => {
                self.of_member(selector)
            }
        }
    }

    /// A group in a group is not in this release, and selects nobody.
    fn of_member(&self, member: &Selector) -> BTreeSet<Actor> {
        let one = |actor: Option<&Actor>| actor.copied().into_iter().collect();
        match member {
            Selector::User(name) => self.users.get(name.as_str()).cloned().unwrap_or_default(),
            Selector::Tag(name) => self.tags.get(name.as_str()).cloned().unwrap_or_default(),
            Selector::Device(name) => one(self.devices.get(name.as_str())),
            Selector::Segment(name) => one(self.segments.get(name.as_str())),
            Selector::Group(_) => BTreeSet::new(),
        }
    }
}
