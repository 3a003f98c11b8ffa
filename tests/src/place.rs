//! Where a client runs: a program in a namespace, or the kernel of a guest. Only this file knows the
//! difference.

use crate::guest::{Guest, GuestProcess};
use crate::tunnel::write_secret;
use crate::wait::{Deadline, Look, until};
use crate::{Failure, Namespace, Output, Process};

/// The machine of a client, and the client's own process if it has one.
#[derive(Debug)]
pub(crate) enum Place {
    Program { namespace: Namespace, process: Process },
    Kernel(Guest),
}

impl Place {
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Program { process, .. } => process.label(),
            Self::Kernel(_) => "the kernel's WireGuard",
        }
    }

    pub(crate) fn check_alive(&mut self) -> Result<(), Failure> {
        match self {
            Self::Program { process, .. } => process.check_alive(),
            Self::Kernel(guest) => guest.exec("true").map(|_| ()),
        }
    }

    /// Runs `ip` with these words.
    pub(crate) fn ip(&self, words: &str) -> Result<String, Failure> {
        match self {
            Self::Program { namespace, .. } => namespace.ip(words),
            Self::Kernel(guest) => guest.exec(&format!("ip {words}")),
        }
    }

    /// Runs `wg` where it finds the client.
    pub(crate) fn wg<S: AsRef<str>>(&self, words: &[S]) -> Result<String, Failure> {
        let words = words.iter().map(AsRef::as_ref);
        match self {
            Self::Program { namespace, process } => {
                let pid = process.pid().to_string();
                let command = ["nsenter", "--target", &pid, "--mount", "wg"];
                namespace.exec(&command.into_iter().chain(words).collect::<Vec<_>>())
            }
            Self::Kernel(guest) => {
                guest.exec(&format!("wg {}", words.collect::<Vec<_>>().join(" ")))
            }
        }
    }

    /// Writes a file that only root reads, and returns its path there.
    pub(crate) fn write_secret(&self, name: &str, secret: &str) -> Result<String, Failure> {
        match self {
            Self::Program { namespace, .. } => {
                let path = namespace.folder().join(name);
                write_secret(&path, secret)?;
                Ok(path.to_string_lossy().into_owned())
            }
            Self::Kernel(guest) => {
                let path = format!("/tmp/{name}");
                guest.exec(&format!("umask 077; echo {secret} >{path}"))?;
                Ok(path)
            }
        }
    }

    pub(crate) fn probe_once(&self, words: &str) -> Result<Output, Failure> {
        match self {
            Self::Program { namespace, .. } => namespace.probe_once(words),
            Self::Kernel(guest) => guest.probe_once(words),
        }
    }

    pub(crate) fn probe(&self, label: &str, words: &str) -> Result<Probe, Failure> {
        match self {
            Self::Program { namespace, .. } => namespace.probe(label, words).map(Probe::Program),
            Self::Kernel(guest) => guest.probe(label, words).map(Probe::Guest),
        }
    }
}

/// A probe that goes on, on whatever machine. Dropping it kills it.
#[derive(Debug)]
pub enum Probe {
    /// In a namespace.
    Program(Process),
    /// In a guest.
    Guest(GuestProcess),
}

impl Probe {
    /// Everything it has written so far.
    ///
    /// # Errors
    ///
    /// If a guest does not answer.
    pub fn log(&self) -> Result<String, Failure> {
        match self {
            Self::Program(process) => Ok(process.log()),
            Self::Guest(process) => process.log(),
        }
    }

    /// Waits until `find` finds something in the log.
    ///
    /// # Errors
    ///
    /// When the deadline passes; shows the log.
    pub fn wait_for_log<T>(
        &self,
        deadline: Deadline,
        what: &str,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Failure> {
        until(deadline, format!("{what} in the log of a probe"), || {
            let log = self.log()?;
            let found = find(&log);
            Ok(found.map_or_else(|| Look::NotYet(format!("\n{log}")), Look::Ready))
        })
    }
}
