//! Who owns a namespace or a folder: told by its name alone, so that a later process can remove
//! what a killed one left behind.
//!
//! ```text
//! /run/netns/bh-4711.889213.2-laptop        /tmp/bh-4711.889213.2
//!               |    |      |   |
//!               pid  start  |   name within the world
//!                           which world of that process
//! ```
//!
//! A pid alone would not do: pids come back. Pid and start time (field 22 of `/proc/PID/stat`,
//! clock ticks since boot; proc(5)) name a process for as long as the machine is up.

use std::fmt;
use std::fs;
use std::process;

use crate::{During, Failure};

/// Every name that a world gives starts so.
const PREFIX: &str = "bh-";

/// A process that owns worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    /// Clock ticks since boot.
    start: u64,
}

impl Owner {
    /// The calling process.
    pub(crate) fn current() -> Result<Self, Failure> {
        let pid = process::id();
        let start = start_time(pid).during(|| format!("reading /proc/{pid}/stat"))?;
        Ok(Self { pid, start })
    }

    /// Whether the very process still runs. A process that cannot be looked at counts as alive:
    /// a sweep removes nothing on a doubt.
    pub(crate) fn is_alive(self) -> bool {
        match start_time(self.pid) {
            Ok(start) => start == self.start,
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }
}

/// One world of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorldId {
    pub(crate) owner: Owner,
    pub(crate) serial: u32,
}

impl WorldId {
    /// The name of a namespace of this world.
    pub(crate) fn namespace(self, name: &str) -> String {
        format!("{self}-{name}")
    }

    /// The world that a namespace or folder belongs to; `None`: not ours, hands off.
    pub(crate) fn of(file_name: &str) -> Option<Self> {
        let id = file_name.strip_prefix(PREFIX)?;
        let id = id.split_once('-').map_or(id, |(id, _)| id);
        let mut parts = id.split('.');
        let pid = parts.next()?.parse().ok()?;
        let start = parts.next()?.parse().ok()?;
        let serial = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { owner: Owner { pid, start }, serial })
    }
}

impl fmt::Display for WorldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}.{}.{}", self.owner.pid, self.owner.start, self.serial)
    }
}

/// Start time of a process, in clock ticks since boot.
fn start_time(pid: u32) -> Result<u64, std::io::Error> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat)
        .ok_or_else(|| std::io::Error::other(format!("/proc/{pid}/stat reads {stat:?}")))
}

/// Field 22. The second field is the command's name in parentheses and may hold spaces and
/// parentheses itself, so counting starts behind the last one: field 22 is the 20th from there.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_world() {
        let owner = Owner { pid: 4711, start: 889_213 };
        let id = WorldId { owner, serial: 2 };
        assert_eq!(id.to_string(), "bh-4711.889213.2");
        assert_eq!(WorldId::of("bh-4711.889213.2"), Some(id));
        assert_eq!(WorldId::of(&id.namespace("legacy-host")), Some(id));
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for foreign in [
            "",
            "bh",
            "bh-",
            "bh-gateway",
            "bh-1",
            "bh-1.2",
            "bh-1.2.3.4",
            "bh-1.2.x-laptop",
            "bh--1.2.3",
            "4711.889213.2",
            "xbh-1.2.3",
        ] {
            assert_eq!(WorldId::of(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 424242 20 21";
        for name in ["a", "a b", "a) S 9 9 (b", ")("] {
            let stat = format!("77 ({name}) {tail}");
            assert_eq!(parse_start_time(&stat), Some(424_242), "{stat}");
        }
        assert_eq!(parse_start_time("77 (a) S 1 2"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn this_process_lives_and_an_older_one_with_its_pid_does_not() {
        let owner = Owner::current().unwrap();
        assert!(owner.is_alive());
        assert!(!Owner { start: owner.start - 1, ..owner }.is_alive());
        // Above the largest pid that the kernel hands out (PID_MAX_LIMIT, 2^22).
        assert!(!Owner { pid: 1 << 23, start: 1 }.is_alive());
    }
}
