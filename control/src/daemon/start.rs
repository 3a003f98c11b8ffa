//! What is read before anything runs: the configuration, the machine's addresses, and what earlier
//! processes left in the state folder.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_config::Config;
use tracing::{error, info, warn};

use super::DaemonError;
use super::change::FileLook;
use crate::api::{FileAnswer, Refusal, RefusalKind};
use crate::changes::{Changes, Moment};
use crate::clock::today;
use crate::fact_files::FactFiles;
use crate::flow_log::place;
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

/// Where a configuration is read from.
pub(super) enum Origin {
    /// The file; its tests must pass.
    File { path: PathBuf, state_dir: PathBuf },
    /// The history; key files are beside `config`. Its tests passed when it was applied: that a rule
    /// has expired since is no reason to be without a policy.
    Kept { text: Arc<str>, shown: PathBuf, config: PathBuf },
}

/// Reads a configuration and what it needs of the machine, and runs its tests.
pub(super) async fn load(origin: Origin) -> Result<Intent, Refusal> {
    let failed = |problem: String| Refusal::new(RefusalKind::Unavailable, problem);
    let read = tokio::task::spawn_blocking(move || read(origin));
    let (config, text) = read.await.map_err(|error| failed(error.to_string()))??;
    let ports: Vec<(u8, String)> =
        (0..=u8::MAX).zip(config.ports.iter().map(|port| port.device.clone())).collect();
    let own = mirror::own_addresses(&ports)
        .await
        .map_err(|error| failed(format!("the box's addresses cannot be read: {error}")))?;
    for device in &own.missing {
        warn!(device, "the configuration names a network device that does not exist now");
    }
    Ok(Intent { text, ..Intent::new(config, own) })
}

fn read(origin: Origin) -> Result<(Config, Arc<str>), Refusal> {
    match origin {
        Origin::File { path, state_dir } => {
            let (config, text) = intent::read_text(&path)?;
            check_flow_log(&path, &config, &state_dir)?;
            check_tests(&config)?;
            Ok((config, text))
        }
        Origin::Kept { text, shown, config } => {
            let read = intent::read_kept(&text, &shown, &config)?;
            if let Err(refusal) = check_tests(&read) {
                warn!(path = %shown.display(), "{refusal}; they passed when it was applied");
            }
            Ok((read, text))
        }
    }
}

/// Of what was put in force before only the thread that writes says it: a log is no reason to be without a
/// policy.
fn check_flow_log(path: &Path, config: &Config, state_dir: &Path) -> Result<(), Refusal> {
    place::check(state_dir, Path::new(&config.flow_log.file)).map_err(|problem| {
        let problem =
            format!("{}: flow_log.file: {}: {problem}", path.display(), config.flow_log.file);
        Refusal::new(RefusalKind::Invalid, problem)
    })
}

/// What to begin with: what waits for its confirmation if this is the boot in which it was applied,
/// else what was confirmed last, else, if nothing ever was, the file.
pub(super) async fn begin(
    (config, state_dir): (&Path, &Path),
    changes: &mut Changes,
    moment: Moment,
) -> Result<Intent, DaemonError> {
    if let Some(generation) = changes.resume(moment) {
        match load_kept(config, changes, generation).await {
            Ok(intent) => return Ok(intent),
            Err(refusal) => {
                error!(generation, "waited for its confirmation and cannot be loaded: {refusal}");
                changes.give_up();
            }
        }
    }
    let Some(generation) = changes.standing() else {
        let file = Origin::File { path: config.to_owned(), state_dir: state_dir.to_owned() };
        return load(file).await.map_err(DaemonError::Configuration);
    };
    let intent = load_kept(config, changes, generation).await.map_err(|refusal| {
        let path = changes.history().text_path(generation);
        let message = format!(
            "generation {generation}, which was confirmed last, cannot be loaded: {}. Mend what it \
             names; or move {} and the .json beside it away, to start with the one before",
            refusal.message,
            path.display()
        );
        DaemonError::Configuration(Refusal { message, ..refusal })
    })?;
    changes.start_with_standing();
    info!(generation, "begins with what was confirmed last");
    if FileLook::default().compare(config, &intent.text) != FileAnswer::Same {
        warn!(
            path = %config.display(),
            "the file says something else than generation {generation}, which was confirmed last and \
             is put in force; bulkhead apply puts the file in force"
        );
    }
    Ok(intent)
}

async fn load_kept(config: &Path, changes: &Changes, generation: u64) -> Result<Intent, Refusal> {
    let history = changes.history();
    let text = history
        .text(generation)
        .map_err(|problem| Refusal::new(RefusalKind::NotKept, problem.to_string()))?;
    let shown = history.text_path(generation);
    load(Origin::Kept { text: text.into(), shown, config: config.to_owned() }).await
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
