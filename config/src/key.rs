//! Keys in text and in files.
//!
//! INVARIANT: a secret comes from a file that nobody else can read, is never printed, is compared
//! in constant time, and is wiped when it is dropped.

use core::fmt;
use core::str::FromStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use curve25519_dalek::MontgomeryPoint;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::limits::KEY_FILE_BYTES_MAX;

/// A WireGuard public key: the identity of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    /// Reads the 44 characters of `wg pubkey`.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

/// A private or preshared key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The public key that belongs to it, taken as a private key (RFC 7748 §6.1).
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(MontgomeryPoint::mul_base_clamped(self.0).to_bytes())
    }

    /// The key itself. The caller keeps it from logs and messages.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = InvalidKey;

    /// Reads the 44 characters of `wg genkey` or `wg genpsk`.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

/// The text is not a key. It is deliberately not quoted: it may be most of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard key")]
pub struct InvalidKey;

/// What a key looks like, for error messages.
pub(crate) const KEY_ACCEPTED: &str = "44 characters of base64 that stand for 32 bytes";

/// What the daemon meets if a key file was left to root.
pub(crate) const PERMISSION_DENIED: &str = "permission denied";

/// Where secrets come from. The daemon uses [`KeyFolder`]; tests that are not about files bring
/// their own.
pub trait KeySource {
    /// The secret in the file `name`, as written in the configuration.
    ///
    /// # Errors
    ///
    /// Why there is none.
    fn secret(&self, name: &str) -> Result<Secret, KeyFileError>;
}

/// Key files below the folder of the configuration file.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    folder: PathBuf,
    any_owner: bool,
}

impl KeyFolder {
    /// Relative names are looked up in the folder of `config`.
    #[must_use]
    pub fn beside(config: &Path) -> Self {
        let folder = config.parent().unwrap_or(Path::new("")).to_owned();
        Self { folder, any_owner: false }
    }

    /// For commands that put nothing in force: to root it does not matter whose a file is. The keys
    /// of a gateway belong to the user that the daemon runs as, which looks at the owner itself.
    #[must_use]
    pub fn for_commands(mut self) -> Self {
        self.any_owner = rustix::process::geteuid().is_root();
        self
    }
}

impl KeySource for KeyFolder {
    fn secret(&self, name: &str) -> Result<Secret, KeyFileError> {
        // A FIFO would block the open; with O_NONBLOCK it is opened, and refused below.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(self.folder.join(name))
            .map_err(KeyFileError::from)?;
        check_owner_and_mode(&file, self.any_owner)?;
        let mut text = Zeroizing::new(String::new());
        file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(KeyFileError::from)?;
        text.trim().parse().map_err(|InvalidKey| KeyFileError::Content)
    }
}

/// Asks the open file, not the path: the answer is about what is read afterwards.
fn check_owner_and_mode(file: &File, any_owner: bool) -> Result<(), KeyFileError> {
    let facts = file.metadata().map_err(KeyFileError::from)?;
    let (mode, owner) = (facts.mode() & 0o7777, facts.uid());
    let me = rustix::process::geteuid().as_raw();
    if !facts.is_file() {
        Err(KeyFileError::NotAFile)
    } else if mode & 0o077 != 0 {
        Err(KeyFileError::Mode { mode })
    } else if !any_owner && owner != me && owner != 0 {
        Err(KeyFileError::Owner { owner, me })
    } else if facts.len() > KEY_FILE_BYTES_MAX {
        Err(KeyFileError::Content)
    } else {
        Ok(())
    }
}

/// Why a key file gives no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It could not be opened or read.
    #[error("{0}")]
    Io(String),
    /// A folder, a device, a pipe.
    #[error("not a regular file")]
    NotAFile,
    /// Others can read or change it.
    #[error("mode {mode:04o}: others than the owner can read or change it")]
    Mode {
        /// Permission bits.
        mode: u32,
    },
    /// Another user could change it.
    #[error("it belongs to user {owner}")]
    Owner {
        /// Its user id.
        owner: u32,
        /// Ours.
        me: u32,
    },
    /// Not a key. The content is not quoted.
    #[error("its content is not a WireGuard key")]
    Content,
}

impl From<io::Error> for KeyFileError {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::NotFound {
            Self::Io("no such file".to_owned())
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::Io(PERMISSION_DENIED.to_owned())
        } else if kind == io::ErrorKind::InvalidData {
            // Not UTF-8.
            Self::Content
        } else {
            Self::Io(error.to_string())
        }
    }
}

fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, InvalidKey> {
    // The decoder estimates the length in whole groups, one byte more than the key.
    let mut room = Zeroizing::new([0; 33]);
    if text.len() != 44 {
        return Err(InvalidKey);
    }
    match STANDARD.decode_slice(text, room.as_mut_slice()) {
        Ok(32) => {
            let (key, _) = room.split_first_chunk::<32>().ok_or(InvalidKey)?;
            Ok(Zeroizing::new(*key))
        }
        Ok(_) | Err(_) => Err(InvalidKey),
    }
}
