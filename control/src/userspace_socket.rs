//! The sockets on which `wg` finds us: one `NAME.sock` for each `[wireguard.NAME]`.
//!
//! ```text
//!   wg show ── NAME.sock ──▶ accept ──▶ a thread of its own ── asks ──▶ daemon
//!                                          └─ writes page by page, with a deadline
//! ```
//!
//! INVARIANT: a socket file belongs to whoever listens on it. One that answers is left alone; one
//! that refuses connections was left by a dead process, and is replaced. At the end we remove only
//! the file that we made.
//!
//! INVARIANT: a client costs at most one thread, one page of memory and [`PATIENCE`]; beyond
//! [`CONNECTIONS_MAX`] clients the newest is closed at once. The event loop never waits for one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::clock::{Clock, wall_clock};
use crate::figures::Figures;
use crate::userspace_api::{Wish, read_wish, refusal, write_listener};

/// Where stock wireguard-tools look, compiled in.
pub const WIREGUARD_DIR: &str = "/var/run/wireguard";

/// Clients at once, on all sockets together.
pub const CONNECTIONS_MAX: usize = 8;
/// `wg` says everything at once, and reads 20,000 peers in a fraction of a second.
const PATIENCE: Patience =
    Patience { idle: Duration::from_secs(5), whole: Duration::from_secs(30) };
/// Bytes that are written at once.
const PAGE: usize = 1 << 16;

/// How long a client is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// While it is silent, or does not read, in one go.
    idle: Duration,
    /// In all.
    whole: Duration,
}

/// Somebody wants to know everything.
pub type FiguresAsked = oneshot::Sender<Figures>;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens there.
    #[error("{}: another process listens there; rename [wireguard.{name}] or stop it", .path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// The listener.
        name: String,
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

/// The sockets that are open now.
#[derive(Debug)]
pub struct UserspaceSockets {
    folder: PathBuf,
    clock: Clock,
    asked: mpsc::Sender<FiguresAsked>,
    room: Arc<Semaphore>,
    open: BTreeMap<String, Open>,
}

#[derive(Debug)]
struct Open {
    file: SocketFile,
    task: JoinHandle<()>,
}

/// A socket file that is ours.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own in our place.
    identity: (u64, u64),
}

impl UserspaceSockets {
    /// No socket yet. `asked` takes what clients want to know.
    #[must_use]
    pub fn new(folder: PathBuf, clock: Clock, asked: mpsc::Sender<FiguresAsked>) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { folder, clock, asked, room, open: BTreeMap::new() }
    }

    /// Opens and closes sockets until there is one for each of `names`. What cannot be opened is
    /// logged and tried again at the next call: `wg` is a convenience, forwarding is not.
    ///
    /// Must be called within the runtime.
    pub fn update<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let names: Vec<&str> = names.collect();
        self.open.retain(|name, _| names.contains(&name.as_str()));
        for name in names {
            if self.open.contains_key(name) {
                continue;
            }
            match self.serve(name) {
                Ok(open) => {
                    info!(path = %open.file.path.display(), "wg finds us there");
                    self.open.insert(name.to_owned(), open);
                }
                Err(problem) => warn!("wg does not find us: {problem}"),
            }
        }
    }

    fn serve(&self, name: &str) -> Result<Open, SocketError> {
        let (file, listener) = listen(&self.folder, name)?;
        let path = file.path.clone();
        let failed = |source| SocketError::Io { path, source };
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        let (asked, room, clock) = (self.asked.clone(), Arc::clone(&self.room), self.clock);
        let name = name.to_owned();
        let task = tokio::spawn(async move {
            loop {
                // An error is of one connection, or of file descriptors that ran out for now.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                let Ok(stream) = stream.into_std() else { continue };
                let (asked, name) = (asked.clone(), name.clone());
                tokio::task::spawn_blocking(move || {
                    // A client that goes away in the middle is its own business.
                    let _ = attend(&stream, &name, PATIENCE, clock, || {
                        let (answer, wait) = oneshot::channel();
                        asked.blocking_send(answer).ok()?;
                        wait.blocking_recv().ok()
                    });
                    drop(permit);
                });
            }
        });
        Ok(Open { file, task })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // Best effort: what stays behind is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(facts: &fs::Metadata) -> (u64, u64) {
    (facts.dev(), facts.ino())
}

/// Makes the folder if need be, and the socket, mode 0600.
fn listen(folder: &Path, name: &str) -> Result<(SocketFile, StdListener), SocketError> {
    let path = folder.join(format!("{name}.sock"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SocketError::Io { path, source }
    };
    if !folder.is_dir() {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(failed(folder))?;
    }
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path)),
        Ok(_) => match UnixStream::connect(&path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(&path).map_err(failed(&path))?;
            }
            // One that does not even accept is alive as well.
            Ok(_) | Err(_) => return Err(SocketError::Taken { path, name: name.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&path)(error)),
    }
    // From the first moment on nobody else may connect; a chmod would come too late.
    let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = StdListener::bind(&path);
    umask(before);
    let listener = bound.map_err(failed(&path))?;
    listener.set_nonblocking(true).map_err(failed(&path))?;
    let facts = fs::symlink_metadata(&path).map_err(failed(&path))?;
    Ok((SocketFile { path, identity: identity(&facts) }, listener))
}

/// Serves one client until it is done, falls silent, or its time is up.
fn attend(
    stream: &UnixStream,
    name: &str,
    patience: Patience,
    clock: Clock,
    mut ask: impl FnMut() -> Option<Figures>,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience.idle))?;
    stream.set_write_timeout(Some(patience.idle))?;
    let end = clock.now().plus(patience.whole);
    let timed = || Timed { stream, clock, end };
    let mut reader = BufReader::new(timed());
    while let Some(wish) = read_wish(&mut reader)? {
        if let Some(refused) = refusal(wish) {
            timed().write_all(refused.as_bytes())?;
            if wish == Wish::TooLong {
                break;
            }
            continue;
        }
        let Some(figures) = ask() else { break };
        // The listener may have gone with an apply.
        let Some(listener) =
            figures.intent.listeners.iter().find(|listening| listening.name == name)
        else {
            break;
        };
        let mut page = Page::new(timed());
        write_listener(&mut page, listener, &figures, wall_clock())?;
        page.flush()?;
    }
    Ok(())
}

/// A stream whose time runs out as a whole, however often something comes.
struct Timed<'a> {
    stream: &'a UnixStream,
    clock: Clock,
    end: bulkhead_wg::Time,
}

impl Timed<'_> {
    fn in_time(&self) -> io::Result<()> {
        if self.clock.now() < self.end { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.in_time()?;
        (&mut &*self.stream).read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.in_time()?;
        (&mut &*self.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A buffer that is wiped. It never grows: growing would leave a copy behind.
struct Page<W: Write> {
    buffer: Zeroizing<Vec<u8>>,
    to: W,
}

impl<W: Write> Page<W> {
    fn new(to: W) -> Self {
        Self { buffer: Zeroizing::new(Vec::with_capacity(PAGE)), to }
    }
}

impl<W: Write> Write for Page<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > PAGE {
            self.flush()?;
        }
        let fits = bytes.get(..PAGE).unwrap_or(bytes);
        self.buffer.extend_from_slice(fits);
        Ok(fits.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
