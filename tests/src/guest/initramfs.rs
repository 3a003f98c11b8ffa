//! The file system that a guest starts from, as the kernel unpacks it: a `newc` archive
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of Linux).
//!
//! Written here because it takes fewer lines than a dependency on `cpio`, and nothing of the machine
//! but the files that are named ends up in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{During, Failure};

/// An archive that grows; ends with [`Self::finish`].
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

/// Kind and permission bits of `st_mode`, inode(7).
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

impl Initramfs {
    /// A copy of a file of this machine, executable.
    pub(crate) fn copy(&mut self, from: &Path, to: &str) -> Result<(), Failure> {
        let content = fs::read(from).during(|| format!("reading {}", from.display()))?;
        self.file(to, &content)
    }

    /// An executable file with this content at this path, which has no leading slash.
    pub(crate) fn file(&mut self, to: &str, content: &[u8]) -> Result<(), Failure> {
        self.folders_above(to)?;
        self.entry(to, PROGRAM, content)
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, at: &str, to: &str) -> Result<(), Failure> {
        self.folders_above(at)?;
        self.entry(at, LINK, to.as_bytes())
    }

    /// A folder, and those above it.
    pub(crate) fn folder(&mut self, path: &str) -> Result<(), Failure> {
        self.folders_above(path)?;
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, &[])?;
        }
        Ok(())
    }

    /// The archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Failure> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn folders_above(&mut self, path: &str) -> Result<(), Failure> {
        match path.rsplit_once('/') {
            Some((above, _)) => self.folder(above),
            None => Ok(()),
        }
    }

    /// Thirteen numbers of eight hexadecimal digits, the name with a zero, the content; name and
    /// content each padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), Failure> {
        let fits = |len: usize| u32::try_from(len).map_err(|error| Failure::new(error.to_string()));
        let (name_len, len) = (fits(name.len().saturating_add(1))?, fits(content.len())?);
        self.entries = self.entries.saturating_add(1);
        self.bytes.extend_from_slice(b"070701");
        // Inode, mode, owner, group, links, time, length, two devices of two numbers each, the
        // length of the name, a checksum that this format does not use.
        for number in [self.entries, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0] {
            self.bytes.extend_from_slice(format!("{number:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_kernel_documents_it() {
        let mut archive = Initramfs::default();
        archive.file("bin/init", b"hello").unwrap();
        archive.link("bin/sh", "init").unwrap();
        let bytes = archive.finish().unwrap();
        // The first entry is the folder, with a header of 110 bytes and its name padded.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000041ED", "a folder that all may enter");
        assert_eq!(&bytes[110..116], b"bin\0\0\0", "112 bytes are 28 times 4: padding follows");
        let file = 116;
        assert_eq!(&bytes[file + 14..file + 22], b"000081ED");
        assert_eq!(&bytes[file + 54..file + 62], b"00000005", "length of the content");
        assert_eq!(&bytes[file + 94..file + 102], b"00000009", "length of the name and its zero");
        assert_eq!(&bytes[file + 110..file + 119], b"bin/init\0");
        let content = (file + 119_usize).next_multiple_of(4);
        assert_eq!(&bytes[content..content + 8], b"hello\0\0\0");
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
