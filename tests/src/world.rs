//! A world: some machines (network namespaces) and cables between them, gone when it is dropped.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::thread;

use crate::interrupt::while_alive;
use crate::namespace::Namespace;
use crate::owner::{Owner, WorldId};
use crate::sweep::{Scope, folders, sweep};
use crate::{During, Failure};

/// Worlds made by this process so far.
static SERIAL: AtomicU32 = AtomicU32::new(1);

/// A set of namespaces with everything in them. Dropping it kills every process inside, also those
/// whose parent is gone, and removes every trace; so does the next [`World::new`] of any process if
/// this one is killed first.
#[derive(Debug)]
pub struct World {
    id: WorldId,
    folder: PathBuf,
    links: AtomicU16,
}

impl World {
    /// An empty world. Removes the worlds of dead processes first.
    ///
    /// # Errors
    ///
    /// Without root, or if the remains of a dead world resist.
    pub fn new() -> Result<Self, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new("a world is made of network namespaces: run this as root"));
        }
        sweep(Scope::DeadOwners)?;
        let owner = Owner::current()?;
        let id = WorldId { owner, serial: SERIAL.fetch_add(1, Ordering::Relaxed) };
        let folder = folders().join(id.to_string());
        while_alive(|| fs::create_dir(&folder))
            .during(|| format!("creating {}", folder.display()))?;
        Ok(Self { id, folder, links: AtomicU16::new(1) })
    }

    /// A new machine, with nothing but a loopback device.
    ///
    /// # Errors
    ///
    /// If the world has one of this name already.
    pub fn namespace(&self, name: &str) -> Result<Namespace, Failure> {
        Namespace::create(name, self.id.namespace(name), self.folder.join(name))
    }

    /// A folder of this world, removed with it. Each namespace has its own below.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn next_link(&self) -> u16 {
        self.links.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let failing = thread::panicking();
        if failing {
            show_logs(&self.folder);
        }
        // After a signal this blocks until the process ends: whoever lost its programs to the sweep
        // must not end the process with its own complaint before the sweep is done.
        let Err(failure) = while_alive(|| sweep(Scope::World(self.id))) else { return };
        if failing {
            // The first failure is the one to look at; a second panic would abort.
            say(&format!("removing the world: {failure}\n"));
        } else {
            leave_loudly(&failure);
        }
    }
}

#[expect(clippy::panic, reason = "a world that stays behind must fail the test that made it")]
fn leave_loudly(failure: &Failure) {
    panic!("removing the world: {failure}");
}

/// Prints the logs of a failed scenario, each cut to its end: they are about to be removed.
fn show_logs(folder: &Path) {
    const SHOWN_BYTES: usize = 4096;
    let mut pending = vec![folder.to_path_buf()];
    while let Some(path) = pending.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            below.sort();
            pending.extend(below.into_iter().rev());
        } else if path.extension().is_some_and(|extension| extension == "log") {
            let log = crate::process::read_log(&path);
            let from = log.ceil_char_boundary(log.len().saturating_sub(SHOWN_BYTES));
            let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            say(&format!("---- {name}\n{}\n", log.get(from..).unwrap_or_default()));
        }
    }
}

fn say(text: &str) {
    // There is nobody to tell when standard error is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
