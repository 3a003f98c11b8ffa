//! Rules to cells: for each pair of labels the disjoint runs of services that may pass, each with
//! the first rule of the file that allows it. Where a rule denies there is no run.
//!
//! Beside them the remarks: where another than that rule makes the verdict, or would. Of each service
//! the first of
//!
//! | who is about it | remark |
//! |---|---|
//! | rules that deny, and rules that allow | the first that denies |
//! | rules that allow, and shadow rules that deny | the first of those |
//! | shadow rules that allow, and no rule that denies, shadow or not | the first of those |

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bulkhead_table::{Cells, LabelId, RuleIndex, Run, Service};

use crate::classes::{Classes, Term, Terms};
use crate::limits::{CELLS_MAX, RUNS_MAX};
use crate::resolve::Rule;

/// What is between two labels, as runs that all cells with the same rules share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lowered {
    allowed: Arc<[Run]>,
    remarks: Arc<[Run]>,
}

/// Cells under construction, within their limits.
struct Growing {
    pairs: Vec<(LabelId, LabelId)>,
    /// One for each pair.
    lists: Vec<Arc<[Run]>>,
    runs: usize,
    max: Max,
}

impl Growing {
    fn add(&mut self, pair: (LabelId, LabelId), runs: &Arc<[Run]>) -> Result<(), TooLarge> {
        if runs.is_empty() {
            return Ok(());
        }
        self.runs += runs.len();
        if self.pairs.len() >= self.max.cells {
            return Err(TooLarge::Cells);
        }
        if self.runs > self.max.runs {
            return Err(TooLarge::Runs);
        }
        self.pairs.push(pair);
        self.lists.push(Arc::clone(runs));
        Ok(())
    }

    fn done(self) -> Cells {
        self.pairs.into_iter().zip(self.lists).collect()
    }
}

/// How large the cells may become, all together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Max {
    pub(crate) cells: usize,
    pub(crate) runs: usize,
}

impl Default for Max {
    fn default() -> Self {
        Self { cells: CELLS_MAX, runs: RUNS_MAX }
    }
}

/// What would not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooLarge {
    Cells,
    Runs,
}

/// Lowers all rules, to the cells and the remarks of the draft.
///
/// # Errors
///
/// If there are more cells or runs than the limits allow; found before they are made.
pub(crate) fn cells(
    rules: &[Rule],
    classes: &Classes,
    max: Max,
) -> Result<(Cells, Cells), TooLarge> {
    let columns = Columns::of(classes);
    // Many labels are the same as sources, and many cells have the same rules: each of both is
    // worked out once.
    let mut rows: HashMap<&[Term], Vec<(usize, Lowered)>> = HashMap::new();
    let mut lists: HashMap<Vec<u32>, Lowered> = HashMap::new();
    let growing = || Growing { pairs: vec![], lists: vec![], runs: 0, max };
    let (mut cells, mut remarks) = (growing(), growing());
    for (source, terms) in (0..=u16::MAX).map(LabelId).zip(&classes.terms) {
        let row = rows.entry(&terms.from).or_insert_with(|| columns.row(rules, terms, &mut lists));
        for (column, lowered) in row {
            for destination in columns.labels.get(*column).map_or(&[][..], Vec::as_slice) {
                cells.add((source, *destination), &lowered.allowed)?;
                remarks.add((source, *destination), &lowered.remarks)?;
            }
        }
    }
    Ok((cells.done(), remarks.done()))
}

/// Labels that are the same as destinations.
struct Columns<'c> {
    /// By column.
    labels: Vec<Vec<LabelId>>,
    /// The columns of each way to be a destination.
    of_terms: HashMap<&'c Term, Vec<usize>>,
}

impl<'c> Columns<'c> {
    fn of(classes: &'c Classes) -> Self {
        let mut known: HashMap<&[Term], usize> = HashMap::new();
        let mut columns = Self { labels: Vec::new(), of_terms: HashMap::new() };
        for (label, terms) in (0..=u16::MAX).map(LabelId).zip(&classes.terms) {
            let next = columns.labels.len();
            let column = *known.entry(&terms.to).or_insert(next);
            if column == next {
                columns.labels.push(Vec::new());
                for term in &terms.to {
                    columns.of_terms.entry(term).or_default().push(column);
                }
            }
            if let Some(labels) = columns.labels.get_mut(column) {
                labels.push(label);
            }
        }
        columns
    }

    /// What a source may: the columns with at least one run, ascending.
    fn row(
        &self,
        rules: &[Rule],
        terms: &Terms,
        lists: &mut HashMap<Vec<u32>, Lowered>,
    ) -> Vec<(usize, Lowered)> {
        let mut rules_of: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for term in &terms.from {
            for column in self.of_terms.get(term).map_or(&[][..], Vec::as_slice) {
                let list = rules_of.entry(*column).or_default();
                // Terms are sorted, and a rule may join the two in more than one way.
                if list.last() != Some(&term.0) {
                    list.push(term.0);
                }
            }
        }
        rules_of
            .into_iter()
            .map(|(column, list)| {
                (column, lists.entry(list).or_insert_with_key(|list| lower(rules, list)).clone())
            })
            // All that is allowed may be denied, and a rule about no service joins nobody.
            .filter(|(_, lowered)| *lowered != Lowered::default())
            .collect()
    }
}

/// The runs of one cell: a sweep over the ends of all ranges, with the rules that are open there.
fn lower(rules: &[Rule], list: &[u32]) -> Lowered {
    // At a service: which rules' ranges begin (true) and which ended just before (false).
    let mut events: Vec<(Service, bool, u32)> = Vec::new();
    let kind = |index: u32| {
        rule_at(rules, index).map_or((false, false), |rule| (rule.denies, rule.shadow))
    };
    for index in list {
        for (first, last) in rule_at(rules, *index).map_or(&[][..], |rule| &rule.services) {
            events.push((*first, true, *index));
            if let Some(after) = last.next() {
                events.push((after, false, *index));
            }
        }
    }
    events.sort_unstable();

    // Ranges of one rule may overlap, so the open ones are counted.
    let [mut allowing, mut denying, mut would_allow, mut would_deny] =
        [const { BTreeMap::<u32, usize>::new() }; 4];
    let (mut allowed, mut remarks) = (vec![], vec![]);
    let mut events = events.into_iter().peekable();
    while let Some((at, begins, rule)) = events.next() {
        let open = match kind(rule) {
            (false, false) => &mut allowing,
            (true, false) => &mut denying,
            (false, true) => &mut would_allow,
            (true, true) => &mut would_deny,
        };
        count(open, rule, begins);
        let until = match events.peek() {
            Some((next, ..)) if *next == at => continue,
            Some((next, ..)) => next.previous(),
            None => Some(Service::MAX),
        };
        let Some(last) = until else { continue };
        // The smallest index is the first rule of the file.
        let [allows, denies, would_allow, would_deny] =
            [&allowing, &denying, &would_allow, &would_deny]
                .map(|open| open.keys().next().copied());
        let (rule, remark) = match (allows, denies) {
            (Some(_), Some(denies)) => (None, Some(denies)),
            (Some(allows), None) => (Some(allows), would_deny),
            (None, Some(_)) => (None, None),
            (None, None) => (None, would_allow.filter(|_| would_deny.is_none())),
        };
        let run = |rule| Run { first: at, last, rule: RuleIndex(rule) };
        if let Some(rule) = rule {
            extend(&mut allowed, run(rule));
        }
        if let Some(rule) = remark {
            extend(&mut remarks, run(rule));
        }
    }
    Lowered { allowed: allowed.into(), remarks: remarks.into() }
}

fn rule_at(rules: &[Rule], index: u32) -> Option<&Rule> {
    usize::try_from(index).ok().and_then(|index| rules.get(index))
}

fn count(open: &mut BTreeMap<u32, usize>, rule: u32, begins: bool) {
    let ranges = open.entry(rule).or_default();
    if begins {
        *ranges += 1;
    } else {
        // Events at one service are sorted with the ends first, but an end never precedes its own
        // beginning: a range is at least one service long.
        *ranges -= 1;
        if *ranges == 0 {
            open.remove(&rule);
        }
    }
}

/// Appends a run, or makes the last one longer if it is the same rule's and touches.
fn extend(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.rule == run.rule && last.last.next() == Some(run.first) => {
            last.last = run.last;
        }
        Some(_) | None => runs.push(run),
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]
mod tests {
    use super::{cells as cells_of, *};
    use proptest::prelude::*;

    /// The smallest services, those around a change of protocol, and the largest.
    fn service() -> impl Strategy<Value = Service> {
        let around = Service::tcp(65_530).bits();
        let last = Service::MAX.bits();
        let bits = prop_oneof![0..8u32, around..around + 12, last - 7..=last];
        bits.prop_map(|bits| Service::from_bits(bits).unwrap())
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let range = (service(), service()).prop_map(|(a, b)| (a.min(b), a.max(b)));
        let denies = prop::bool::weighted(0.3);
        let shadow = prop::bool::weighted(0.3);
        let rule = (prop::collection::vec(range, 0..4), denies, shadow);
        rule.prop_map(|(services, denies, shadow)| Rule {
            services,
            denies,
            shadow,
            ..Rule::default()
        })
    }

    proptest! {
        /// The twin looks at every range of every rule in turn.
        #[test]
        fn runs_name_the_first_rule_that_covers(
            rules in prop::collection::vec(rule(), 0..6),
            asked in prop::collection::vec(service(), 1..20),
        ) {
            // Every other rule is in the cell.
            let list: Vec<u32> = (0..rules.len() as u32).step_by(2).collect();
            let lowered = lower(&rules, &list);
            let named = |runs: &[Run], service| {
                let holds = |run: &&Run| run.first <= service && service <= run.last;
                runs.iter().find(holds).map(|run| run.rule.0)
            };
            for service in asked {
                let first = |denies, shadow| list.iter().copied().find(|index| {
                    let rule = &rules[*index as usize];
                    (rule.denies, rule.shadow) == (denies, shadow)
                        && rule.services.iter().any(|(a, b)| (*a..=*b).contains(&service))
                });
                let (allows, denies) = (first(false, false), first(true, false));
                let (would_allow, would_deny) = (first(false, true), first(true, true));
                let want = if denies.is_some() { None } else { allows };
                prop_assert_eq!(named(&lowered.allowed, service), want, "{}", service);
                let want = if allows.is_some() && denies.is_some() {
                    denies
                } else if allows.is_some() {
                    would_deny
                } else if denies.is_none() && would_deny.is_none() {
                    would_allow
                } else {
                    None
                };
                prop_assert_eq!(named(&lowered.remarks, service), want, "{}", service);
            }
            for runs in [&*lowered.allowed, &*lowered.remarks] {
                for run in runs {
                    prop_assert!(run.first <= run.last);
                }
                for pair in runs.windows(2) {
                    prop_assert!(pair[0].last < pair[1].first, "disjoint and sorted: {:?}", pair);
                    let touch = pair[0].last.next() == Some(pair[1].first);
                    prop_assert!(!touch || pair[0].rule != pair[1].rule, "one run: {:?}", pair);
                }
            }
        }
    }

    #[test]
    fn a_later_rule_fills_only_what_is_left() {
        let rule = |services: &[(Service, Service)]| Rule {
            services: services.to_vec(),
            ..Rule::default()
        };
        let tcp = |first, last| (Service::tcp(first), Service::tcp(last));
        let rules = [rule(&[tcp(80, 90), tcp(85, 95)]), rule(&[(Service::MIN, Service::MAX)])];
        let run = |first, last, rule| Run { first, last, rule: RuleIndex(rule) };
        assert_eq!(
            *lower(&rules, &[0, 1]).allowed,
            [
                run(Service::MIN, Service::tcp(79), 1),
                run(Service::tcp(80), Service::tcp(95), 0),
                run(Service::tcp(96), Service::MAX, 1),
            ]
        );
        assert_eq!(*lower(&rules, &[1]).allowed, [run(Service::MIN, Service::MAX, 1)]);
        assert_eq!(lower(&rules, &[]), Lowered::default());
    }

    /// Before or behind, and whatever else allows it.
    #[test]
    fn a_denial_cuts_its_services_out_of_all_others() {
        let rule = |first, last, denies| Rule {
            services: vec![(Service::tcp(first), Service::tcp(last))],
            denies,
            ..Rule::default()
        };
        let rules = [rule(1, 9, false), rule(4, 5, true), rule(5, 20, false)];
        let run = |first, last, rule| Run {
            first: Service::tcp(first),
            last: Service::tcp(last),
            rule: RuleIndex(rule),
        };
        let want = [run(1, 3, 0), run(6, 9, 0), run(10, 20, 2)];
        let lowered = lower(&rules, &[0, 1, 2]);
        assert_eq!(*lowered.allowed, want);
        assert_eq!(*lowered.remarks, [run(4, 5, 1)]);
        assert_eq!(lower(&rules, &[1]), Lowered::default(), "nothing would pass without it");
    }

    /// Three kinds of endpoints that may all speak to each other: nine cells of two runs.
    #[test]
    fn what_is_too_large_is_refused_and_what_just_fits_is_not() {
        let kind = |n: u32| Terms { from: vec![(0, 0), (0, n)], to: vec![(0, 0), (9, n)] };
        let terms = core::iter::once(Terms::default()).chain((1..=3).map(kind)).collect();
        let classes = Classes { labels: vec![], kind_of: vec![], kinds: vec![], terms };
        let rules = [Rule {
            services: vec![(Service::tcp(1), Service::tcp(2)), (Service::tcp(4), Service::tcp(4))],
            ..Rule::default()
        }];
        let made = |cells, runs| cells_of(&rules, &classes, Max { cells, runs });
        assert_eq!(made(9, 18).map(|(cells, _)| cells.len()), Ok(9));
        assert_eq!(made(8, 18), Err(TooLarge::Cells));
        assert_eq!(made(9, 17), Err(TooLarge::Runs));
    }
}
