//! Addresses to endpoints: the pieces of the address space that a policy can tell apart.
//!
//! ```text
//!   device, segment      ──────────────[ 10.20.0.0/16 ]──────────────   who has the address
//!   hosts                      [ 10.20.1.0/24 ]   [ 10.20.9.7/32 ]      what it is called besides
//!   endpoints             a    |       b      | a |       c      | a    owner and names together
//! ```
//!
//! Every device, segment and the internet is an owner; its addresses are one endpoint, except those
//! with the names of other hosts, which are endpoints of their own with the owner's next hop.
//!
//! INVARIANT: endpoints are sorted by owner and then by hosts, so their numbers depend on nothing
//! but the configuration; the longest of the prefixes around an address is its endpoint's.

use std::collections::BTreeMap;

use bulkhead_config::{Config, internet};
use ipnet::IpNet;

/// Position of an endpoint among all, without the placeholder of the table.
pub(crate) type Actor = u32;

/// Who leads to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Owner {
    /// Position in [`Config::devices`].
    Device(u32),
    /// Position in [`Config::segments`].
    Segment(u32),
    /// The device that leads there stands in [`Config::internet`].
    Internet,
}

/// All endpoints of a configuration, and their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Who each is: the owner, and positions in [`Config::hosts`], ascending.
    pub(crate) list: Vec<(Owner, Vec<u32>)>,
    /// Which prefix is whose, sorted; the longest wins.
    pub(crate) prefixes: Vec<(IpNet, Actor)>,
}

impl Endpoints {
    /// Cuts the address space of a configuration.
    pub(crate) fn of(config: &Config) -> Self {
        let claims = claims(config);
        let mut owned: Vec<(IpNet, (Owner, Vec<u32>))> = Vec::with_capacity(claims.len());
        // The claims around the one that is looked at, from the widest to the narrowest.
        let mut around: Vec<(IpNet, &Claim)> = Vec::new();
        for (net, claim) in &claims {
            while around.last().is_some_and(|(wider, _)| !wider.contains(net)) {
                around.pop();
            }
            around.push((*net, claim));
            let owner = around.iter().rev().find_map(|(_, claim)| claim.owner);
            let public = || around.iter().any(|(_, claim)| claim.internet);
            if let Some(owner) = owner.or_else(|| public().then_some(Owner::Internet)) {
                let hosts = around.iter().flat_map(|(_, claim)| &claim.hosts).copied();
                let mut hosts: Vec<u32> = hosts.collect();
                hosts.sort_unstable();
                hosts.dedup();
                owned.push((*net, (owner, hosts)));
            }
        }
        let mut list: Vec<_> = owned.iter().map(|(_, who)| who.clone()).collect();
        list.sort_unstable();
        list.dedup();
        let number = |who| list.binary_search(who).ok().and_then(|at| u32::try_from(at).ok());
        let prefixes =
            owned.iter().filter_map(|(net, who)| number(who).map(|actor| (*net, actor))).collect();
        Self { list, prefixes }
    }

    /// The endpoint of exactly this prefix.
    pub(crate) fn at(&self, net: &IpNet) -> Option<Actor> {
        let at = self.prefixes.binary_search_by_key(net, |(prefix, _)| *prefix).ok()?;
        self.prefixes.get(at).map(|(_, actor)| *actor)
    }
}

/// What a configuration says of one prefix.
#[derive(Clone, Debug, Default)]
struct Claim {
    owner: Option<Owner>,
    hosts: Vec<u32>,
    internet: bool,
}

/// Every prefix that is mentioned, those around others first.
fn claims(config: &Config) -> BTreeMap<IpNet, Claim> {
    // `IpNet` sorts by family, address and length: a prefix right before those inside it.
    let mut claims: BTreeMap<IpNet, Claim> = BTreeMap::new();
    for (at, device) in (0..).zip(&config.devices) {
        for net in &device.addresses {
            claims.entry(*net).or_default().owner = Some(Owner::Device(at));
        }
    }
    for (at, segment) in (0..).zip(&config.segments) {
        for net in &segment.subnets {
            claims.entry(*net).or_default().owner = Some(Owner::Segment(at));
        }
    }
    for (at, host) in (0..).zip(&config.hosts) {
        for net in &host.addresses {
            claims.entry(*net).or_default().hosts.push(at);
        }
    }
    if config.internet.is_some() {
        for net in internet::networks() {
            claims.entry(*net).or_default().internet = true;
        }
    }
    claims
}
