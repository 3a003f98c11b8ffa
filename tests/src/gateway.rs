//! The gateway under test: `bulkheadd` and `bulkhead-datapath` in a namespace of the world.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::counters::Counters;
use crate::namespace::Output;
use crate::privilege::{Unit, give, reachable, reduced_to};
use crate::tunnel::write_secret;
use crate::wait::{Deadline, Look, until};
use crate::{During, Failure, Namespace, Process, program};

/// Name of the datapath's executable, by which its process is found.
const DATAPATH: &str = "bulkhead-datapath";

/// Exit codes of the `bulkhead` command (its manual page).
pub mod code {
    /// Done.
    pub const OK: i32 = 0;
    /// Failed.
    pub const FAILED: i32 = 1;
    /// The command line is not understood, or names what there is not.
    pub const USAGE: i32 = 2;
    /// The configuration or the policy is invalid.
    pub const INVALID: i32 = 3;
    /// A `[[test]]` of the policy failed.
    pub const POLICY_TEST: i32 = 4;
    /// The daemon cannot be reached.
    pub const UNREACHABLE: i32 = 5;
    /// `confirm`, `rollback`: nothing waits for its confirmation.
    pub const NOTHING_WAITING: i32 = 6;
    /// `status`: it runs, but not as it should.
    pub const DEGRADED: i32 = 7;
    /// Another apply is under way, or another configuration waits for its confirmation.
    pub const NOT_NOW: i32 = 8;
    /// The datapath must be restarted for it.
    pub const RESTART_NEEDED: i32 = 9;
}

/// A gateway, running or not. Dropping it ends its control process; the datapath, which is made to
/// outlive that, ends with the world.
#[derive(Debug)]
pub struct Gateway {
    namespace: Namespace,
    folder: PathBuf,
    control: Option<Process>,
    /// Only if this gateway started the datapath itself.
    datapath: Option<Process>,
}

impl Gateway {
    /// A gateway in this namespace with empty folders. Its configuration is still to be written.
    ///
    /// # Errors
    ///
    /// If the folders cannot be made.
    pub fn new(namespace: &Namespace) -> Result<Self, Failure> {
        let folder = namespace.folder().to_path_buf();
        for name in ["etc", "run", "state"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).during(|| format!("creating {}", path.display()))?;
        }
        Ok(Self { namespace: namespace.clone(), folder, control: None, datapath: None })
    }

    /// Where it lives.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The path of its configuration, `bulkhead.toml`.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.folder.join("etc/bulkhead.toml")
    }

    /// The folder of its sockets.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// The folder of what it remembers.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Writes a key file (mode 0600) beside the configuration, which names it by `name`.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_key(&self, name: &str, key: &str) -> Result<(), Failure> {
        write_secret(&self.folder.join("etc").join(name), key)
    }

    /// Replaces the configuration file in one step, as an editor would. A running gateway notices
    /// nothing until [`Self::apply`].
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_config(&self, text: &str) -> Result<(), Failure> {
        let path = self.config_path();
        let fresh = path.with_extension("new");
        fs::write(&fresh, text).during(|| format!("writing {}", fresh.display()))?;
        fs::rename(&fresh, &path).during(|| format!("replacing {}", path.display()))
    }

    /// Starts `bulkheadd`, which starts the datapath if none connects.
    ///
    /// # Errors
    ///
    /// If a program is not built, or one is running already.
    pub fn start(&mut self) -> Result<(), Failure> {
        if self.control.is_some() {
            return Err(Failure::new("this gateway's control process was started already"));
        }
        let command = [
            program("bulkheadd")?,
            "--config".into(),
            self.config_path(),
            "--run-dir".into(),
            self.run_dir(),
            "--state-dir".into(),
            self.state_dir(),
            "--datapath".into(),
            program(DATAPATH)?,
        ];
        self.control = Some(self.namespace.spawn("bulkheadd", &command)?);
        Ok(())
    }

    /// Starts both daemons as the package's units do: each by itself, as an unprivileged user, with
    /// the capabilities of its unit and no others. Everything in the gateway's folders is given to
    /// that user first, so write keys and configuration before.
    ///
    /// # Errors
    ///
    /// If a program is not built, or one is running already.
    pub fn start_as_units(&mut self) -> Result<(), Failure> {
        if self.control.is_some() {
            return Err(Failure::new("this gateway's control process was started already"));
        }
        for name in ["etc", "run", "state"] {
            give(&self.folder.join(name))?;
        }
        let mut control = reduced_to(Unit::Control)?;
        control.extend([
            reachable(&program("bulkheadd")?, &self.folder)?,
            "--config".into(),
            self.config_path(),
            "--run-dir".into(),
            self.run_dir(),
            "--state-dir".into(),
            self.state_dir(),
        ]);
        let mut datapath = reduced_to(Unit::Datapath)?;
        datapath.extend([
            reachable(&program(DATAPATH)?, &self.folder)?,
            "--link".into(),
            self.run_dir().join("link.sock"),
        ]);
        // The datapath first: it must wait for its control process, for ever.
        self.datapath = Some(self.namespace.spawn(DATAPATH, &datapath)?);
        self.control = Some(self.namespace.spawn("bulkheadd", &control)?);
        Ok(())
    }

    /// Starts it and waits until every worker judges by the configuration.
    ///
    /// # Errors
    ///
    /// As [`Self::start`] and [`Self::wait_confirmed`].
    pub fn start_and_wait(&mut self, deadline: Deadline) -> Result<Value, Failure> {
        self.start()?;
        self.wait_confirmed(deadline)
    }

    /// Waits until `status` says that nothing is amiss: the datapath is connected, and every worker
    /// has confirmed the generation in force. Returns the status.
    ///
    /// # Errors
    ///
    /// When the deadline passes, or the control process ends.
    pub fn wait_confirmed(&mut self, deadline: Deadline) -> Result<Value, Failure> {
        until(deadline, "the gateway to be ready", || {
            self.check_control()?;
            let output = self.cli(&["status", "--json"])?;
            if output.code == Some(code::OK) {
                return parse(&output, "status").map(Look::Ready);
            }
            Ok(Look::NotYet(format!("{}: {}{}", output.ended, output.stdout, output.stderr)))
        })
    }

    /// Waits until a look at the status finds what it wants; for what [`Self::wait_confirmed`] does
    /// not mean.
    ///
    /// # Errors
    ///
    /// When the deadline passes.
    pub fn wait_for_status<T>(
        &self,
        deadline: Deadline,
        what: &str,
        mut find: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, Failure> {
        until(deadline, what, || {
            let output = self.cli(&["status", "--json"])?;
            let found = parse(&output, "status").ok().as_ref().and_then(&mut find);
            let seen = || format!("{}: {}{}", output.ended, output.stdout, output.stderr);
            Ok(found.map_or_else(|| Look::NotYet(seen()), Look::Ready))
        })
    }

    /// Fails, with the end of its log, if the control process has ended by itself.
    ///
    /// # Errors
    ///
    /// As said, or if it was not started.
    pub fn check_control(&mut self) -> Result<(), Failure> {
        match &mut self.control {
            Some(control) => control.check_alive(),
            None => Err(Failure::new("this gateway's control process was not started")),
        }
    }

    /// Runs the `bulkhead` command against this gateway; every exit code is a result.
    ///
    /// # Errors
    ///
    /// If it is not built or cannot be started.
    pub fn cli(&self, words: &[&str]) -> Result<Output, Failure> {
        let mut command = vec![
            program("bulkhead")?,
            "--config".into(),
            self.config_path(),
            "--run-dir".into(),
            self.run_dir(),
        ];
        command.extend(words.iter().map(PathBuf::from));
        self.namespace.output(&command)
    }

    /// Runs a `bulkhead` command with `--json` and returns what it answers.
    ///
    /// # Errors
    ///
    /// If its exit code is not 0 or its output is not JSON.
    pub fn cli_json(&self, words: &[&str]) -> Result<Value, Failure> {
        let with_json = [words, &["--json"]].concat();
        let output = self.cli(&with_json)?;
        let name = words.join(" ");
        if output.code == Some(code::OK) {
            return parse(&output, &name);
        }
        Err(Failure::new(format!(
            "bulkhead {name} ended with {}\n{}{}",
            output.ended, output.stdout, output.stderr
        )))
    }

    /// Writes a configuration and applies it: `{generation, compile_us, publish_us}`.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub fn apply(&self, text: &str) -> Result<Value, Failure> {
        self.write_config(text)?;
        self.cli_json(&["apply"])
    }

    /// The counters.
    ///
    /// # Errors
    ///
    /// If the gateway does not answer.
    pub fn counters(&self) -> Result<Counters, Failure> {
        Counters::read(&self.cli_json(&["counters"])?)
    }

    /// Process id of the control process, if this gateway started one.
    #[must_use]
    pub fn control_pid(&self) -> Option<u32> {
        self.control.as_ref().map(Process::pid)
    }

    /// Process id of the datapath; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If there is more than one: there never may be.
    pub fn datapath_pid(&self) -> Result<Option<u32>, Failure> {
        match self.namespace.members_running(DATAPATH)?.as_slice() {
            [] => Ok(None),
            [pid] => Ok(Some(*pid)),
            pids => Err(Failure::new(format!("there are several datapaths: {pids:?}"))),
        }
    }

    /// Kills the control process (SIGKILL) and nothing else. [`Self::start`] starts the next.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill_control(&mut self) -> Result<(), Failure> {
        self.check_control()?;
        if let Some(mut control) = self.control.take() {
            control.kill()?;
        }
        Ok(())
    }

    /// Asks the control process to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    ///
    /// If it does not run or is not gone by the deadline.
    pub fn stop_control(&mut self, deadline: Deadline) -> Result<(), Failure> {
        self.check_control()?;
        if let Some(mut control) = self.control.take() {
            control.terminate(deadline)?;
        }
        Ok(())
    }

    /// Kills the datapath (SIGKILL) and returns the pid that it had once it is gone.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn kill_datapath(&self) -> Result<u32, Failure> {
        let pid = self.datapath_pid()?.ok_or_else(|| Failure::new("there is no datapath"))?;
        self.namespace.kill(pid)?;
        Ok(pid)
    }

    /// The log of both processes.
    #[must_use]
    pub fn log(&self) -> String {
        crate::process::read_log(&self.namespace.log_path("bulkheadd"))
    }
}

fn parse(output: &Output, command: &str) -> Result<Value, Failure> {
    serde_json::from_str(&output.stdout).map_err(|error| {
        Failure::new(format!("bulkhead {command} printed no JSON ({error}): {}", output.stdout))
    })
}
