//! What the numbers of a table are called in the file.

use core::fmt;

use bulkhead_config::{Config, Place};
use bulkhead_table::{EndpointId, RuleIndex};
use serde::Serialize;

/// The names behind the endpoints and rules of one [`crate::Compiled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Endpoint 1 is the first of these.
    pub endpoints: Vec<EndpointName>,
    /// By rule index.
    pub rules: Vec<RuleName>,
}

/// A device or segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointName {
    /// Which of the two.
    pub kind: EndpointKind,
    /// Its name in the file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointKind {
    /// A WireGuard key with addresses.
    Device,
    /// Plain subnets.
    Segment,
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            EndpointKind::Device => "device",
            EndpointKind::Segment => "segment",
        };
        write!(f, "{kind}:{}", self.name)
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleName {
    /// Its id in the file.
    pub id: String,
    /// Where it is defined.
    pub place: Place,
}

impl Names {
    /// Endpoints are numbered from 1: the devices in the order of the configuration, then the
    /// segments.
    pub(crate) fn of(config: &Config) -> Self {
        let devices = config.devices.iter().map(|device| EndpointName {
            kind: EndpointKind::Device,
            name: device.name.clone(),
            place: device.place,
        });
        let segments = config.segments.iter().map(|segment| EndpointName {
            kind: EndpointKind::Segment,
            name: segment.name.clone(),
            place: segment.place,
        });
        let rules = config.rules.iter();
        Self {
            endpoints: devices.chain(segments).collect(),
            rules: rules.map(|rule| RuleName { id: rule.id.clone(), place: rule.place }).collect(),
        }
    }

    /// The name of an endpoint; none for 0.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&EndpointName> {
        self.endpoints.get(usize::try_from(id.0.checked_sub(1)?).ok()?)
    }

    /// The endpoint of a name; 0, which is nobody, if there is none.
    pub(crate) fn find(&self, kind: EndpointKind, name: &str) -> EndpointId {
        let mut numbered = (1..).zip(&self.endpoints);
        let found = numbered.find(|(_, endpoint)| endpoint.kind == kind && endpoint.name == name);
        EndpointId(found.map_or(0, |(id, _)| id))
    }

    /// The name of a rule.
    #[must_use]
    pub fn rule(&self, index: RuleIndex) -> Option<&RuleName> {
        self.rules.get(usize::try_from(index.0).ok()?)
    }
}
