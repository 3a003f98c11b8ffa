//! Where the file of the flow log must not be: among what `bulkheadd` keeps.

use std::ffi::OsStr;
use std::path::{Path, absolute};
use std::{fs, io};

use bulkhead_config::FlowLog;

/// Refuses a path that leads to what the daemon itself keeps in `folder`: a log there would be read as
/// history or facts at the next start, or be replaced by them. The reader of the configuration does not
/// know the folder, and links change, so whoever opens the file asks as well.
///
/// # Errors
///
/// What is wrong with it, what would be right, and what to do.
pub(crate) fn check(folder: &Path, file: &Path) -> io::Result<()> {
    let path = folder.join(file);
    let Some((parent, name)) = path.parent().zip(path.file_name()) else { return Ok(()) };
    // What is not there cannot be resolved, and may be there later.
    let folder = fs::canonicalize(folder).or_else(|_| absolute(folder))?;
    let named = fs::canonicalize(parent).or_else(|_| absolute(parent))?.join(name);
    let linked = fs::canonicalize(&path).unwrap_or_else(|_| named.clone());
    if [named, linked].iter().all(|path| is_free(&folder, path)) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "among bulkheadd's own files; accepted is a path outside {}, or a name directly in it other than {}; \
         set [flow_log] file to flows.jsonl, or to a path like /var/log/bulkhead/flows.jsonl",
        folder.display(),
        FlowLog::TAKEN.join(", "),
    )))
}

/// No name that is taken ends with `.1`, so the file before needs no look of its own.
fn is_free(folder: &Path, path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(folder) else { return true };
    let mut names = inside.iter();
    let is_taken = |name: &OsStr| FlowLog::TAKEN.iter().any(|taken| name == *taken);
    names.next().is_some_and(|name| !is_taken(name)) && names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_daemons_own_files_are_refused_however_they_are_named() {
        let base = tempfile::tempdir().unwrap();
        let [state, other] = ["state", "other"].map(|name| base.path().join(name));
        fs::create_dir_all(state.join("history")).unwrap();
        fs::create_dir(&other).unwrap();
        symlink(state.join("history"), other.join("way")).unwrap();
        symlink(state.join("timestamps"), other.join("link")).unwrap();
        fs::write(state.join("timestamps"), "").unwrap();
        let at = |folder: &Path, name: &str| folder.join(name);
        for (path, free) in [
            ("flows.jsonl".into(), true),
            (at(&state, "flows.jsonl"), true),
            (at(&other, "timestamps"), true),
            (at(&other, "gone/flows.jsonl"), true),
            (at(&state, "timestamps"), false),
            (at(&state, "facts"), false),
            (at(&state, "history/43.json"), false),
            (at(&state, "gone/flows.jsonl"), false),
            (at(&other, "../state/published.json"), false),
            (at(&other, "way/43.json"), false),
            (at(&other, "link"), false),
        ] {
            assert_eq!(check(&state, &path).is_ok(), free, "{}", path.display());
        }
        assert!(FlowLog::TAKEN.iter().all(|name| !name.ends_with(".1")));
    }

    #[test]
    fn the_refusal_says_what_is_wrong_and_what_to_do() {
        let problem =
            check(Path::new("/nowhere"), Path::new("/nowhere/facts/00.json")).unwrap_err();
        let want = "among bulkheadd's own files; accepted is a path outside /nowhere, or a name directly in \
                    it other than facts, history, published.json, published.new, timestamps, \
                    timestamps.new; set [flow_log] file to flows.jsonl, or to a path like \
                    /var/log/bulkhead/flows.jsonl";
        assert_eq!(problem.to_string(), want);
    }
}
