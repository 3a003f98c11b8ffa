//! What the policy says about a flow.

use core::fmt;

use serde::Serialize;

/// Whether a flow may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may, by the rule at this position of the file; the first that allows it.
    Allow(u32),
    /// It may not.
    Deny(Denied),
}

/// Why a flow may not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Denied {
    /// Nobody has the source address.
    UnknownSource,
    /// Nobody has the destination address.
    UnknownDestination,
    /// No rule goes from the one to the other.
    NoRule,
    /// Rules go from the one to the other, but none is about this service.
    ServiceNotAllowed,
    /// The rule at this position of the file denies it; the first that does.
    Rule(u32),
}

impl Verdict {
    /// The same as far as a table can say it: a table holds no denials, only what is left to allow.
    pub(crate) const fn as_table(self) -> Self {
        match self {
            Self::Deny(Denied::Rule(_) | Denied::ServiceNotAllowed) => Self::Deny(Denied::NoRule),
            Self::Allow(_)
            | Self::Deny(Denied::UnknownSource | Denied::UnknownDestination | Denied::NoRule) => {
                self
            }
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownSource => "no device or segment has the source address",
            Self::UnknownDestination => "no device or segment has the destination address",
            Self::NoRule => "no rule goes from this source to this destination",
            Self::ServiceNotAllowed => "rules join the two, but none allows this service",
            Self::Rule(_) => "a rule denies it",
        })
    }
}
