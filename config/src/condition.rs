//! On what a rule depends besides the two ends and the service.
//!
//! A condition is about the one who asks and about the time. What is not known is not true: a rule
//! that allows does not hold then, and one that denies does.

use core::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Place;
use crate::when::When;

/// What can be known of a device, besides what `[attribute.NAME]` adds. The first seven are the
/// marks of a managed device; the last two are figures that risk engines and operators give.
pub const ATTRIBUTES: &[(&str, AttributeKind)] = &[
    ("patch_age_days", AttributeKind::Int),
    ("disk_encrypted", AttributeKind::Bool),
    ("endpoint_protection", AttributeKind::Bool),
    ("screen_lock", AttributeKind::Bool),
    ("managed", AttributeKind::Bool),
    ("certificate_valid", AttributeKind::Bool),
    ("not_jailbroken", AttributeKind::Bool),
    ("risk", AttributeKind::Int),
    ("tier", AttributeKind::Int),
];

/// What sort of values an attribute has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttributeKind {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A text.
    Text,
}

impl fmt::Display for AttributeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "true or false",
            Self::Int => "a whole number",
            Self::Text => "a text",
        })
    }
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Of [`AttributeKind::Bool`].
    Bool(bool),
    /// Of [`AttributeKind::Int`].
    Int(i64),
    /// Of [`AttributeKind::Text`].
    Text(String),
}

impl Value {
    /// What sort of value it is.
    #[must_use]
    pub const fn kind(&self) -> AttributeKind {
        match self {
            Self::Bool(_) => AttributeKind::Bool,
            Self::Int(_) => AttributeKind::Int,
            Self::Text(_) => AttributeKind::Text,
        }
    }

    /// Reads a value of a sort as the command line has it; `None` if it is not one.
    #[must_use]
    pub fn read(kind: AttributeKind, text: &str) -> Option<Self> {
        match kind {
            AttributeKind::Bool => text.parse().ok().map(Self::Bool),
            AttributeKind::Int => text.parse().ok().map(Self::Int),
            AttributeKind::Text => Some(Self::Text(text.to_owned())),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// `[attribute.NAME]`: something else that can be known of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name in this file; none of [`ATTRIBUTES`].
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// What sort of values it has.
    pub kind: AttributeKind,
}

/// `[posture.NAME]`: demands on a device, all of which must be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posture {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// At least one, sorted by attribute.
    pub demands: Vec<Demand>,
}

/// One demand on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// A name of [`ATTRIBUTES`] or of [`crate::Config::attributes`].
    pub attribute: String,
    /// What its value must be.
    pub must: Must,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Must {
    /// This one.
    Be(Value),
    /// A number not above this.
    NotExceed(i64),
    /// A number not below this.
    Reach(i64),
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.must {
            Must::Be(value) => write!(f, "{} = {value}", self.attribute),
            Must::NotExceed(most) => write!(f, "{} <= {most}", self.attribute),
            Must::Reach(least) => write!(f, "{} >= {least}", self.attribute),
        }
    }
}

/// When a rule holds, by the clock on the wall of a time zone.
///
/// A window that ends before it begins runs over midnight and belongs to the day on which it begins.
/// When clocks go back, an hour that comes twice counts twice; when they go forward, one that does
/// not come does not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfWeek {
    /// Whether each day counts, Monday first.
    pub days: [bool; 7],
    /// From the first minute of the day to before the last, 0..=1440; at least one. `last` below
    /// `first` is over midnight; equal is never written.
    pub hours: Vec<(u16, u16)>,
    /// IANA name of the zone.
    pub zone: String,
    /// As written, for messages.
    pub text: String,
}

impl TimeOfWeek {
    /// Whether every minute counts: then only its zone is of use, to `when`.
    #[must_use]
    pub fn always(&self) -> bool {
        self.days == [true; 7] && self.hours.contains(&(0, 24 * 60))
    }
}

/// All conditions of a rule. All must hold; none always does.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Names of [`crate::Config::postures`], sorted.
    pub posture: Vec<String>,
    /// By the clock and the calendar.
    pub time: Option<TimeOfWeek>,
    /// An expression. Its weekday and minute are of the zone of `time`, and without that of UTC.
    pub when: Option<When>,
    /// From then on, included.
    pub starts: Option<Timestamp>,
    /// Until then, excluded.
    pub expires: Option<Timestamp>,
}

impl Condition {
    /// Whether there is nothing that could fail.
    #[must_use]
    pub fn always(&self) -> bool {
        *self == Self::default()
    }
}

/// What a test takes as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The time; without it no rule that depends on the time is certain.
    pub at: Option<Timestamp>,
    /// What is known of the device that asks, sorted by name.
    pub attributes: Vec<(String, Value)>,
}
