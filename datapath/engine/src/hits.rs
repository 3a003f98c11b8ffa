//! How often each rule of an edition was used, by one worker.
//!
//! ```text
//!   judge ── the rule goes with the packet ──▶ transmit ring ── taken ──▶ packet, its bytes
//!     ├ a flow was opened ──▶ flow
//!     └ denied ──▶ packet and bytes of the rule that denies, or of none
//! ```
//!
//! A packet is the hit of the rule that let it pass once the transmit ring has taken it, so of one
//! worker the packets of all rules that allow are those that ended as [`End::Forwarded`], and those of
//! the others are its denials.
//!
//! Only its worker writes; readers read each figure by itself, whenever they like. What a reader sees
//! is never more than is true, never less than what an earlier look saw, and everything once the
//! worker is at rest: between a rule's packets and its bytes there may be the rest of a batch.
//!
//! [`End::Forwarded`]: bulkhead_link::End::Forwarded

use bulkhead_table::RuleIndex;

use crate::atomic::{AtomicU64, Ordering};

/// The figures of one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// Packets that passed because of it, or were denied because of it.
    pub packets: u64,
    /// Their bytes, from the inner IP header on.
    pub bytes: u64,
    /// Flows that were opened because of it.
    pub flows: u64,
    /// When that was last, seconds of the datapath's clock; means nothing if all else is 0.
    pub last_s: u32,
}

impl Hit {
    /// Whether there is anything to tell.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.packets == 0 && self.flows == 0
    }

    /// Adds what another worker, or another edition, has counted of the same rule.
    pub fn add(&mut self, more: &Self) {
        if more.is_none() {
            return;
        }
        self.last_s = if self.is_none() { more.last_s } else { self.last_s.max(more.last_s) };
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.flows += more.flows;
    }
}

/// The figures of all rules of one edition, of one worker.
pub struct Hits {
    /// One more place than rules: the last is what no rule allows.
    lines: Box<[Line]>,
    rules: u32,
}

/// Two rules on a cache line, so that no line is of two workers.
#[derive(Default)]
#[repr(align(64))]
struct Line([Figures; 2]);

#[derive(Default)]
struct Figures {
    packets: AtomicU64,
    bytes: AtomicU64,
    flows: AtomicU64,
    last_s: AtomicU64,
}

impl Hits {
    /// Nothing yet, of so many rules.
    #[must_use]
    pub fn new(rules: u32) -> Self {
        let lines = (rules as usize + 1).div_ceil(2);
        Self { lines: (0..lines).map(|_| Line::default()).collect(), rules }
    }

    /// Packets of the rule went out. Only the worker may call it, as the other two.
    #[inline]
    pub fn passed(&self, rule: RuleIndex, packets: u64, bytes: u64, now_s: u32) {
        if let Some(figures) = self.figures(rule.0) {
            figures.count(packets, bytes, now_s);
        }
    }

    /// A flow was opened because of the rule.
    pub fn opened(&self, rule: RuleIndex, now_s: u32) {
        if let Some(figures) = self.figures(rule.0) {
            add(&figures.flows, 1);
            figures.last_s.store(u64::from(now_s), Ordering::Relaxed);
        }
    }

    /// A packet was denied: because of the rule, or because no rule allows it.
    pub fn denied(&self, rule: Option<RuleIndex>, bytes: u64, now_s: u32) {
        if let Some(figures) = self.figures(rule.map_or(self.rules, |rule| rule.0)) {
            figures.count(1, bytes, now_s);
        }
    }

    /// What was counted of a rule by now, or of what no rule allows.
    #[must_use]
    pub fn read(&self, rule: Option<RuleIndex>) -> Hit {
        self.figures(rule.map_or(self.rules, |rule| rule.0)).map_or_else(Hit::default, |figures| {
            Hit {
                packets: figures.packets.load(Ordering::Relaxed),
                bytes: figures.bytes.load(Ordering::Relaxed),
                flows: figures.flows.load(Ordering::Relaxed),
                last_s: u32::try_from(figures.last_s.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            }
        })
    }

    #[inline]
    fn figures(&self, place: u32) -> Option<&Figures> {
        let Line(pair) = self.lines.get((place >> 1) as usize)?;
        let [even, odd] = pair;
        Some(if place & 1 == 0 { even } else { odd })
    }
}

impl Figures {
    #[inline]
    fn count(&self, packets: u64, bytes: u64, now_s: u32) {
        add(&self.packets, packets);
        add(&self.bytes, bytes);
        self.last_s.store(u64::from(now_s), Ordering::Relaxed);
    }
}

/// There is one writer, so this needs no atomic addition.
#[inline]
fn add(figure: &AtomicU64, more: u64) {
    figure.store(figure.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_own_figures_and_the_last_place_is_that_of_none() {
        for rules in 0..5 {
            let hits = Hits::new(rules);
            for rule in 0..rules {
                hits.passed(RuleIndex(rule), 2, 100 + u64::from(rule), 7);
                hits.opened(RuleIndex(rule), 8);
            }
            hits.denied(None, 9, 5);
            // A rule that there is not is nobody's; the place of none is not counted for it.
            hits.denied(Some(RuleIndex(rules + 2)), 1_000, 5);
            for rule in 0..rules {
                let want = Hit { packets: 2, bytes: 100 + u64::from(rule), flows: 1, last_s: 8 };
                assert_eq!(hits.read(Some(RuleIndex(rule))), want);
            }
            assert_eq!(hits.read(None), Hit { packets: 1, bytes: 9, flows: 0, last_s: 5 });
            assert!(hits.read(Some(RuleIndex(rules + 2))).is_none());
        }
        assert_eq!(size_of::<Line>(), 64, "no line is of two workers");
    }

    #[test]
    fn sums_keep_the_latest_moment() {
        let mut sum = Hit::default();
        sum.add(&Hit { last_s: 99, ..Hit::default() });
        sum.add(&Hit { packets: 1, bytes: 10, flows: 0, last_s: 3 });
        sum.add(&Hit { packets: 0, bytes: 0, flows: 1, last_s: 2 });
        assert_eq!(sum, Hit { packets: 1, bytes: 10, flows: 1, last_s: 3 });
    }
}
