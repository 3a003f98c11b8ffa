//! The command line of a Bulkhead gateway.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_control::cli::run()
}
