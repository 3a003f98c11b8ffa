//! The link thread: it connects to the control process, for ever, and passes messages between it
//! and the plant. When control is gone the plant goes on, and this loop with it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use bulkhead_link::{Channel, ChannelError, Configuration, FromDatapath, ToDatapath, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::plant::Plant;

/// How long the loop sleeps at most: what workers report and handshakes that they pass on wait so
/// long. Waking 500 times a second costs some 0.1 % of a core; a signal per handshake would cost
/// the packet path a system call.
const PACE: Duration = Duration::from_millis(2);

/// Turns between two attempts to connect: 50 ms.
const RETRY_TURNS: u32 = 25;

/// Messages that wait for a control process that does not read. Beyond it handshakes stay in the
/// workers' rings, and wishes for neighbours are given up; the next packet wishes again.
const OUTBOX_MAX: usize = 1_024;

/// Messages with records of the flow log that wait: with three workers as much as their rings hold. What
/// there is no room for is lost where it was made, and counted there.
const RECORDS_MAX: usize = 32;

/// Of these, how many go among the others at a time: when nothing else waits.
const RECORDS_AT_ONCE: usize = 4;

/// Serves until the process is told to end, which only a signal does.
///
/// # Errors
///
/// When the loop itself cannot go on.
pub(crate) fn run(path: &Path) -> io::Result<()> {
    let clock = Clock::start();
    let mut plant: Option<Plant> = None;
    let mut connection: Option<Connection> = None;
    let mut records = VecDeque::new();
    let mut turns = 0u32;
    loop {
        if connection.is_none() && turns.is_multiple_of(RETRY_TURNS) {
            connection = dial(path).map(|channel| Connection::greet(channel, plant.as_ref()));
            if connection.is_some()
                && let Some(plant) = &mut plant
            {
                plant.forget_handshakes();
            }
        }
        turns = turns.wrapping_add(1);
        wait(connection.as_ref())?;

        // Without control there is no room at all: handshakes wait in the workers' rings.
        let room =
            connection.as_ref().map_or(0, |open| OUTBOX_MAX.saturating_sub(open.outbox.len()));
        let mut outbox = connection.as_mut().map(|open| &mut open.outbox);
        if let Some(plant) = &mut plant {
            plant.attend(room, &mut |message| {
                if let Some(outbox) = outbox.as_deref_mut() {
                    post(outbox, message);
                }
            });
        }
        if let (Some(open), Some(plant)) = (&mut connection, &mut plant)
            && open.greeted
        {
            let room = RECORDS_MAX.saturating_sub(records.len());
            plant.tell_records(room, &mut |message| records.push_back(message));
            open.take_in(&mut records);
        }
        if let Some(open) = &mut connection
            && let Err(reason) = open.exchange(&mut plant, clock)
        {
            warn!(%reason, "the link to control is down; forwarding goes on");
            open.give_back(&mut records);
            connection = None;
        }
    }
}

/// Queues a message for control.
fn post(outbox: &mut VecDeque<FromDatapath>, message: FromDatapath) {
    let optional = matches!(message, FromDatapath::NeighbourWanted { .. });
    if !optional || outbox.len() < OUTBOX_MAX {
        outbox.push_back(message);
    }
}

fn dial(path: &Path) -> Option<Channel> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    Channel::new(socket).ok()
}

fn wait(connection: Option<&Connection>) -> io::Result<()> {
    let timeout = Timespec::try_from(PACE).ok();
    let mut fds: Vec<PollFd<'_>> = connection
        .iter()
        .map(|open| PollFd::from_borrowed_fd(open.channel.as_fd(), PollFlags::IN))
        .collect();
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A connection that is up.
struct Connection {
    channel: Channel,
    outbox: VecDeque<FromDatapath>,
    /// Whether the other side has said that it speaks our version.
    greeted: bool,
}

impl Connection {
    /// Says who we are and what we run.
    fn greet(channel: Channel, plant: Option<&Plant>) -> Self {
        let mut outbox = VecDeque::from([FromDatapath::Hello {
            version: VERSION,
            pid: std::process::id(),
            configuration: plant.map(|plant| plant.configuration().clone()),
            generation: plant.map_or(0, Plant::generation),
        }]);
        outbox.extend(plant.into_iter().flat_map(Plant::greeting));
        outbox.push_back(FromDatapath::Adopted);
        Self { channel, outbox, greeted: false }
    }

    /// Takes the first of the records that wait, if nothing else does.
    fn take_in(&mut self, records: &mut VecDeque<FromDatapath>) {
        if self.outbox.is_empty() {
            let some = RECORDS_AT_ONCE.min(records.len());
            self.outbox.extend(records.drain(..some));
        }
    }

    /// Puts back the records that were not sent, for the next connection. What the other side has not read
    /// is gone with it.
    fn give_back(&mut self, records: &mut VecDeque<FromDatapath>) {
        for message in self.outbox.drain(..).rev() {
            if matches!(message, FromDatapath::Flows { .. }) {
                records.push_front(message);
            }
        }
    }

    /// Sends what waits and does what is asked, without blocking.
    fn exchange(&mut self, plant: &mut Option<Plant>, clock: Clock) -> Result<(), String> {
        self.send()?;
        loop {
            match self.channel.receive::<ToDatapath>() {
                Ok((message, fd)) => self.obey(message, fd, plant, clock)?,
                Err(ChannelError::NotReady) => break,
                Err(problem) => return Err(problem.to_string()),
            }
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), String> {
        while let Some(message) = self.outbox.front() {
            match self.channel.send(message, None) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(ChannelError::NotReady) => break,
                Err(problem) => return Err(problem.to_string()),
            }
        }
        Ok(())
    }

    fn obey(
        &mut self,
        message: ToDatapath,
        fd: Option<OwnedFd>,
        plant: &mut Option<Plant>,
        clock: Clock,
    ) -> Result<(), String> {
        match (message, plant) {
            (ToDatapath::Hello { version }, _) if version == VERSION => {
                info!("control is there");
                self.greeted = true;
                Ok(())
            }
            (ToDatapath::Hello { version }, _) => Err(format!(
                "bulkheadd speaks version {version} of the link, this datapath {VERSION}: \
                 install both from the same release"
            )),
            (_, _) if !self.greeted => Err("a message before the greeting".to_owned()),
            (ToDatapath::Configure(wanted), plant) => {
                let answer = configure(wanted, plant, clock);
                self.outbox.push_back(answer);
                Ok(())
            }
            (message, Some(plant)) => {
                plant.obey(message, fd, &mut |message| self.outbox.push_back(message));
                Ok(())
            }
            (ToDatapath::AskHits { token }, None) => {
                let none = FromDatapath::Hits { token, now_s: 0, more: false, hits: vec![] };
                self.outbox.push_back(none);
                Ok(())
            }
            (ToDatapath::AskStatus { token }, None) => {
                self.outbox.push_back(FromDatapath::Status { token, status: Box::default() });
                Ok(())
            }
            // Peers, tables and neighbours mean nothing before the configuration that they index.
            (_, None) => Err("a message that needs a configuration, before there is one".into()),
        }
    }
}

fn configure(wanted: Configuration, plant: &mut Option<Plant>, clock: Clock) -> FromDatapath {
    match plant {
        Some(running) if *running.configuration() == wanted => FromDatapath::Configured,
        Some(_) => FromDatapath::ConfigurationRefused {
            reason: "the datapath runs with other ports, workers or sizes; those change only \
                     when it is restarted"
                .to_owned(),
        },
        None => match Plant::start(wanted, clock) {
            Ok(started) => {
                *plant = Some(started);
                FromDatapath::Configured
            }
            Err(problem) => {
                error!("{problem}");
                FromDatapath::ConfigurationRefused { reason: problem.to_string() }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(now_ms: u64) -> FromDatapath {
        FromDatapath::Flows { now_ms, wall_ms: 0, records: vec![] }
    }

    fn times(messages: &VecDeque<FromDatapath>) -> Vec<Option<u64>> {
        let time = |message: &FromDatapath| {
            let FromDatapath::Flows { now_ms, .. } = message else { return None };
            Some(*now_ms)
        };
        messages.iter().map(time).collect()
    }

    /// Others go first, and a link that ends takes no records with it that it has not sent.
    #[test]
    fn records_wait_for_the_others_and_outlive_the_link() {
        let flags = SocketFlags::CLOEXEC;
        let (socket, _other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .unwrap();
        let mut open = Connection::greet(Channel::new(socket).unwrap(), None);
        let mut waiting: VecDeque<_> = (0..9).map(records).collect();
        open.take_in(&mut waiting);
        assert_eq!((waiting.len(), times(&open.outbox)), (9, vec![None, None]), "a greeting");
        open.send().unwrap();
        open.take_in(&mut waiting);
        assert_eq!(times(&open.outbox), [0, 1, 2, 3].map(Some));
        open.outbox.pop_front();
        post(&mut open.outbox, FromDatapath::Adopted);
        open.give_back(&mut waiting);
        assert_eq!(times(&waiting), [1, 2, 3, 4, 5, 6, 7, 8].map(Some), "0 was sent");
        assert!(open.outbox.is_empty());
    }
}
