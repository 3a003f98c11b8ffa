//! Rules and what they refer to.

use core::fmt;

use ipnet::IpNet;
use serde::Serialize;

use crate::condition::Condition;
use crate::config::Place;

/// `[[rule]]`: someone may, or may not, speak to someone about something.
///
/// What no rule allows is denied. A rule that denies wins over all that allow; so the order of rules
/// never matters for what happens, only for which of several agreeing rules is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name; unique.
    pub id: String,
    /// Where it is defined.
    pub place: Place,
    /// Who may open a flow; at least one. Never [`Selector::Own`].
    pub from: Vec<Selector>,
    /// To whom; at least one.
    pub to: Vec<Selector>,
    /// About what.
    pub services: Services,
    /// When, and in what state of the asking device, it holds.
    pub condition: Condition,
    /// Whether it allows or denies.
    pub action: Action,
    /// Whether it counts.
    pub stage: RuleStage,
    /// Which of its flows are in the flow log.
    pub log: Log,
}

/// What a rule does with the flows that it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// They may be opened, unless another rule denies them.
    #[default]
    Allow,
    /// They may not be opened, whatever else allows them.
    Deny,
}

/// Whether a rule counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleStage {
    /// It counts.
    #[default]
    Enforce,
    /// Verdicts are as if it were not there; what it would change can be asked for.
    Shadow,
}

/// Which flows of a rule are in the flow log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// None.
    #[default]
    None,
    /// That they were opened, or denied.
    New,
    /// And that they ended, with their counts.
    All,
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Services {
    /// Every protocol and port.
    Any,
    /// Names of [`crate::Config::services`]; at least one.
    Named(Vec<String>),
}

/// A reference to one or many endpoints, written `kind:name` or as a word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// All devices of a user.
    User(String),
    /// One device.
    Device(String),
    /// All devices with the tag.
    Tag(String),
    /// The endpoints of all members.
    Group(String),
    /// The hosts of a segment that are not devices.
    Segment(String),
    /// Whoever has one of the addresses.
    Host(String),
    /// Everybody.
    Any,
    /// The devices of the user whose device asks. Nobody's device has none.
    Own,
    /// Every address of [`crate::internet`] that is in no device, segment or host.
    Internet,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Device(name) => write!(f, "device:{name}"),
            Self::Tag(name) => write!(f, "tag:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Segment(name) => write!(f, "segment:{name}"),
            Self::Host(name) => write!(f, "host:{name}"),
            Self::Any => f.write_str("any"),
            Self::Own => f.write_str("self"),
            Self::Internet => f.write_str("internet"),
        }
    }
}

/// `[host.NAME]`: a name for addresses.
///
/// It takes nothing away: an address belongs to the device or segment that it is in, and also to
/// every host whose networks contain it. It adds no way there either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// Its addresses, single or as networks. Hosts may overlap.
    pub addresses: Vec<IpNet>,
}

/// `[internet]`: the way to every public address that no device or segment has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Internet {
    /// Where it is defined.
    pub place: Place,
    /// The device through whose tunnel it is reached, a name of [`crate::Config::devices`].
    pub via: String,
}
