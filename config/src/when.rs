//! `when`: a condition as an expression in Cedar's language.
//!
//! ```text
//!   text ── Cedar: syntax ──▶ JSON ── tree.rs ──▶ Expr ── Cedar: types ──▶ When { parts }
//!                                                              part::holds ◀── what is known
//!                                                      its twin: cedar::holds, by Cedar itself
//! ```
//!
//! Cedar reads the text and checks its types against the attributes that the file knows; what is
//! evaluated again and again is our own tree of it, because Cedar takes 15 µs for a request (ADR 24).
//! The twin asks Cedar, and the policy's oracle asks the twin.
//!
//! INVARIANT: a part that names something that is not known is not known to hold, whatever it says
//! about it: neither `context.x`, nor `!context.x`, nor either of them beside something that is true.

pub(crate) mod cedar;
mod tree;

use core::fmt;
use std::collections::BTreeSet;

use tree::{AND, Datum, Expr};

use crate::Value;

/// An expression of a rule: parts of which all must hold, as they are joined by `&&`.
///
/// Two are equal if they say the same, however they are spaced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct When {
    parts: Vec<Part>,
}

/// A part of an expression.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    expr: Expr,
    names: BTreeSet<Name>,
}

/// Something that an expression can name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// `context.NAME`: an attribute of the device that asks.
    Attribute(String),
    /// `context.weekday`: 1 is Monday, 7 is Sunday.
    Weekday,
    /// `context.minute`: minutes since midnight, by the clock on the wall.
    Minute,
    /// `principal.name`: the device that asks.
    Device,
    /// `principal.user`: whose it is.
    User,
    /// `principal.groups`: the groups that it is in by its name, its user or its tags, also through
    /// other groups.
    Groups,
    /// `principal.tags`: its tags.
    Tags,
}

impl Name {
    /// Whether it is about who asks, and so never changes while the configuration stays.
    #[must_use]
    pub const fn of_principal(&self) -> bool {
        matches!(self, Self::Device | Self::User | Self::Groups | Self::Tags)
    }

    /// Whether it changes with the time.
    #[must_use]
    pub const fn ticks(&self) -> bool {
        matches!(self, Self::Weekday | Self::Minute)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(name) => write!(f, "context.{name}"),
            Self::Weekday => f.write_str("context.weekday"),
            Self::Minute => f.write_str("context.minute"),
            Self::Device => f.write_str("principal.name"),
            Self::User => f.write_str("principal.user"),
            Self::Groups => f.write_str("principal.groups"),
            Self::Tags => f.write_str("principal.tags"),
        }
    }
}

/// What is known under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'k> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(&'k str),
    /// Several, in no order.
    Texts(&'k [String]),
}

impl<'k> From<&'k Value> for Known<'k> {
    fn from(value: &'k Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Text(value) => Self::Text(value),
        }
    }
}

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Texts(values) => write!(f, "{values:?}"),
        }
    }
}

/// Who knows what stands under a name; `None` if that is not known.
pub type Knowing<'f, 'k> = dyn Fn(&Name) -> Option<Known<'k>> + 'f;

impl When {
    /// Of the tree of a whole expression.
    fn of(expr: Expr) -> Self {
        let parts = expr.conjuncts().into_iter().map(|expr| Part { names: expr.names(), expr });
        Self { parts: parts.collect() }
    }

    /// The parts, at least one.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            let joined = if at == 0 { "" } else { " && " };
            write!(f, "{joined}{part}")?;
        }
        Ok(())
    }
}

impl Part {
    /// Everything that it names.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter()
    }

    /// Whether it holds; `None` if something that it names is not known, or if it computes a number
    /// that is none (beyond 64 bits).
    #[must_use]
    pub fn holds<'k>(&'k self, knowing: &Knowing<'_, 'k>) -> Option<bool> {
        if self.names.iter().any(|name| knowing(name).is_none()) {
            return None;
        }
        match self.expr.evaluate(knowing)? {
            Datum::Bool(holds) => Some(holds),
            Datum::Int(_) | Datum::Text(_) | Datum::Set(_) => None,
        }
    }

    /// As [`Self::holds`], by Cedar: its parser, its evaluator. Slow.
    #[must_use]
    pub fn holds_by_cedar<'k>(&'k self, knowing: &Knowing<'_, 'k>) -> Option<bool> {
        cedar::holds(&self.to_string(), self.names(), knowing)
    }

    /// The minutes of the day, 0..=1440, at which the outcome may change: sorted. `None` if that is
    /// every minute, because it computes with them.
    #[must_use]
    pub fn minutes(&self) -> Option<BTreeSet<u16>> {
        let mut minutes = BTreeSet::new();
        self.expr.minutes(&mut minutes).then_some(minutes)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beside others every part stands as an operand does.
        if self.expr.tightness() <= AND { write!(f, "({})", self.expr) } else { self.expr.fmt(f) }
    }
}
