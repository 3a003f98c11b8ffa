//! What is read before anything runs: the configuration, the machine's addresses, and what earlier
//! processes left in the state folder.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::DaemonError;
use crate::api::{Refusal, RefusalKind};
use crate::clock::today;
use crate::fact_files::FactFiles;
use crate::intent::{self, Intent};
use crate::knowledge::Knowledge;
use crate::mirror;
use crate::publish::check_tests;
use crate::state::Record;
use crate::timestamps::Timestamps;

const TIMESTAMPS: &str = "timestamps";
/// The folder of what is known of devices.
const FACTS: &str = "facts";
/// The file of the last [`Record`].
pub(super) const RECORD: &str = "published.json";

/// Reads the file and what it needs of the machine, and runs its tests.
pub(super) async fn load(path: PathBuf) -> Result<Intent, Refusal> {
    let read = tokio::task::spawn_blocking(move || {
        let config = intent::read(&path)?;
        check_tests(&config)?;
        Ok(config)
    });
    let failed = |problem: String| Refusal::new(RefusalKind::Unavailable, problem);
    let config = read.await.map_err(|error| failed(error.to_string()))??;
    let ports: Vec<(u8, String)> =
        (0..=u8::MAX).zip(config.ports.iter().map(|port| port.device.clone())).collect();
    let own = mirror::own_addresses(&ports)
        .await
        .map_err(|error| failed(format!("the box's addresses cannot be read: {error}")))?;
    for device in &own.missing {
        warn!(device, "the configuration names a network device that does not exist now");
    }
    Ok(Intent::new(config, own))
}

/// What earlier processes left.
pub(super) struct Kept {
    pub(super) timestamps: Timestamps,
    pub(super) record: Record,
    pub(super) fact_files: FactFiles,
    pub(super) knowledge: Knowledge,
    /// What they left and nobody can read, as sentences.
    pub(super) lost: Vec<String>,
}

impl Kept {
    /// Reads it, and makes the folder if there is none.
    pub(super) fn read(state_dir: &Path) -> Result<Self, DaemonError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DaemonError::State { path, source }
        };
        if !state_dir.is_dir() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
            made.map_err(failed(state_dir))?;
        }
        let path = state_dir.join(TIMESTAMPS);
        let (timestamps, senseless) = Timestamps::load(&path).map_err(failed(&path))?;
        if senseless > 0 {
            warn!(senseless, path = %path.display(), "lines that make no sense; left out");
        }
        let path = state_dir.join(RECORD);
        let record = match fs::read(&path) {
            // A record that makes no sense only means that the table is published again.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(failed(&path)(error)),
        };
        let path = state_dir.join(FACTS);
        let opened = FactFiles::open(path.clone(), today());
        let (fact_files, knowledge, lost) = opened.map_err(failed(&path))?;
        for problem in &lost {
            error!("{problem}");
        }
        Ok(Self { timestamps, record, fact_files, knowledge, lost })
    }
}
