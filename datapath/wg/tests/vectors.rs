//! Vectors and random cases for the seal and open of tunnel data, alone and in batches. Those of
//! the handshake's X25519 stand beside it, in `src/noise.rs`.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use bulkhead_vectors::aead;
use bulkhead_wg::{Open, ReceiveKey, Seal, SendKey, open_batch, seal_batch};

fn seal(key: &[u8; 32], counter: u64, text: &mut [u8]) -> [u8; 16] {
    SendKey::new(key).seal(counter, text)
}

fn open(key: &[u8; 32], counter: u64, text: &mut [u8], tag: &[u8; 16]) -> bool {
    ReceiveKey::new(key).open(counter, text, tag).is_ok()
}

/// The one message in the middle of a batch of its copies, so that every lane is filled.
fn seal_in_batch(key: &[u8; 32], counter: u64, text: &mut [u8]) -> [u8; 16] {
    let key = SendKey::new(key);
    let mut copies = vec![(text.to_vec(), [0; 16]); 5];
    let mut batch: Vec<_> =
        copies.iter_mut().map(|(buffer, tag)| Seal::new(&key, counter, buffer, tag)).collect();
    seal_batch(&mut batch);
    assert!(copies.windows(2).all(|pair| pair[0] == pair[1]), "lanes differ");
    text.copy_from_slice(&copies[2].0);
    copies[2].1
}

fn open_in_batch(key: &[u8; 32], counter: u64, text: &mut [u8], tag: &[u8; 16]) -> bool {
    let key = ReceiveKey::new(key);
    let mut copies = vec![text.to_vec(); 5];
    let mut batch: Vec<_> =
        copies.iter_mut().map(|buffer| Open::new(&key, counter, buffer, tag)).collect();
    open_batch(&mut batch);
    let opened: Vec<bool> = batch.iter().map(Open::is_opened).collect();
    assert!(opened.windows(2).all(|pair| pair[0] == pair[1]), "lanes differ");
    text.copy_from_slice(&copies[2]);
    opened[2]
}

#[test]
fn vectors_for_chacha20_poly1305_pass_our_seal_and_open() {
    aead::check(&mut seal, &mut open);
    aead::check(&mut seal_in_batch, &mut open_in_batch);
}

/// 10^6 cases, most of them short, because what is short goes through every branch as well.
#[test]
fn a_million_random_messages_agree_with_a_second_library() {
    aead::differ(1, 950_000, 96, &mut seal, &mut open);
    aead::differ(2, 50_000, 1_500, &mut seal, &mut open);
}

#[test]
fn random_batches_agree_with_a_second_library() {
    aead::differ(3, 20_000, 300, &mut seal_in_batch, &mut open_in_batch);
}
