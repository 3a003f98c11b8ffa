//! How often each rule was used: the datapath knows rules by their tags, and here are the names.

use std::collections::BTreeMap;

use bulkhead_config::{Config, Rule};
use bulkhead_link::RuleHits;
use bulkhead_table::RuleTag;

use super::*;
use crate::api::{Effect, HitAnswer, HitsAnswer, RuleHitsAnswer};

impl State {
    /// The figures of all rules came, or a part of them.
    pub(super) fn hits(&mut self, token: u64, now_s: u32, more: bool, hits: Vec<RuleHits>) {
        // An answer that came too late has no question any more.
        let Some(question) = self.questions.get_mut(&token) else { return };
        question.hits.extend(hits);
        if more {
            return;
        }
        let Some(question) = self.questions.remove(&token) else { return };
        let answer = named(&self.intent.config, now_s, &question.hits);
        self.answer(question.id, Answer::Hits(Box::new(answer)));
    }
}

/// By the rules of this configuration.
fn named(config: &Config, now_s: u32, hits: &[RuleHits]) -> HitsAnswer {
    let mut of_tag: BTreeMap<u64, HitAnswer> = BTreeMap::new();
    for found in hits {
        merge(of_tag.entry(found.tag).or_default(), &answer_of(found, now_s));
    }
    let row = |rule: &Rule| RuleHitsAnswer {
        rule: rule.id.clone(),
        path: config.path.clone(),
        line: rule.place.line,
        effect: Effect::of(rule),
        hit: of_tag.remove(&RuleTag::of(&rule.id).0).unwrap_or_default(),
    };
    let rules = config.rules.iter().map(row).collect();
    let denied = of_tag.remove(&RuleTag::NONE.0).unwrap_or_default();
    let mut gone = HitAnswer::default();
    of_tag.values().for_each(|hit| merge(&mut gone, hit));
    HitsAnswer { counted_ms: u64::from(now_s) * 1_000, rules, denied, gone }
}

fn answer_of(hits: &RuleHits, now_s: u32) -> HitAnswer {
    let RuleHits { packets, bytes, flows, last_s, .. } = *hits;
    let ago_ms = u64::from(now_s.saturating_sub(last_s)) * 1_000;
    HitAnswer { packets, bytes, flows, last_ms: (packets > 0 || flows > 0).then_some(ago_ms) }
}

fn merge(sum: &mut HitAnswer, more: &HitAnswer) {
    sum.packets = sum.packets.saturating_add(more.packets);
    sum.bytes = sum.bytes.saturating_add(more.bytes);
    sum.flows = sum.flows.saturating_add(more.flows);
    sum.last_ms = sum.last_ms.into_iter().chain(more.last_ms).min();
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_config::{KeyFileError, KeySource, Secret};

    struct AnyKey;

    impl KeySource for AnyKey {
        fn secret(&self, _: &str) -> Result<Secret, KeyFileError> {
            Ok("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse().unwrap())
        }
    }

    #[test]
    fn hits_are_named_by_the_rules_in_force_and_what_is_gone_is_summed() {
        let text = include_str!("../../../config/examples/small-company.toml").to_owned()
            + "\n[[rule]]\nid = \"try\"\nfrom = [\"any\"]\nto = [\"any\"]\nservices = [\"any\"]\n\
               action = \"deny\"\nstage = \"shadow\"\n";
        let config = Config::parse_with("x.toml", &text, &AnyKey).unwrap();
        let first = config.rules[0].id.as_str();
        let hit = |name: &str, packets, last_s| RuleHits {
            tag: RuleTag::of(name).0,
            packets,
            bytes: 10 * packets,
            flows: 1,
            last_s,
        };
        let none = RuleHits { tag: 0, packets: 7, bytes: 70, flows: 0, last_s: 99 };
        let counted = [hit("gone", 3, 40), none, hit(first, 5, 90), hit("older", 2, 60)];
        let answer = named(&config, 100, &counted);
        assert_eq!((answer.counted_ms, answer.rules.len()), (100_000, config.rules.len()));
        let used = &answer.rules[0];
        assert_eq!((used.rule.as_str(), used.effect), (first, Effect::Allow));
        assert_eq!((used.path.as_str(), used.line), ("x.toml", config.rules[0].place.line));
        assert_eq!((used.hit.packets, used.hit.last_ms), (5, Some(10_000)));
        let tried = answer.rules.last().unwrap();
        assert_eq!((tried.effect, tried.hit), (Effect::WouldDeny, HitAnswer::default()));
        assert_eq!((answer.denied.packets, answer.denied.last_ms), (7, Some(1_000)));
        let gone = answer.gone;
        assert_eq!((gone.packets, gone.bytes, gone.flows, gone.last_ms), (5, 50, 2, Some(40_000)));
    }
}
