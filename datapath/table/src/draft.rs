//! A table before it is bytes: what the policy compiler fills in.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::{Endpoint, EndpointId, LabelId, Log, RuleIndex, RuleTag, Segment, Service};

/// Everything a table says, in the shape in which it is easiest to say.
///
/// [`Draft::emit`] checks it and writes the bytes; [`crate::oracle`] answers from it directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Which edition of the policy this is.
    pub generation: u64,
    /// How many labels there are, with label 0; at least 1 and at most
    /// [`crate::limits::LABELS_MAX`].
    pub labels: u16,
    /// Endpoints by id. Index 0 is a placeholder and never read.
    pub endpoints: Vec<Endpoint>,
    /// Who has which addresses; the longest prefix wins. In any order, none twice.
    pub prefixes: Vec<(IpNet, EndpointId)>,
    /// Segments by id.
    pub segments: Vec<Segment>,
    /// What each label may do to each: disjoint runs, in any order. An absent or empty cell denies.
    pub cells: Cells,
    /// What is recorded beside the verdicts: the rule that denies what others allow, or the shadow rule
    /// with which the verdict would be another. As [`Self::cells`]; it allows nothing.
    pub remarks: Cells,
    /// How many rules there are.
    pub rules: u32,
    /// The names of the rules, one for each.
    pub tags: Vec<RuleTag>,
    /// Which flows of which rules are logged; those of the others are not. In any order, of several on
    /// one rule the last counts.
    pub logs: Vec<(RuleIndex, Log)>,
    /// Whether it is logged what is denied because no rule allows it.
    pub logs_denied: bool,
    /// How many peers there are.
    pub peers: u32,
}

/// Lists of runs by source and destination. Pairs with equal lists may share one, which is then looked
/// at once: a company has few different lists and very many pairs.
pub type Cells = BTreeMap<(LabelId, LabelId), Arc<[Run]>>;

/// An inclusive range of services that a rule allows. It may span protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The first that is allowed.
    pub first: Service,
    /// The last that is allowed.
    pub last: Service,
    /// The rule that allows it.
    pub rule: RuleIndex,
}
