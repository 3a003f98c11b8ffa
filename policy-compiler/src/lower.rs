//! Rules to cells: for each pair of labels the disjoint runs of services that may pass, each with
//! the first rule of the file that allows it. Where a rule denies there is no run.

use std::collections::{BTreeMap, HashMap};

use bulkhead_table::{LabelId, RuleIndex, Run, Service};

use crate::classes::{Classes, Term, Terms};
use crate::limits::{CELLS_MAX, RUNS_MAX};
use crate::resolve::Rule;

/// The cells of the draft.
pub(crate) type Cells = BTreeMap<(LabelId, LabelId), Vec<Run>>;

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

/// Lowers all rules.
///
/// # Errors
///
/// If there are more cells or runs than the limits allow; found before they are made.
pub(crate) fn cells(rules: &[Rule], classes: &Classes, max: Max) -> Result<Cells, TooLarge> {
    let columns = Columns::of(classes);
    // Many labels are the same as sources, and many cells have the same rules: each of both is
    // worked out once.
    let mut rows: HashMap<&[Term], Vec<(usize, Vec<Run>)>> = HashMap::new();
    let mut lists: HashMap<Vec<u32>, Vec<Run>> = HashMap::new();
    let mut cells = Cells::new();
    let mut runs = 0;
    for (source, terms) in (0..=u16::MAX).map(LabelId).zip(&classes.terms) {
        let row = rows.entry(&terms.from).or_insert_with(|| columns.row(rules, terms, &mut lists));
        for (column, lowered) in row {
            for destination in columns.labels.get(*column).map_or(&[][..], Vec::as_slice) {
                runs += lowered.len();
                if cells.len() >= max.cells {
                    return Err(TooLarge::Cells);
                }
                if runs > max.runs {
                    return Err(TooLarge::Runs);
                }
                cells.insert((source, *destination), lowered.clone());
            }
        }
    }
    Ok(cells)
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
        lists: &mut HashMap<Vec<u32>, Vec<Run>>,
    ) -> Vec<(usize, Vec<Run>)> {
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
            .filter(|(_, lowered)| !lowered.is_empty())
            .collect()
    }
}

/// The runs of one cell: a sweep over the ends of all ranges, with the rules that are open there.
fn lower(rules: &[Rule], list: &[u32]) -> Vec<Run> {
    // At a service: which rules' ranges begin (true) and which ended just before (false).
    let mut events: Vec<(Service, bool, u32)> = Vec::new();
    let denies = |index: u32| rule_at(rules, index).is_some_and(|rule| rule.denies);
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
    let mut allowing: BTreeMap<u32, usize> = BTreeMap::new();
    let mut denying: BTreeMap<u32, usize> = BTreeMap::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut events = events.into_iter().peekable();
    while let Some((at, begins, rule)) = events.next() {
        count(if denies(rule) { &mut denying } else { &mut allowing }, rule, begins);
        let until = match events.peek() {
            Some((next, ..)) if *next == at => continue,
            Some((next, ..)) => next.previous(),
            None => Some(Service::MAX),
        };
        // The smallest index is the first rule of the file.
        if let (Some(last), Some(rule), true) = (until, allowing.keys().next(), denying.is_empty())
        {
            extend(&mut runs, Run { first: at, last, rule: RuleIndex(*rule) });
        }
    }
    runs
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
        let denies = prop::bool::weighted(0.2);
        (prop::collection::vec(range, 0..4), denies).prop_map(|(services, denies)| Rule {
            services,
            denies,
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
            let runs = lower(&rules, &list);
            for service in asked {
                let covering: Vec<u32> = list.iter().copied().filter(|index| {
                    rules[*index as usize].services.iter().any(|(a, b)| (*a..=*b).contains(&service))
                }).collect();
                let denied = covering.iter().any(|index| rules[*index as usize].denies);
                let first = covering.first().copied().map(RuleIndex);
                let want = if denied { None } else { first };
                let holds = |run: &&Run| run.first <= service && service <= run.last;
                prop_assert_eq!(runs.iter().find(holds).map(|run| run.rule), want, "{}", service);
            }
            for run in &runs {
                prop_assert!(run.first <= run.last);
            }
            for pair in runs.windows(2) {
                prop_assert!(pair[0].last < pair[1].first, "disjoint and sorted: {:?}", pair);
                let touch = pair[0].last.next() == Some(pair[1].first);
                prop_assert!(!touch || pair[0].rule != pair[1].rule, "one run: {:?}", pair);
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
            lower(&rules, &[0, 1]),
            [
                run(Service::MIN, Service::tcp(79), 1),
                run(Service::tcp(80), Service::tcp(95), 0),
                run(Service::tcp(96), Service::MAX, 1),
            ]
        );
        assert_eq!(lower(&rules, &[1]), [run(Service::MIN, Service::MAX, 1)]);
        assert_eq!(lower(&rules, &[]), []);
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
        assert_eq!(lower(&rules, &[0, 1, 2]), want);
        assert_eq!(lower(&rules, &[1]), []);
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
        assert_eq!(made(9, 18).map(|cells| cells.len()), Ok(9));
        assert_eq!(made(8, 18), Err(TooLarge::Cells));
        assert_eq!(made(9, 17), Err(TooLarge::Runs));
    }
}
