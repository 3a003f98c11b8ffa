//! Endpoints that no rule can tell apart share a label.
//!
//! What the rules know of an endpoint is in which of them it is a source and in which a
//! destination. Endpoints with the same answer to all rules are one class. Who is in no rule at
//! all has label 0, which may nothing and which nothing may reach.

use std::collections::BTreeMap;

use bulkhead_table::LabelId;

use crate::resolve::Resolved;

/// The labels of all endpoints, and what a label stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Classes {
    /// By endpoint position.
    pub(crate) labels: Vec<LabelId>,
    /// By rule: the labels of its sources and of its destinations, sorted, none twice.
    pub(crate) of_rules: Vec<(Vec<LabelId>, Vec<LabelId>)>,
    /// How many labels there are, with label 0.
    pub(crate) count: u16,
}

/// Sorts `actors` endpoints into classes. Labels are given in the order of the endpoints.
///
/// # Errors
///
/// How many labels would be needed, if that is more than `max`.
pub(crate) fn classes(rules: &[Resolved], actors: usize, max: usize) -> Result<Classes, usize> {
    let mut memberships = vec![Membership::default(); actors];
    for (index, rule) in rules.iter().enumerate() {
        for actor in &rule.from {
            if let Some(membership) = memberships.get_mut(*actor) {
                membership.from.push(index);
            }
        }
        for actor in &rule.to {
            if let Some(membership) = memberships.get_mut(*actor) {
                membership.to.push(index);
            }
        }
    }

    let mut known = BTreeMap::from([(&EMPTY, 0)]);
    let mut numbers = Vec::with_capacity(actors);
    for membership in &memberships {
        let next = known.len();
        numbers.push(*known.entry(membership).or_insert(next));
    }
    let needed = known.len();
    let count = u16::try_from(needed).ok().filter(|_| needed <= max).ok_or(needed)?;
    let label = |number: usize| u16::try_from(number).map(LabelId).map_err(|_| needed);

    let mut of_rules = vec![(Vec::new(), Vec::new()); rules.len()];
    let mut in_order: Vec<_> =
        known.iter().map(|(membership, number)| (number, membership)).collect();
    in_order.sort_unstable();
    for (number, membership) in in_order {
        for rule in &membership.from {
            if let Some((from, _)) = of_rules.get_mut(*rule) {
                from.push(label(*number)?);
            }
        }
        for rule in &membership.to {
            if let Some((_, to)) = of_rules.get_mut(*rule) {
                to.push(label(*number)?);
            }
        }
    }
    let labels = numbers.into_iter().map(label).collect::<Result<_, _>>()?;
    Ok(Classes { labels, of_rules, count })
}

/// Rules by position, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Membership {
    from: Vec<usize>,
    to: Vec<usize>,
}

static EMPTY: Membership = Membership { from: Vec::new(), to: Vec::new() };
