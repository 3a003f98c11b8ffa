//! The committed files are what the generator makes. `BULKHEAD_WRITE_VECTORS=1` writes them anew.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use serde::Serialize;

fn committed<V: Serialize>(name: &str, vectors: &[V]) {
    // One vector a line, so that a change is seen as one.
    let lines: Vec<String> =
        vectors.iter().map(|vector| serde_json::to_string(vector).unwrap()).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
    if std::env::var_os("BULKHEAD_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == text, "{name} is not what is generated");
}

#[test]
fn the_committed_aead_vectors_are_those_of_the_generator() {
    committed("aead.json", &bulkhead_vectors::generate::aead());
}

#[test]
fn the_committed_x25519_vectors_are_those_of_the_generator() {
    committed("x25519.json", &bulkhead_vectors::generate::x25519());
}

/// The generator's own libraries pass what they made, and a broken one does not.
#[test]
fn a_wrong_implementation_does_not_pass() {
    let wrong = std::panic::catch_unwind(|| {
        bulkhead_vectors::aead::check(&mut |_, _, _| [0; 16], &mut |_, _, _, _| true);
    });
    assert!(wrong.is_err());
    let wrong = std::panic::catch_unwind(|| {
        bulkhead_vectors::x25519::check(&mut |_, public| Some(*public));
    });
    assert!(wrong.is_err());
}
