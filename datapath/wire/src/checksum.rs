//! The internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// The checksum of `bytes`, as it stands in a header whose checksum field is zero. Over a header
/// that already carries its right checksum the result is 0.
#[inline]
#[must_use]
pub fn of(bytes: &[u8]) -> u16 {
    Sum::default().with(bytes).finish()
}

/// Whether a header carries its right checksum, for headers of which not every byte is zero:
/// [`of`] it is 0.
///
/// The sum of the words is then a multiple of 0xffff, in either byte order, and none of the folding
/// is needed to see that.
#[inline]
#[must_use]
pub fn is_right(header: &[u8; 20]) -> bool {
    let Sum(sum) = Sum::default().with(header);
    sum.is_multiple_of(0xffff)
}

/// The checksum after one aligned 16-bit word changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    // Three 16-bit values are below 2^18, once folded at most 0x10001.
    let sum = u32::from(!checksum).wrapping_add(u32::from(!old)).wrapping_add(u32::from(new));
    let half = |sum: u32| (sum >> 16).wrapping_add(sum & 0xffff);
    let [_, _, high, low] = half(half(sum)).to_be_bytes();
    !u16::from_be_bytes([high, low])
}

/// A sum in progress, for checksums over several slices. Only the last may have an odd length.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes.
    // Words are summed in the machine's byte order and the sum is swapped at the end: RFC 1071
    // §2 (B). 32-bit words in a 64-bit sum cannot overflow below 16 GiB.
    #[inline]
    pub fn with(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
        if !rest.is_empty() {
            let mut last = [0; 4];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(last)));
        }
        Self(sum)
    }

    /// The checksum: the complement of the folded sum.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u16 {
        u16::from_be_bytes((!fold(self.0)).to_ne_bytes())
    }
}

/// Folds a sum to 16 bits with end-around carry.
#[inline]
fn fold(sum: u64) -> u16 {
    let half = |sum: u64, bits: u32, mask: u64| (sum >> bits).wrapping_add(sum & mask);
    let sum = half(sum, 32, 0xffff_ffff);
    // At most 33 bits, then 18, 17, 16.
    let sum = half(half(half(sum, 16, 0xffff), 16, 0xffff), 16, 0xffff);
    let [.., high, low] = sum.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow twin: the text of RFC 1071 §4.1, one word at a time.
    pub(crate) fn twin(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    /// RFC 1624 §4: the example where the older equation was wrong.
    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn the_largest_sums_fold() {
        for len in [0, 1, 2, 3, 4, 5, 65_535, 65_536] {
            assert_eq!(of(&vec![0xff; len]), twin(&vec![0xff; len]), "{len}");
        }
    }

    proptest! {
        #[test]
        fn equals_the_twin(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            prop_assert_eq!(of(&bytes), twin(&bytes));
            let (a, b) = bytes.split_at((2 * cut).min(bytes.len()));
            if a.len() % 2 == 0 {
                prop_assert_eq!(Sum::default().with(a).with(b).finish(), twin(&bytes));
            }
        }

        #[test]
        fn a_right_header_is_told_from_a_wrong_one(mut header: [u8; 20], change: u16, at in 0usize..10) {
            header[0] |= 0x40;
            prop_assert_eq!(is_right(&header), twin(&header) == 0);
            header[10..12].fill(0);
            let sum = twin(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            prop_assert!(is_right(&header));
            let word = [header[2 * at], header[2 * at + 1]].map(u16::from);
            let changed = (word[0] << 8 | word[1]) ^ change;
            header[2 * at..2 * at + 2].copy_from_slice(&changed.to_be_bytes());
            prop_assert_eq!(is_right(&header), twin(&header) == 0);
        }

        /// A header always contains a word that is not zero (the version), so both zeros of the
        /// one's complement cannot be confused.
        #[test]
        fn update_equals_recomputation(
            mut words in prop::collection::vec(any::<u16>(), 2..20), at in 1usize..20, new: u16
        ) {
            let at = 1 + at % (words.len() - 1);
            words[0] |= 0x4500;
            let bytes = |words: &[u16]| -> Vec<u8> {
                words.iter().flat_map(|word| word.to_be_bytes()).collect()
            };
            let (before, old) = (of(&bytes(&words)), words[at]);
            words[at] = new;
            prop_assert_eq!(update(before, old, new), of(&bytes(&words)));
        }
    }
}
