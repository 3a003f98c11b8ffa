//! Whose addresses are, and what rules are called, by one configuration.

use std::collections::HashMap;
use std::net::IpAddr;

use bulkhead_config::{Config, internet};
use bulkhead_table::RuleTag;
use ipnet::IpNet;

use crate::api::Effect;

/// All names.
pub(super) struct Who {
    owners: Prefixes,
    /// The addresses that nobody else has, if the configuration knows a way there.
    internet: Prefixes,
    rules: HashMap<u64, (String, Effect)>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    name: String,
    user: Option<String>,
}

impl Owner {
    /// `device:NAME`, `segment:NAME` or `internet`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whose device it is.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl Who {
    pub(super) fn of(config: &Config) -> Self {
        let mut owners = Prefixes::default();
        for segment in &config.segments {
            let owner = Owner { name: format!("segment:{}", segment.name), user: None };
            owners.add(&segment.subnets, owner);
        }
        for device in &config.devices {
            let name = format!("device:{}", device.name);
            owners.add(&device.addresses, Owner { name, user: device.user.clone() });
        }
        let mut public = Prefixes::default();
        if config.internet.is_some() {
            let owner = Owner { name: "internet".to_owned(), user: None };
            public.add(internet::networks(), owner);
        }
        let rule = |rule: &bulkhead_config::Rule| {
            (RuleTag::of(&rule.id).0, (rule.id.clone(), Effect::of(rule)))
        };
        Self { owners, internet: public, rules: config.rules.iter().map(rule).collect() }
    }

    /// Who has the address: by the longest prefix, as the policy has it.
    pub(super) fn has(&self, address: IpAddr) -> Option<&Owner> {
        self.owners.find(address).or_else(|| self.internet.find(address))
    }

    /// The rule with this name in a table.
    pub(super) fn rule(&self, tag: u64) -> Option<(&str, Effect)> {
        self.rules.get(&tag).map(|(id, effect)| (id.as_str(), *effect))
    }
}

/// Prefixes of owners. Looked up length by length, the longest first: a configuration has few lengths.
#[derive(Default)]
struct Prefixes {
    owners: Vec<Owner>,
    of: HashMap<IpNet, usize>,
    lengths: Vec<u8>,
}

impl Prefixes {
    fn add(&mut self, nets: &[IpNet], owner: Owner) {
        for net in nets {
            self.of.insert(net.trunc(), self.owners.len());
            if !self.lengths.contains(&net.prefix_len()) {
                self.lengths.push(net.prefix_len());
                self.lengths.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
        self.owners.push(owner);
    }

    fn find(&self, address: IpAddr) -> Option<&Owner> {
        // A length that the family does not have makes no prefix.
        let nets = self.lengths.iter().filter_map(|length| IpNet::new(address, *length).ok());
        let at = nets.filter_map(|net| self.of.get(&net.trunc())).next();
        at.and_then(|at| self.owners.get(*at))
    }
}
