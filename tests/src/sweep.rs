//! Removing what belongs to a world: its processes, its namespaces, its folder.
//!
//! INVARIANT: nothing is needed but the names (see `owner.rs`), so the same code serves the end of
//! a world, a signal, and the next start after a kill -9. Processes are found by the namespace that
//! they live in, never by their name; a process is sent a signal through a pidfd that was opened
//! *before* its namespace was looked at, so a pid that came back is never hit.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::owner::{Owner, WorldId};
use crate::wait::{Deadline, Look, until};
use crate::{During, Failure};

/// Where iproute2 keeps named network namespaces.
pub(crate) const NETNS: &str = "/run/netns";

/// Long enough for a process that is killed in the middle of a large memory unmap; a process that
/// is still there then is stuck in the kernel, and saying so is all that is left.
const KILL_SECONDS: u64 = 10;

/// What a sweep removes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// All worlds whose owner is dead.
    DeadOwners,
    /// All worlds of one process.
    Process(Owner),
    /// One world.
    World(WorldId),
}

impl Scope {
    fn holds(self, id: WorldId) -> bool {
        match self {
            Self::DeadOwners => !id.owner.is_alive(),
            Self::Process(owner) => id.owner == owner,
            Self::World(world) => id == world,
        }
    }
}

/// Where the folders of worlds are.
pub(crate) fn folders() -> PathBuf {
    std::env::temp_dir()
}

/// Removes everything in `scope`. Safe to run from several processes at once: each step accepts
/// that another one was faster.
pub(crate) fn sweep(scope: Scope) -> Result<(), Failure> {
    let namespaces = names_in(Path::new(NETNS), scope)?;
    kill_members(&namespaces)?;
    for path in &namespaces {
        remove_namespace(path)?;
    }
    for folder in names_in(&folders(), scope)? {
        match fs::remove_dir_all(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).during(|| format!("removing {}", folder.display())),
        }
    }
    Ok(())
}

/// The entries of `folder` that belong to a world in `scope`.
fn names_in(folder: &Path, scope: Scope) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).during(|| format!("reading {}", folder.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.during(|| format!("reading {}", folder.display()))?;
        let name = entry.file_name();
        if name.to_str().and_then(WorldId::of).is_some_and(|id| scope.holds(id)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Kills every process that lives in one of these namespaces and waits until none does.
fn kill_members(namespaces: &[PathBuf]) -> Result<(), Failure> {
    let inodes: BTreeSet<u64> =
        namespaces.iter().filter_map(|path| fs::metadata(path).ok()).map(|m| m.ino()).collect();
    if inodes.is_empty() {
        return Ok(());
    }
    until(Deadline::seconds(KILL_SECONDS), "the processes of a world to end", || {
        let mut left = Vec::new();
        for pid in members(&inodes)? {
            kill_if_member(pid, &inodes)?;
            left.push(pid);
        }
        Ok(if left.is_empty() { Look::Ready(()) } else { Look::NotYet(format!("pids {left:?}")) })
    })
}

/// The processes, other than this one, whose network namespace is one of `inodes`.
pub(crate) fn members(inodes: &BTreeSet<u64>) -> Result<Vec<u32>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").during(|| "reading /proc".into())? {
        let entry = entry.during(|| "reading /proc".into())?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if pid != std::process::id() && is_member(pid, inodes) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The inode of a process's network namespace; `None` once it is gone, also while it is a zombie.
pub(crate) fn network_of(pid: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|metadata| metadata.ino())
}

fn is_member(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    network_of(pid).is_some_and(|inode| inodes.contains(&inode))
}

/// Kills a process if it lives in one of these namespaces; says whether it did.
pub(crate) fn kill_if_member(pid: u32, inodes: &BTreeSet<u64>) -> Result<bool, Failure> {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
    let fd = match pidfd_open(id, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(error).during(|| format!("opening a pidfd of {pid}")),
    };
    if !is_member(pid, inodes) {
        return Ok(false);
    }
    match pidfd_send_signal(fd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(true),
        Err(error) => Err(error).during(|| format!("killing {pid}")),
    }
}

fn remove_namespace(path: &Path) -> Result<(), Failure> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let output = Command::new("ip")
        .args(["netns", "del"])
        .arg(name)
        .output()
        .during(|| "running ip netns del".into())?;
    if output.status.success() || !path.exists() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(format!("ip netns del {}: {text}", name.display())))
}
