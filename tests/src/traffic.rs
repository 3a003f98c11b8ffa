//! `bulkhead-probe` started where it is needed.

use crate::probe::last_line;
use crate::wait::Deadline;
use crate::{Failure, Namespace, Output, Process, program};

impl Namespace {
    /// Starts the probe with these words and goes on: `probe("send", "stream-send udp 10.0.0.1:7")`.
    ///
    /// # Errors
    ///
    /// If it is not built or cannot be started.
    pub fn probe(&self, label: &str, words: &str) -> Result<Process, Failure> {
        let program = program("bulkhead-probe")?;
        self.spawn(label, &command(&program.to_string_lossy(), words))
    }

    /// The same for a task that listens; returns once it does.
    ///
    /// # Errors
    ///
    /// As [`Self::probe`], and if it does not listen within ten seconds.
    pub fn probe_server(&self, label: &str, words: &str) -> Result<Process, Failure> {
        let mut process = self.probe(label, words)?;
        process.wait_for_log(Deadline::seconds(10), "a listening socket", |log| {
            last_line(log, "listening").map(|_| ())
        })?;
        Ok(process)
    }

    /// Runs the probe to its end; every exit code is a result.
    ///
    /// # Errors
    ///
    /// If it is not built or cannot be started.
    pub fn probe_once(&self, words: &str) -> Result<Output, Failure> {
        let program = program("bulkhead-probe")?;
        self.output(&command(&program.to_string_lossy(), words))
    }
}

fn command(program: &str, words: &str) -> Vec<String> {
    let words = words.split_ascii_whitespace().map(str::to_owned);
    std::iter::once(program.to_owned()).chain(words).collect()
}
