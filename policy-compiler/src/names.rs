//! What the numbers of a table are called in the file.

use core::fmt;

use bulkhead_config::{Config, Log, Place};
use bulkhead_table::{EndpointId, RuleIndex};
use serde::Serialize;

use crate::endpoint::{Endpoints, Owner};

/// The names behind the endpoints and rules of one [`crate::Compiled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Endpoint 1 is the first of these.
    pub endpoints: Vec<EndpointName>,
    /// By rule index.
    pub rules: Vec<RuleName>,
}

/// Who an endpoint is. A device whose addresses have different names is several endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointName {
    /// Which of them.
    pub kind: EndpointKind,
    /// Its name in the file; for the internet the name of the device that leads there.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// The hosts whose networks its addresses are in.
    pub hosts: Vec<String>,
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointKind {
    /// A WireGuard key with addresses.
    Device,
    /// Plain subnets.
    Segment,
    /// The addresses that no device or segment has.
    Internet,
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            EndpointKind::Device => write!(f, "device:{}", self.name),
            EndpointKind::Segment => write!(f, "segment:{}", self.name),
            EndpointKind::Internet => f.write_str("internet"),
        }?;
        self.hosts.iter().try_for_each(|host| write!(f, " host:{host}"))
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleName {
    /// Its id in the file.
    pub id: String,
    /// Where it is defined.
    pub place: Place,
    /// Which of its flows are in the flow log.
    pub log: Log,
}

impl Names {
    /// Endpoints are numbered from 1 in the order of [`Endpoints`].
    pub(crate) fn of(config: &Config, endpoints: &Endpoints) -> Self {
        let rules = config.rules.iter().map(|rule| RuleName {
            id: rule.id.clone(),
            place: rule.place,
            log: rule.log,
        });
        let all = endpoints.list.iter();
        let named = |(owner, hosts): &(Owner, Vec<u32>)| {
            let (kind, name, place) = match *owner {
                Owner::Device(at) => {
                    let device = at_position(&config.devices, at)?;
                    (EndpointKind::Device, &device.name, device.place)
                }
                Owner::Segment(at) => {
                    let segment = at_position(&config.segments, at)?;
                    (EndpointKind::Segment, &segment.name, segment.place)
                }
                Owner::Internet => {
                    let internet = config.internet.as_ref()?;
                    (EndpointKind::Internet, &internet.via, internet.place)
                }
            };
            let hosts = hosts.iter().filter_map(|at| at_position(&config.hosts, *at));
            let hosts = hosts.map(|host| host.name.clone()).collect();
            Some(EndpointName { kind, name: name.clone(), place, hosts })
        };
        Self { endpoints: all.filter_map(named).collect(), rules: rules.collect() }
    }

    /// The name of an endpoint; none for 0.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&EndpointName> {
        self.endpoints.get(usize::try_from(id.0.checked_sub(1)?).ok()?)
    }

    /// The name of a rule.
    #[must_use]
    pub fn rule(&self, index: RuleIndex) -> Option<&RuleName> {
        self.rules.get(usize::try_from(index.0).ok()?)
    }
}

fn at_position<T>(items: &[T], at: u32) -> Option<&T> {
    usize::try_from(at).ok().and_then(|at| items.get(at))
}
