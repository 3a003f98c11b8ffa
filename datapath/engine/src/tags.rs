//! Two buckets of eight entries each that are looked through without looking at the entries.
//!
//! An entry is a cache line, so to compare sixteen of them is to wait for sixteen lines. A byte of the hash
//! for each, side by side, tells all but one in a hundred of those apart that are not wanted.
//!
//! Each entry may be in either of two buckets, and a new one goes into the emptier: then hardly any bucket
//! ever fills up before all do (Azar et al., Balanced Allocations, 1994).

/// Entries of a bucket.
pub(crate) const WAYS: usize = 8;

/// The tags of a bucket, one for each entry.
pub(crate) type Tags = [u8; WAYS];

/// The tag of a free entry.
pub(crate) const FREE: u8 = 0;

/// The tag of an entry whose hash has this byte; never [`FREE`].
#[inline]
pub(crate) const fn tag_of(byte: u8) -> u8 {
    byte | 0x80
}

/// The free way of the emptier of two buckets, if any: which bucket, and which way.
#[inline]
pub(crate) fn free(tags: [Tags; 2]) -> Option<(usize, usize)> {
    let [first, second] =
        tags.map(|tags| Candidates::of([tags, [!FREE; WAYS]], FREE).0.count_ones());
    let which = usize::from(second > first);
    let way = tags.get(which)?.iter().position(|tag| *tag == FREE)?;
    Some((which, way))
}

/// The entries of two buckets whose tag is equal, found in all at once: the top bit of the byte of each.
#[derive(Clone, Copy)]
pub(crate) struct Candidates(u128);

impl Candidates {
    /// A byte of the difference is zero where the tags are equal. Taking 1 from each byte borrows
    /// through such a byte, so one above it may be taken for equal as well; that costs a comparison
    /// of the entries, and nothing else.
    #[inline]
    pub(crate) fn of([first, second]: [Tags; 2], tag: u8) -> Self {
        const ONES: u128 = u128::from_le_bytes([1; 2 * WAYS]);
        let tags = u128::from(u64::from_le_bytes(first))
            | u128::from(u64::from_le_bytes(second)) << u64::BITS;
        let difference = tags ^ (ONES * u128::from(tag));
        Self(difference.wrapping_sub(ONES) & !difference & (ONES << 7))
    }
}

/// Which bucket, and which way of it.
impl Iterator for Candidates {
    type Item = (usize, usize);

    #[inline]
    fn next(&mut self) -> Option<(usize, usize)> {
        let at = (self.0 != 0).then_some(self.0.trailing_zeros() as usize / 8)?;
        self.0 &= self.0 - 1;
        Some((at / WAYS, at % WAYS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The twin: one tag after the other. What is found besides is harmless, and stands above.
        #[test]
        fn equal_tags_are_all_found(tags: [Tags; 2], tag: u8, equal: [bool; 2 * WAYS]) {
            let mut tags = tags;
            let places = tags.as_flattened_mut().iter_mut().zip(equal);
            places.filter(|(_, equal)| *equal).for_each(|(place, _)| *place = tag);
            let all = (0..2).flat_map(|which| (0..WAYS).map(move |way| (which, way)));
            let found: Vec<_> = Candidates::of(tags, tag).collect();
            let want: Vec<_> = all.filter(|(which, way)| tags[*which][*way] == tag).collect();
            prop_assert!(want.iter().all(|at| found.contains(at)), "{:?} of {:?}", found, want);
            prop_assert_eq!(found.first(), want.first());
            prop_assert!(found.is_sorted() && found.iter().all(|(_, way)| *way < WAYS));
        }

        /// A free way, of the bucket with more of them.
        #[test]
        fn the_emptier_bucket_is_filled(used: [[bool; WAYS]; 2], byte: u8) {
            let tags = used.map(|used| used.map(|used| if used { tag_of(byte) } else { FREE }));
            let free_of = tags.map(|tags| tags.iter().filter(|tag| **tag == FREE).count());
            match free(tags) {
                Some((which, way)) => {
                    prop_assert_eq!(tags[which][way], FREE);
                    prop_assert_eq!(free_of[which], free_of[0].max(free_of[1]));
                }
                None => prop_assert_eq!(free_of, [0, 0]),
            }
        }
    }
}
