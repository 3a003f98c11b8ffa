//! One machine of a world: a network namespace with a name, and ways to act inside it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::interrupt::while_alive;
use crate::process::{Process, describe};
use crate::sweep::{NETNS, kill_if_member, members, network_of};
use crate::wait::{Deadline, Look, until};
use crate::{During, Failure};

/// Bound of every program that a scenario runs to its end, seconds. Far above what any of them
/// needs; it turns a hang into a failure.
const EXEC_SECONDS: &str = "60";

/// Settings of every namespace, written before it has a device. The names are files below
/// `/proc/sys/net`; see ip-sysctl in the kernel's documentation.
const SETTINGS: &[(&str, &str)] = &[
    // Nothing forwards unless the scenario says so; on the gateway it never does.
    ("ipv4/ip_forward", "0"),
    // Asymmetric paths are part of some scenarios; the gateway's check is what is tested.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    // Addresses are usable at once, and nobody changes them.
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];

/// A network namespace of a world. Cheap to clone; the world owns what it names.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `laptop`.
    name: String,
    /// `bh-4711.889213.2-laptop`.
    full_name: String,
    inode: u64,
    /// Logs of its processes and whatever else its scenario writes.
    folder: PathBuf,
}

impl Namespace {
    /// Makes the namespace and its folder.
    pub(crate) fn create(name: &str, full_name: String, folder: PathBuf) -> Result<Self, Failure> {
        while_alive(|| {
            fs::create_dir_all(&folder).during(|| format!("creating {}", folder.display()))?;
            run_ip(&["netns", "add", &full_name])
        })?;
        let path = Path::new(NETNS).join(&full_name);
        let inode = fs::metadata(&path).during(|| format!("looking at {}", path.display()))?.ino();
        let namespace = Self(Arc::new(Inner { name: name.to_owned(), full_name, inode, folder }));
        for (key, value) in SETTINGS {
            namespace.set(key, value)?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name in the scenario.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its name for `ip -n`.
    #[must_use]
    pub fn full_name(&self) -> &str {
        &self.0.full_name
    }

    /// A folder of its own, removed with the world. Logs are here.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Runs `ip -n NAMESPACE` with these words; returns what it prints.
    ///
    /// # Errors
    ///
    /// If `ip` fails, with the command and its complaint.
    pub fn ip(&self, words: &str) -> Result<String, Failure> {
        let mut arguments = vec!["-n", self.full_name()];
        arguments.extend(words.split_ascii_whitespace());
        while_alive(|| run_ip(&arguments))
    }

    /// Writes a setting below `/proc/sys/net` of this namespace: `set("ipv4/ip_forward", "1")`.
    ///
    /// # Errors
    ///
    /// If there is no such setting or the value is refused.
    pub fn set(&self, key: &str, value: &str) -> Result<(), Failure> {
        let path = Path::new("/proc/sys/net").join(key);
        let written = self.run(|| fs::write(&path, value))?;
        written.during(|| format!("{}: writing {value} to {}", self.name(), path.display()))
    }

    /// Makes this namespace a router between its devices, for both families.
    ///
    /// # Errors
    ///
    /// If a setting is refused.
    pub fn forward(&self) -> Result<(), Failure> {
        self.set("ipv4/ip_forward", "1")?;
        self.set("ipv6/conf/all/forwarding", "1")
    }

    /// Runs a program inside to its end and returns its standard output.
    ///
    /// # Errors
    ///
    /// If it cannot be started, takes longer than a minute or ends with another code than 0; the
    /// failure shows the command and what it wrote.
    pub fn exec<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<String, Failure> {
        let output = self.output(command)?;
        if output.code == Some(0) {
            return Ok(output.stdout);
        }
        let words: Vec<_> = command.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        Err(Failure::new(format!(
            "{}: `{}` ended with {}\n{}{}",
            self.name(),
            words.join(" "),
            output.ended,
            output.stdout,
            output.stderr
        )))
    }

    /// Runs a program inside to its end; every code is a result.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn output<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<Output, Failure> {
        // Not behind the gate of `interrupt.rs`: a signal must not wait for a program's end. One
        // that is caught between fork and namespace is bounded by its timeout.
        let mut child = self.command();
        child.args(["timeout", "--kill-after=5", EXEC_SECONDS]);
        let output = child
            .args(command)
            .stdin(Stdio::null())
            .output()
            .during(|| format!("{}: running a program", self.name()))?;
        Ok(Output {
            code: output.status.code(),
            ended: describe(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a program inside that goes on. Its output goes to `LABEL.log` in the folder, appended
    /// if there is one already.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(&self, label: &str, command: &[S]) -> Result<Process, Failure> {
        let mut child = self.command();
        child.args(command);
        let log = self.log_path(label);
        while_alive(|| Process::start(label, child, self.0.inode, log))
    }

    /// Where the log of the process with this label is.
    #[must_use]
    pub fn log_path(&self, label: &str) -> PathBuf {
        self.0.folder.join(format!("{label}.log"))
    }

    /// Runs `work` on a thread of its own inside the namespace: its sockets belong there.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    ///
    /// If `work` does: the panic goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        let joined = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(work())
                })
                .join()
        });
        joined.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts `work` on a thread of its own inside the namespace and goes on.
    pub fn start<T, F>(&self, work: F) -> JoinHandle<Result<T, Failure>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let namespace = self.clone();
        thread::spawn(move || {
            namespace.enter()?;
            Ok(work())
        })
    }

    /// The pids of all processes inside.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read.
    pub fn members(&self) -> Result<Vec<u32>, Failure> {
        members(&BTreeSet::from([self.0.inode]))
    }

    /// The pids of the processes inside that run this executable.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read.
    pub fn members_running(&self, executable: &str) -> Result<Vec<u32>, Failure> {
        let mut pids = self.members()?;
        pids.retain(|pid| {
            let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            path.file_name().is_some_and(|name| name == executable)
        });
        Ok(pids)
    }

    /// Kills a process inside (SIGKILL) and waits until it has left.
    ///
    /// # Errors
    ///
    /// If it is not inside, or does not go.
    pub fn kill(&self, pid: u32) -> Result<(), Failure> {
        let inodes = BTreeSet::from([self.0.inode]);
        if !kill_if_member(pid, &inodes)? {
            return Err(Failure::new(format!("process {pid} is not in {}", self.name())));
        }
        until(Deadline::seconds(10), format!("process {pid} to end"), || {
            let inside = network_of(pid) == Some(self.0.inode);
            Ok(if inside { Look::NotYet("it is still there".into()) } else { Look::Ready(()) })
        })
    }

    /// Moves the calling thread into the namespace. It must be a thread made for that.
    fn enter(&self) -> Result<(), Failure> {
        let path = Path::new(NETNS).join(self.full_name());
        let file = File::open(&path).during(|| format!("opening {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .during(|| format!("entering {}", self.full_name()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.full_name()]);
        command
    }
}

/// How a program ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// The same in words.
    pub ended: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `ip` with these arguments.
pub(crate) fn run_ip(arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .during(|| "running ip (Debian package iproute2)".into())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(format!("ip {}: {complaint}", arguments.join(" "))))
}
