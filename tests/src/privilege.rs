//! The daemons as the package starts them: an unprivileged user, the capabilities of the unit and no
//! others, nothing to be gained by execve. What the units promise besides needs systemd; the
//! promise most easily broken by a change of the code is this one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::{During, Failure};

const CONTROL_UNIT: &str = include_str!("../../iso/systemd/bulkheadd.service");
const DATAPATH_UNIT: &str = include_str!("../../iso/systemd/bulkhead-datapath.service");

/// `nobody`: a user that exists everywhere and owns nothing.
const USER: u32 = 65_534;

/// Which unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Control,
    Datapath,
}

/// The words in front of a program that take all privileges from it but the unit's.
pub(crate) fn reduced_to(unit: Unit) -> Result<Vec<PathBuf>, Failure> {
    let text = match unit {
        Unit::Control => CONTROL_UNIT,
        Unit::Datapath => DATAPATH_UNIT,
    };
    let capabilities = capabilities(text)
        .ok_or_else(|| Failure::new(format!("no AmbientCapabilities in the unit of {unit:?}")))?;
    let user = USER.to_string();
    let words = [
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set",
        &capabilities,
        "--inh-caps",
        &capabilities,
        "--ambient-caps",
        &capabilities,
    ];
    Ok(words.map(PathBuf::from).to_vec())
}

/// Gives a folder and everything in it to the user.
pub(crate) fn give(path: &Path) -> Result<(), Failure> {
    let what = || format!("giving {} to user {USER}", path.display());
    chown(path, Some(USER), Some(USER)).during(what)?;
    if path.is_dir() {
        for entry in fs::read_dir(path).during(what)? {
            give(&entry.during(what)?.path())?;
        }
    }
    Ok(())
}

/// A copy of a program where the user can reach it: the repository may be in root's home.
pub(crate) fn reachable(program: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let what = || format!("copying {} to {}", program.display(), folder.display());
    let name = program.file_name().ok_or_else(|| Failure::new(what()))?;
    let copy = folder.join(name);
    fs::copy(program, &copy).during(what)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).during(what)?;
    Ok(copy)
}

/// `AmbientCapabilities=CAP_NET_ADMIN CAP_BPF` as setpriv(1) wants it: `-all,+net_admin,+bpf`.
fn capabilities(unit: &str) -> Option<String> {
    let listed = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities="))?;
    let mut words = "-all".to_owned();
    for capability in listed.split_whitespace() {
        words.push_str(",+");
        words.push_str(&capability.strip_prefix("CAP_")?.to_ascii_lowercase());
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_taken_from_the_units() {
        assert_eq!(capabilities(CONTROL_UNIT).unwrap(), "-all,+net_admin,+net_bind_service");
        let datapath = capabilities(DATAPATH_UNIT).unwrap();
        assert_eq!(datapath, "-all,+net_admin,+net_raw,+bpf,+ipc_lock");
        assert_eq!(capabilities("[Service]\n"), None);
        assert_eq!(capabilities("AmbientCapabilities=NET_ADMIN"), None);
    }
}
