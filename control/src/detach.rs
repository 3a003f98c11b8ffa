//! Starting a program that outlives us: in a session of its own, so that no signal to our process
//! group or terminal reaches it.
//!
//! `setsid` must be called by the new process itself, between fork and exec, which needs `unsafe` in
//! Rust's `Command`. Instead we start ourselves with [`WORD`] as first argument, which calls it and
//! becomes the program.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// First argument of `bulkheadd` that means: become the program in the rest of the arguments.
pub const WORD: &str = "detach";

/// Starts `program` in a session of its own. Its process id is that of the child.
///
/// # Errors
///
/// If no process can be made. A program that does not exist ends at once with code 127.
pub fn spawn(program: &Path, arguments: &[&Path]) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg(WORD)
        .arg(program)
        .args(arguments)
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
}

/// The other half: does not return unless it fails.
#[must_use]
pub fn become_program(mut arguments: impl Iterator<Item = OsString>) -> io::Error {
    let Some(program) = arguments.next() else {
        return io::Error::other("detach needs a program");
    };
    if let Err(errno) = rustix::process::setsid() {
        return errno.into();
    }
    Command::new(program).args(arguments).exec()
}
