//! A program that runs inside a namespace, its log, and its certain end.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::sweep::network_of;
use crate::wait::{Deadline, Look, until};
use crate::{During, Failure};

/// How much of a log goes into a failure.
const LOG_TAIL_LINES: usize = 25;

/// A child of this process inside a namespace. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Process {
    label: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which enters a namespace by itself (`ip netns exec`), and waits until it is
    /// inside. Output of both kinds is appended to `log`.
    pub(crate) fn start(
        label: &str,
        mut command: Command,
        inode: u64,
        log: PathBuf,
    ) -> Result<Self, Failure> {
        let open = || File::options().create(true).append(true).open(&log);
        let out = open().during(|| format!("opening {}", log.display()))?;
        let err = open().during(|| format!("opening {}", log.display()))?;
        // A process group of its own: Ctrl-C at the terminal reaches the demo alone, which then
        // removes its processes in order.
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .during(|| format!("starting {label}"))?;
        let mut process = Self { label: label.to_owned(), child, log };
        process.wait_inside(inode)?;
        Ok(process)
    }

    /// Until the process has left the namespace of its parent. From here on a sweep finds it.
    fn wait_inside(&mut self, inode: u64) -> Result<(), Failure> {
        let what = format!("{} to enter its namespace", self.label);
        until(Deadline::seconds(10), what, || {
            if network_of(self.pid()) == Some(inode) || self.exit_status()?.is_some() {
                return Ok(Look::Ready(()));
            }
            Ok(Look::NotYet("it is outside".into()))
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was called at the start; also the name of its log.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to tell.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>, Failure> {
        self.child.try_wait().during(|| format!("asking for the end of {}", self.label))
    }

    /// Fails, with the end of its log, if it is not running any more.
    ///
    /// # Errors
    ///
    /// As said.
    pub fn check_alive(&mut self) -> Result<(), Failure> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => Err(Failure::new(format!(
                "{} ended ({status}); its log ends with:\n{}",
                self.label,
                self.log_tail()
            ))),
        }
    }

    /// Everything it has written so far, invalid UTF-8 replaced.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// The last lines of the log, for failures.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// Waits until `find` finds something in the log.
    ///
    /// # Errors
    ///
    /// When the deadline passes or the process ends without it; both show the end of the log.
    pub fn wait_for_log<T>(
        &mut self,
        deadline: Deadline,
        what: &str,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Failure> {
        let what = format!("{what} in the log of {}", self.label);
        until(deadline, what, || {
            // The status first: what a process wrote before its end counts.
            let ended = self.exit_status()?;
            if let Some(found) = find(&self.log()) {
                return Ok(Look::Ready(found));
            }
            match ended {
                Some(_) => self.check_alive().map(|()| Look::NotYet(String::new())),
                None => Ok(Look::NotYet(format!("\n{}", self.log_tail()))),
            }
        })
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    ///
    /// When the deadline passes.
    pub fn wait(&mut self, deadline: Deadline) -> Result<ExitStatus, Failure> {
        let what = format!("{} to end", self.label);
        until(deadline, what, || {
            Ok(match self.exit_status()? {
                Some(status) => Look::Ready(status),
                None => Look::NotYet(format!("running; log:\n{}", self.log_tail())),
            })
        })
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    ///
    /// When it has not ended by the deadline.
    pub fn terminate(&mut self, deadline: Deadline) -> Result<ExitStatus, Failure> {
        if self.exit_status()?.is_none() {
            // Not reaped, so the pid is still this process.
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                kill_process(pid, Signal::TERM).during(|| format!("ending {}", self.label))?;
            }
        }
        self.wait(deadline)
    }

    /// Kills it (SIGKILL) and reaps it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill().during(|| format!("killing {}", self.label))?;
        self.child.wait().during(|| format!("reaping {}", self.label))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that cannot be killed shows in the sweep of its world, which reports it.
        let _ = self.kill();
    }
}

/// The text of a log; empty if there is none.
pub(crate) fn read_log(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// `status` in words: exit code or signal.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
