//! The command line `bulkhead`. Commands are functions from arguments to what is said and the exit
//! code; only [`run`] prints.

mod apply;
mod change;
mod check;
mod client;
mod context;
mod counters;
mod daemon;
mod device;
mod hits;
mod import;
mod kept_keys;
mod key;
mod packaging;
mod peer;
mod policy;
mod status;
mod text;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use serde::Serialize;
use zeroize::Zeroize;

use crate::api::{Refusal, RefusalKind};

pub use daemon::{DaemonArguments, run_daemon};

/// Where the configuration is unless said otherwise.
pub const CONFIG_DEFAULT: &str = "/etc/bulkhead/bulkhead.toml";
/// Where the daemon's sockets are unless said otherwise.
pub const RUN_DIR_DEFAULT: &str = "/run/bulkhead";
/// What the daemon keeps across restarts unless said otherwise.
pub const STATE_DIR_DEFAULT: &str = "/var/lib/bulkhead";

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for status: all is well
  1  failed or refused; what was in force stays or comes back. For policy lint: something was found
  2  the command line is wrong, or what it or standard input names; nothing was changed
  3  the configuration or the policy is invalid; nothing was changed
  4  a policy test failed; nothing was changed
  5  bulkheadd cannot be reached, or did not answer in time: then what it was asked for may be done, or
     still under way
  6  nothing, or not what was named, waits for its confirmation (confirm, rollback): it was rolled back,
     or never waited; nothing was changed
  7  degraded (status, context): something is not as it should be
  8  not now: another apply is under way, or another configuration waits for its confirmation; nothing
     was changed
  9  valid, but the datapath must be restarted for it (apply, rollback); nothing was changed";

/// Operate a Bulkhead gateway.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Arguments {
    /// The configuration file, for commands that read it themselves.
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    config: PathBuf,
    /// Folder of the running bulkheadd.
    #[arg(long, global = true, value_name = "DIR", default_value = RUN_DIR_DEFAULT)]
    run_dir: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a configuration, compile its policy and run its tests. Needs no daemon.
    Check {
        /// Instead of --config.
        file: Option<PathBuf>,
    },
    /// Put the daemon's configuration file in force.
    ///
    /// The daemon reads its file again, checks and compiles it, and waits until every worker judges
    /// by it. After any mistake everything is as before.
    ///
    /// What was confirmed last is what a start of the box or of bulkheadd puts in force, whatever the
    /// file says by then. Every apply is confirmed at once, but for those with --confirm.
    Apply(apply::ApplyArguments),
    /// Keep the configuration that waits for its confirmation. Exit code 6 if none does, or another.
    Confirm {
        /// Keep it only if it is this GENERATION, which bulkhead apply has named; so nobody keeps
        /// what another operator has applied meanwhile. Without it, whatever waits is kept.
        generation: Option<u64>,
    },
    /// List the configurations that were in force, or print one of them.
    ///
    /// The last 100 are kept, with the time, the user id of whoever applied them, and the message. Of
    /// those that cannot come back because a key file beside --config is gone, that is said too.
    History {
        /// Print the text of this GENERATION, as it was applied.
        generation: Option<u64>,
    },
    /// Take back the configuration that waits for its confirmation, or return to an earlier one.
    ///
    /// The configuration file is not touched. Key files are read as they are now; the tests in the
    /// text, which passed when it was applied, are not a condition.
    Rollback {
        /// Return to the text of this GENERATION; it gets a new number in the history. Without it,
        /// what waits is taken back; exit code 6 if nothing does.
        generation: Option<u64>,
        /// Only if this GENERATION waits, which bulkhead apply has named; so nobody takes back what
        /// another operator has applied meanwhile. Without it, whatever waits is taken back.
        #[arg(long, value_name = "GENERATION")]
        of: Option<u64>,
        #[command(flatten)]
        how: apply::How,
    },
    /// Health of the gateway: generation, workers, ports, and what is wrong.
    Status,
    /// How every packet ended since the datapath started, and whether the figures add up.
    Counters,
    /// WireGuard devices and their sessions.
    Peer {
        #[command(subcommand)]
        command: PeerCommand,
    },
    /// What is known of devices: their posture, risk and tier.
    Context {
        #[command(subcommand)]
        command: context::ContextCommand,
    },
    /// Devices in the configuration file, and the files that they need. They need no daemon.
    Device {
        #[command(subcommand)]
        command: device::DeviceCommand,
    },
    /// Take over what another WireGuard hub was configured with.
    Import {
        #[command(subcommand)]
        command: import::ImportCommand,
    },
    /// The gateway's own keys. They need no daemon.
    Key {
        #[command(subcommand)]
        command: key::KeyCommand,
    },
    /// Questions about the policy. They need no daemon, except with --running and for how often rules
    /// were used.
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Print a completion script for a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Write the manual pages of bulkhead and bulkheadd.
    Man {
        /// Into this folder, which must exist.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum PeerCommand {
    /// List all devices, with what they do.
    ///
    /// Bytes are those of packets inside the tunnel, since the datapath started. Loss is estimated on
    /// the way from the device, under its sessions that live: messages are numbered without a gap, so
    /// what is missing below the greatest number that arrived was lost, or is late.
    List,
    /// Show one device.
    Show {
        /// Its NAME in [device.NAME].
        name: String,
    },
    /// Show the list again and again, until interrupted.
    Watch {
        /// Seconds between two looks.
        #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
        interval: u64,
        /// How often; without it, until interrupted.
        #[arg(long, value_name = "TIMES")]
        count: Option<u64>,
    },
}

/// What a command says, and how it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    out: String,
    err: String,
    exit: Exit,
}

/// How a command ends. See `EXIT_CODES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Exit {
    #[default]
    Done = 0,
    Failed = 1,
    /// Also what clap ends with.
    BadRequest = 2,
    Invalid = 3,
    TestFailed = 4,
    Unreachable = 5,
    NothingWaiting = 6,
    Degraded = 7,
    NotNow = 8,
    RestartNeeded = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the command of this process and prints what it says.
#[must_use]
pub fn run() -> ExitCode {
    let mut said = Arguments::parse().run();
    // A reader that has gone (`| head`) is no failure of ours.
    let _ = std::io::stdout().write_all(said.out.as_bytes());
    let _ = std::io::stderr().write_all(said.err.as_bytes());
    // It may be a key.
    said.out.zeroize();
    said.exit.into()
}

impl Arguments {
    fn run(self) -> Said {
        let Self { config, run_dir, json, command } = self;
        match command {
            Command::Check { file } => check::check(&file.unwrap_or(config), json),
            Command::Apply(arguments) => apply::apply(&run_dir, arguments, json),
            Command::Confirm { generation } => change::confirm(&run_dir, generation, json),
            Command::History { generation: None } => change::history(&run_dir, &config, json),
            Command::History { generation: Some(generation) } => {
                change::text(&run_dir, generation, json)
            }
            Command::Rollback { generation, of, how } => {
                apply::rollback(&run_dir, (generation, of), how, json)
            }
            Command::Status => status::status(&run_dir, json),
            Command::Counters => counters::counters(&run_dir, json),
            Command::Peer { command: PeerCommand::List } => peer::list(&run_dir, json),
            Command::Peer { command: PeerCommand::Show { name } } => {
                peer::show(&run_dir, &name, json)
            }
            Command::Peer { command: PeerCommand::Watch { interval, count } } => {
                peer::watch(&run_dir, Duration::from_secs(interval), count, json)
            }
            Command::Context { command } => command.run(&run_dir, json),
            Command::Device { command } => command.run(&config, json),
            Command::Import { command } => command.run(json),
            Command::Key { command } => command.run(&config, &run_dir, json),
            Command::Policy { command } => command.run(&config, &run_dir, json),
            Command::Completions { shell } => packaging::completions(shell),
            Command::Man { out } => packaging::man(&out),
        }
    }
}

impl Said {
    /// Text, or a value as JSON.
    fn new(json: bool, value: &impl Serialize, text: impl FnOnce() -> String, exit: Exit) -> Self {
        let out = if json { as_json(value) } else { text() };
        Self { out, err: String::new(), exit }
    }

    /// With a line beside the answer, which programs that read the answer do not see.
    fn with_note(mut self, note: Option<String>) -> Self {
        self.err.extend(note);
        self
    }

    /// Something went wrong that has no other form.
    fn failed(message: impl std::fmt::Display) -> Self {
        Self { out: String::new(), err: format!("bulkhead: {message}\n"), exit: Exit::Failed }
    }

    /// The daemon, or the compiler, said no.
    fn refused(json: bool, refusal: &Refusal) -> Self {
        let exit = match refusal.kind {
            RefusalKind::Invalid => Exit::Invalid,
            RefusalKind::TestFailed => Exit::TestFailed,
            RefusalKind::NothingWaiting => Exit::NothingWaiting,
            RefusalKind::BadRequest => Exit::BadRequest,
            RefusalKind::Busy | RefusalKind::Waiting => Exit::NotNow,
            RefusalKind::RestartNeeded => Exit::RestartNeeded,
            RefusalKind::Unavailable
            | RefusalKind::Refused
            | RefusalKind::Timeout
            | RefusalKind::NotKept => Exit::Failed,
        };
        if json {
            return Self { out: as_json(&Refused { refused: refusal }), exit, ..Self::default() };
        }
        let details: String =
            refusal.diagnostics.iter().map(|diagnostic| format!("{}\n", diagnostic.text)).collect();
        Self { err: format!("{details}bulkhead: {refusal}\n"), exit, ..Self::default() }
    }
}

#[derive(Serialize)]
struct Refused<'a> {
    refused: &'a Refusal,
}

fn as_json(value: &impl Serialize) -> String {
    match serde_json::to_string_pretty(value) {
        Ok(text) => text + "\n",
        Err(error) => format!("{{\"refused\":{{\"message\":\"{error}\"}}}}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        DaemonArguments::command().debug_assert();
    }

    /// What a script does next depends on it: mend the file, mend its call, try again, restart.
    #[test]
    fn refusals_that_want_something_else_end_with_another_exit_code() {
        for (kind, exit) in [
            (RefusalKind::BadRequest, 2),
            (RefusalKind::Invalid, 3),
            (RefusalKind::TestFailed, 4),
            (RefusalKind::NothingWaiting, 6),
            (RefusalKind::Busy, 8),
            (RefusalKind::Waiting, 8),
            (RefusalKind::RestartNeeded, 9),
            (RefusalKind::Unavailable, 1),
            (RefusalKind::Refused, 1),
            (RefusalKind::Timeout, 1),
            (RefusalKind::NotKept, 1),
        ] {
            for json in [false, true] {
                let said = Said::refused(json, &Refusal::new(kind, "a test"));
                assert_eq!(said.exit as u8, exit, "{kind:?}");
            }
        }
    }

    #[test]
    fn every_exit_code_is_documented() {
        for exit in [
            Exit::Done,
            Exit::Failed,
            Exit::BadRequest,
            Exit::Invalid,
            Exit::TestFailed,
            Exit::Unreachable,
            Exit::NothingWaiting,
            Exit::Degraded,
            Exit::NotNow,
            Exit::RestartNeeded,
        ] {
            let line = format!("\n  {}  ", exit as u8);
            assert!(EXIT_CODES.contains(&line), "{exit:?}");
        }
    }
}
