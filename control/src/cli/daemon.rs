//! The command line of `bulkheadd`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing::error;

use super::{CONFIG_DEFAULT, RUN_DIR_DEFAULT, STATE_DIR_DEFAULT};
use crate::daemon::{DaemonError, Options, run};

/// The Bulkhead control process.
///
/// Loads the configuration, runs WireGuard handshakes, and tells the datapath what to do. It can be
/// stopped and started at any time: the datapath goes on, and is taken over again.
///
/// It begins with the configuration that was confirmed last (see bulkhead history), whatever the file
/// says by then: bulkhead apply puts the file in force. The file counts if nothing was ever confirmed.
#[derive(Debug, Parser)]
#[command(
    name = "bulkheadd",
    version,
    after_help = "The log goes to standard error; BULKHEAD_LOG=debug says more.\n\n\
                  Exit codes:\n  0  stopped by SIGTERM or SIGINT\n  1  failed; also if it cannot be known what was \
                  confirmed last\n  \
                  2  the command line is wrong\n  3  the configuration is invalid or a policy test \
                  failed, or what was confirmed last cannot be loaded"
)]
pub struct DaemonArguments {
    /// The configuration file. Key files are beside it.
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    config: PathBuf,
    /// Folder of the sockets for the datapath and the CLI.
    #[arg(long, value_name = "DIR", default_value = RUN_DIR_DEFAULT)]
    run_dir: PathBuf,
    /// Folder of what is kept across restarts.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR_DEFAULT)]
    state_dir: PathBuf,
    /// Serve a socket NAME.sock for each [wireguard.NAME] in this folder, so that wg show, wg show all
    /// dump and wg showconf of wireguard-tools work. They look in /var/run/wireguard only, which the
    /// systemd unit of the package names here. The sockets are of mode 0600: for root and the user of
    /// this daemon. They only tell; wg set is refused, because the configuration file says what is.
    #[arg(long, value_name = "DIR")]
    wireguard_dir: Option<PathBuf>,
    /// Start this bulkhead-datapath when none connects within 500 ms, and again when it dies. It
    /// outlives bulkheadd. Without this option something else starts it.
    #[arg(long, value_name = "PATH")]
    datapath: Option<PathBuf>,
}

/// Runs the daemon of this process.
#[must_use]
pub fn run_daemon() -> ExitCode {
    let DaemonArguments { config, run_dir, state_dir, wireguard_dir, datapath } =
        DaemonArguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("BULKHEAD_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    match run(&Options { config, run_dir, state_dir, wireguard_dir, datapath }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(DaemonError::Configuration(refusal)) => {
            for diagnostic in &refusal.diagnostics {
                error!("\n{}", diagnostic.text);
            }
            error!("{refusal}");
            ExitCode::from(3)
        }
        Err(problem) => {
            error!("{problem}");
            ExitCode::FAILURE
        }
    }
}
