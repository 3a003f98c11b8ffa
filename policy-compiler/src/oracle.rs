//! What the policy says about a flow, read directly from the configuration.
//!
//! Written to be obvious: every rule is looked at, in the order of the file, and nothing is
//! prepared. It shares no code with the passes that make the table; the property tests and every
//! answer of [`crate::Policy`] hold the two against each other.

use core::net::IpAddr;

use bulkhead_config::{Config, Device, Flow, Origin, Segment, Selector, Services};

use crate::{Denied, Verdict};

/// Someone with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'c> {
    /// A device.
    Device(&'c Device),
    /// A host of a segment that is no device.
    Segment(&'c Segment),
}

/// Whether `from` may open the flow.
#[must_use]
pub fn judge(config: &Config, from: &Origin, flow: &Flow) -> Verdict {
    let Some(source) = origin(config, from) else {
        return Verdict::Deny(Denied::UnknownSource);
    };
    let Some(destination) = owner(config, flow.destination) else {
        return Verdict::Deny(Denied::UnknownDestination);
    };
    let mut joined = false;
    for (index, rule) in (0..).zip(&config.rules) {
        let from = rule.from.iter().any(|selector| selects(config, selector, source));
        let to = rule.to.iter().any(|selector| selects(config, selector, destination));
        if from && to {
            if covers(config, &rule.services, flow) {
                return Verdict::Allow(index);
            }
            joined = true;
        }
    }
    Verdict::Deny(if joined { Denied::ServiceNotAllowed } else { Denied::NoRule })
}

/// Who that is.
#[must_use]
pub fn origin<'c>(config: &'c Config, from: &Origin) -> Option<Owner<'c>> {
    match from {
        Origin::Address(address) => owner(config, *address),
        Origin::Device(name) => {
            config.devices.iter().find(|device| device.name == *name).map(Owner::Device)
        }
        Origin::Segment(name) => {
            config.segments.iter().find(|segment| segment.name == *name).map(Owner::Segment)
        }
    }
}

/// Who has an address: the one with the longest prefix around it.
#[must_use]
pub fn owner(config: &Config, address: IpAddr) -> Option<Owner<'_>> {
    // An IPv4 address that is written as IPv6 is the IPv4 address.
    let address = address.to_canonical();
    let mut best = None;
    let mut length = None;
    for device in &config.devices {
        for net in &device.addresses {
            if net.contains(&address) && Some(net.prefix_len()) > length {
                length = Some(net.prefix_len());
                best = Some(Owner::Device(device));
            }
        }
    }
    for segment in &config.segments {
        for net in &segment.subnets {
            if net.contains(&address) && Some(net.prefix_len()) > length {
                length = Some(net.prefix_len());
                best = Some(Owner::Segment(segment));
            }
        }
    }
    best
}

/// Whether a selector means someone.
#[must_use]
pub fn selects(config: &Config, selector: &Selector, owner: Owner<'_>) -> bool {
    match (selector, owner) {
        (Selector::Segment(name), Owner::Segment(segment)) => segment.name == *name,
        (Selector::Device(name), Owner::Device(device)) => device.name == *name,
        (Selector::User(name), Owner::Device(device)) => device.user.as_ref() == Some(name),
        (Selector::Tag(name), Owner::Device(device)) => device.tags.contains(name),
        (Selector::Group(name), _) => {
            let group = config.groups.iter().find(|group| group.name == *name);
            group.is_some_and(|group| {
                group.members.iter().any(|member| match member {
                    // Groups in groups are not in this release.
                    Selector::Group(_) => false,
                    Selector::User(_)
                    | Selector::Device(_)
                    | Selector::Tag(_)
                    | Selector::Segment(_) => selects(config, member, owner),
                })
            })
        }
        (Selector::Segment(_), Owner::Device(_))
        | (Selector::Device(_) | Selector::User(_) | Selector::Tag(_), Owner::Segment(_)) => false,
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
