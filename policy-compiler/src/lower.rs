//! Rules to cells: for each pair of labels the disjoint runs of services that may pass, each with
//! the first rule of the file that allows it.

use std::collections::BTreeMap;

use bulkhead_table::{LabelId, RuleIndex, Run, Service};

use crate::classes::Classes;
use crate::limits::{CELLS_MAX, RUNS_MAX};
use crate::resolve::Resolved;

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
pub(crate) fn cells(rules: &[Resolved], classes: &Classes, max: Max) -> Result<Cells, TooLarge> {
    let mut rules_of_cell: BTreeMap<(LabelId, LabelId), Vec<usize>> = BTreeMap::new();
    for (index, (from, to)) in classes.of_rules.iter().enumerate() {
        for source in from {
            for destination in to {
                rules_of_cell.entry((*source, *destination)).or_default().push(index);
            }
            if rules_of_cell.len() > max.cells {
                return Err(TooLarge::Cells);
            }
        }
    }
    // Many cells have the same rules; their runs are worked out once.
    let mut known: BTreeMap<Vec<usize>, Vec<Run>> = BTreeMap::new();
    let mut cells = Cells::new();
    let mut runs = 0;
    for (pair, list) in rules_of_cell {
        let lowered = known.entry(list).or_insert_with_key(|list| lower(rules, list));
        runs += lowered.len();
        if runs > max.runs {
            return Err(TooLarge::Runs);
        }
        // A rule about services that do not exist joins nobody.
        if !lowered.is_empty() {
            cells.insert(pair, lowered.clone());
        }
    }
    Ok(cells)
}

/// The runs of one cell: a sweep over the ends of all ranges, with the rules that are open there.
fn lower(rules: &[Resolved], list: &[usize]) -> Vec<Run> {
    // At a service: which rules' ranges begin (true) and which ended just before (false).
    let mut events: Vec<(Service, bool, usize)> = Vec::new();
    for index in list {
        for (first, last) in rules.get(*index).map_or(&[][..], |rule| &rule.services) {
            events.push((*first, true, *index));
            if let Some(after) = last.next() {
                events.push((after, false, *index));
            }
        }
    }
    events.sort_unstable();

    // Ranges of one rule may overlap, so the open ones are counted.
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut events = events.into_iter().peekable();
    while let Some((at, begins, rule)) = events.next() {
        count(&mut open, rule, begins);
        let until = match events.peek() {
            Some((next, ..)) if *next == at => continue,
            Some((next, ..)) => next.previous(),
            None => Some(Service::MAX),
        };
        // The smallest index is the first rule of the file.
        let first_rule = open.keys().next().and_then(|rule| u32::try_from(*rule).ok());
        if let (Some(last), Some(rule)) = (until, first_rule) {
            extend(&mut runs, Run { first: at, last, rule: RuleIndex(rule) });
        }
    }
    runs
}

fn count(open: &mut BTreeMap<usize, usize>, rule: usize, begins: bool) {
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
mod tests {
    use super::{cells as cells_of, *};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The smallest services, those around a change of protocol, and the largest.
    fn service() -> impl Strategy<Value = Service> {
        let around = Service::tcp(65_530).bits();
        let last = Service::MAX.bits();
        let bits = prop_oneof![0..8u32, around..around + 12, last - 7..=last];
        bits.prop_map(|bits| Service::from_bits(bits).unwrap())
    }

    fn rule() -> impl Strategy<Value = Resolved> {
        let range = (service(), service()).prop_map(|(a, b)| (a.min(b), a.max(b)));
        prop::collection::vec(range, 0..4).prop_map(|services| Resolved {
            from: BTreeSet::new(),
            to: BTreeSet::new(),
            services,
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
            let list: Vec<usize> = (0..rules.len()).step_by(2).collect();
            let runs = lower(&rules, &list);
            for service in asked {
                let covers = |index: &&usize| {
                    rules[**index].services.iter().any(|(a, b)| (*a..=*b).contains(&service))
                };
                let want = list.iter().find(covers).map(|index| RuleIndex(u32::try_from(*index).unwrap()));
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
        let rule = |services: &[(Service, Service)]| Resolved {
            from: BTreeSet::new(),
            to: BTreeSet::new(),
            services: services.to_vec(),
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

    /// Three kinds of endpoints that may all speak to each other: nine cells of two runs.
    #[test]
    fn what_is_too_large_is_refused_and_what_just_fits_is_not() {
        let all: Vec<LabelId> = (1..=3).map(LabelId).collect();
        let classes = Classes { labels: vec![], of_rules: vec![(all.clone(), all)], count: 4 };
        let rules = [Resolved {
            from: BTreeSet::new(),
            to: BTreeSet::new(),
            services: vec![(Service::tcp(1), Service::tcp(2)), (Service::tcp(4), Service::tcp(4))],
        }];
        let made = |cells, runs| cells_of(&rules, &classes, Max { cells, runs });
        assert_eq!(made(9, 18).map(|cells| cells.len()), Ok(9));
        assert_eq!(made(8, 18), Err(TooLarge::Cells));
        assert_eq!(made(9, 17), Err(TooLarge::Runs));
    }
}
