//! A stream of numbered records over TCP or UDP, one every interval.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::sequence::{Event, Sequence};
use super::tell;
use crate::wait::{Deadline, monotonic_ns};

/// Bytes of a TCP record and the least bytes of a UDP one: number and send time, little-endian.
pub const RECORD_LEN: usize = 16;

/// How often a receiver looks up from its socket.
const TICK: Duration = Duration::from_millis(10);

/// Bytes of a UDP receiver's socket buffer: seconds of any stream of the worlds.
const RECEIVE_BUFFER_LEN: usize = 8 << 20;

/// Which protocol carries the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In order and complete, or stuck.
    Tcp,
    /// Each record by itself.
    Udp,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    /// TCP or UDP.
    pub carrier: Carrier,
    /// Where to.
    pub to: SocketAddr,
    /// Time between two records.
    pub interval: Duration,
    /// Records to send; `None`: until killed.
    pub count: Option<u64>,
    /// Bytes of a UDP datagram, at least [`RECORD_LEN`]; TCP records are always that long.
    pub datagram_len: usize,
}

/// Sends the stream. Records keep to a schedule: a late one does not delay those after it.
///
/// # Errors
///
/// Of the socket. With UDP a refusal that came back by ICMP is no error: the stream goes on.
pub fn send(sending: &Sending) -> io::Result<()> {
    let mut out = match sending.carrier {
        Carrier::Tcp => {
            let stream = TcpStream::connect(sending.to)?;
            stream.set_nodelay(true)?;
            Out::Tcp(stream)
        }
        Carrier::Udp => {
            let local: SocketAddr = match sending.to {
                SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
            };
            let socket = UdpSocket::bind(local)?;
            socket.connect(sending.to)?;
            Out::Udp(socket, vec![0; sending.datagram_len.max(RECORD_LEN)])
        }
    };
    tell(&format!("sending to={} at={}", sending.to, monotonic_ns()))?;
    let schedule = Deadline::after(Duration::MAX);
    let mut due = Duration::ZERO;
    let mut number = 0;
    while sending.count.is_none_or(|count| number < count) {
        std::thread::sleep(due.saturating_sub(schedule.elapsed()));
        out.record(number)?;
        number += 1;
        due = due.saturating_add(sending.interval);
    }
    tell(&format!("sent count={number} at={}", monotonic_ns()))
}

enum Out {
    Tcp(TcpStream),
    Udp(UdpSocket, Vec<u8>),
}

impl Out {
    fn record(&mut self, number: u64) -> io::Result<()> {
        let record = encode(number, monotonic_ns());
        match self {
            Self::Tcp(stream) => stream.write_all(&record),
            Self::Udp(socket, datagram) => {
                if let Some(head) = datagram.first_chunk_mut() {
                    *head = record;
                }
                match socket.send(datagram) {
                    Ok(_) => Ok(()),
                    Err(error) if is_refusal(&error) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// What an ICMP error makes of a connected UDP socket's next send.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::PermissionDenied
    )
}

/// Receives one stream and tells `first`, `gap`, `late`, `quiet`, `resumed`, `progress` (ten times
/// a second while records come) and `closed` (TCP). UDP goes on until killed.
///
/// # Errors
///
/// Of the socket.
pub fn receive(carrier: Carrier, listen: SocketAddr, quiet: Duration) -> io::Result<()> {
    let mut watch = Watch { sequence: Sequence::default(), quiet, told_ns: 0, told: 0 };
    match carrier {
        Carrier::Udp => {
            let socket = UdpSocket::bind(listen)?;
            socket.set_read_timeout(Some(TICK))?;
            // A loss must be the gateway's: this process may not run for a while on a busy machine.
            set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_LEN)?;
            tell(&format!("listening at={}", socket.local_addr()?))?;
            let mut buffer = [0; 65_536];
            loop {
                match socket.recv(&mut buffer) {
                    Ok(len) => watch.records(buffer.get(..len).unwrap_or_default())?,
                    Err(error) if is_pause(&error) => {}
                    Err(error) => return Err(error),
                }
                watch.look()?;
            }
        }
        Carrier::Tcp => {
            let listener = TcpListener::bind(listen)?;
            tell(&format!("listening at={}", listener.local_addr()?))?;
            let (stream, from) = listener.accept()?;
            tell(&format!("accepted from={from} at={}", monotonic_ns()))?;
            receive_tcp(stream, &mut watch)
        }
    }
}

fn receive_tcp(mut stream: TcpStream, watch: &mut Watch) -> io::Result<()> {
    stream.set_read_timeout(Some(TICK))?;
    let mut buffer = [0; 65_536];
    let mut held = 0;
    loop {
        match stream.read(buffer.get_mut(held..).unwrap_or_default()) {
            Ok(0) => return tell(&format!("closed {}", watch.sequence.words())),
            Ok(len) => {
                held += len;
                let whole = held - held % RECORD_LEN;
                for record in buffer.get(..whole).unwrap_or_default().chunks(RECORD_LEN) {
                    watch.records(record)?;
                }
                buffer.copy_within(whole..held, 0);
                held -= whole;
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => {
                return tell(&format!(
                    "broken {} error={:?}",
                    watch.sequence.words(),
                    error.kind()
                ));
            }
        }
        watch.look()?;
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A sequence and what was told about it.
struct Watch {
    sequence: Sequence,
    quiet: Duration,
    told_ns: u64,
    told: u64,
}

impl Watch {
    /// Takes one record, the head of a datagram or a part of a TCP stream.
    fn records(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((number, _sent)) = decode(bytes) else {
            return tell(&format!("strange bytes={}", bytes.len()));
        };
        let at = monotonic_ns();
        let (event, silence) = self.sequence.record(number, at);
        if let Some(silence) = silence {
            tell(&format!("resumed number={number} at={at} after_ns={}", silence.as_nanos()))?;
        }
        match event {
            Event::InOrder => Ok(()),
            Event::First => tell(&format!("first number={number} at={at}")),
            Event::Gap { from, to } => tell(&format!("gap from={from} to={to} at={at}")),
            Event::Late => tell(&format!("late number={number} at={at}")),
        }
    }

    /// Tells progress and silence.
    fn look(&mut self) -> io::Result<()> {
        const PROGRESS_NS: u64 = 100_000_000;
        let now = monotonic_ns();
        if self.sequence.fell_quiet(now, self.quiet) {
            tell(&format!("quiet {}", self.sequence.words()))?;
        }
        let fresh = self.sequence.received() != self.told;
        if fresh && now.saturating_sub(self.told_ns) >= PROGRESS_NS {
            tell(&format!("progress {}", self.sequence.words()))?;
            self.told_ns = now;
            self.told = self.sequence.received();
        }
        Ok(())
    }
}

fn encode(number: u64, sent_ns: u64) -> [u8; RECORD_LEN] {
    (u128::from(sent_ns) << 64 | u128::from(number)).to_le_bytes()
}

/// Number and send time.
fn decode(bytes: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = bytes.split_first_chunk()?;
    let sent = rest.first_chunk()?;
    Some((u64::from_le_bytes(*number), u64::from_le_bytes(*sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_wire() {
        let record = encode(0x0102_0304_0506_0708, 99);
        assert_eq!(decode(&record), Some((0x0102_0304_0506_0708, 99)));
        assert_eq!(decode(&record[..RECORD_LEN - 1]), None);
    }
}
