//! What a table answers.

use bulkhead_wire::Address;

use crate::{LabelId, PeerIndex, PortIndex, RuleIndex, SegmentId, Service};

/// Whether `source` may use `service` of `destination`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Who opens the flow.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// About what.
    pub service: Service,
}

/// Whether a flow may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may, by this rule.
    Allow(RuleIndex),
    /// It may not.
    Deny(Denial),
}

/// Why a flow may not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denial {
    /// No rule at all names these two labels in this order.
    #[default]
    NoRuleForPair,
    /// Rules name them, but none this service.
    PortNotAllowed,
}

impl Default for Verdict {
    fn default() -> Self {
        Self::Deny(Denial::default())
    }
}

/// Where packets for an endpoint leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Through the tunnel of this peer, which is also the only one that may speak for it.
    Peer(PeerIndex),
    /// In plain, on this segment.
    Segment(SegmentId),
}

/// What the datapath knows of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its policy class.
    pub label: LabelId,
    /// Where it is.
    pub next_hop: NextHop,
}

/// A set of subnets that is reached in plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The port that it is behind.
    pub port: PortIndex,
    /// Its VLAN, 1..=4094; none if frames are untagged.
    pub vlan: Option<u16>,
    /// How far its migration is.
    pub stage: Stage,
}

/// The stage of a segment's migration. Others come with later releases and are refused until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The policy decides; the default is deny.
    #[default]
    Enforce,
}
