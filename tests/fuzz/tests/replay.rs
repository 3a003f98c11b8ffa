//! CI replays the corpus, and what comes of it by small damage, as ordinary tests.
//!
//! `BULKHEAD_WRITE_SEEDS=1` writes the seeds anew; what a search found stays beside them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_fuzz::{TARGETS, policy, seeds};

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn replay(name: &str, damages: u32) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let corpus = corpus(name);
    assert!(corpus.len() >= 5, "{name}: a corpus of {}", corpus.len());
    let mut random = seeds::Random::new(7);
    for (path, bytes) in corpus {
        let outcome = std::panic::catch_unwind(|| target(&bytes));
        assert!(outcome.is_ok(), "{}", path.display());
        for _ in 0..damages {
            let damaged = seeds::damaged(&bytes, &mut random);
            let outcome = std::panic::catch_unwind(|| target(&damaged));
            assert!(outcome.is_ok(), "{} after damage: {damaged:02x?}", path.display());
        }
    }
}

#[test]
fn the_corpus_of_initiations_is_replayed() {
    replay("initiation", 60);
}

#[test]
fn the_corpus_of_responses_is_replayed() {
    replay("response", 40);
}

#[test]
fn the_corpus_of_cookie_replies_is_replayed() {
    replay("cookie_reply", 40);
}

#[test]
fn the_corpus_of_data_is_replayed() {
    replay("data", 5);
}

#[test]
fn the_corpus_of_sessions_is_replayed() {
    replay("session", 5);
}

#[test]
fn the_corpus_of_tables_configurations_and_link_messages_is_replayed() {
    replay("table", 200);
    replay("config", 100);
    replay("link", 500);
}

/// Each company and what damage makes of it: table and oracle agree, and every sort of answer is met.
#[test]
fn the_corpus_of_policies_is_replayed_and_meets_every_outcome() {
    let mut random = seeds::Random::new(9);
    let mut met = std::collections::BTreeMap::new();
    for (path, bytes) in corpus("policy") {
        let all = (0..6).map(|_| seeds::damaged(&bytes, &mut random)).collect::<Vec<_>>();
        for bytes in [bytes].into_iter().chain(all) {
            let outcome = std::panic::catch_unwind(|| policy::outcomes(&bytes));
            let Ok(outcomes) = outcome else { panic!("{}: {bytes:02x?}", path.display()) };
            for outcome in outcomes {
                *met.entry(outcome).or_insert(0) += 1;
            }
        }
    }
    for outcome in policy::OUTCOMES {
        assert!(met.get(outcome).is_some_and(|count| *count >= 2), "{outcome}: {met:?}");
    }
}

#[test]
fn the_committed_seeds_are_those_of_the_generator() {
    for (target, name, bytes) in seeds::all() {
        let path = folder(target).join(name);
        if std::env::var_os("BULKHEAD_WRITE_SEEDS").is_some() {
            fs::create_dir_all(folder(target)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).unwrap_or_default() == bytes, "{} is not the seed", path.display());
    }
}

/// The targets find what they look for: each genuine message is accepted by its target's world, so
/// a target that refused everything would be seen.
#[test]
fn the_genuine_messages_are_accepted() {
    seeds::genuine_are_accepted();
}
