//! A file of lines that does not grow for ever.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Who spoke to whom is for root and the daemon's user.
const MODE: u32 = 0o600;

/// Some lines: a disk that has not even that is still full. The next lines take the room.
const PROBE_BYTES: u64 = 4_096;

/// A file that is moved to the same name with `.1` when the next line would make it too large.
///
/// INVARIANT: it holds whole lines: what was written of a line that did not fit the disk is cut off, and
/// one that was cut by a crash is ended before the next.
pub(super) struct LineFile {
    path: PathBuf,
    size_max: u64,
    open: Option<Open>,
}

struct Open {
    file: File,
    size: u64,
}

impl LineFile {
    /// Opens nothing yet.
    pub(super) fn new(path: PathBuf, size_max: u64) -> Self {
        Self { path, size_max, open: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole lines, and counts in `written` those that are in the file.
    ///
    /// # Errors
    ///
    /// What the system says; what is not counted is not in the file then.
    pub(super) fn append(&mut self, mut lines: &[u8], written: &mut u64) -> io::Result<()> {
        while !lines.is_empty() {
            let Open { mut file, size } = self.opened()?;
            let (now, later) = lines.split_at(fitting(lines, self.size_max.saturating_sub(size)));
            // A line that is longer than a whole file has one for itself.
            let (now, later) = match now.is_empty() && size == 0 {
                true => lines.split_at(first_line(lines)),
                false => (now, later),
            };
            if now.is_empty() {
                self.put_by(&file)?;
                continue;
            }
            if let Err(problem) = file.write_all(now) {
                // What there is of it goes, if the disk lets it; else the next line ends it.
                let _ = file.set_len(size);
                return Err(problem);
            }
            *written += count(now);
            self.open = Some(Open { file, size: size + now.len() as u64 });
            lines = later;
        }
        Ok(())
    }

    /// Whether there is a file for the next lines, and room. Nothing that a reader sees changes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn probe(&mut self) -> io::Result<()> {
        let open = self.opened()?;
        match fallocate(&open.file, FallocateFlags::KEEP_SIZE, open.size, PROBE_BYTES) {
            // What is no file, or on a disk that reserves nothing, says more only when it is written to.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::SPIPE) => {}
            Err(problem) => return Err(problem.into()),
        }
        self.open = Some(open);
        Ok(())
    }

    /// Moves the file to the place of the one before.
    fn put_by(&self, file: &File) -> io::Result<()> {
        let before = before(&self.path);
        fs::rename(&self.path, &before)?;
        // POSIX: of two links to one file nothing is moved, and that is a success. Tried again and again
        // it would be for ever.
        let held = file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                let why =
                    format!("it is full, and {} is the same file; remove one", before.display());
                Err(io::Error::other(why))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The file, opened anew if there is another one, or none, by its name: others move it as well.
    fn opened(&mut self) -> io::Result<Open> {
        if let Some(open) = self.open.take()
            && let (Ok(named), Ok(held)) = (fs::metadata(&self.path), open.file.metadata())
            && (named.dev(), named.ino(), named.len()) == (held.dev(), held.ino(), open.size)
        {
            return Ok(open);
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(MODE).open(&self.path)?;
        let mut size = file.metadata()?.len();
        if size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        Ok(Open { file, size })
    }
}

/// What the one before is called.
fn before(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

/// Bytes of the whole lines at the beginning that are at most `room`.
fn fitting(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let within = lines.get(..room).unwrap_or(lines);
    within.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1)
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> Vec<u8> {
        format!("{n:09}\n").into_bytes()
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Ten bytes a line, four lines a file.
    #[test]
    fn the_file_and_the_one_before_are_bounded_and_lines_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.jsonl");
        for batch in [1, 2, 3, 5, 20] {
            let _ = (fs::remove_file(&path), fs::remove_file(before(&path)));
            let mut file = LineFile::new(path.clone(), 45);
            let mut written = 0;
            let all: Vec<Vec<u8>> = (0..60).map(line).collect();
            for lines in all.chunks(batch) {
                file.append(&lines.concat(), &mut written).unwrap();
                let both = read(&before(&path)) + &read(&path);
                let last = all[..usize::try_from(written).unwrap()].concat();
                assert!(last.ends_with(both.as_bytes()), "{batch}: {both}");
                assert!(read(&path).len() <= 45 && read(&before(&path)).len() <= 45);
            }
            assert_eq!(written, 60);
            assert_eq!((read(&path).len(), read(&before(&path)).len()), (40, 40), "{batch}");
        }
        let mode = fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    }

    #[test]
    fn a_line_that_is_longer_than_a_file_has_one_for_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.jsonl");
        let (mut file, mut written) = (LineFile::new(path.clone(), 12), 0);
        let long = [vec![b'x'; 30], vec![b'\n']].concat();
        file.append(&[line(1), long.clone(), line(2)].concat(), &mut written).unwrap();
        assert_eq!((written, read(&path)), (3, "000000002\n".to_owned()));
        assert_eq!(read(&before(&path)).as_bytes(), long);
    }

    #[test]
    fn what_a_restart_finds_is_continued_and_a_torn_line_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.jsonl");
        fs::write(&path, "000000000\n0000").unwrap();
        let (mut file, mut written) = (LineFile::new(path.clone(), 30), 0);
        file.append(&line(1), &mut written).unwrap();
        assert_eq!(read(&path), "000000000\n0000\n000000001\n");
        file.append(&line(2), &mut written).unwrap();
        assert_eq!(
            (written, read(&path)),
            (2, "000000002\n".to_owned()),
            "all that was there counts"
        );
    }

    #[test]
    fn a_file_that_somebody_moved_or_removed_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.jsonl");
        let (mut file, mut written) = (LineFile::new(path.clone(), 1_000), 0);
        file.append(&line(1), &mut written).unwrap();
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        file.append(&line(2), &mut written).unwrap();
        assert_eq!(read(&path), "000000002\n");
        fs::remove_file(&path).unwrap();
        file.append(&line(3), &mut written).unwrap();
        fs::write(&path, "").unwrap();
        file.append(&line(4), &mut written).unwrap();
        assert_eq!((read(&path), written), ("000000004\n".to_owned(), 4));
    }

    /// A rename of one link to another of the same file succeeds and does nothing.
    #[test]
    fn a_file_before_that_is_the_same_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.jsonl");
        let (mut file, mut written) = (LineFile::new(path.clone(), 25), 0);
        file.append(&[line(1), line(2)].concat(), &mut written).unwrap();
        fs::hard_link(&path, before(&path)).unwrap();
        let problem = file.append(&line(3), &mut written).unwrap_err().to_string();
        assert!(problem.contains("f.jsonl.1 is the same file; remove one"), "{problem}");
        fs::remove_file(before(&path)).unwrap();
        file.append(&line(3), &mut written).unwrap();
        assert_eq!((written, read(&path)), (3, "000000003\n".to_owned()));
    }

    /// `/dev/full` takes nothing; a folder that is not there has no file.
    #[test]
    fn a_disk_that_takes_nothing_is_an_error_and_counts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.jsonl");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let (mut file, mut written) = (LineFile::new(path.clone(), 1_000), 0);
        assert!(file.append(&line(1), &mut written).is_err());
        let missing = folder.path().join("there").join("f.jsonl");
        let mut other = LineFile::new(missing.clone(), 1_000);
        assert!(other.append(&line(1), &mut written).is_err());
        assert_eq!(written, 0);
        // Once it works, it works.
        fs::remove_file(&path).unwrap();
        fs::create_dir(folder.path().join("there")).unwrap();
        file.append(&line(2), &mut written).unwrap();
        other.append(&line(2), &mut written).unwrap();
        assert_eq!(
            (written, read(&path), read(&missing)),
            (2, read(&missing), "000000002\n".into())
        );
    }
}
