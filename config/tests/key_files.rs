//! Key files on a real file system, and the examples with theirs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bulkhead_config::{Config, KeyFileError, KeyFolder, KeySource};

const KEY: &str = "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=";

/// A folder of its own that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "bulkhead-config-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) {
        let path = self.0.join(name);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn keys(&self) -> KeyFolder {
        KeyFolder::beside(&self.0.join("bulkhead.toml"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_key_file_is_its_owners_alone() {
    let folder = Folder::new();
    for mode in 0..0o1000 {
        let name = format!("{mode:o}.key");
        folder.write(&name, format!("{KEY}\n").as_bytes(), mode);
        let found = folder.keys().secret(&name);
        if mode & 0o077 != 0 {
            // Root can read what the mode forbids, everybody else cannot even open it.
            let io = matches!(found, Err(KeyFileError::Io(_))) && mode & 0o400 == 0;
            assert!(found == Err(KeyFileError::Mode { mode }) || io, "{mode:o}: {found:?}");
        } else if mode & 0o400 != 0 {
            assert_eq!(found, Ok(KEY.parse().unwrap()), "{mode:o}");
        }
    }
}

#[test]
fn what_is_no_key_file_says_what_it_is() {
    let folder = Folder::new();
    folder.write("empty", b"", 0o600);
    folder.write("short", &KEY.as_bytes()[..43], 0o600);
    folder.write("two", format!("{KEY}\n{KEY}\n").as_bytes(), 0o600);
    folder.write("long", &[b' '; 257], 0o600);
    folder.write("binary", &[0xff; 44], 0o600);
    DirBuilder::new().mode(0o700).create(folder.0.join("folder")).unwrap();
    for name in ["empty", "short", "two", "long", "binary"] {
        assert_eq!(folder.keys().secret(name), Err(KeyFileError::Content), "{name}");
    }
    assert_eq!(folder.keys().secret("folder"), Err(KeyFileError::NotAFile));
    let gone = KeyFileError::Io("no such file".to_owned());
    assert_eq!(folder.keys().secret("gone"), Err(gone));
    // Nobody writes to it: a reader that waited for that would hang here.
    let fifo = folder.0.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    assert_eq!(folder.keys().secret("fifo"), Err(KeyFileError::NotAFile));
}

/// Only root can give a file away.
#[test]
fn another_users_file_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    folder.write("bobs.key", KEY.as_bytes(), 0o600);
    std::os::unix::fs::chown(folder.0.join("bobs.key"), Some(1001), None).unwrap();
    let refused = KeyFileError::Owner { owner: 1001, me: 0 };
    assert_eq!(folder.keys().secret("bobs.key"), Err(refused));
    // Root's commands put nothing in force, and the keys of a gateway are its daemon's.
    assert_eq!(folder.keys().for_commands().secret("bobs.key"), Ok(KEY.parse().unwrap()));
    folder.write("open.key", KEY.as_bytes(), 0o640);
    let refused = KeyFileError::Mode { mode: 0o640 };
    assert_eq!(folder.keys().for_commands().secret("open.key"), Err(refused));
}

#[test]
fn the_examples_are_accepted() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let folder = Folder::new();
        let copy = folder.0.join("bulkhead.toml");
        fs::copy(&path, &copy).unwrap();
        let text = fs::read_to_string(&copy).unwrap();
        let parsed: toml::Table = text.parse().unwrap();
        let files = |kind: &str, key: &str| -> Vec<String> {
            let tables = parsed[kind].as_table().unwrap().values();
            tables.filter_map(|table| Some(table.get(key)?.as_str()?.to_owned())).collect()
        };
        let mut keys = files("wireguard", "private_key_file");
        keys.extend(files("device", "preshared_key_file"));
        // Without its keys the example is refused, once for each file.
        let errors = Config::load(&copy).unwrap_err();
        assert_eq!(errors.list().len(), keys.len(), "{errors}");
        for key in keys {
            folder.write(&key, KEY.as_bytes(), 0o600);
        }
        let config = Config::load(&copy).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(!config.rules.is_empty() && !config.tests.is_empty());
        count += 1;
    }
    assert!(count >= 1);
}

#[test]
fn what_cannot_be_read_is_an_error_about_the_file() {
    let folder = Folder::new();
    folder.write("latin1.toml", b"schema = 1 # \xe4\n", 0o600);
    let error = |name: &str| Config::load(&folder.0.join(name)).unwrap_err().to_string();
    assert!(error("gone.toml").contains("gone.toml: cannot be read: No such file"));
    assert!(error("").contains("not a regular file"));
    assert!(error("latin1.toml").ends_with("latin1.toml: not a text: it is not UTF-8\n"));
}
