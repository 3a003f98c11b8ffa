//! Which flows are logged: two bits for each rule, and two for what no rule allows.
//!
//! ```text
//!   rule 0 │ rule 1 │ … │ rule n-1 │ no rule │ zeros up to the word
//! ```
//!
//! Asked when a flow opens and when something is denied, so it is a section of its own: the runs that
//! every new flow is judged by stay as short as they are.

use zerocopy::byteorder::little_endian::U32;

use crate::{RuleIndex, TableError};

/// Which of its flows a rule has in the flow log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Log {
    /// None.
    #[default]
    None,
    /// Their beginnings, or that they were denied.
    New,
    /// As well as how they ended, with their counts.
    All,
}

/// Places of a word.
const PLACES: usize = 16;

/// Words for so many rules, and the place of none.
pub(crate) const fn words(rules: usize) -> usize {
    (rules + 1).div_ceil(PLACES)
}

/// What a table says about `rules` rules, of which all that are not named are not logged. Of several
/// words on one rule the last counts. The rules must exist.
pub(crate) fn pack(rules: usize, logs: &[(RuleIndex, Log)], no_rule: bool) -> Vec<U32> {
    let mut packed = vec![0u32; words(rules)];
    let denied = if no_rule { Log::New } else { Log::None };
    let all = logs.iter().map(|(rule, log)| (rule.0 as usize, *log)).chain([(rules, denied)]);
    for (place, log) in all {
        if let Some(word) = packed.get_mut(place / PLACES) {
            let at = 2 * (place % PLACES);
            *word = *word & !(3 << at) | (log as u32) << at;
        }
    }
    packed.into_iter().map(U32::new).collect()
}

/// What a table says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logs<'a> {
    pub(crate) words: &'a [U32],
    /// The place of what no rule allows.
    pub(crate) rules: usize,
}

impl Logs<'_> {
    /// Of a rule, or of none. Of a rule that there is not nothing is logged.
    pub(crate) fn of(&self, rule: Option<RuleIndex>) -> Log {
        let place = match rule {
            None => self.rules,
            Some(rule) if (rule.0 as usize) < self.rules => rule.0 as usize,
            Some(_) => return Log::None,
        };
        match self.bits(place) {
            1 => Log::New,
            2 => Log::All,
            _ => Log::None,
        }
    }

    fn bits(&self, place: usize) -> u32 {
        let word = self.words.get(place / PLACES).map_or(0, |word| word.get());
        word >> (2 * (place % PLACES)) & 3
    }

    /// That every place means something: what no rule allows has no end, and behind it there is nothing.
    pub(crate) fn check(&self) -> Result<(), TableError> {
        for place in 0..self.words.len() * PLACES {
            let most = match place {
                rule if rule < self.rules => Log::All,
                none if none == self.rules => Log::New,
                _ => Log::None,
            };
            let found = self.bits(place);
            if found > most as u32 {
                return Err(TableError::RuleLog { rule: place, found });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_own_log_and_so_has_what_no_rule_allows() {
        for rules in [0usize, 1, 14, 15, 16, 17, 40] {
            let log = |rule: usize| [Log::None, Log::New, Log::All][rule % 3];
            let all: Vec<_> =
                (0..rules).map(|at| (RuleIndex(u32::try_from(at).unwrap()), log(at))).collect();
            for denied in [false, true] {
                let words = pack(rules, &all, denied);
                let logs = Logs { words: &words, rules };
                for (rule, log) in &all {
                    assert_eq!(logs.of(Some(*rule)), *log, "{rule} of {rules}");
                }
                assert_eq!(logs.of(None), if denied { Log::New } else { Log::None });
                for beyond in [0, 1, 16] {
                    let beyond = RuleIndex(u32::try_from(rules).unwrap() + beyond);
                    assert_eq!(logs.of(Some(beyond)), Log::None);
                }
                assert_eq!(logs.check(), Ok(()));
            }
        }
    }

    #[test]
    fn the_last_word_on_a_rule_counts() {
        let words = pack(2, &[(RuleIndex(1), Log::All), (RuleIndex(1), Log::New)], false);
        assert_eq!(Logs { words: &words, rules: 2 }.of(Some(RuleIndex(1))), Log::New);
    }

    #[test]
    fn what_means_nothing_is_refused_at_its_place() {
        let refused = |word: u32| Logs { words: &[U32::new(word)], rules: 2 }.check().err();
        let error = |rule, found| Some(TableError::RuleLog { rule, found });
        assert_eq!([refused(0), refused(0b01_10_10)], [None, None]);
        assert_eq!(refused(0b11), error(0, 3));
        assert_eq!(refused(0b11_00), error(1, 3));
        assert_eq!(refused(0b10_00_00), error(2, 2), "denials have no end");
        assert_eq!(refused(0b01_00_00_00), error(3, 1));
        assert_eq!(refused(1 << 30), error(15, 1));
    }
}
