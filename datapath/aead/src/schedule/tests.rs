use super::*;
use proptest::prelude::*;

proptest! {
    /// Every message is there exactly once, those too long for a kernel apart, and none is followed by
    /// one that is longer by more than a bucket.
    #[test]
    fn aead_every_message_of_a_batch_is_in_its_place_once(
        order in 0..3,
        mut lens in proptest::collection::vec(prop_oneof![0..300_usize, 0..2_000_usize, 0..70_000_usize], 0..=BATCH_MAX),
    ) {
        match order {
            0 => lens.sort_unstable_by(|a, b| b.cmp(a)),
            1 => lens.sort_unstable(),
            _ => {}
        }
        let mut messages: Vec<_> = lens.iter().copied().enumerate().collect();
        prop_assert_eq!(Piece::of(&mut messages.iter_mut()).is_some(), !lens.is_empty());
        let Some(mut piece) = Piece::of(&mut messages.iter_mut()) else { return Ok(()) };
        let (too_long, others) = piece.sort(|(_, len)| *len);
        let mut seen = vec![];
        for (n, len) in too_long.iter().flatten().map(|message| **message) {
            prop_assert!(len > TEXT_MAX);
            seen.push(n);
        }
        let long = seen.len();
        let mut shortest_so_far = usize::MAX;
        for (n, len) in others.iter().map(|message| **message.as_ref().unwrap()) {
            prop_assert!(len <= TEXT_MAX);
            let bucket = len.div_ceil(BUCKET_LEN).min(BUCKETS - 2);
            prop_assert!(bucket <= shortest_so_far);
            shortest_so_far = bucket;
            seen.push(n);
        }
        prop_assert_eq!(long, lens.iter().filter(|len| **len > TEXT_MAX).count());
        seen.sort_unstable();
        prop_assert!(seen.into_iter().eq(0..lens.len()));
    }
}
