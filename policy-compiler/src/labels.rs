//! From what holds for an endpoint to its label.
//!
//! A table knows some combinations of conditions for each kind of endpoint: what held when it was
//! compiled, the same less any one condition, and none at all. So a loss never waits for the
//! compiler. For any other combination the label of the largest known part of it is taken: never
//! more rights than hold, as many of them as the table can say.

use bulkhead_table::{EndpointId, LabelId};

use crate::condition::{ConditionId, Held};

/// The labels of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// By endpoint, 0 included: its kind, and the name of its device.
    pub(crate) endpoints: Vec<(u32, Option<String>)>,
    pub(crate) kinds: Vec<KindLabels>,
}

/// The labels of one kind of endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KindLabels {
    /// The conditions of the rules in which it is a source, ascending.
    pub(crate) relevant: Vec<ConditionId>,
    /// What held, ascending, and the label for it. The first is for nothing.
    pub(crate) known: Vec<(Vec<ConditionId>, LabelId)>,
}

impl KindLabels {
    /// What of `held` the rules can see of this kind.
    pub(crate) fn seen(&self, held: &Held) -> Vec<ConditionId> {
        self.relevant.iter().copied().filter(|id| held.has(*id)).collect()
    }
}

impl Labels {
    /// The device that an endpoint is of.
    #[must_use]
    pub fn device(&self, endpoint: EndpointId) -> Option<&str> {
        self.at(endpoint).and_then(|(_, device)| device.as_deref())
    }

    /// All endpoints, with the placeholder 0, and the devices that they are of.
    pub fn endpoints(&self) -> impl Iterator<Item = (EndpointId, Option<&str>)> {
        let numbers = (0..).map(EndpointId);
        numbers.zip(&self.endpoints).map(|(id, (_, device))| (id, device.as_deref()))
    }

    /// Whether the label of an endpoint depends on a condition.
    #[must_use]
    pub fn depends(&self, endpoint: EndpointId, id: ConditionId) -> bool {
        self.kind(endpoint).is_some_and(|kind| kind.relevant.binary_search(&id).is_ok())
    }

    /// The label for what holds, and whether it stands for all of that. An endpoint that does not
    /// exist has label 0.
    #[must_use]
    pub fn choose(&self, endpoint: EndpointId, held: &Held) -> (LabelId, bool) {
        let Some(kind) = self.kind(endpoint) else { return (LabelId(0), true) };
        let seen = kind.seen(held);
        let part = |known: &[ConditionId]| known.iter().all(|id| seen.binary_search(id).is_ok());
        // The first of the largest, so that the answer depends on nothing but the table.
        let mut best: Option<&(Vec<ConditionId>, LabelId)> = None;
        for known in kind.known.iter().filter(|(known, _)| part(known)) {
            if best.is_none_or(|best| best.0.len() < known.0.len()) {
                best = Some(known);
            }
        }
        best.map_or((LabelId(0), seen.is_empty()), |(known, label)| (*label, *known == seen))
    }

    fn kind(&self, endpoint: EndpointId) -> Option<&KindLabels> {
        let (kind, _) = self.at(endpoint)?;
        usize::try_from(*kind).ok().and_then(|kind| self.kinds.get(kind))
    }

    fn at(&self, endpoint: EndpointId) -> Option<&(u32, Option<String>)> {
        if endpoint.0 == 0 {
            return None;
        }
        usize::try_from(endpoint.0).ok().and_then(|at| self.endpoints.get(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(relevant: &[ConditionId], known: &[(&[ConditionId], u16)]) -> Labels {
        let known = known.iter().map(|(held, label)| (held.to_vec(), LabelId(*label))).collect();
        let kind = KindLabels { relevant: relevant.to_vec(), known };
        Labels { endpoints: vec![(0, None), (0, None)], kinds: vec![kind] }
    }

    fn held(ids: &[ConditionId]) -> Held {
        let mut held = Held::default();
        ids.iter().for_each(|id| held.set(*id, true));
        held
    }

    #[test]
    fn a_combination_that_the_table_does_not_know_gets_the_largest_known_part_of_it() {
        // Compiled while 1, 5 and 70 held; 9 is a condition of others.
        let labels = labels(
            &[1, 5, 6, 70],
            &[(&[], 1), (&[1, 5, 70], 2), (&[5, 70], 3), (&[1, 70], 4), (&[1, 5], 5)],
        );
        for (now, want) in [
            (&[1, 5, 70][..], (2, true)),
            (&[1, 5, 9, 70], (2, true)),
            (&[5, 70], (3, true)),
            (&[1, 5], (5, true)),
            (&[], (1, true)),
            (&[9], (1, true)),
            // Two lost at once, or another gained.
            (&[1], (1, false)),
            (&[1, 5, 6, 70], (2, false)),
            (&[1, 5, 6], (5, false)),
            (&[6], (1, false)),
        ] {
            let (label, exact) = labels.choose(EndpointId(1), &held(now));
            assert_eq!((label.0, exact), want, "{now:?}");
        }
        for nobody in [0, 2, u32::MAX] {
            assert_eq!(labels.choose(EndpointId(nobody), &held(&[1])), (LabelId(0), true));
        }
        assert!(labels.depends(EndpointId(1), 70) && !labels.depends(EndpointId(1), 9));
    }

    /// Every label that is chosen stands for nothing that does not hold.
    #[test]
    fn no_choice_gives_a_right_that_does_not_hold() {
        let all: Vec<Vec<ConditionId>> =
            (0..32u32).map(|set| (0..5).filter(|id| set >> id & 1 == 1).collect()).collect();
        for known in 0..1_024usize {
            let picked: Vec<(Vec<ConditionId>, LabelId)> = all
                .iter()
                .enumerate()
                .filter(|(at, _)| *at == 0 || (known * 2_654_435_761) >> (at + 3) & 1 == 1)
                .map(|(at, set)| (set.clone(), LabelId(u16::try_from(at).unwrap())))
                .collect();
            let kind = KindLabels { relevant: vec![0, 1, 2, 3, 4], known: picked.clone() };
            let labels = Labels { endpoints: vec![(0, None); 2], kinds: vec![kind] };
            for now in &all {
                let (label, exact) = labels.choose(EndpointId(1), &held(now));
                let stands_for = &all[usize::from(label.0)];
                assert!(stands_for.iter().all(|id| now.contains(id)), "{now:?} {stands_for:?}");
                assert_eq!(exact, stands_for == now);
                let better = picked.iter().any(|(set, _)| {
                    set.len() > stands_for.len() && set.iter().all(|id| now.contains(id))
                });
                assert!(!better, "{now:?} could have more than {stands_for:?}");
            }
        }
    }
}
