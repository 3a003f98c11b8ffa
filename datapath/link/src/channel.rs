//! One end of the connection: whole messages in, whole messages out, at most one fd beside each.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest message, bytes. A status comes in parts of at most [`crate::STATUS_PART_MAX`]
/// sessions, about 300 KB; the kernel's default send buffer of 208 KiB is raised accordingly
/// (`SO_SNDBUFFORCE`, or refused by the kernel).
pub const MESSAGE_MAX: usize = 1 << 20;

/// One end of the link. Non-blocking: the owner polls [`Channel::as_fd`].
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// Why a message did not pass.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone.
    #[error("the other side of the link closed it")]
    Closed,
    /// Nothing to read, or no room to write, now.
    #[error("the link is not ready")]
    NotReady,
    /// Longer than [`MESSAGE_MAX`].
    #[error("a message of {len} bytes; the link carries at most {MESSAGE_MAX}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not one of our messages.
    #[error("a message of {len} bytes does not decode: {source}")]
    Decode {
        /// Its length.
        len: usize,
        /// Where it went wrong.
        source: postcard::Error,
    },
    /// The system refused.
    #[error("the link failed: {0}")]
    Io(#[from] io::Error),
}

impl Channel {
    /// Takes a connected `SOCK_SEQPACKET` socket and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// Whatever the system says about its flags.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        // The forced form needs CAP_NET_ADMIN; without it a large status may be refused, so fall
        // back to what everybody may ask for.
        let sockopt = rustix::net::sockopt::set_socket_send_buffer_size_force;
        if sockopt(&socket, MESSAGE_MAX).is_err() {
            rustix::net::sockopt::set_socket_send_buffer_size(&socket, MESSAGE_MAX)?;
        }
        Ok(Self { socket, buffer: vec![0; MESSAGE_MAX] })
    }

    /// A connected pair, for tests.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self::new(one)?, Self::new(other)?))
    }

    /// Sends one message, with `fd` beside it if given.
    ///
    /// # Errors
    ///
    /// [`ChannelError::NotReady`] if the other side does not read; the message was not sent.
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), ChannelError> {
        let bytes = postcard::to_stdvec(message)
            .map_err(|source| ChannelError::Decode { len: 0, source })?;
        if bytes.len() > MESSAGE_MAX {
            return Err(ChannelError::TooLong { len: bytes.len() });
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut beside, flags) {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN | Errno::NOBUFS) => Err(ChannelError::NotReady),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Err(ChannelError::Closed),
            Err(errno) => Err(ChannelError::Io(errno.into())),
        }
    }

    /// Receives one message, and the fd beside it if there is one.
    ///
    /// # Errors
    ///
    /// [`ChannelError::NotReady`] if none is there; [`ChannelError::Decode`] if it is not one of
    /// ours, after which the connection is worth nothing.
    pub fn receive<M: DeserializeOwned>(&mut self) -> Result<(M, Option<OwnedFd>), ChannelError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut into = [IoSliceMut::new(&mut self.buffer)];
        let got = match recvmsg(&self.socket, &mut into, &mut beside, flags) {
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Err(ChannelError::NotReady),
            Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(errno) => return Err(ChannelError::Io(errno.into())),
        };
        let mut fd = None;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                fd = fds.next();
            }
        }
        if got.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        if got.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::TooLong { len: got.bytes });
        }
        let bytes = self.buffer.get(..got.bytes).unwrap_or(&[]);
        let message = postcard::from_bytes(bytes)
            .map_err(|source| ChannelError::Decode { len: got.bytes, source })?;
        Ok((message, fd))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToDatapath;

    #[test]
    fn a_message_and_its_fd_arrive_together() {
        let (left, mut right) = Channel::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        left.send(&ToDatapath::Table { generation: 7 }, Some(read.as_fd())).unwrap();
        left.send(&ToDatapath::AskStatus { token: 9 }, None).unwrap();

        let (message, fd) = right.receive::<ToDatapath>().unwrap();
        assert!(matches!(message, ToDatapath::Table { generation: 7 }));
        rustix::io::write(&write, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(fd.unwrap(), &mut byte).unwrap(), 1);
        let (message, fd) = right.receive::<ToDatapath>().unwrap();
        assert!(matches!(message, ToDatapath::AskStatus { token: 9 }) && fd.is_none());
        assert!(matches!(right.receive::<ToDatapath>(), Err(ChannelError::NotReady)));
    }

    #[test]
    fn a_silent_reader_does_not_block_the_writer() {
        let (left, _right) = Channel::pair().unwrap();
        let refused = (0..100_000)
            .find_map(|token| left.send(&ToDatapath::AskStatus { token }, None).err())
            .expect("an unread link fills up");
        assert!(matches!(refused, ChannelError::NotReady));
    }

    #[test]
    fn garbage_and_a_closed_link_are_told_apart() {
        let (left, mut right) = Channel::pair().unwrap();
        rustix::io::write(left.as_fd(), &[0xff; 32]).unwrap();
        let refused = right.receive::<ToDatapath>().unwrap_err();
        assert!(matches!(refused, ChannelError::Decode { len: 32, .. }), "{refused}");
        drop(left);
        assert!(matches!(right.receive::<ToDatapath>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn keys_do_not_reach_a_log_line() {
        let keys = crate::SessionKeys { send: [1; 32], receive: [2; 32] };
        assert_eq!(format!("{keys:?}"), "SessionKeys(..)");
    }
}
