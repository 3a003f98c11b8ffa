//! The Bulkhead control process.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use bulkhead_control::{cli, detach};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == detach::WORD) {
        let problem = detach::become_program(arguments);
        // There is no log yet; the parent's standard error is all there is.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("bulkheadd: the datapath cannot be started: {problem}\n").as_bytes(),
        );
        return ExitCode::from(127);
    }
    cli::run_daemon()
}
