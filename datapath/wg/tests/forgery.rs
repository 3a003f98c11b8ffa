//! Messages that nobody honest sent: refused, and without a trace.
//!
//! MAC1 is no secret, so a forger has it right. These tests repair it after every change, to
//! reach what stands behind it.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use bulkhead_wg::{
    HandshakeError, PresharedKey, PrivateKey, PublicKey, Responder, Tai64n, initiate,
};
use proptest::prelude::*;

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

fn psk() -> PresharedKey {
    PresharedKey::from_bytes([9; 32])
}

fn timestamp() -> Tai64n {
    Tai64n::from_unix(Duration::from_secs(1_800_000_000))
}

/// Puts the right MAC1 into a message for `receiver`.
fn repair_mac1(message: &mut [u8], receiver: &PublicKey) {
    let at = message.len() - 32;
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(receiver.0).finalize();
    let mut mac = Blake2sMac::<U16>::new_from_slice(&key).unwrap();
    Update::update(&mut mac, &message[..at]);
    message[at..at + 16].copy_from_slice(&mac.finalize_fixed());
}

/// Where the Noise part of each message is. The index before it is not authenticated until the
/// first data packet, so changing that is no forgery that a handshake could see.
const INITIATION_NOISE: std::ops::Range<usize> = 8..116;
const RESPONSE_NOISE: std::ops::Range<usize> = 12..60;

/// Seven encodings of points of small order: the shared secret is zero.
const LOW_ORDER: [[u8; 32]; 7] = {
    let mut keys = [[0; 32]; 7];
    keys[1][0] = 1;
    keys[2] = [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ];
    keys[3] = [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ];
    let mut i = 4;
    while i < 7 {
        keys[i] = [0xff; 32];
        // p - 1, p, p + 1
        keys[i][0] = [0xec, 0xed, 0xee][i - 4];
        keys[i][31] = 0x7f;
        i += 1;
    }
    keys
};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn a_damaged_initiation_is_refused(
        damage in proptest::collection::btree_map(INITIATION_NOISE, 1u8.., 1..4),
        entropy: [u8; 32],
        repaired: bool,
    ) {
        let (device, gateway) = (key(1), key(2));
        let to = gateway.public_key();
        let (message, _) = initiate(&device, &to, &psk(), 5, timestamp(), &entropy).unwrap();
        let responder = Responder::new(&gateway);
        let mut forged = message;
        for (at, change) in damage {
            forged[at] ^= change;
        }
        let want = if repaired {
            repair_mac1(&mut forged, &to);
            HandshakeError::Undecryptable
        } else {
            HandshakeError::BadMac1
        };
        let error = responder.consume(&forged).err();
        prop_assert!(error == Some(want) || (repaired && error == Some(HandshakeError::LowOrderKey)));
        let genuine = responder.consume(&message).unwrap();
        prop_assert_eq!(genuine.peer, device.public_key());
        prop_assert_eq!((genuine.timestamp, genuine.sender), (timestamp(), 5));
    }

    #[test]
    fn a_damaged_response_is_refused_and_the_genuine_one_still_taken(
        damages in proptest::collection::vec(
            proptest::collection::btree_map(RESPONSE_NOISE, 1u8.., 1..4), 1..4),
        entropy: [u8; 32],
        repaired: bool,
    ) {
        let (device, gateway) = (key(1), key(2));
        let to = gateway.public_key();
        let (message, mut pending) =
            initiate(&device, &to, &psk(), 5, timestamp(), &entropy).unwrap();
        let initiation = Responder::new(&gateway).consume(&message).unwrap();
        let (response, theirs) = initiation.respond(&psk(), 6, &[4; 32]).unwrap();
        for damage in damages {
            let mut forged = response;
            for (at, change) in damage {
                forged[at] ^= change;
            }
            if repaired {
                repair_mac1(&mut forged, &device.public_key());
                prop_assert!(matches!(
                    pending.consume(&forged),
                    Err(HandshakeError::Undecryptable | HandshakeError::LowOrderKey)
                ));
            } else {
                prop_assert!(matches!(pending.consume(&forged), Err(HandshakeError::BadMac1)));
            }
        }
        let ours = pending.consume(&response).unwrap();
        prop_assert_eq!((ours.send, ours.receive), (theirs.receive, theirs.send));
        prop_assert_eq!((ours.local_index, ours.remote_index), (5, 6));
        prop_assert_eq!((theirs.local_index, theirs.remote_index), (6, 5));
        prop_assert!(matches!(pending.consume(&response), Err(HandshakeError::OutOfTurn)), "once");
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Responder::new(&key(2)).consume(&bytes).is_err());
        let (_, mut pending) =
            initiate(&key(1), &key(2).public_key(), &psk(), 5, timestamp(), &[3; 32]).unwrap();
        prop_assert!(pending.consume(&bytes).is_err());
        prop_assert!(pending.cookie(&bytes).is_err());
    }
}

#[test]
fn wrong_length_type_and_receiver_are_told_apart() {
    let (device, gateway) = (key(1), key(2));
    let to = gateway.public_key();
    let (message, mut pending) = initiate(&device, &to, &psk(), 5, timestamp(), &[3; 32]).unwrap();
    let responder = Responder::new(&gateway);
    let mut typed = message;
    for change in [0, 3] {
        typed[change] ^= 2;
        repair_mac1(&mut typed, &to);
        assert_eq!(responder.consume(&typed).err(), Some(HandshakeError::Malformed));
        typed = message;
    }
    for len in 0..148 {
        assert_eq!(responder.consume(&message[..len]).err(), Some(HandshakeError::Malformed));
    }

    let initiation = responder.consume(&message).unwrap();
    let (mut response, _) = initiation.respond(&psk(), 6, &[4; 32]).unwrap();
    for len in 0..92 {
        assert_eq!(pending.consume(&response[..len]).err(), Some(HandshakeError::Malformed));
    }
    response[0] ^= 1;
    assert_eq!(pending.consume(&response).err(), Some(HandshakeError::Malformed));
    response[0] ^= 1;
    response[8] ^= 1;
    repair_mac1(&mut response, &device.public_key());
    assert_eq!(pending.consume(&response).err(), Some(HandshakeError::UnknownReceiver));
    response[8] ^= 1;
    repair_mac1(&mut response, &device.public_key());
    assert!(pending.consume(&response).is_ok());
}

#[test]
fn an_initiation_for_another_gateway_is_refused() {
    let (message, _) =
        initiate(&key(1), &key(2).public_key(), &psk(), 5, timestamp(), &[3; 32]).unwrap();
    assert_eq!(Responder::new(&key(7)).consume(&message).err(), Some(HandshakeError::BadMac1));
    let mut forged = message;
    repair_mac1(&mut forged, &key(7).public_key());
    assert_eq!(Responder::new(&key(7)).consume(&forged).err(), Some(HandshakeError::Undecryptable));
}

#[test]
fn no_message_is_built_on_a_key_of_low_order() {
    for low in LOW_ORDER {
        let built = initiate(&key(1), &PublicKey(low), &psk(), 5, timestamp(), &[3; 32]);
        assert_eq!(built.err(), Some(HandshakeError::LowOrderKey), "{low:02x?}");
    }
}

/// A forger who sends an ephemeral key of low order knows the first shared secret. Linux refuses
/// to go on, and so do we, on both sides.
#[test]
fn an_ephemeral_key_of_low_order_is_refused() {
    let (device, gateway) = (key(1), key(2));
    let to = gateway.public_key();
    let (message, mut pending) = initiate(&device, &to, &psk(), 5, timestamp(), &[3; 32]).unwrap();
    let initiation = Responder::new(&gateway).consume(&message).unwrap();
    let (response, _) = initiation.respond(&psk(), 6, &[4; 32]).unwrap();
    for low in LOW_ORDER {
        let mut forged = message;
        forged[8..40].copy_from_slice(&low);
        repair_mac1(&mut forged, &to);
        assert_eq!(
            Responder::new(&gateway).consume(&forged).err(),
            Some(HandshakeError::LowOrderKey)
        );

        let mut forged = response;
        forged[12..44].copy_from_slice(&low);
        repair_mac1(&mut forged, &device.public_key());
        assert_eq!(pending.consume(&forged).err(), Some(HandshakeError::LowOrderKey));
    }
    assert!(pending.consume(&response).is_ok());
}
