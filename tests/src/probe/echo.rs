//! UDP echo, its client, and a TCP connection attempt.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::tell;
use crate::wait::{Deadline, monotonic_ns};

/// Sends every datagram back. Never returns but for an error of the socket.
///
/// # Errors
///
/// Of the socket.
pub fn serve(listen: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    tell(&format!("listening at={}", socket.local_addr()?))?;
    let mut buffer = [0; 65_536];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        // A client that is gone already must not end the server.
        let _ = socket.send_to(buffer.get(..len).unwrap_or_default(), from);
    }
}

/// Sends `count` numbered datagrams, one every `interval`, and waits up to `patience` after the last
/// for answers. Tells `echoed sent= received= lost=`; returns whether every one came back.
///
/// # Errors
///
/// Of the socket.
pub fn ping(
    to: SocketAddr,
    count: u64,
    interval: Duration,
    patience: Duration,
) -> io::Result<bool> {
    let local: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    let mut missing: BTreeSet<u64> = (0..count).collect();
    for number in 0..count {
        // A refusal by ICMP shows as an error of a later call; the count tells it.
        let _ = socket.send_to(&number.to_le_bytes(), to);
        collect(&socket, to, &mut missing, Deadline::after(interval))?;
    }
    let last = Deadline::after(patience);
    while !missing.is_empty() && !last.is_over() {
        collect(&socket, to, &mut missing, last)?;
    }
    let lost = missing.len();
    tell(&format!("echoed sent={count} lost={lost} at={}", monotonic_ns()))?;
    Ok(missing.is_empty())
}

/// Takes answers until the deadline or until none is missing.
fn collect(
    socket: &UdpSocket,
    to: SocketAddr,
    missing: &mut BTreeSet<u64>,
    deadline: Deadline,
) -> io::Result<()> {
    let mut buffer = [0; 2048];
    while !deadline.is_over() && !missing.is_empty() {
        // Zero would mean for ever.
        socket.set_read_timeout(Some(deadline.left().max(Duration::from_micros(100))))?;
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let number = buffer.get(..len).and_then(|bytes| bytes.try_into().ok());
        if let (Some(number), true) = (number.map(u64::from_le_bytes), from == to) {
            missing.remove(&number);
        }
    }
    Ok(())
}

/// Tries to connect by TCP; tells `connected`, `refused` or `silent` with the time it took; returns
/// whether it connected.
///
/// # Errors
///
/// If standard output is gone.
pub fn connect(to: SocketAddr, patience: Duration) -> io::Result<bool> {
    let start = Deadline::after(patience);
    let outcome = TcpStream::connect_timeout(&to, patience);
    let took = start.elapsed().as_micros();
    let (word, detail) = match &outcome {
        Ok(_) => ("connected", String::new()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => ("silent", String::new()),
        Err(error) => ("refused", format!(" error={:?}", error.kind())),
    };
    tell(&format!("{word} to={to} after_us={took}{detail}"))?;
    Ok(outcome.is_ok())
}
