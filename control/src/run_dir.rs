//! The folder of a running daemon: its lock and its two sockets.
//!
//! INVARIANT: socket files are removed and made only by the process that holds the lock, so a second
//! daemon can never take the sockets away from the first.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustix::process::umask;

/// Name of the socket that the datapath connects to.
pub const LINK_SOCKET: &str = "link.sock";
/// Name of the socket that the CLI connects to.
pub const CONTROL_SOCKET: &str = "control.sock";
const LOCK: &str = "bulkheadd.lock";

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// A folder that is ours as long as this lives.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Somebody has it.
    #[error("another bulkheadd (process {pid}) runs in {}; stop it first", .path.display())]
    Taken {
        /// What the lock file says.
        pid: String,
        /// The folder.
        path: PathBuf,
    },
    /// Something stands in the way that is not a socket.
    #[error("{} exists and is not a socket; it is left alone", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Of what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl RunDir {
    /// Makes the folder if need be, and takes its lock.
    ///
    /// # Errors
    ///
    /// [`RunDirError::Taken`] at once if another daemon has it.
    pub fn claim(path: &Path) -> Result<Self, RunDirError> {
        let failed = |path: &Path, source| RunDirError::Io { path: path.to_owned(), source };
        if !path.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| failed(path, error))?;
        }
        let file = path.join(LOCK);
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file)
            .map_err(|error| failed(&file, error))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // Only for the message; whoever has the lock may not have written it yet.
            let _ = lock.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() }.to_owned();
            return Err(RunDirError::Taken { pid, path: path.to_owned() });
        }
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(|error| failed(&file, error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where a file of the folder is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a listening socket, mode 0600, in place of one that a dead daemon left.
    ///
    /// # Errors
    ///
    /// If something else has its name, or the system refuses.
    pub fn listen(&self, name: &str, kind: SocketType) -> Result<OwnedFd, RunDirError> {
        let path = self.file(name);
        let failed = |source: io::Error| RunDirError::Io { path: path.clone(), source };
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => {
                fs::remove_file(&path).map_err(failed)?;
            }
            Ok(_) => return Err(RunDirError::NotASocket(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made = || -> rustix::io::Result<OwnedFd> {
            let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
            let address = SocketAddrUnix::new(&path)?;
            // From the first moment on nobody else may connect; a chmod would come too late.
            let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
            let bound = bind(&socket, &address);
            umask(before);
            bound?;
            listen(&socket, BACKLOG)?;
            Ok(socket)
        };
        made().map_err(|errno| failed(errno.into()))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Best effort: what stays behind is replaced at the next start.
        for name in [LINK_SOCKET, CONTROL_SOCKET] {
            let _ = fs::remove_file(self.file(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn one_folder_one_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let first = RunDir::claim(&path).unwrap();
        let refused = RunDir::claim(&path).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, RunDirError::Taken { .. }));
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        drop(first);
        RunDir::claim(&path).unwrap();
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::claim(folder.path()).unwrap();
        let dead = run.listen(CONTROL_SOCKET, SocketType::STREAM).unwrap();
        drop(dead);
        let path = run.file(CONTROL_SOCKET);
        assert!(UnixStream::connect(&path).is_err(), "nobody listens");
        let _alive = run.listen(CONTROL_SOCKET, SocketType::STREAM).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        drop(run);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::claim(folder.path()).unwrap();
        fs::write(run.file(LINK_SOCKET), "precious").unwrap();
        let refused = run.listen(LINK_SOCKET, SocketType::SEQPACKET).unwrap_err();
        assert!(matches!(refused, RunDirError::NotASocket(_)), "{refused}");
        assert_eq!(fs::read_to_string(run.file(LINK_SOCKET)).unwrap(), "precious");
    }
}
