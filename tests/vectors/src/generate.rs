//! Makes the vectors. Edges first, forgeries next, random cases last.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use crate::Random;
use crate::aead::{AeadVector, nonce, second_seal};
use crate::poly1305::Number;
use crate::x25519::{X25519Vector, second_agree};

/// The counters at which something could change: the words of the nonce, and the last that the
/// protocol allows (2^64 - 2^13 - 2).
const COUNTERS: [u64; 10] = [
    0,
    1,
    0xff,
    0x100,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    u64::MAX - 8193,
];

/// Every vector of ChaCha20-Poly1305.
#[must_use]
pub fn aead() -> Vec<AeadVector> {
    let mut random = Random::new(0xa3ad);
    let mut all = vec![];
    let lens = [0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 79, 80, 81, 95, 96]
        .into_iter()
        .chain([97, 111, 112, 113, 127, 128, 129, 191, 192, 193, 255, 256, 257, 319, 320, 321])
        .chain([383, 384, 385, 511, 512, 513, 576, 1023, 1024, 1025, 1280, 1420, 1424, 1500]);
    for len in lens {
        let mut text = vec![0; len];
        random.fill(&mut text);
        all.push(genuine(format!("{len} bytes"), random.bytes(), random.word() >> 8, text));
    }
    for counter in COUNTERS {
        all.push(genuine(format!("counter {counter}"), random.bytes(), counter, vec![0x5a; 40]));
    }
    for (name, key) in [("zero", [0; 32]), ("all ones", [0xff; 32])] {
        for byte in [0, 0xff, 0x80] {
            let comment = format!("{name} key, 80 bytes of {byte:#x}");
            all.push(genuine(comment, key, 0, vec![byte; 80]));
        }
        all.push(genuine(format!("{name} key, nothing"), key, 0, vec![]));
    }
    for byte in [0, 0xff] {
        let key = random.bytes();
        all.push(genuine_ciphertext(format!("ciphertext of {byte:#x}"), key, 3, vec![byte; 96]));
    }
    accumulators(&mut random, &mut all);
    forgeries(&mut random, &mut all);
    all
}

/// Every vector of X25519.
#[must_use]
pub fn x25519() -> Vec<X25519Vector> {
    let mut random = Random::new(0x25519);
    let mut all = vec![];
    let scalars: [(&str, [u8; 32]); 5] = [
        ("random", random.bytes()),
        ("zero", [0; 32]),
        ("all ones", [0xff; 32]),
        ("the low bits that clamping clears", {
            let mut low = [0; 32];
            low[0] = 7;
            low
        }),
        ("the high bit that clamping clears", {
            let mut high = [0; 32];
            high[31] = 0x80;
            high
        }),
    ];
    // 2^255 - 19 is ed ff .. ff 7f.
    let near_p = |first: u8, last: u8| {
        let mut point = [0xff; 32];
        (point[0], point[31]) = (first, last);
        point
    };
    let small = |first: u8| {
        let mut point = [0; 32];
        point[0] = first;
        point
    };
    let mut points: Vec<(String, [u8; 32])> = vec![
        ("of order 4: zero".into(), [0; 32]),
        ("of order 4, p".into(), near_p(0xed, 0x7f)),
        ("of order 2: one".into(), small(1)),
        ("of order 2, p + 1".into(), near_p(0xee, 0x7f)),
        ("of order 4 on the twist: p - 1".into(), near_p(0xec, 0x7f)),
        ("of order 8".into(), ORDER_EIGHT[0]),
        ("of order 8, the other".into(), ORDER_EIGHT[1]),
    ];
    // The top bit is not part of the point.
    for (name, point) in points.clone() {
        let mut with_bit = point;
        with_bit[31] |= 0x80;
        points.push((format!("{name}, top bit set"), with_bit));
    }
    points.extend((2..=9).map(|n| (format!("{n}"), small(n))));
    points.extend(
        (0xef..=0xff)
            .map(|first| (format!("not canonical, p + {}", first - 0xed), near_p(first, 0x7f))),
    );
    points
        .extend((0xe4..=0xeb).map(|first| (format!("p - {}", 0xed - first), near_p(first, 0x7f))));
    points.push(("all ones".into(), [0xff; 32]));
    for bit in [51, 102, 153, 204, 254] {
        let mut power = [0; 32];
        power[bit / 8] = 1 << (bit % 8);
        points.push((format!("2^{bit}"), power));
        let mut below = [0; 32];
        below[..bit / 8].fill(0xff);
        below[bit / 8] = (1 << (bit % 8)) - 1;
        points.push((format!("2^{bit} - 1"), below));
    }
    let random_scalar = scalars[0].1;
    for (name, point) in points {
        all.push(agreed(format!("point {name}"), random_scalar, point));
    }
    for (name, scalar) in scalars {
        all.push(agreed(format!("scalar {name}, base point"), scalar, small(9)));
        all.push(agreed(format!("scalar {name}, random point"), scalar, random.bytes()));
        all.push(agreed(format!("scalar {name}, order 8"), scalar, ORDER_EIGHT[0]));
    }
    for n in 0..48 {
        all.push(agreed(format!("random {n}"), random.bytes(), random.bytes()));
    }
    all
}

/// The two points of order 8 (cr.yp.to/ecdh.html).
const ORDER_EIGHT: [[u8; 32]; 2] = [
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
];

fn agreed(comment: String, private: [u8; 32], public: [u8; 32]) -> X25519Vector {
    let shared = second_agree(&private, &public).unwrap_or_default();
    X25519Vector { comment, private, public, shared }
}

fn genuine(comment: String, key: [u8; 32], counter: u64, plaintext: Vec<u8>) -> AeadVector {
    let mut ciphertext = plaintext.clone();
    let tag = second_seal(&key, counter, &mut ciphertext);
    AeadVector { comment, key, counter, plaintext, ciphertext, tag, genuine: true }
}

/// The vector whose ciphertext is given: the key stream is its own inverse.
fn genuine_ciphertext(
    comment: String,
    key: [u8; 32],
    counter: u64,
    ciphertext: Vec<u8>,
) -> AeadVector {
    let mut plaintext = ciphertext;
    let _ = second_seal(&key, counter, &mut plaintext);
    genuine(comment, key, counter, plaintext)
}

/// Messages of one block, and of five, that bring the accumulator to an edge at the end, or after
/// the first block, where a limb is full, a carry runs through all of them, or p is passed.
fn accumulators(random: &mut Random, all: &mut Vec<AeadVector>) {
    let ones = |bits: u32| Number::new(0, (1 << bits) - 1);
    let targets: [(&str, Number); 18] = [
        ("0", Number::new(0, 0)),
        ("1", Number::new(0, 1)),
        ("4", Number::new(0, 4)),
        ("5", Number::new(0, 5)),
        ("p - 1", Number::new(3, u128::MAX - 5)),
        ("p - 2", Number::new(3, u128::MAX - 6)),
        ("p - 5", Number::new(3, u128::MAX - 9)),
        ("2^128 - 1", Number::new(0, u128::MAX)),
        ("2^128", Number::new(1, 0)),
        ("2^129", Number::new(2, 0)),
        ("2^129 + 2^128 - 1", Number::new(2, u128::MAX)),
        ("2^26 - 1, a limb of five", ones(26)),
        ("2^52 - 1, two of five", ones(52)),
        ("2^104 - 1, four of five", ones(104)),
        ("2^44 - 1, a limb of three", ones(44)),
        ("2^88 - 1, two of three", ones(88)),
        ("2^64 - 1, a word", ones(64)),
        ("2^64", Number::new(0, 1 << 64)),
    ];
    for (name, target) in targets {
        all.push(reaching(random, &format!("accumulator {name} at the end"), |_, _, _| target, 16));
        all.push(reaching(random, &format!("accumulator {name} at the end"), |_, _, _| target, 80));
        // No block brings it to zero: each stands for 2^128 at least.
        if target == Number::new(0, 0) {
            continue;
        }
        let after_first = |r: Number, _: [u8; 16], lengths: Number| target.plus(lengths).times(r);
        all.push(reaching(random, &format!("accumulator {name} after a block"), after_first, 16));
    }
    for (name, tag) in [("zero", 0), ("all ones", u128::MAX), ("one", 1), ("2^64", 1 << 64)] {
        // The tag is accumulator + s mod 2^128; of the numbers that give it, the one below 2^128.
        let target = |_: Number, s: [u8; 16], _: Number| {
            Number::new(0, u128::wrapping_sub(tag, u128::from_le_bytes(s)))
        };
        let vector = reaching(random, &format!("tag {name}"), target, 32);
        assert_eq!(u128::from_le_bytes(vector.tag), tag);
        all.push(vector);
    }
}

/// A genuine message of `len` bytes whose accumulator ends at what `target` says for r, s and the
/// block of the lengths. Three keys in four have no such message, so keys are tried.
fn reaching(
    random: &mut Random,
    comment: &str,
    target: impl Fn(Number, [u8; 16], Number) -> Number,
    len: usize,
) -> AeadVector {
    let top = Number::new(1, 0);
    for _ in 0..1000 {
        let (key, counter) = (random.bytes(), random.word() >> 1);
        let (r, s) = one_time_key(&key, counter);
        let inverse = r.inverse();
        let lengths = Number::new(1, (len as u128) << 64);
        // Backwards from the end: the accumulator before the lengths, then before the last block.
        let mut ciphertext = vec![0; len];
        random.fill(&mut ciphertext);
        let before_last =
            ciphertext[..len - 16].chunks(16).fold(Number::new(0, 0), |sum, block| {
                let block = u128::from_le_bytes(block.try_into().expect("whole blocks"));
                sum.plus(Number::new(1, block)).times(r)
            });
        let after_last = target(r, s, lengths).times(inverse).minus(lengths);
        let last = after_last.times(inverse).minus(before_last).minus(top);
        if let Some(block) = last.block() {
            ciphertext[len - 16..].copy_from_slice(&block);
            let comment = format!("{comment}, {len} bytes");
            return genuine_ciphertext(comment, key, counter, ciphertext);
        }
    }
    panic!("{comment}: no key found");
}

/// r and s of a message: the first 32 bytes of the key stream, r clamped (RFC 8439 §2.5, §2.6).
fn one_time_key(key: &[u8; 32], counter: u64) -> (Number, [u8; 16]) {
    use chacha20::cipher::{KeyIvInit, StreamCipher};
    let mut stream = [0; 32];
    chacha20::ChaCha20::new(key.into(), (&nonce(counter)).into()).apply_keystream(&mut stream);
    let (r, s) = stream.split_at(16);
    let clamp = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
    let r = u128::from_le_bytes(r.try_into().expect("16 bytes")) & clamp;
    (Number::new(0, r), s.try_into().expect("16 bytes"))
}

/// What nobody with the key sealed.
fn forgeries(random: &mut Random, all: &mut Vec<AeadVector>) {
    for len in [0, 1, 16, 64, 100] {
        let mut text = vec![0; len];
        random.fill(&mut text);
        let base = genuine(String::new(), random.bytes(), 7 + len as u64, text);
        let mut forge = |comment: &str, change: &dyn Fn(&mut AeadVector)| {
            let mut forged = base.clone();
            change(&mut forged);
            forged.genuine = false;
            forged.comment = format!("forged, {len} bytes: {comment}");
            assert!(!opens(&forged), "{}", forged.comment);
            all.push(forged);
        };
        forge("first bit of the tag", &|forged| forged.tag[0] ^= 1);
        forge("last bit of the tag", &|forged| forged.tag[15] ^= 0x80);
        forge("tag of zeros", &|forged| forged.tag = [0; 16]);
        forge("tag of ones", &|forged| forged.tag = [0xff; 16]);
        forge("two bits of the tag that cancel out", &|forged| {
            forged.tag[3] ^= 0x10;
            forged.tag[11] ^= 0x10;
        });
        forge("halves of the tag swapped", &|forged| forged.tag.rotate_left(8));
        forge("the counter after", &|forged| forged.counter += 1);
        forge("the counter in the other word", &|forged| forged.counter <<= 32);
        forge("another key", &|forged| forged.key[31] ^= 1);
        forge("a byte longer", &|forged| forged.ciphertext.push(0));
        if len > 0 {
            forge("first bit of the text", &|forged| forged.ciphertext[0] ^= 1);
            forge("last bit of the text", &|forged| forged.ciphertext[len - 1] ^= 0x80);
            forge("a byte shorter", &|forged| {
                forged.ciphertext.pop();
            });
        }
        if len > 16 {
            forge("two blocks swapped", &|forged| {
                let (first, rest) = forged.ciphertext.split_at_mut(16);
                first.swap_with_slice(&mut rest[..16]);
            });
        }
    }
}

fn opens(vector: &AeadVector) -> bool {
    let mut text = vector.ciphertext.clone();
    ChaCha20Poly1305::new((&vector.key).into())
        .decrypt_in_place_detached(
            &nonce(vector.counter).into(),
            b"",
            &mut text,
            (&vector.tag).into(),
        )
        .is_ok()
}
