//! What was counted of each rule, under the editions that are in force and under those that were.
//!
//! ```text
//!   edition ── counted in by its workers ──▶ one worker has left it ──▶ past, by name of the rule
//! ```
//!
//! INVARIANT: of each edition that was sent to the workers, each worker's figures are either still in
//! the edition, which is kept for that, or in `past`. A worker that has confirmed another edition
//! writes to the one before no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_engine::{Edition, Hit};
use bulkhead_link::{FromDatapath, HITS_PART_MAX, RuleHits};
use bulkhead_table::{RuleIndex, RuleTag};

/// All figures.
#[derive(Default)]
pub(crate) struct HitBook {
    kept: Vec<Kept>,
    past: BTreeMap<RuleTag, Hit>,
}

/// An edition, and who counts in it or will.
struct Kept {
    edition: Arc<Edition>,
    /// By worker.
    counts: Vec<bool>,
}

impl HitBook {
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
        self.kept.retain(|kept| kept.counts.contains(&true));
    }

    /// What was counted by now, by name.
    fn read(&self) -> BTreeMap<RuleTag, Hit> {
        let mut all = self.past.clone();
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

/// Whatever a worker has counted in an edition, by name.
fn each_rule(edition: &Edition, worker: usize, mut tell: impl FnMut(RuleTag, Hit)) {
    let (view, hits) = (edition.table().view(), edition.hits(worker));
    let rules = u32::try_from(edition.table().rule_count()).unwrap_or(u32::MAX);
    for rule in (0..rules).map(RuleIndex) {
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
        let mut book = HitBook::default();
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

    #[test]
    fn an_answer_takes_as_many_messages_as_it_needs() {
        let mut book = HitBook::default();
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
            book = HitBook::default();
            let edition = edition(1, &(1..=rules).collect::<Vec<_>>());
            book.sent(&edition, 2);
            for rule in 0..u32::try_from(rules).unwrap() {
                edition.hits(1).opened(RuleIndex(rule), 1);
            }
            assert_eq!(sizes(&book), want);
        }
    }
}
