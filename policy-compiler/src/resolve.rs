//! Names to numbers: whom each rule speaks of.
//!
//! A selector that names nothing selects nobody. The configuration refuses such a one; were it
//! ever to get here, it would allow nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bulkhead_config::{Action, Config, RuleStage, Selector, Services};
use bulkhead_table::Service;

use crate::endpoint::{Actor, Endpoints, Owner};

/// Position of a selector in [`Resolved::members`].
pub(crate) type SelectorId = u32;

/// A policy without names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// All rules, in the order of the file.
    pub(crate) rules: Vec<Rule>,
    /// Whom each selector that a rule mentions means, ascending.
    pub(crate) members: Vec<Arc<[Actor]>>,
    /// By endpoint: whose device it is, a position in [`Config::users`].
    pub(crate) users: Vec<Option<u32>>,
}

/// A rule without names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Who may open a flow.
    pub(crate) from: Vec<SelectorId>,
    /// To whom.
    pub(crate) to: Vec<SelectorId>,
    /// Whether also to the devices of the user who asks.
    pub(crate) own: bool,
    /// Inclusive ranges; they may overlap.
    pub(crate) services: Vec<(Service, Service)>,
    /// Whether it forbids what it is about.
    pub(crate) denies: bool,
    /// Whether it does not count: what it would change is recorded, and nothing else.
    pub(crate) shadow: bool,
}

/// Which rules count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// Those in force: rules with `stage = "shadow"` are as if they were not there.
    #[default]
    Enforced,
    /// All: what would happen if the shadow rules were in force.
    Shadowed,
}

impl Reading {
    /// Whether a rule counts.
    #[must_use]
    pub const fn counts(self, rule: &bulkhead_config::Rule) -> bool {
        matches!((self, rule.stage), (Self::Shadowed, _) | (_, RuleStage::Enforce))
    }
}

/// Who is who, without the rules: what stays when only they change.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    pub(crate) endpoints: Endpoints,
    users: Vec<Option<u32>>,
    members: HashMap<Selector, Arc<[Actor]>>,
}

impl Identity {
    pub(crate) fn of(config: &Config) -> Self {
        let endpoints = Endpoints::of(config);
        let users = Directory::of(config, &endpoints).users;
        Self { endpoints, users, members: HashMap::new() }
    }
}

impl Resolved {
    /// Resolves all rules, also those that do not count.
    pub(crate) fn of(config: &Config, identity: &mut Identity, reading: Reading) -> Self {
        let services = services(config);
        let mut register =
            Register { config, identity, directory: None, ids: HashMap::new(), members: vec![] };
        let resolve = |rule| {
            let rule: &bulkhead_config::Rule = rule;
            Rule {
                from: register.ids_of(&rule.from),
                to: register.ids_of(&rule.to),
                own: rule.to.contains(&Selector::Own),
                services: services_of(&services, &rule.services),
                denies: rule.action == Action::Deny,
                shadow: !reading.counts(rule),
            }
        };
        let rules = config.rules.iter().map(resolve).collect();
        let members = register.members;
        Self { rules, members, users: identity.users.clone() }
    }
}

/// The selectors met so far.
struct Register<'c, 'i> {
    config: &'c Config,
    identity: &'i mut Identity,
    /// Made when a selector is met whose members are not known from before.
    directory: Option<Directory<'c>>,
    ids: HashMap<&'c Selector, SelectorId>,
    members: Vec<Arc<[Actor]>>,
}

impl<'c> Register<'c, '_> {
    fn ids_of(&mut self, selectors: &'c [Selector]) -> Vec<SelectorId> {
        let mut ids = Vec::with_capacity(selectors.len());
        for selector in selectors {
            let next = SelectorId::try_from(self.members.len()).unwrap_or(SelectorId::MAX);
            let id = *self.ids.entry(selector).or_insert(next);
            if id == next {
                let members = self.members_of(selector);
                self.members.push(members);
            }
            ids.push(id);
        }
        ids
    }

    fn members_of(&mut self, selector: &'c Selector) -> Arc<[Actor]> {
        let Identity { endpoints, members, .. } = &mut *self.identity;
        if let Some(known) = members.get(selector) {
            return Arc::clone(known);
        }
        let directory = self.directory.get_or_insert_with(|| Directory::of(self.config, endpoints));
        let found: Arc<[Actor]> = directory.members(selector).into();
        members.insert(selector.clone(), Arc::clone(&found));
        found
    }
}

type ServicesByName<'c> = HashMap<&'c str, Vec<(Service, Service)>>;

fn services(config: &Config) -> ServicesByName<'_> {
    let range = |range: &bulkhead_config::ServiceRange| {
        (Service::new(range.protocol, range.first), Service::new(range.protocol, range.last))
    };
    let all = config.services.iter();
    all.map(|service| (service.name.as_str(), service.ports.iter().map(range).collect())).collect()
}

fn services_of(known: &ServicesByName<'_>, services: &Services) -> Vec<(Service, Service)> {
    match services {
        Services::Any => vec![(Service::MIN, Service::MAX)],
        Services::Named(names) => {
            names.iter().filter_map(|name| known.get(name.as_str())).flatten().copied().collect()
        }
    }
}

/// Who belongs to which name.
#[derive(Default)]
pub(crate) struct Directory<'c> {
    /// How many endpoints there are.
    count: Actor,
    /// By selector that is no group; each ascending.
    plain: HashMap<(Kind, &'c str), Vec<Actor>>,
    groups: HashMap<&'c str, &'c [Selector]>,
    internet: Vec<Actor>,
    users: Vec<Option<u32>>,
}

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    User,
    Device,
    Tag,
    Segment,
    Host,
}

impl<'c> Directory<'c> {
    pub(crate) fn of(config: &'c Config, endpoints: &Endpoints) -> Self {
        let mut directory = Self { users: vec![None; endpoints.list.len()], ..Self::default() };
        let users: HashMap<&str, u32> =
            config.users.iter().map(|user| user.name.as_str()).zip(0..).collect();
        for ((actor, (owner, hosts)), user) in (0..).zip(&endpoints.list).zip(&mut directory.users)
        {
            directory.count = actor + 1;
            let mut belongs =
                |kind, name| directory.plain.entry((kind, name)).or_default().push(actor);
            let position = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
            match *owner {
                Owner::Device(at) => {
                    let Some(device) = config.devices.get(position(at)) else { continue };
                    belongs(Kind::Device, &device.name);
                    if let Some(name) = &device.user {
                        belongs(Kind::User, name);
                        *user = users.get(name.as_str()).copied();
                    }
                    device.tags.iter().for_each(|tag| belongs(Kind::Tag, tag));
                }
                Owner::Segment(at) => {
                    let Some(segment) = config.segments.get(position(at)) else { continue };
                    belongs(Kind::Segment, &segment.name);
                }
                // An address with a name is not "the rest".
                Owner::Internet if hosts.is_empty() => directory.internet.push(actor),
                Owner::Internet => {}
            }
            for host in hosts {
                let Some(host) = config.hosts.get(position(*host)) else { continue };
                belongs(Kind::Host, &host.name);
            }
        }
        for group in &config.groups {
            directory.groups.insert(&group.name, &group.members);
        }
        directory
    }

    /// Whom a selector means, ascending.
    pub(crate) fn members(&self, selector: &Selector) -> Vec<Actor> {
        let named = |kind, name| self.plain.get(&(kind, name)).cloned().unwrap_or_default();
        match selector {
            Selector::User(name) => named(Kind::User, name),
            Selector::Device(name) => named(Kind::Device, name),
            Selector::Tag(name) => named(Kind::Tag, name),
            Selector::Segment(name) => named(Kind::Segment, name),
            Selector::Host(name) => named(Kind::Host, name),
            Selector::Internet => self.internet.clone(),
            Selector::Any => (0..self.count).collect(),
            // Whose they are depends on who asks: `Rule::own`.
            Selector::Own => Vec::new(),
            Selector::Group(name) => self.group_members(name),
        }
    }

    /// Each group is opened once, however often and however deep it is a member.
    fn group_members(&self, name: &str) -> Vec<Actor> {
        let mut opened = BTreeSet::new();
        let mut left = vec![name];
        let mut members = Vec::new();
        while let Some(name) = left.pop() {
            let Some((name, inside)) = self.groups.get_key_value(name) else { continue };
            if !opened.insert(*name) {
                continue;
            }
            for member in *inside {
                match member {
                    Selector::Group(inner) => left.push(inner),
                    Selector::User(_)
                    | Selector::Device(_)
                    | Selector::Tag(_)
                    | Selector::Segment(_)
                    | Selector::Host(_)
                    | Selector::Any
                    | Selector::Own
                    | Selector::Internet => members.extend(self.members(member)),
                }
            }
        }
        members.sort_unstable();
        members.dedup();
        members
    }
}
