//! Which timestamps were accepted of each peer, kept across restarts, so that a new control process
//! refuses an initiation that an old one has answered.
//!
//! One line of text for each timestamp: the public key in base64, a space, the TAI64N label in hex;
//! first the greatest up to the present, then those of the future, which end in " ahead". The file is
//! replaced as a whole (written beside, synced, renamed), at most once per second.
//!
//! Accepted: after a crash the labels of the last second are missing. Whoever replays one of those
//! few initiations gets a response that is of no use to them (whitepaper §5.1), and nothing else
//! happens: where the peer is and which session is used changes only with its first data packet
//! (ADR 9). To write before every answer would make each handshake wait for the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_wg::{Freshness, PublicKey, Tai64n, Time};

/// The least time between two writes. Lower: a flood of handshakes becomes a flood of fsyncs.
/// Higher: a crash forgets more.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Ends the line of a label that was ahead of our clock.
const AHEAD: &str = "ahead";

/// Timestamps in memory and in their file.
#[derive(Debug)]
pub struct Timestamps {
    path: PathBuf,
    accepted: BTreeMap<PublicKey, Freshness>,
    changed: bool,
    written_at: Option<Time>,
}

impl Timestamps {
    /// Reads the file; a missing one is empty. Also returns how many lines made no sense and were
    /// left out: the rest is still worth more than nothing.
    ///
    /// # Errors
    ///
    /// If the file exists and cannot be read.
    pub fn load(path: &Path) -> io::Result<(Self, usize)> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut found: BTreeMap<PublicKey, (Tai64n, BTreeSet<Tai64n>)> = BTreeMap::new();
        let mut senseless = 0;
        for line in text.lines() {
            match parse(line) {
                Some((peer, label, false)) => {
                    let (greatest, _) = found.entry(peer).or_default();
                    *greatest = label.max(*greatest);
                }
                Some((peer, label, true)) => {
                    found.entry(peer).or_default().1.insert(label);
                }
                None => senseless += 1,
            }
        }
        let restored = |(peer, (greatest, ahead))| (peer, Freshness::restored(greatest, ahead));
        let accepted = found.into_iter().map(restored).collect();
        let path = path.to_owned();
        Ok((Self { path, accepted, changed: false, written_at: None }, senseless))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &BTreeMap<PublicKey, Freshness> {
        &self.accepted
    }

    /// An initiation was accepted, and this is all that was, of this peer.
    pub fn accepted(&mut self, peer: PublicKey, freshness: Freshness) {
        let known = self.accepted.entry(peer).or_default();
        if freshness != *known {
            *known = freshness;
            self.changed = true;
        }
    }

    /// When [`Self::write`] should be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.changed.then(|| self.written_at.map_or(Time::default(), |at| at.plus(WRITE_INTERVAL)))
    }

    /// Replaces the file if something changed.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; it is tried again at the next deadline.
    pub fn write(&mut self, now: Time) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        self.written_at = Some(now);
        let mut text = String::new();
        for (peer, freshness) in &self.accepted {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{peer} {}", hex(freshness.greatest()));
            for label in freshness.ahead() {
                let _ = writeln!(text, "{peer} {} {AHEAD}", hex(label));
            }
        }
        replace(&self.path, text.as_bytes())?;
        self.changed = false;
        Ok(())
    }
}

/// Replaces a file so that a reader, also after a crash, sees the old content or the new one.
///
/// # Errors
///
/// Whatever the file system says; the old file is then untouched.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

fn hex(label: Tai64n) -> String {
    label.0.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Peer, label, and whether it is of the future.
fn parse(line: &str) -> Option<(PublicKey, Tai64n, bool)> {
    let (peer, label) = line.split_once(' ')?;
    let (hex, ahead) = match label.split_once(' ') {
        Some((hex, AHEAD)) => (hex, true),
        Some(_) => return None,
        None => (label, false),
    };
    if hex.len() != 24 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut label = [0; 12];
    for (at, byte) in label.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some((peer.parse().ok()?, Tai64n(label), ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Time {
        Time(Duration::from_secs(n))
    }

    #[test]
    fn what_was_accepted_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timestamps");
        let (mut one, _) = Timestamps::load(&path).unwrap();
        assert_eq!(one.deadline(), None);
        let label = |n| Tai64n::from_unix(Duration::from_secs(n));
        let fresh = |greatest, ahead: &[u64]| {
            Freshness::restored(label(greatest), ahead.iter().map(|n| label(*n)))
        };
        one.accepted(PublicKey([1; 32]), fresh(7, &[]));
        one.accepted(PublicKey([2; 32]), fresh(8, &[5_000, 6_000]));
        one.write(seconds(10)).unwrap();
        let (other, senseless) = Timestamps::load(&path).unwrap();
        assert_eq!(senseless, 0);
        let want =
            [(PublicKey([1; 32]), fresh(7, &[])), (PublicKey([2; 32]), fresh(8, &[5_000, 6_000]))];
        assert_eq!(other.all(), &BTreeMap::from(want));
    }

    #[test]
    fn writes_are_a_second_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (mut kept, _) = Timestamps::load(&folder.path().join("timestamps")).unwrap();
        let fresh = |n| Freshness::restored(Tai64n([n; 12]), []);
        kept.accepted(PublicKey([1; 32]), fresh(1));
        assert_eq!(kept.deadline(), Some(Time::default()), "the first is due at once");
        kept.write(seconds(10)).unwrap();
        assert_eq!(kept.deadline(), None);
        kept.accepted(PublicKey([1; 32]), fresh(1));
        assert_eq!(kept.deadline(), None, "nothing new");
        kept.accepted(PublicKey([1; 32]), fresh(2));
        assert_eq!(kept.deadline(), Some(seconds(11)));
    }

    #[test]
    fn a_damaged_line_costs_that_line_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timestamps");
        let good = format!("{} 00112233445566778899aabb", PublicKey([3; 32]));
        let text = format!(
            "{good}\nnonsense\n{} 0011\n{} zz112233445566778899aabb\n{good} behind\n",
            PublicKey([4; 32]),
            PublicKey([5; 32])
        );
        fs::write(&path, text).unwrap();
        let (kept, senseless) = Timestamps::load(&path).unwrap();
        assert_eq!((kept.all().len(), senseless), (1, 4));
        let label = [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb];
        assert_eq!(kept.all()[&PublicKey([3; 32])].greatest(), Tai64n(label));
    }

    #[test]
    fn a_write_that_fails_stays_due() {
        let (mut kept, _) = Timestamps::load(Path::new("/nowhere/at/all")).unwrap();
        kept.accepted(PublicKey([1; 32]), Freshness::restored(Tai64n([1; 12]), []));
        assert!(kept.write(seconds(1)).is_err());
        assert_eq!(kept.deadline(), Some(seconds(2)));
    }
}
