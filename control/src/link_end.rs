//! Our end of the link to the datapath: what waits to be sent, in order.
//!
//! INVARIANT: a datagram leaves after every message to the datapath that was queued before it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use bulkhead_link::{Channel, ChannelError, FromDatapath, ToDatapath};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::debug;

use crate::handshake::Datagram;
use crate::outer::OuterSockets;

/// Messages that may wait for a datapath that does not read: all peers and neighbours of the largest
/// configuration. More is a datapath that hangs.
const WAITING_MAX: usize = 1 << 19;

/// A connected datapath.
#[derive(Debug)]
pub struct LinkEnd {
    channel: AsyncFd<Polled>,
    waiting: VecDeque<Post>,
}

/// Something that waits.
#[derive(Debug)]
pub enum Post {
    /// For the datapath, perhaps with a memfd.
    Message(ToDatapath, Option<OwnedFd>),
    /// For a peer.
    Datagram(Datagram),
}

/// `AsyncFd` wants a raw descriptor.
#[derive(Debug)]
struct Polled(Channel);

impl AsRawFd for Polled {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Lets tokio watch a descriptor. `T` must own it and never change it, which all that are given
/// here do: they own an [`OwnedFd`] and lend it only.
///
/// # Errors
///
/// Whatever the system says.
#[expect(deprecated, reason = "its successor is unsafe, and asks for what T promises here")]
pub fn registered<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(inner)
}

impl LinkEnd {
    /// Takes a connected socket.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let channel = registered(Polled(Channel::new(socket)?))?;
        Ok(Self { channel, waiting: VecDeque::new() })
    }

    /// Until there is something to receive, or room to send what waits.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub async fn ready(&self) -> io::Result<()> {
        let interest = if self.waiting.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        self.channel.ready(interest).await.map(|mut guard| guard.retain_ready())
    }

    /// The next message, if one is there.
    ///
    /// # Errors
    ///
    /// [`ChannelError`]: the connection is worth nothing any more.
    pub fn receive(&mut self) -> Result<Option<FromDatapath>, ChannelError> {
        let received =
            self.channel.try_io_mut(Interest::READABLE, |polled| match polled.0.receive() {
                Ok((message, _)) => Ok(Ok(message)),
                Err(ChannelError::NotReady) => Err(io::ErrorKind::WouldBlock.into()),
                Err(problem) => Ok(Err(problem)),
            });
        match received {
            Ok(result) => result.map(Some),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Queues something.
    pub fn post(&mut self, post: Post) {
        self.waiting.push_back(post);
    }

    /// Sends what waits, as far as there is room.
    ///
    /// # Errors
    ///
    /// [`ChannelError`]: the connection is worth nothing any more.
    pub fn flush(&mut self, outer: &OuterSockets) -> Result<(), ChannelError> {
        while let Some(post) = self.waiting.pop_front() {
            let (message, fd) = match &post {
                Post::Message(message, fd) => (message, fd),
                Post::Datagram(datagram) => {
                    if let Err(problem) = outer.send(datagram) {
                        debug!(%problem, "handshake message not sent");
                    }
                    continue;
                }
            };
            let fd = fd.as_ref().map(AsFd::as_fd);
            let sent = self.channel.try_io_mut(Interest::WRITABLE, |polled| {
                match polled.0.send(message, fd) {
                    Ok(()) => Ok(Ok(())),
                    Err(ChannelError::NotReady) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(problem) => Ok(Err(problem)),
                }
            });
            match sent {
                Ok(result) => result?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.waiting.push_front(post);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.waiting.len() > WAITING_MAX {
            return Err(ChannelError::NotReady);
        }
        Ok(())
    }
}
