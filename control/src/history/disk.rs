//! What the history needs of a folder, so that its tests can cut the power between any two steps.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A folder of files. Names have no slash.
pub trait Disk {
    /// Writes a whole file and waits until its content is on the disk. Its name may not be yet.
    ///
    /// # Errors
    ///
    /// Whatever the system says; the file may then be there in part.
    fn write(&mut self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Gives a file another name, in place of the file that had it. Not on the disk before
    /// [`Disk::settle`].
    ///
    /// # Errors
    ///
    /// Whatever the system says; nothing has changed then.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Not on the disk before [`Disk::settle`].
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Waits until all names are on the disk.
    ///
    /// # Errors
    ///
    /// Whatever the system says; after a power cut each of them may then be the old or the new.
    fn settle(&mut self) -> io::Result<()>;

    /// The content of a file.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// The length of a file, bytes.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn length(&self, name: &str) -> io::Result<u64>;

    /// The names of all files.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Where it is, for messages.
    fn path(&self) -> &Path;
}

/// A folder of the file system, for us alone.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, mode 0700, if it is not there.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            // The name of the folder is in the one above.
            path.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())?;
        }
        Ok(Self(path.to_owned()))
    }
}

impl Disk for Folder {
    fn write(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.0.join(name))?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn settle(&mut self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        fs::metadata(self.0.join(name)).map(|facts| facts.len())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string()));
        // A name that is no text is none of ours.
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn path(&self) -> &Path {
        &self.0
    }
}
