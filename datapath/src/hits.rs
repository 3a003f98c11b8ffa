//! What was counted of each rule, under the editions that are in force and under those that were.
//!
//! ```text
//!   edition ── counted in by its workers ──▶ one worker has left it ──▶ past, by name of the rule
//!                                              no edition has the name ──▶ older, without a name
//! ```
//!
//! INVARIANT: of each edition that was sent to the workers, each worker's figures are either still in
//! the edition, which is kept for that, or in `past`, or in `older`. A worker that has confirmed
//! another edition writes to the one before no more. So their sum is what was counted, and a rule of
//! an edition that is kept never loses any of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_engine::{Edition, Hit};
use bulkhead_link::{FromDatapath, HITS_PART_MAX, RuleHits};
use bulkhead_table::{RuleIndex, RuleTag};

/// Names that no edition has any more whose figures are kept all the same, for the apply that brings
/// the rule back. With fewer, a rollback that brings a large policy back finds less than was counted;
/// 4 MB of memory, and 16 messages in each answer. A gateway that gets a hundred new names a day
/// fills it in two years.
pub(crate) const GONE_MAX: usize = 1 << 16;

/// All figures.
pub(crate) struct HitBook {
    kept: Vec<Kept>,
    past: BTreeMap<RuleTag, Hit>,
    /// Of names that were used longest ago when more than `gone_max` were gone.
    older: Hit,
    gone_max: usize,
}

/// An edition, and who counts in it or will.
struct Kept {
    edition: Arc<Edition>,
    /// By worker.
    counts: Vec<bool>,
}

impl HitBook {
    /// Nothing counted yet; keeps the figures of so many rules that no edition has.
    pub(crate) fn new(gone_max: usize) -> Self {
        Self { kept: vec![], past: BTreeMap::new(), older: Hit::default(), gone_max }
    }

    /// An edition goes to all of `workers` workers.
    pub(crate) fn sent(&mut self, edition: &Arc<Edition>, workers: usize) {
        self.kept.push(Kept { edition: Arc::clone(edition), counts: vec![true; workers] });
    }

    /// A worker has left an edition for another.
    pub(crate) fn left(&mut self, worker: usize, edition: &Arc<Edition>) {
        let found = self.kept.iter_mut().find(|kept| Arc::ptr_eq(&kept.edition, edition));
        let Some(kept) = found else { return };
        let Some(counts) = kept.counts.get_mut(worker) else { return };
        if std::mem::take(counts) {
            let edition = Arc::clone(&kept.edition);
            each_rule(&edition, worker, |tag, hit| self.past.entry(tag).or_default().add(&hit));
        }
        let editions = self.kept.len();
        self.kept.retain(|kept| kept.counts.contains(&true));
        // A name goes with the last edition that has it.
        if self.kept.len() < editions {
            self.forget();
        }
    }

    /// Of the names that no edition has, those that were used longest ago lose theirs.
    fn forget(&mut self) {
        if self.past.len() <= self.gone_max {
            return;
        }
        let editions = self.kept.iter().map(|kept| &kept.edition);
        let mut known: Vec<RuleTag> = editions.flat_map(|edition| tags(edition)).collect();
        known.push(RuleTag::NONE);
        known.sort_unstable();
        let gone = self.past.iter().filter(|(tag, _)| known.binary_search(tag).is_err());
        let mut gone: Vec<_> = gone.map(|(tag, hit)| (hit.last_s, *tag)).collect();
        gone.sort_unstable();
        let surplus = gone.len().saturating_sub(self.gone_max);
        for (_, tag) in gone.into_iter().take(surplus) {
            self.older.add(&self.past.remove(&tag).unwrap_or_default());
        }
    }

    /// What was counted by now, by name.
    fn read(&self) -> BTreeMap<RuleTag, Hit> {
        let mut all = self.past.clone();
        if !self.older.is_none() {
            all.entry(RuleTag(RuleHits::OLDER)).or_default().add(&self.older);
        }
        for Kept { edition, counts } in &self.kept {
            for (worker, _) in counts.iter().enumerate().filter(|(_, counts)| **counts) {
                each_rule(edition, worker, |tag, hit| all.entry(tag).or_default().add(&hit));
            }
        }
        all
    }

    /// The answer to a question, in as many messages as it takes.
    pub(crate) fn answer(&self, token: u64, now_s: u32) -> Vec<FromDatapath> {
        let told = |(tag, hit): (RuleTag, Hit)| RuleHits {
            tag: tag.0,
            packets: hit.packets,
            bytes: hit.bytes,
            flows: hit.flows,
            last_s: hit.last_s,
        };
        let all: Vec<RuleHits> = self.read().into_iter().map(told).collect();
        let mut parts = all.chunks(HITS_PART_MAX).peekable();
        let mut messages = vec![];
        loop {
            let hits = parts.next().unwrap_or_default().to_vec();
            let more = parts.peek().is_some();
            messages.push(FromDatapath::Hits { token, now_s, more, hits });
            if !more {
                return messages;
            }
        }
    }
}

/// The rules of an edition.
fn rules(edition: &Edition) -> impl Iterator<Item = RuleIndex> + use<> {
    (0..u32::try_from(edition.table().rule_count()).unwrap_or(u32::MAX)).map(RuleIndex)
}

/// Their names.
fn tags(edition: &Edition) -> impl Iterator<Item = RuleTag> {
    let view = edition.table().view();
    rules(edition).map(move |rule| view.tag(rule))
}

/// Whatever a worker has counted in an edition, by name.
fn each_rule(edition: &Edition, worker: usize, mut tell: impl FnMut(RuleTag, Hit)) {
    let (view, hits) = (edition.table().view(), edition.hits(worker));
    for rule in rules(edition) {
        let hit = hits.read(Some(rule));
        if !hit.is_none() {
            tell(view.tag(rule), hit);
        }
    }
    let denied = hits.read(None);
    if !denied.is_none() {
        tell(RuleTag::NONE, denied);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use bulkhead_table::{Draft, Endpoint, LabelId, NextHop, PeerIndex, Table};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn edition(generation: u64, names: &[u64]) -> Arc<Edition> {
        let nobody = Endpoint { label: LabelId(0), next_hop: NextHop::Peer(PeerIndex(0)) };
        let draft = Draft {
            generation,
            labels: 1,
            endpoints: vec![nobody],
            rules: u32::try_from(names.len()).unwrap(),
            tags: names.iter().map(|name| RuleTag(*name)).collect(),
            ..Draft::default()
        };
        Arc::new(Edition::new(Table::new(Arc::new(draft.emit().unwrap())).unwrap(), 2))
    }

    fn packets(book: &HitBook) -> Vec<(u64, u64)> {
        book.read().into_iter().map(|(tag, hit)| (tag.0, hit.packets)).collect()
    }

    /// Rules keep their figures by name while tables come and go, workers change over one after the
    /// other, and a table is replaced before all have had it.
    #[test]
    fn hit_counters_follow_the_name_of_a_rule_from_table_to_table() {
        let (first, second, third) =
            (edition(1, &[7, 8]), edition(2, &[9, 7]), edition(3, &[7, 8, 9]));
        let mut book = HitBook::new(GONE_MAX);
        book.sent(&first, 2);
        first.hits(0).passed(RuleIndex(0), 10, 0, 1);
        first.hits(1).passed(RuleIndex(1), 20, 0, 1);
        first.hits(1).denied(None, 0, 1);
        assert_eq!(packets(&book), [(0, 1), (7, 10), (8, 20)]);
        book.sent(&second, 2);
        book.left(0, &first);
        second.hits(0).passed(RuleIndex(1), 100, 0, 1);
        first.hits(1).passed(RuleIndex(0), 1, 0, 1);
        assert_eq!(packets(&book), [(0, 1), (7, 111), (8, 20)]);
        // Worker 1 goes through the second at once to the third.
        book.sent(&third, 2);
        book.left(1, &first);
        book.left(1, &second);
        assert_eq!(book.kept.len(), 2, "the first is past");
        second.hits(0).passed(RuleIndex(0), 5, 0, 1);
        third.hits(1).passed(RuleIndex(2), 6, 0, 1);
        assert_eq!(packets(&book), [(0, 1), (7, 111), (8, 20), (9, 11)]);
        book.left(0, &second);
        book.left(0, &second);
        assert_eq!(packets(&book), [(0, 1), (7, 111), (8, 20), (9, 11)], "once");
        assert_eq!(book.kept.len(), 1);
    }

    /// One table after the other, each with one rule that is hit once, at the time of its number.
    #[test]
    fn the_names_that_are_gone_are_bounded_and_those_used_longest_ago_lose_theirs() {
        let mut book = HitBook::new(2);
        // The first comes back before it is forgotten, so the second was used longest ago.
        let tables: Vec<_> =
            (1..).zip([1, 2, 3, 1, 4, 5]).map(|(at, name)| edition(at, &[name])).collect();
        book.sent(&tables[0], 1);
        for (now_s, pair) in (1..).zip(tables.windows(2)) {
            pair[0].hits(0).passed(RuleIndex(0), 10, 0, now_s);
            pair[0].hits(0).denied(None, 0, 0);
            book.sent(&pair[1], 1);
            book.left(0, &pair[0]);
        }
        let older = RuleHits::OLDER;
        assert_eq!(packets(&book), [(0, 5), (1, 20), (4, 10), (older, 20)]);
        assert_eq!(book.read()[&RuleTag(older)].last_s, 3, "of the last of them");
        // A rule that comes back after that counts from nothing, and the sum is whole.
        let back = edition(7, &[3]);
        book.sent(&back, 1);
        back.hits(0).passed(RuleIndex(0), 1, 0, 9);
        assert_eq!(packets(&book), [(0, 5), (1, 20), (3, 1), (4, 10), (older, 20)]);
    }

    /// Names that a book with a bound of two is asked to keep: a few, so that they come back.
    const NAMES: u64 = 12;

    #[derive(Clone, Debug)]
    enum Step {
        Table(BTreeSet<u64>),
        Pass { worker: usize, rule: u32, packets: u64 },
        Deny { worker: usize },
        Leave { worker: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        let worker = 0..2usize;
        prop_oneof![
            prop::collection::btree_set(1..=NAMES, 1..4).prop_map(Step::Table),
            (worker.clone(), 0..4u32, 1..100u64).prop_map(|(worker, rule, packets)| Step::Pass {
                worker,
                rule,
                packets
            }),
            worker.clone().prop_map(|worker| Step::Deny { worker }),
            worker.prop_map(|worker| Step::Leave { worker }),
        ]
    }

    /// What was counted of each name, by a twin that forgets nothing.
    type Counted = BTreeMap<u64, Hit>;

    fn sum<'a>(hits: impl Iterator<Item = &'a Hit>) -> (u64, u64) {
        hits.fold((0, 0), |(packets, bytes), hit| (packets + hit.packets, bytes + hit.bytes))
    }

    /// Goal: whatever is forgotten, the totals are exact, and a rule of an edition that some worker
    /// may still count in has all that was counted since it was last forgotten.
    /// Method: random tables, hits and changes of edition, beside a twin.
    fn totals_are_kept(steps: Vec<Step>) -> Result<(), TestCaseError> {
        let mut book = HitBook::new(2);
        let (mut editions, mut at) = (vec![edition(1, &[1])], [0; 2]);
        let (mut counted, mut now_s) = (Counted::new(), 0);
        book.sent(&editions[0], 2);
        for step in steps {
            now_s += 1;
            let before = packets(&book);
            match step {
                Step::Table(names) => {
                    let generation = editions.len() as u64 + 1;
                    editions.push(edition(generation, &names.into_iter().collect::<Vec<_>>()));
                    book.sent(editions.last().unwrap(), 2);
                }
                Step::Pass { worker, rule, packets } => {
                    let edition = &editions[at[worker]];
                    let rules = u32::try_from(edition.table().rule_count()).unwrap();
                    let rule = RuleIndex(rule % rules);
                    edition.hits(worker).passed(rule, packets, 2 * packets, now_s);
                    let hit = Hit { packets, bytes: 2 * packets, flows: 0, last_s: now_s };
                    counted.entry(edition.table().view().tag(rule).0).or_default().add(&hit);
                }
                Step::Deny { worker } => {
                    editions[at[worker]].hits(worker).denied(None, 1, now_s);
                    let hit = Hit { packets: 1, bytes: 1, flows: 0, last_s: now_s };
                    counted.entry(0).or_default().add(&hit);
                }
                Step::Leave { worker } if at[worker] + 1 < editions.len() => {
                    book.left(worker, &editions[at[worker]]);
                    at[worker] += 1;
                }
                Step::Leave { .. } => {}
            }
            let read = book.read();
            prop_assert_eq!(sum(read.values()), sum(counted.values()));
            prop_assert_eq!(read.get(&RuleTag::NONE), counted.get(&0));
            let known: BTreeSet<RuleTag> =
                editions[*at.iter().min().unwrap()..].iter().flat_map(|all| tags(all)).collect();
            let gone = book.past.keys().filter(|tag| !known.contains(tag) && tag.0 != 0).count();
            prop_assert!(gone <= 2, "{} names are gone", gone);
            let lost = before.iter().filter(|(tag, packets)| {
                let now = read.get(&RuleTag(*tag)).map_or(0, |hit| hit.packets);
                known.contains(&RuleTag(*tag)) && now < *packets
            });
            prop_assert_eq!(lost.count(), 0, "a rule that is in a table has lost figures");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn whatever_is_forgotten_the_sum_of_all_hits_is_what_was_counted(
            steps in prop::collection::vec(step(), 0..40)
        ) {
            totals_are_kept(steps)?;
        }
    }

    #[test]
    fn an_answer_takes_as_many_messages_as_it_needs() {
        let mut book = HitBook::new(GONE_MAX);
        let sizes = |book: &HitBook| -> Vec<(usize, bool)> {
            let size = |message| {
                let FromDatapath::Hits { token: 5, now_s: 9, more, hits } = message else {
                    panic!("{message:?}")
                };
                (hits.len(), more)
            };
            book.answer(5, 9).into_iter().map(size).collect()
        };
        assert_eq!(sizes(&book), [(0, false)]);
        for (rules, want) in
            [(4_000, vec![(4_000, false)]), (4_001, vec![(4_000, true), (1, false)])]
        {
            book = HitBook::new(GONE_MAX);
            let edition = edition(1, &(1..=rules).collect::<Vec<_>>());
            book.sent(&edition, 2);
            for rule in 0..u32::try_from(rules).unwrap() {
                edition.hits(1).opened(RuleIndex(rule), 1);
            }
            assert_eq!(sizes(&book), want);
        }
    }
}
