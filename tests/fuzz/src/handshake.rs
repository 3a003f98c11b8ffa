//! The three handshake messages. MAC1 is no secret, so each message is tried as it is and once more
//! with MAC1 put right, to reach what stands behind it.

use std::sync::OnceLock;
use std::time::Duration;

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use bulkhead_wg::{
    CookieKey, CookieSecrets, HandshakeError, PresharedKey, PrivateKey, PublicKey, Responder,
    Tai64n, initiate,
};

/// The keys of every world of these targets, so that a corpus stays good.
pub(crate) fn keys() -> [PrivateKey; 2] {
    [[1; 32], [2; 32]].map(PrivateKey::from_bytes)
}

fn psk() -> PresharedKey {
    PresharedKey::from_bytes([9; 32])
}

/// The index that our initiation has.
const OUR_INDEX: u32 = 5;

/// The genuine initiation of the device to the gateway.
pub(crate) fn genuine_initiation() -> [u8; 148] {
    let [device, gateway] = keys();
    let stamp = Tai64n::from_unix(Duration::from_secs(1_800_000_000));
    let to = gateway.public_key();
    initiate(&device, &to, &psk(), OUR_INDEX, stamp, &[3; 32]).expect("a good key").0
}

/// Puts the right MAC1 into a message for `receiver`, if it has room for one.
fn repaired(message: &[u8], receiver: &PublicKey) -> Option<Vec<u8>> {
    let at = message.len().checked_sub(32)?;
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(receiver.0).finalize();
    let mut mac = Blake2sMac::<U16>::new_from_slice(&key).expect("32 bytes");
    Update::update(&mut mac, &message[..at]);
    let mut message = message.to_vec();
    message[at..at + 16].copy_from_slice(&mac.finalize_fixed());
    Some(message)
}

/// An initiation: whoever is named as its sender did make it, so it is the genuine one or refused.
pub fn initiation(bytes: &[u8]) {
    static GENUINE: OnceLock<[u8; 148]> = OnceLock::new();
    let genuine = GENUINE.get_or_init(genuine_initiation);
    let [_, gateway] = keys();
    let responder = Responder::new(&gateway);
    let to = gateway.public_key();
    for message in [Some(bytes.to_vec()), repaired(bytes, &to)].into_iter().flatten() {
        let Ok(accepted) = responder.consume(&message) else { continue };
        // All but the sender's index and MAC2 is what the device made.
        assert_eq!(message[8..116], genuine[8..116], "a forged initiation was accepted");
        let (answer, _) = accepted.respond(&psk(), 6, &[4; 32]).expect("it authenticated");
        assert!(answer.len() < message.len(), "no amplification");
    }
}

/// A response to our initiation: the genuine one, or refused; and after any refusal the genuine one
/// is still taken.
pub fn response(bytes: &[u8]) {
    let [device, gateway] = keys();
    let to = gateway.public_key();
    let stamp = Tai64n::from_unix(Duration::from_secs(1_800_000_000));
    let (message, mut pending) =
        initiate(&device, &to, &psk(), OUR_INDEX, stamp, &[3; 32]).expect("a good key");
    let genuine = genuine_response(&message);
    let own = device.public_key();
    for message in [Some(bytes.to_vec()), repaired(bytes, &own)].into_iter().flatten() {
        match pending.consume(&message) {
            Ok(_) => {
                assert_eq!(message[8..60], genuine[8..60], "a forged response was accepted");
                return;
            }
            Err(error) => assert_ne!(error, HandshakeError::OutOfTurn, "a refusal left a trace"),
        }
    }
    assert!(pending.consume(&genuine).is_ok(), "a refusal left a trace");
}

pub(crate) fn genuine_response(initiation: &[u8; 148]) -> [u8; 92] {
    let [_, gateway] = keys();
    let accepted = Responder::new(&gateway).consume(initiation).expect("it is genuine");
    accepted.respond(&psk(), 6, &[4; 32]).expect("it authenticated").0
}

/// A cookie reply to our initiation: the genuine one, or refused without a trace.
pub fn cookie_reply(bytes: &[u8]) {
    let [device, gateway] = keys();
    let to = gateway.public_key();
    let stamp = Tai64n::from_unix(Duration::from_secs(1_800_000_000));
    let (message, mut pending) =
        initiate(&device, &to, &psk(), OUR_INDEX, stamp, &[3; 32]).expect("a good key");
    let genuine = genuine_cookie_reply(&message);
    match pending.cookie(bytes) {
        Ok(_) => assert_eq!(bytes, genuine, "a forged cookie was accepted"),
        Err(_) => assert!(pending.cookie(&genuine).is_ok(), "a refusal left a trace"),
    }
    let answer = genuine_response(&message);
    assert!(pending.consume(&answer).is_ok(), "a cookie ended the handshake");
}

pub(crate) fn genuine_cookie_reply(initiation: &[u8; 148]) -> [u8; 64] {
    let [_, gateway] = keys();
    let key = CookieKey::of(&gateway.public_key());
    let secrets = CookieSecrets::new([5; 32]);
    let source = "192.0.2.7:51820".parse().expect("an address");
    secrets.reply(&key, initiation, source, [6; 24]).expect("it is a handshake message")
}
