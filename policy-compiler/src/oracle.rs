//! What the policy says about a flow, read directly from the configuration.
//!
//! Written to be obvious: every rule is looked at, in the order of the file, and nothing is
//! prepared. It shares no code with the passes that make the table; the property tests and every
//! answer of [`crate::Policy`] hold the two against each other.

use core::net::IpAddr;

use bulkhead_config::{
    Action, Config, Device, Flow, Host, Origin, Segment, Selector, Services, internet,
};
use ipnet::IpNet;

use crate::{Denied, Reading, Verdict};

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
pub fn judge(config: &Config, reading: Reading, from: &Origin, flow: &Flow) -> Verdict {
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
