//! Keys as `wg genkey` and `wg genpsk` write them: made here, kept in files of mode 0600.
//!
//! INVARIANT: what held a secret is wiped, and a file that exists is never written over.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulkhead_wg::PrivateKey;
use zeroize::Zeroizing;

/// Bytes of a key file that are looked at. A key is 44 characters and a newline.
const FILE_MAX: u64 = 256;

/// A new private key from the system's randomness, clamped as `wg genkey` does (RFC 7748 §5).
///
/// # Errors
///
/// If the system has no randomness.
pub fn new_private() -> io::Result<PrivateKey> {
    let mut bytes = new_preshared()?;
    if let [first, .., last] = bytes.as_mut_slice() {
        *first &= 248;
        *last = *last & 127 | 64;
    }
    Ok(PrivateKey::from_bytes(*bytes))
}

/// A new preshared key from the system's randomness.
///
/// # Errors
///
/// If the system has no randomness.
pub fn new_preshared() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The 44 characters of a key.
#[must_use]
pub fn text_of(key: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(key))
}

/// Writes a key into a new file of mode 0600, for `owner` (user and group) if we may: the daemon
/// reads it, and it is not root.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] if the file is there, whatever it is.
pub fn write_new(path: &Path, key: &[u8; 32], owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file
        .write_all(text_of(key).as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a key is of no use, and would be in the way of the next attempt.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    if let Some((user, group)) = owner {
        // Who is not root leaves it as it is; `bulkhead check` says so when it cannot be read.
        let _ = fchown(&file, Some(user), Some(group));
    }
    Ok(())
}

/// A line about new files that belong to root: the daemon is not root, and that it cannot read them
/// would show only at the next apply. `None` if they are somebody's, or nothing beside them is.
#[must_use]
pub fn chown_advice<'a>(made: impl IntoIterator<Item = &'a Path>) -> Option<String> {
    const SHOWN: usize = 8;
    let is_roots = |path: &&Path| fs::metadata(path).is_ok_and(|facts| facts.uid() == 0);
    let made: Vec<_> = made.into_iter().filter(is_roots).collect();
    let user = user_beside(made.first()?)?;
    let shown = made.iter().take(SHOWN).map(|path| path.display().to_string());
    let shown = shown.collect::<Vec<_>>().join(" ");
    let more = match made.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "for bulkheadd, which is not root, to read what was made: chown {user} {shown}{more}\n"
    ))
}

/// Who has a key file or a configuration beside `path`, or the folder: that is whom the daemon runs as.
/// The package gives the folder to root and to that user's group.
fn user_beside(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let is_kind = |path: &PathBuf, kinds: &[&str]| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        kind.is_some_and(|kind| kinds.contains(&kind))
    };
    let beside = || fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let keys = beside().filter(|path| is_kind(path, &["key", "psk"]));
    let around = || beside().filter(|path| is_kind(path, &["toml"])).chain([folder.to_owned()]);
    let facts = |path: PathBuf| fs::metadata(path).ok();
    let owner = keys.chain(around()).filter_map(facts).find(|facts| facts.uid() != 0);
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if let Some(owner) = owner {
        return Some(user_named(&users, 2, owner.uid()).unwrap_or_else(|| owner.uid().to_string()));
    }
    let group = around().filter_map(facts).find(|facts| facts.gid() != 0)?;
    user_named(&users, 3, group.gid())
}

/// The only user of passwd(5) with this number in a field; not root.
fn user_named(users: &str, field: usize, number: u32) -> Option<String> {
    let number = number.to_string();
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = fields.filter(|user| user.get(field) == Some(&number.as_str()));
    let user = found.next().filter(|user| user.get(2) != Some(&"0"))?;
    found.next().is_none().then(|| user.first().map(ToString::to_string)).flatten()
}

/// Reads a private key from a file, or from standard input if its name is `-`.
///
/// # Errors
///
/// What the system says, or that it is no key. The content is never quoted.
pub fn read_private(path: &Path) -> io::Result<PrivateKey> {
    // Room for all of it at once: growing would leave copies behind.
    let mut text =
        Zeroizing::new(String::with_capacity(usize::try_from(FILE_MAX).unwrap_or(0) + 1));
    if path == Path::new("-") {
        io::stdin().lock().take(FILE_MAX).read_to_string(&mut text)?;
    } else {
        File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
    }
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "not a private key; accepted: 44 characters of base64, as wg genkey writes them",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_new_clamped_and_in_a_private_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let (key, other) = (new_private().unwrap(), new_private().unwrap());
        assert_ne!(key, other);
        let bytes = key.expose();
        assert_eq!((bytes[0] & 7, bytes[31] & 0b1100_0000), (0, 0b0100_0000));
        write_new(&path, bytes, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(read_private(&path).unwrap(), key);
        let before = fs::read(&path).unwrap();
        let refused = write_new(&path, other.expose(), None).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, "secret but no key").unwrap();
        assert!(!read_private(&path).unwrap_err().to_string().contains("secret"));
    }
}
