//! Tests: every secret that is ours is zeroed when it is dropped.
//!
//! A type stands here because it holds secret bytes. That it wipes them on drop is a trait, so the
//! compiler proves it; that wiping means zero is seen by wiping a value while it can still be read.
//!
//! Not ours, and not wiped by their owners: the expanded keys inside ring and, for the length of a
//! handshake, the chaining key and preshared key inside snow. SECURITY.md says so.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::cookie::{Cookie, Secret};
use crate::key::{PresharedKey, PrivateKey};
use crate::keypair::{Role, TransportKeys};
use crate::noise::{Split, X25519};
use crate::peer::Fresh;
use crate::tai64n::Tai64n;
use snow::types::Dh;

fn wiped_on_drop<T: ZeroizeOnDrop>() {}

#[test]
fn keys_are_zeroed_on_drop() {
    wiped_on_drop::<PrivateKey>();
    wiped_on_drop::<PresharedKey>();
    wiped_on_drop::<TransportKeys>();
    wiped_on_drop::<Cookie>();
    wiped_on_drop::<Secret>();
    wiped_on_drop::<X25519>();
    wiped_on_drop::<Fresh>();
    // The ephemeral key on its way to snow, and the keys on their way out.
    wiped_on_drop::<Zeroizing<[u8; 32]>>();
    let _: fn(Split) -> [Zeroizing<[u8; 32]>; 2] = |split| [split.0, split.1];
}

#[test]
fn wiping_a_secret_leaves_zeros() {
    const SECRET: [u8; 32] = [0xa5; 32];
    let mut private = PrivateKey::from_bytes(SECRET);
    private.zeroize();
    assert_eq!(private.expose(), &[0; 32]);

    let mut psk = PresharedKey::from_bytes(SECRET);
    psk.zeroize();
    assert_eq!(psk.expose(), &[0; 32]);

    let mut secret = Secret(SECRET);
    secret.zeroize();
    assert_eq!(secret.0, [0; 32]);

    let mut dh = X25519::default();
    dh.set(&SECRET);
    assert_eq!(dh.privkey(), &SECRET);
    dh.zeroize();
    assert_eq!(dh.privkey(), &[0; 32]);

    let mut fresh = Fresh { local_index: 1, timestamp: Tai64n::default(), entropy: SECRET };
    fresh.zeroize();
    assert_eq!(fresh.entropy, [0; 32]);

    let mut keys = TransportKeys {
        local_index: 1,
        remote_index: 2,
        send: SECRET,
        receive: SECRET,
        role: Role::Responder,
    };
    keys.zeroize();
    assert_eq!((keys.send, keys.receive), ([0; 32], [0; 32]));
}
