//! Why there is no daemon.

use std::io;
use std::path::PathBuf;

use crate::api::Refusal;
use crate::handshake_thread::ThreadGone;
use crate::history::HistoryError;
use crate::run_dir::RunDirError;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is invalid, or a policy test fails.
    #[error("{0}")]
    Configuration(Refusal),
    /// The run folder cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The state folder cannot be used.
    #[error("{}: {source}", .path.display())]
    State {
        /// What in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be known what was in force.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// `--datapath` names nothing that can be run.
    #[error("--datapath {}: {source}", .path.display())]
    Datapath {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A listener's port is taken.
    #[error(transparent)]
    Outer(#[from] crate::outer::OuterRefused),
    /// The handshake thread ended.
    #[error(transparent)]
    Thread(#[from] ThreadGone),
    /// The system refused something that everything needs.
    #[error("{0}")]
    Io(#[from] io::Error),
}
