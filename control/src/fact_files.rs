//! Where what is known of devices outlives a restart: a folder with a file for each drawer.
//!
//! ```text
//!   facts/a7.json   hex BLAKE2s-128 of what follows ⏎ {"schema":1,"devices":{NAME:{…}}} ⏎
//! ```
//!
//! A file is replaced as a whole: written beside, synced, renamed, the folder synced. INVARIANT: a file
//! that is not exactly what was written is no source of facts. Its devices are devices of which
//! nothing is known, which denies; the file is set aside and named.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use blake2::digest::consts::U16;
use blake2::{Blake2s, Digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::knowledge::{Drawers, KeptDevice, Knowledge, drawer_of};
use crate::timestamps::replace;

const SCHEMA: u32 = 1;

/// The folder.
#[derive(Debug)]
pub struct FactFiles {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    schema: u32,
    devices: BTreeMap<String, KeptDevice>,
}

impl FactFiles {
    /// Opens the folder, or makes it, and reads everything that is in it. Also returns a sentence for
    /// each file that was not what was written, and for facts that make no sense in this release.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made or read, or a file in it cannot be read: nobody knows whether that
    /// would have been a reason to deny.
    pub fn open(folder: PathBuf, now: Timestamp) -> io::Result<(Self, Knowledge, Vec<String>)> {
        if !folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        }
        let mut kept = BTreeMap::new();
        let mut problems = Vec::new();
        for drawer in 0..=u8::MAX {
            let path = file(&folder, drawer);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match parse(&bytes, drawer) {
                Some(devices) => kept.extend(devices),
                None => {
                    let aside = path.with_extension("torn");
                    fs::rename(&path, &aside)?;
                    problems.push(format!(
                        "facts about devices are lost: {} is not what was written; they count as \
                         unknown until they are set again",
                        aside.display()
                    ));
                }
            }
        }
        let (knowledge, senseless) = Knowledge::restored(kept, now);
        if senseless > 0 {
            let folder = folder.display();
            problems.push(format!("{senseless} facts in {folder} make no sense and do not count"));
        }
        Ok((Self { folder }, knowledge, problems))
    }

    /// Writes these drawers. When it returns, a power cut forgets nothing of them.
    ///
    /// # Errors
    ///
    /// Whatever the file system says. Some drawers may be new then and others old; each is whole.
    pub fn write(&self, drawers: Drawers) -> io::Result<()> {
        for (drawer, devices) in drawers {
            let path = file(&self.folder, drawer);
            let mut body = serde_json::to_vec(&Content { schema: SCHEMA, devices })?;
            body.push(b'\n');
            let mut bytes = checksum(&body).into_bytes();
            bytes.push(b'\n');
            bytes.append(&mut body);
            replace(&path, &bytes)?;
        }
        File::open(&self.folder)?.sync_all()
    }
}

fn file(folder: &Path, drawer: u8) -> PathBuf {
    folder.join(format!("{drawer:02x}.json"))
}

/// `None`: it was not written by [`FactFiles::write`], or not to its end, or not there.
fn parse(bytes: &[u8], drawer: u8) -> Option<BTreeMap<String, KeptDevice>> {
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    let (sum, body) = (bytes.get(..at)?, bytes.get(at + 1..)?);
    if sum != checksum(body).as_bytes() {
        return None;
    }
    let content: Content = serde_json::from_slice(body).ok()?;
    let ours = content.devices.keys().all(|name| drawer_of(name) == drawer);
    (content.schema == SCHEMA && ours).then_some(content.devices)
}

fn checksum(body: &[u8]) -> String {
    let hash = Blake2s::<U16>::digest(body);
    hash.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests;
