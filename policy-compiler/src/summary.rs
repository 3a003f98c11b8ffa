//! Sets of endpoints in as few words as say them exactly.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_config::{Config, Selector};
use ipnet::IpNet;
use serde::Serialize;

use crate::endpoint::{Actor, Endpoints};
use crate::names::Names;
use crate::resolve::Directory;

/// Names that an answer shows as text; the JSON has all.
const SHOWN: usize = 12;

/// A set of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Groups, tags and users all of whose endpoints are in it, the largest first, none that is
    /// inside those before it.
    pub groups: Vec<String>,
    /// The endpoints that are in none of `groups`.
    pub others: Vec<String>,
    /// The addresses, joined where they touch. A longer prefix of somebody else inside one wins.
    pub prefixes: Vec<IpNet>,
}

/// What is needed to summarise sets of one configuration's endpoints.
pub(crate) struct Roll {
    /// Names with their members, the largest first.
    named: Vec<(String, Vec<Actor>)>,
    names: Names,
    prefixes: BTreeMap<Actor, Vec<IpNet>>,
}

impl Roll {
    pub(crate) fn of(config: &Config, endpoints: &Endpoints) -> Self {
        let directory = Directory::of(config, endpoints);
        let groups = config.groups.iter().map(|group| Selector::Group(group.name.clone()));
        let tags = config.tags.iter().map(|tag| Selector::Tag(tag.name.clone()));
        let users = config.users.iter().map(|user| Selector::User(user.name.clone()));
        let mut named: Vec<(String, Vec<Actor>)> = groups
            .chain(tags)
            .chain(users)
            .map(|selector| (selector.to_string(), directory.members(&selector)))
            .filter(|(_, members)| members.len() > 1)
            .collect();
        // Stable: of the same size, groups before tags before users.
        named.sort_by_key(|(_, members)| core::cmp::Reverse(members.len()));
        let mut prefixes: BTreeMap<Actor, Vec<IpNet>> = BTreeMap::new();
        for (net, actor) in &endpoints.prefixes {
            prefixes.entry(*actor).or_default().push(*net);
        }
        Self { named, names: Names::of(config, endpoints), prefixes }
    }

    pub(crate) fn summary(&self, set: &BTreeSet<Actor>) -> Summary {
        let nets = set.iter().filter_map(|actor| self.prefixes.get(actor)).flatten();
        let nets: Vec<IpNet> = nets.copied().collect();
        self.named_only(set, set, IpNet::aggregate(&nets))
    }

    /// With prefixes from elsewhere: `whole` are those of `set` that are in it with all addresses.
    pub(crate) fn named_only(
        &self,
        set: &BTreeSet<Actor>,
        whole: &BTreeSet<Actor>,
        prefixes: Vec<IpNet>,
    ) -> Summary {
        let mut left = set.clone();
        let mut groups = Vec::new();
        for (name, members) in &self.named {
            let all = members.len() <= whole.len() && members.iter().all(|m| whole.contains(m));
            if all && members.iter().any(|member| left.contains(member)) {
                left.retain(|actor| members.binary_search(actor).is_err());
                groups.push(name.clone());
            }
        }
        let name = |actor: &Actor| {
            let at = usize::try_from(*actor).ok()?;
            self.names.endpoints.get(at).map(ToString::to_string)
        };
        let others = left.iter().filter_map(name).collect();
        Summary { endpoints: set.len(), groups, others, prefixes }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.groups.iter().chain(&self.others).map(String::as_str).collect();
        match words.get(..SHOWN) {
            Some(first) if words.len() > SHOWN => {
                write!(f, "{} and {} more", first.join(", "), words.len() - SHOWN)
            }
            Some(_) | None => f.write_str(&words.join(", ")),
        }
    }
}
