//! The file in the run folder that says until when a change waits for its confirmation. The folder is
//! in memory: another boot does not find it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::timestamps::replace;

/// Name of the file.
const NAME: &str = "waiting.json";

/// Where it is.
#[derive(Debug)]
pub(super) struct Marker(PathBuf);

/// Until when something waits; of no use to another boot.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Deadline {
    generation: u64,
    /// Since the box started, milliseconds.
    until_ms: u64,
    /// What the operator asked for, milliseconds: a run folder that outlived a boot cannot make it
    /// longer than that.
    confirm_ms: u64,
}

impl Marker {
    pub(super) fn new(run_dir: &Path) -> Self {
        Self(run_dir.join(NAME))
    }

    /// How long `generation` waits still, at a time since the box started; `None`: no more.
    pub(super) fn left(&self, generation: u64, boot: Duration) -> Option<Duration> {
        let bytes = fs::read(&self.0).ok()?;
        let deadline: Deadline = serde_json::from_slice(&bytes).ok()?;
        if deadline.generation != generation {
            return None;
        }
        let left = Duration::from_millis(deadline.until_ms).checked_sub(boot)?;
        Some(left.min(Duration::from_millis(deadline.confirm_ms))).filter(|left| !left.is_zero())
    }

    pub(super) fn write(
        &self,
        generation: u64,
        confirm: Duration,
        boot: Duration,
    ) -> io::Result<()> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let until_ms = ms(boot.saturating_add(confirm));
        let deadline = Deadline { generation, until_ms, confirm_ms: ms(confirm) };
        replace(&self.0, &serde_json::to_vec(&deadline)?)
    }

    pub(super) fn forget(&self) {
        // It names a generation that does not wait any more, or the next one replaces it.
        let _ = fs::remove_file(&self.0);
    }
}
