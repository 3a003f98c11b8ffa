//! What a rule is called in a table: the same in every generation, as long as its name is.

use blake2::digest::consts::U8;
use blake2::{Blake2s, Digest};

use crate::RuleTag;

impl RuleTag {
    /// The tag of the rule with this name: BLAKE2s-64 of it, but never [`RuleTag::NONE`]. Of a million
    /// names two share a tag with a probability of 3·10⁻⁸; their figures would be one.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let hash: [u8; 8] = Blake2s::<U8>::digest(name.as_bytes()).into();
        Self(u64::from_le_bytes(hash).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_that_of_the_name_in_every_release() {
        assert_eq!(RuleTag::of("hr"), RuleTag::of("hr"));
        assert_ne!(RuleTag::of("hr"), RuleTag::of("hr "));
        assert_ne!(RuleTag::of(""), RuleTag::NONE);
        // A running datapath keeps figures by these numbers across an upgrade of control.
        assert_eq!(RuleTag::of("hr").0, 12_725_166_835_471_780_147);
    }
}
