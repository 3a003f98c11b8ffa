//! What was counted of each rule.

use serde::{Deserialize, Serialize};

/// Rules that one message carries at most: with every figure at its longest some 200 KB, well below
/// [`crate::MESSAGE_MAX`].
pub const HITS_PART_MAX: usize = 4_000;

/// The figures of one rule since the datapath started, under all tables that had a rule of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHits {
    /// The name, as the table has it; 0: what no rule allows; or [`Self::OLDER`].
    pub tag: u64,
    /// Packets that passed, or were denied, because of it.
    pub packets: u64,
    /// Their bytes, from the inner IP header on.
    pub bytes: u64,
    /// Flows that were opened because of it.
    pub flows: u64,
    /// When that was last, in seconds of the datapath's clock.
    pub last_s: u32,
}

impl RuleHits {
    /// In the place of a name: the sum of the rules that are in no table any more and whose own
    /// figures are kept no more. That a rule has this tag is as unlikely as two rules with one.
    pub const OLDER: u64 = u64::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FromDatapath, MESSAGE_MAX};

    #[test]
    fn a_full_part_fits_its_message() {
        let (most, last_s) = (u64::MAX, u32::MAX);
        let one = RuleHits { tag: most, packets: most, bytes: most, flows: most, last_s };
        let hits = vec![one; HITS_PART_MAX];
        let message = FromDatapath::Hits { token: most, now_s: last_s, more: true, hits };
        assert!(postcard::to_stdvec(&message).unwrap().len() < MESSAGE_MAX / 2);
    }
}
