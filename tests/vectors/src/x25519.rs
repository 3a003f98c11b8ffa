//! X25519 (RFC 7748), with the refusal of a zero secret that WireGuard wants (Linux
//! `noise.c::mix_dh`).

use serde::{Deserialize, Serialize};

use crate::Random;

/// Two keys, and the secret that they agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct X25519Vector {
    /// What the case is about.
    pub comment: String,
    /// The private key, not clamped.
    #[serde(with = "crate::hex")]
    pub private: [u8; 32],
    /// The other side's public key, as it stands on the wire.
    #[serde(with = "crate::hex")]
    pub public: [u8; 32],
    /// The shared secret; zero: must be refused.
    #[serde(with = "crate::hex")]
    pub shared: [u8; 32],
}

/// The committed vectors.
#[must_use]
pub fn vectors() -> Vec<X25519Vector> {
    serde_json::from_str(include_str!("../data/x25519.json")).expect("the file is in order")
}

/// The shared secret of a private and a public key; `None`: refused.
pub type AgreeFn<'a> = &'a mut dyn FnMut(&[u8; 32], &[u8; 32]) -> Option<[u8; 32]>;

/// Takes `agree` through every committed vector.
///
/// # Panics
///
/// At the first wrong answer.
pub fn check(agree: AgreeFn<'_>) {
    let vectors = vectors();
    let refused = vectors.iter().filter(|vector| vector.shared == [0; 32]).count();
    assert!(refused >= 12 && vectors.len() - refused > 80);
    for X25519Vector { comment, private, public, shared } in vectors {
        let want = (shared != [0; 32]).then_some(shared);
        assert_eq!(agree(&private, &public), want, "{comment}");
    }
}

/// Compares `agree` with orion's X25519 in `cases` random cases. Public keys are any 32 bytes: half
/// of them are points of the twist, and one in 64 is an edge of the field.
///
/// # Panics
///
/// At the first difference, and if one of the outcomes was not met.
pub fn differ(seed: u64, cases: u32, agree: AgreeFn<'_>) {
    let mut random = Random::new(seed);
    let (mut agreed, mut refused) = (0, 0);
    for case in 0..cases {
        let private = random.bytes();
        let mut public: [u8; 32] = random.bytes();
        if random.below(64) == 0 {
            // Near zero, or near 2^255 - 19 and what lies beyond, which X25519 reduces.
            let top = random.below(2) == 0;
            public[1..31].fill(if top { 0xff } else { 0 });
            public[31] = if top { 0x7f } else { 0 };
            public[0] = if top { 0xe0 + public[0] % 32 } else { public[0] % 8 };
        }
        let want = second_agree(&private, &public);
        assert_eq!(agree(&private, &public), want, "seed {seed}, case {case}");
        match want {
            Some(_) => agreed += 1,
            None => refused += 1,
        }
    }
    assert!(agreed > cases / 2, "met: {agreed} agreed");
    assert!(cases < 10_000 || refused > 0, "met: {refused} refused");
}

/// Agrees as orion does, whose field is fiat-crypto's and whose ladder is its own.
pub(crate) fn second_agree(private: &[u8; 32], public: &[u8; 32]) -> Option<[u8; 32]> {
    use orion::hazardous::ecc::x25519::{PrivateKey, PublicKey, key_agreement};
    let private = PrivateKey::from(*private);
    let public = PublicKey::from(*public);
    let shared = key_agreement(&private, &public).ok()?;
    shared.unprotected_as_ref::<[u8]>().try_into().ok()
}
