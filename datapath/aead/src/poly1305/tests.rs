use proptest::prelude::*;

use super::*;

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let mut digits = hex.bytes().filter(u8::is_ascii_hexdigit);
    std::array::from_fn(|_| {
        let pair = [digits.next().unwrap(), digits.next().unwrap()];
        u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap()
    })
}

/// RFC 8439 §2.8.2, with its additional data, which the batches never have.
#[test]
fn aead_rfc_8439_tag_of_the_example_with_additional_data() {
    let mut keys = OneTimeKeys::<4>::new();
    let block: [u8; 32] = bytes("7bac2b252db447af09b67a55a4e955840ae1d6731075d9eb2a9375783ed553ff");
    for (words, word) in keys.words.iter_mut().zip(block.as_chunks().0) {
        words[2] = u32::from_le_bytes(*word);
    }
    let ciphertext: [u8; 114] = bytes(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6\
         3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36\
         92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
         3ff4def08e4b7a9de576d26586cec64b6116",
    );
    let aad: [u8; 12] = bytes("50515253c0c1c2c3c4c5c6c7");
    let key = keys.of(2);
    let mut accumulator = Accumulator::new(&key);
    accumulator.text(&aad);
    accumulator.text(&ciphertext);
    accumulator.block(u128::from(114_u64) << 64 | 12);
    assert_eq!(accumulator.tag(&key), bytes("1ae10b594f09e26a7e902ecbd0600691"));
}

/// The reduction at the end, around multiples of the modulus, and for limbs that carry far.
#[test]
fn aead_poly1305_edges_the_final_reduction_is_complete() {
    let tag = |h| u128::from_le_bytes(finish(h, 0));
    // 2^130 - 5 is 0, its neighbours are -1 and 1.
    let p = [MASK_44 - 4, MASK_44, MASK_42];
    assert_eq!(tag(p), 0);
    assert_eq!(tag([p[0] - 1, p[1], p[2]]), u128::MAX - 5, "p - 1, modulo 2^128");
    assert_eq!(tag([p[0] + 1, p[1], p[2]]), 1);
    assert_eq!(tag([MASK_44, MASK_44, MASK_42]), 4);
    assert_eq!(tag([MASK_44 + 1, MASK_44, MASK_42]), 5, "2^130");
    assert_eq!(tag([0, 0, 1 << 42]), 5, "2^130, not carried");
    assert_eq!(tag([0, 0, 1 << 43]), 10);
    // Twice the modulus, in limbs too large for their radix.
    assert_eq!(tag([2 * p[0], 2 * p[1], 2 * p[2]]), 0);
    // One bit that runs through all limbs and around.
    assert_eq!(tag([MASK_44 - 4, MASK_44, MASK_42 + (1 << 42)]), 5);
    let s = u128::MAX;
    assert_eq!(finish([1, 0, 0], s), [0; 16], "the sum with s is modulo 2^128");
}

#[test]
fn aead_a_piece_is_the_text_and_then_zeros() {
    let text: Vec<u8> = (1..=100).collect();
    for at in 0..130 {
        let mut want = [0; 64];
        for (to, from) in want.iter_mut().zip(text.iter().skip(at)) {
            *to = *from;
        }
        assert_eq!(piece(&text, at), want, "{at}");
    }
}

/// The number that the limbs are, modulo 2^130 - 5 and then 2^128, in two halves of 128 bits.
fn reduced(h: [u64; 3]) -> u128 {
    let (mut low, mut high) = (0_u128, 0_u128);
    for (limb, place) in h.map(u128::from).into_iter().zip([0, 44, 88]) {
        let (sum, carried) = low.overflowing_add(limb << place);
        low = sum;
        high += u128::from(carried) + limb.checked_shr(128 - place).unwrap_or(0);
    }
    // x = rest + 2^130 * above = rest + 5 * above.
    while high >> 2 > 0 {
        let (sum, carried) = low.overflowing_add((high >> 2) * 5);
        (low, high) = (sum, (high & 3) + u128::from(carried));
    }
    // 2^130 - 5 is three times 2^128, and this.
    let rest = u128::MAX - 4;
    if high == 3 && low >= rest { low - rest } else { low }
}

/// Limbs, most of them where a carry begins or ends.
fn limb(bits: u32) -> impl Strategy<Value = u64> {
    let edge = 1_u64 << bits;
    prop_oneof![
        0..8_u64,
        edge - 8..edge + 8,
        2 * edge - 8..2 * edge + 8,
        (1..1_u64 << (62 - bits)).prop_map(move |times| times * edge - 1),
        0..1_u64 << 62,
        Just(1 << 62),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn aead_poly1305_edges_any_limbs_are_reduced_as_long_numbers_are(
        h0 in limb(44), h1 in limb(44), h2 in limb(42), s: u128,
    ) {
        let want = reduced([h0, h1, h2]).wrapping_add(s).to_le_bytes();
        prop_assert_eq!(finish([h0, h1, h2], s), want);
    }
}
