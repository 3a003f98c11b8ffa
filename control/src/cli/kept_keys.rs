//! The key files that kept configurations name: a text comes back, a key that was removed does not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use toml_edit::{DocumentMut, Item};

use super::client::ask;
use crate::api::{Answer, HistoryAnswer, HistoryEntryAnswer, Request};

/// Bytes of texts that are looked at, the newest first: the daemon sends each, and has more to do.
const LOOKED_AT_MAX: usize = 16 << 20;

/// What is to be said of generations whose key files are not as they were, by generation. Nothing is,
/// if `config` is not there: then bulkheadd has another, and its key files beside that.
pub(super) fn remarks(
    run_dir: &Path,
    config: &Path,
    history: &HistoryAnswer,
) -> BTreeMap<u64, String> {
    if !config.exists() {
        return BTreeMap::new();
    }
    let folder = config.parent().unwrap_or(Path::new(""));
    let remark = |(entry, text): (&HistoryEntryAnswer, Option<String>)| {
        let remark = match text {
            Some(text) => remark(&text, folder, entry.at)?,
            None => "its key files were not looked for".to_owned(),
        };
        Some((entry.generation, remark))
    };
    texts(history, |generation| kept(run_dir, generation)).filter_map(remark).collect()
}

/// The kept generations whose text names a key file, oldest first; empty too if not all of them could be
/// looked at, or bulkheadd does not run.
pub(super) fn named_by(run_dir: &Path, file: &str) -> Vec<u64> {
    let Ok(Answer::History(history)) = ask(run_dir, Request::History {}, false) else {
        return vec![];
    };
    let looked_at = |(entry, text): (&HistoryEntryAnswer, Option<String>)| {
        text.map(|text| (entry.generation, key_files(&text).iter().any(|name| name == file)))
    };
    let all = texts(&history, |generation| kept(run_dir, generation)).map(looked_at);
    let mut all: Vec<_> = all.collect::<Option<_>>().unwrap_or_default();
    all.retain(|(_, names_it)| *names_it);
    all.into_iter().map(|(generation, _)| generation).rev().collect()
}

/// Every generation, newest first, with its text if there is still room for it.
fn texts<'a>(
    history: &'a HistoryAnswer,
    kept: impl Fn(u64) -> Option<String> + 'a,
) -> impl Iterator<Item = (&'a HistoryEntryAnswer, Option<String>)> {
    let mut left = LOOKED_AT_MAX;
    history.entries.iter().rev().map(move |entry| {
        let text = if left > 0 { kept(entry.generation) } else { None };
        left = left.saturating_sub(text.as_ref().map_or(0, String::len));
        (entry, text)
    })
}

fn kept(run_dir: &Path, generation: u64) -> Option<String> {
    match ask(run_dir, Request::HistoryText { generation }, false) {
        Ok(Answer::Text(text)) => Some(text.text),
        Ok(_) | Err(_) => None,
    }
}

/// What is to be said of a text that came into force at a second since 1970. The first file that is
/// gone is the one to look for; one that was written since matters only if all are there.
fn remark(text: &str, folder: &Path, at: u64) -> Option<String> {
    let mut changed = None;
    for name in key_files(text) {
        let path = folder.join(&name);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Some(format!("cannot come back: {} is gone", path.display()));
            }
            // Whoever may not look says nothing.
            Err(_) => {}
            Ok(facts) if u64::try_from(facts.mtime()).is_ok_and(|mtime| mtime > at) => {
                changed.get_or_insert_with(|| {
                    format!(
                        "would come back with another key: {} was written since",
                        path.display()
                    )
                });
            }
            Ok(_) => {}
        }
    }
    changed
}

/// Every file that some `private_key_file` or `preshared_key_file` names, in the order of the text.
fn key_files(text: &str) -> Vec<String> {
    let mut names = vec![];
    if let Ok(document) = text.parse::<DocumentMut>() {
        collect(document.as_item(), &mut names);
    }
    names
}

fn collect(item: &Item, names: &mut Vec<String>) {
    let Some(table) = item.as_table_like() else { return };
    for (key, item) in table.iter() {
        match item.as_str() {
            Some(name) if key.ends_with("_key_file") => names.push(name.to_owned()),
            Some(_) => {}
            None => collect(item, names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_comes_before_what_was_written_since() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let text = "[wireguard.a]\nprivate_key_file = \"a.key\" # not b.key\n\
                    [device]\nx = { preshared_key_file = \"x.psk\" }\n";
        let shown = |name: &str| path.join(name).display().to_string();
        fs::write(path.join("a.key"), "").unwrap();
        let gone = format!("cannot come back: {} is gone", shown("x.psk"));
        assert_eq!(remark(text, path, 0), Some(gone));
        fs::write(path.join("x.psk"), "").unwrap();
        let facts = fs::metadata(path.join("x.psk")).unwrap();
        let written = u64::try_from(facts.mtime()).unwrap();
        assert_eq!(remark(text, path, written), None, "as it was");
        let other =
            format!("would come back with another key: {} was written since", shown("a.key"));
        assert_eq!(remark(text, path, written - 60), Some(other));
        assert_eq!(remark("not = [toml", path, 0), None);
    }

    /// Goal: hundreds of megabytes of history do not hold up the daemon for a remark.
    #[test]
    fn only_the_newest_of_large_texts_are_looked_at() {
        let entry = |generation| HistoryEntryAnswer { generation, ..HistoryEntryAnswer::default() };
        let history = HistoryAnswer { entries: (1..=4).map(entry).collect() };
        let looked_at = |bytes: usize| -> Vec<_> {
            let all = texts(&history, |_| Some("#".repeat(bytes)));
            all.filter(|(_, text)| text.is_some()).map(|(entry, _)| entry.generation).collect()
        };
        assert_eq!(looked_at(100), [4, 3, 2, 1]);
        assert_eq!(looked_at(LOOKED_AT_MAX / 2), [4, 3]);
        assert_eq!(looked_at(2 * LOOKED_AT_MAX), [4]);
    }
}
