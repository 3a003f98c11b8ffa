//! `bulkhead-datapath`: the process that touches packets.
//!
//! ```text
//!   main ─▶ link thread (this one): the link to control, sessions, timers; owns no packet
//!             ├─ worker 0 ─ pinned, one socket per port
//!             └─ worker n
//! ```
//!
//! It starts with no configuration, no key and no table; the control process gives it all of
//! them over the link. When that process dies the datapath goes on with what it has.
#![forbid(unsafe_code)]

mod clock;
mod control_link;
mod hits;
mod ledger;
mod plant;
mod ports;
mod records;
mod worker_thread;

use std::path::PathBuf;
use std::process::ExitCode;

use bulkhead_aead::Reason;
use clap::Parser;
use tracing::{error, info};

/// The Bulkhead datapath: AF_XDP in, judged and sealed, AF_XDP out.
///
/// It is configured by bulkheadd over the link and keeps forwarding when bulkheadd is gone.
/// Needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The socket of bulkheadd that this process connects to, again and again.
    #[arg(long, value_name = "PATH", default_value = "/run/bulkhead/link.sock")]
    link: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("BULKHEAD_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    end_with_a_panic();
    info!(link = %arguments.link.display(), "datapath starts; everything is denied until a table comes");
    if !choose_aead() {
        return ExitCode::FAILURE;
    }
    match control_link::run(&arguments.link) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            error!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Tests and chooses the code that seals and opens packets, and says what it could not use. Returns
/// whether a wish of the operator was met: who forces one wants to know, not to be served otherwise.
fn choose_aead() -> bool {
    let choice = bulkhead_aead::choice();
    for refusal in &choice.refused {
        match refusal.reason {
            Reason::Defective(_) => error!("AEAD back end not used: {refusal}"),
            Reason::Unsupported | Reason::Slower => info!("AEAD back end not used: {refusal}"),
        }
    }
    if choice.is_disobedient() {
        match &choice.wanted {
            Some(Err(unknown)) => error!("BULKHEAD_AEAD: {unknown}"),
            Some(Ok(backend)) => error!("BULKHEAD_AEAD: {backend} cannot be used here"),
            None => {}
        }
        return false;
    }
    info!(backend = %choice.backend, "AEAD back end chosen");
    true
}

/// A panic in any thread ends the process: the kernel detaches the XDP programs, and whoever
/// supervises it starts it again. A gateway that runs with one worker missing would be worse.
fn end_with_a_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
