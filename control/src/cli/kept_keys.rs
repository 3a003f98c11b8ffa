//! The key files that kept configurations name: a text comes back, a key that was removed does not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use toml_edit::{DocumentMut, Item};

use super::client::ask;
use crate::api::{Answer, HistoryAnswer, Request};

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
    let remark = |(generation, at): (u64, u64)| {
        let request = Request::HistoryText { generation };
        // Only the remark is missing then; the list is good without.
        let Ok(Answer::Text(text)) = ask(run_dir, request, false) else { return None };
        Some((generation, remark(&text.text, folder, at)?))
    };
    history.entries.iter().map(|entry| (entry.generation, entry.at)).filter_map(remark).collect()
}

/// The kept generations whose text names a key file, oldest first; empty too if bulkheadd does not run.
pub(super) fn named_by(run_dir: &Path, file: &str) -> Vec<u64> {
    let Ok(Answer::History(history)) = ask(run_dir, Request::History {}, false) else {
        return vec![];
    };
    let names_it = |generation: &u64| {
        let request = Request::HistoryText { generation: *generation };
        let text = ask(run_dir, request, false);
        matches!(text, Ok(Answer::Text(text)) if key_files(&text.text).iter().any(|name| name == file))
    };
    history.entries.iter().map(|entry| entry.generation).filter(names_it).collect()
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
}
