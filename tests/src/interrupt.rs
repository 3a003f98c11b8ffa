//! SIGINT and SIGTERM: everything that this process made is removed, then it ends.
//!
//! Tests need none of it (a killed test is swept by the next one); the demo does, because somebody
//! watches and presses Ctrl-C. Whoever creates something holds the gate open while doing so; the
//! signal closes it for good before it sweeps, so nothing is born behind the broom.

use std::io::Write;
use std::process;
use std::sync::{Once, PoisonError, RwLock};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::owner::Owner;
use crate::sweep::{Scope, sweep};
use crate::{During, Failure};

static GATE: RwLock<()> = RwLock::new(());
static INSTALLED: Once = Once::new();

/// Makes SIGINT and SIGTERM remove all worlds of this process and end it with status 130 or 143.
/// Call it first thing in a program; more calls do nothing.
///
/// # Errors
///
/// If the runtime that listens for signals cannot be made.
pub fn remove_worlds_on_signal() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .during(|| "starting the signal runtime".into())?;
    let owner = Owner::current()?;
    INSTALLED.call_once(|| {
        thread::spawn(move || runtime.block_on(wait_and_leave(owner)));
    });
    Ok(())
}

/// Runs `create` unless the process is being ended; then it blocks until the end.
pub(crate) fn while_alive<T>(create: impl FnOnce() -> T) -> T {
    let _open = GATE.read().unwrap_or_else(PoisonError::into_inner);
    create()
}

async fn wait_and_leave(owner: Owner) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    let status = tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    };
    let _closed = GATE.write().unwrap_or_else(PoisonError::into_inner);
    let text = match sweep(Scope::Process(owner)) {
        Ok(()) => "\ninterrupted: everything is removed\n".to_owned(),
        Err(failure) => format!("\ninterrupted, and not everything could be removed: {failure}\n"),
    };
    // Nobody is left to tell if even this fails.
    let _ = std::io::stderr().write_all(text.as_bytes());
    process::exit(status);
}
