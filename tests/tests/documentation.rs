//! `docs/testing.md` tells the truth: each test that it names exists.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Below this the reading of the page or of the sources went wrong.
const LEAST: usize = 60;

#[test]
fn every_test_that_the_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).filter(|w| is_test(w)).collect();
    assert!(named.len() >= LEAST, "only {named:?}");
    let there = tests_below(root);
    assert!(there.len() >= LEAST, "only {there:?}");
    let missing: Vec<_> = named.iter().filter(|name| !there.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/testing.md names tests that do not exist: {missing:?}");
}

/// Names of functions with at least one underscore; what else stands in backticks has a space, a
/// dot, a hyphen, a slash or a capital.
fn is_test(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    word.contains('_') && word.bytes().all(plain)
}

/// Every function that follows a `#[test]`, tokio's or not, in a Rust file of the repository, and those that
/// `proptest!` makes tests of, which carry the attribute too.
fn tests_below(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for path in entries(&folder) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                pending.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap().replace("#[tokio::test]", "#[test]");
                for piece in text.split("#[test]").skip(1) {
                    let name = piece.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
                    found.extend(name.map(|(name, _)| name.trim().to_owned()));
                }
            }
        }
    }
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}
