//! Endpoints that no rule can tell apart share a label.
//!
//! ```text
//!   endpoint ──▶ kind      the selectors that mean it; for rules about "self" also its user
//!   kind ──────▶ terms     of which rules it is a source, of which a destination, for each of the
//!                          combinations of conditions that the table shall know
//!   terms ─────▶ label     who has the same terms has the same label
//! ```
//!
//! A company has a thousand times fewer kinds than endpoints, so everything after the first step is
//! about kinds. Who is in no rule at all has label 0, which may nothing and which nothing may reach.

use std::collections::{BTreeSet, HashMap};

use bulkhead_table::LabelId;

use crate::condition::{ConditionId, Conditions, Held};
use crate::endpoint::Actor;
use crate::labels::KindLabels;
use crate::limits::CONDITIONS_MAX;
use crate::resolve::{Resolved, SelectorId};

/// One way to be in a rule: the rule, and for its part about "self" the user, counted from 1.
pub(crate) type Term = (u32, u32);

/// What one label may do, and what may be done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Terms {
    /// In which rules it is a source, ascending.
    pub(crate) from: Vec<Term>,
    /// In which rules it is a destination, ascending.
    pub(crate) to: Vec<Term>,
}

/// What would not fit, with the first rule that is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// So many labels would be needed.
    Labels { needed: usize, rule: Option<u32> },
    /// An endpoint sees so many conditions.
    Conditions { found: usize, rule: Option<u32> },
}

/// The labels of all endpoints, and what a label stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Classes {
    /// By endpoint: the label for what holds now.
    pub(crate) labels: Vec<LabelId>,
    /// By endpoint: its kind.
    pub(crate) kind_of: Vec<u32>,
    /// The labels of each kind.
    pub(crate) kinds: Vec<KindLabels>,
    /// By label; the first is empty.
    pub(crate) terms: Vec<Terms>,
}

impl Classes {
    /// Sorts endpoints into classes. Labels are given in the order of the endpoints. `held` says what
    /// holds for each.
    ///
    /// # Errors
    ///
    /// If more than `max` labels would be needed, or an endpoint sees more than
    /// [`CONDITIONS_MAX`] conditions.
    pub(crate) fn of<'h>(
        resolved: &Resolved,
        conditions: &Conditions,
        held: impl Fn(usize) -> &'h Held,
        max: usize,
    ) -> Result<Self, Excess> {
        let kinds = Kinds::of(resolved, conditions);
        kinds.see_few_conditions()?;
        let mut makers: Vec<Maker> = kinds.list.iter().map(|kind| kinds.maker(kind)).collect();
        let mut numbers = Numbers::default();
        // What holds for someone now comes first, so that labels are in the order of endpoints.
        let mut labels = Vec::with_capacity(kinds.of_actors.len());
        for (actor, kind) in kinds.of_actors.iter().enumerate() {
            let Some(maker) = makers.get_mut(*kind) else { continue };
            let seen = maker.labels.seen(held(actor));
            labels.push(maker.label(&kinds, seen, &mut numbers));
        }
        for maker in &mut makers {
            maker.prepare_losses(&kinds, &mut numbers);
        }
        let terms = numbers.terms;
        if terms.len() > max.min(usize::from(u16::MAX)) {
            let first = terms.get(max.min(usize::from(u16::MAX)));
            let rule = first.and_then(|terms| terms.from.first().or(terms.to.first()));
            return Err(Excess::Labels { needed: terms.len(), rule: rule.map(|term| term.0) });
        }
        let number = |kind: &usize| u32::try_from(*kind).unwrap_or(u32::MAX);
        let kind_of = kinds.of_actors.iter().map(number).collect();
        let kinds = makers.into_iter().map(|maker| maker.labels).collect();
        Ok(Self { labels, kind_of, kinds, terms })
    }

    /// How many labels there are, with label 0.
    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.terms.len()).unwrap_or(u16::MAX)
    }
}

/// The labels so far. Beyond sixteen bits they are only counted.
struct Numbers {
    known: HashMap<Terms, usize>,
    terms: Vec<Terms>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { known: HashMap::from([(Terms::default(), 0)]), terms: vec![Terms::default()] }
    }
}

impl Numbers {
    fn of(&mut self, terms: Terms) -> LabelId {
        let next = self.terms.len();
        let label = *self.known.entry(terms).or_insert_with_key(|terms| {
            self.terms.push(terms.clone());
            next
        });
        u16::try_from(label).map_or(LabelId(0), LabelId)
    }
}

/// Makes the labels of one kind.
struct Maker {
    /// The terms if all conditions are as they should be, and those that only matter else.
    full: Terms,
    labels: KindLabels,
}

impl Maker {
    /// The label for the conditions that hold, of those that the kind can see.
    fn label(
        &mut self,
        kinds: &Kinds<'_>,
        seen: Vec<ConditionId>,
        numbers: &mut Numbers,
    ) -> LabelId {
        let known = self.labels.known.iter().find(|(known, _)| *known == seen);
        if let Some((_, label)) = known {
            return *label;
        }
        let is_held = |id: ConditionId| seen.binary_search(&id).is_ok();
        let in_force = |term: &&Term| match kinds.conditions.of_rule(term.0) {
            None => true,
            // A denial is in force unless its condition certainly fails.
            Some(id) => is_held(id) != kinds.denies(term.0),
        };
        let from = self.full.from.iter().filter(in_force).copied().collect();
        let label = numbers.of(Terms { from, to: self.full.to.clone() });
        self.labels.known.push((seen, label));
        label
    }

    /// Adds what remains when any one condition is lost, and when all are.
    fn prepare_losses(&mut self, kinds: &Kinds<'_>, numbers: &mut Numbers) {
        let current: Vec<_> = self.labels.known.iter().map(|(seen, _)| seen.clone()).collect();
        for seen in current {
            for lost in 0..seen.len() {
                let mut left = seen.clone();
                left.remove(lost);
                self.label(kinds, left, numbers);
            }
        }
        self.label(kinds, Vec::new(), numbers);
        // The one for nothing first.
        self.labels.known.sort_unstable();
    }
}

/// The selectors that mean an endpoint, ascending, and its user as in [`Term`].
type Kind = (Vec<SelectorId>, u32);

/// Endpoints by what the rules can see of them.
struct Kinds<'r> {
    resolved: &'r Resolved,
    conditions: &'r Conditions,
    /// In the order of their first endpoints.
    list: Vec<Kind>,
    /// By endpoint: a position in `list`.
    of_actors: Vec<usize>,
    /// By selector: the rules with it as a source, and as a destination.
    rules_of: Vec<(Vec<u32>, Vec<u32>)>,
    /// By user, as in [`Term`]: rules about "self" in which a device of that user is a source.
    own_rules: HashMap<u32, Vec<u32>>,
}

impl<'r> Kinds<'r> {
    fn of(resolved: &'r Resolved, conditions: &'r Conditions) -> Self {
        let mut selectors: Vec<Vec<SelectorId>> = vec![Vec::new(); resolved.users.len()];
        for (id, members) in (0..).zip(&resolved.members) {
            for actor in members.iter() {
                if let Some(selectors) = selectors.get_mut(position(*actor)) {
                    selectors.push(id);
                }
            }
        }
        let own_rules = own_rules(resolved);
        let mut known: HashMap<Kind, usize> = HashMap::new();
        let mut list = Vec::new();
        let mut of_actors = Vec::with_capacity(selectors.len());
        for (selectors, user) in selectors.into_iter().zip(&resolved.users) {
            // Whose it is matters only where a rule asks.
            let user = user.map_or(0, |user| user + 1);
            let user = if own_rules.contains_key(&user) { user } else { 0 };
            let next = list.len();
            of_actors.push(*known.entry((selectors, user)).or_insert_with_key(|kind| {
                list.push(kind.clone());
                next
            }));
        }
        Self { resolved, conditions, list, of_actors, rules_of: rules_of(resolved), own_rules }
    }

    fn see_few_conditions(&self) -> Result<(), Excess> {
        if self.conditions.len() <= CONDITIONS_MAX {
            return Ok(());
        }
        for kind in &self.list {
            let terms = self.terms(kind);
            let mut seen = BTreeSet::new();
            let mut first = None;
            for (rule, _) in &terms.from {
                seen.extend(self.conditions.of_rule(*rule));
                if seen.len() > CONDITIONS_MAX && first.is_none() {
                    first = Some(*rule);
                }
            }
            if first.is_some() {
                return Err(Excess::Conditions { found: seen.len(), rule: first });
            }
        }
        Ok(())
    }

    fn denies(&self, rule: u32) -> bool {
        self.resolved.rules.get(position(rule)).is_some_and(|rule| rule.denies)
    }

    fn maker(&self, kind: &Kind) -> Maker {
        let full = self.terms(kind);
        let conditions = full.from.iter().filter_map(|term| self.conditions.of_rule(term.0));
        let mut relevant: Vec<ConditionId> = conditions.collect();
        relevant.sort_unstable();
        relevant.dedup();
        Maker { full, labels: KindLabels { relevant, known: Vec::new() } }
    }

    fn terms(&self, (selectors, user): &Kind) -> Terms {
        let mut terms = Terms::default();
        for selector in selectors {
            let Some((from, to)) = self.rules_of.get(position(*selector)) else { continue };
            for rule in from {
                terms.from.push((*rule, 0));
                let own = self.resolved.rules.get(position(*rule)).is_some_and(|rule| rule.own);
                if own && *user != 0 {
                    terms.from.push((*rule, *user));
                }
            }
            terms.to.extend(to.iter().map(|rule| (*rule, 0)));
        }
        if *user != 0
            && let Some(rules) = self.own_rules.get(user)
        {
            terms.to.extend(rules.iter().map(|rule| (*rule, *user)));
        }
        for list in [&mut terms.from, &mut terms.to] {
            list.sort_unstable();
            list.dedup();
        }
        terms
    }
}

fn rules_of(resolved: &Resolved) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut rules_of = vec![(Vec::new(), Vec::new()); resolved.members.len()];
    for (index, rule) in (0..).zip(&resolved.rules) {
        for id in &rule.from {
            if let Some((from, _)) = rules_of.get_mut(position(*id)) {
                from.push(index);
            }
        }
        for id in &rule.to {
            if let Some((_, to)) = rules_of.get_mut(position(*id)) {
                to.push(index);
            }
        }
    }
    rules_of
}

fn own_rules(resolved: &Resolved) -> HashMap<u32, Vec<u32>> {
    let mut own_rules: HashMap<u32, Vec<u32>> = HashMap::new();
    for (index, rule) in (0..).zip(&resolved.rules) {
        if !rule.own {
            continue;
        }
        let members = rule.from.iter().filter_map(|id| resolved.members.get(position(*id)));
        for actor in members.flat_map(|members| members.iter()) {
            if let Some(Some(user)) = resolved.users.get(position(*actor)) {
                let rules = own_rules.entry(user + 1).or_default();
                if rules.last() != Some(&index) {
                    rules.push(index);
                }
            }
        }
    }
    own_rules
}

fn position(number: Actor) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Rule;
    use std::sync::Arc;

    /// Rules whose selectors are their own: whom each is from and to.
    fn resolved(rules: &[(&[Actor], &[Actor])], actors: usize) -> Resolved {
        let mut resolved = Resolved { users: vec![None; actors], ..Resolved::default() };
        for (at, (from, to)) in (0..).zip(rules) {
            resolved.members.extend([Arc::from(*from), Arc::from(*to)]);
            let rule = Rule { from: vec![2 * at], to: vec![2 * at + 1], ..Rule::default() };
            resolved.rules.push(rule);
        }
        resolved
    }

    /// Without conditions.
    fn sort(resolved: &Resolved, max: usize) -> Result<Classes, Excess> {
        let held = Held::default();
        Classes::of(resolved, &Conditions::default(), |_| &held, max)
    }

    fn labels(classes: &Classes) -> Vec<u16> {
        classes.labels.iter().map(|label| label.0).collect()
    }

    /// Ten endpoints: 1 and 2 are sources of the same rules, 3 of one more, 4 is a destination
    /// only, 5 both; 0 and the rest are in no rule.
    #[test]
    fn who_cannot_be_told_apart_shares_a_label_and_who_is_in_no_rule_has_none() {
        let rules: &[(&[Actor], &[Actor])] =
            &[(&[1, 2, 3, 5], &[4]), (&[3], &[5]), (&[1, 2, 3], &[4, 5])];
        let found = sort(&resolved(rules, 10), 6).unwrap();
        assert_eq!(labels(&found), [0, 1, 1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(found.count(), 5);
        let of = |rules: &[u32]| rules.iter().map(|rule| (*rule, 0)).collect::<Vec<Term>>();
        assert_eq!(found.terms[2], Terms { from: of(&[0, 1, 2]), to: vec![] });
        assert_eq!(found.terms[4], Terms { from: of(&[0]), to: of(&[1, 2]) });
    }

    /// Two users with two devices each and one without: only the first asks for its own.
    #[test]
    fn whose_a_device_is_matters_only_where_a_rule_asks() {
        let mut resolved = resolved(&[(&[0], &[])], 5);
        resolved.users = vec![Some(0), Some(0), Some(1), Some(1), None];
        assert_eq!(labels(&sort(&resolved, 9).unwrap()), [1, 0, 0, 0, 0]);
        resolved.rules[0].own = true;
        let found = sort(&resolved, 9).unwrap();
        assert_eq!(labels(&found), [1, 2, 0, 0, 0]);
        assert_eq!(found.terms[1], Terms { from: vec![(0, 0), (0, 1)], to: vec![(0, 1)] });
        assert_eq!(found.terms[2], Terms { from: vec![], to: vec![(0, 1)] });
    }

    #[test]
    fn a_policy_without_rules_has_the_one_label_that_may_nothing() {
        let found = sort(&resolved(&[], 3), 1).unwrap();
        assert_eq!((found.count(), labels(&found)), (1, vec![0; 3]));
    }

    #[test]
    fn too_many_kinds_are_counted() {
        let alone: Vec<Vec<Actor>> = (0..70_000).map(|actor| vec![actor]).collect();
        let rules: Vec<(&[Actor], &[Actor])> =
            alone.iter().map(|actor| (actor.as_slice(), &[][..])).collect();
        let of =
            |count, max| sort(&resolved(&rules[..count], 70_000), max).map(|found| found.count());
        assert_eq!(of(99, 100), Ok(100));
        assert_eq!(of(100, 100), Err(Excess::Labels { needed: 101, rule: Some(99) }));
        let beyond = Excess::Labels { needed: 70_001, rule: Some(65_534) };
        assert_eq!(of(70_000, usize::MAX), Err(beyond), "beyond sixteen bits");
    }
}
