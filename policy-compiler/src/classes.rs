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

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_table::Service;

    fn rule(from: &[usize], to: &[usize]) -> Resolved {
        Resolved {
            from: from.iter().copied().collect(),
            to: to.iter().copied().collect(),
            services: vec![(Service::MIN, Service::MAX)],
        }
    }

    /// Ten endpoints: 1 and 2 are sources of the same rules, 3 of one more, 4 is a destination
    /// only, 5 both; 0 and the rest are in no rule.
    #[test]
    fn who_cannot_be_told_apart_shares_a_label_and_who_is_in_no_rule_has_none() {
        let rules = [rule(&[1, 2, 3, 5], &[4]), rule(&[3], &[5]), rule(&[1, 2, 3], &[4, 5])];
        let found = classes(&rules, 10, 6).unwrap();
        let labels: Vec<u16> = found.labels.iter().map(|label| label.0).collect();
        assert_eq!(labels, [0, 1, 1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(found.count, 5);
        let of = |labels: &[u16]| labels.iter().copied().map(LabelId).collect::<Vec<_>>();
        assert_eq!(
            found.of_rules,
            [(of(&[1, 2, 4]), of(&[3])), (of(&[2]), of(&[4])), (of(&[1, 2]), of(&[3, 4]))]
        );
    }

    #[test]
    fn a_policy_without_rules_has_the_one_label_that_may_nothing() {
        let found = classes(&[], 3, 1).unwrap();
        assert_eq!((found.count, found.labels), (1, vec![LabelId(0); 3]));
    }

    #[test]
    fn too_many_kinds_are_counted() {
        let rules: Vec<_> = (0..70_000).map(|actor| rule(&[actor], &[])).collect();
        assert_eq!(classes(&rules[..99], 99, 100).map(|found| found.count), Ok(100));
        assert_eq!(classes(&rules[..100], 100, 100), Err(101));
        assert_eq!(classes(&rules, 70_000, usize::MAX), Err(70_001), "beyond sixteen bits");
    }
}
