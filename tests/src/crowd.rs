//! Many peers in one process: boringtun's engine for each, a socket and a source address of its own.
//! They behave as clients do: an initiation without an answer is sent again after five seconds, a
//! cookie is taken and used.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::wait::Deadline;
use crate::wire_peer::decode;
use crate::{During, Failure, KeyPair, Namespace, inner};

/// Longest datagram, with room for what boringtun writes.
const BUFFER_LEN: usize = 2048;

/// How often the engines' timers are looked at.
const TIMERS: Duration = Duration::from_millis(100);

/// A ping without an answer is sent again after this.
const PING_AGAIN: Duration = Duration::from_secs(2);

/// One of many.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its identity.
    pub key: KeyPair,
    /// Its source address outside.
    pub outer: Ipv4Addr,
    /// Its address inside.
    pub inner: Ipv4Addr,
}

/// How far one member has come.
struct Client {
    socket: UdpSocket,
    tunnel: Tunn,
    ping: Vec<u8>,
    pinged: Option<Deadline>,
    session: Option<Duration>,
    answered: Option<Duration>,
}

/// When each member, in their order, had a session, and when its ping was answered.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// Since all began to call.
    pub sessions: Vec<Duration>,
    /// The same.
    pub answers: Vec<Duration>,
}

/// Has all members call the gateway at once, and each ping `target` through its tunnel as soon as it
/// has a session. Their source addresses must be local in `namespace`.
///
/// # Errors
///
/// If a socket cannot be made, something else than the member's own answer comes out of a tunnel, or
/// the deadline passes; then it says how many were missing.
pub fn call_at_once(
    namespace: &Namespace,
    members: &[Member],
    gateway_public_key: &str,
    gateway: SocketAddr,
    target: Ipv4Addr,
    deadline: Deadline,
) -> Result<Arrivals, Failure> {
    allow_files(members.len())?;
    let public = PublicKey::from(decode(gateway_public_key)?);
    let make = || -> Result<Vec<Client>, Failure> {
        let client = |(number, member): (usize, &Member)| {
            let id = u16::try_from(number).unwrap_or(u16::MAX);
            let private = StaticSecret::from(decode(&member.key.private)?);
            let index = u32::from(id) + 1;
            Ok(Client {
                socket: socket(member.outer, gateway).during(|| "making a socket".into())?,
                tunnel: Tunn::new(private, public, None, None, index, None),
                ping: inner::echo_request(member.inner.into(), target.into(), id, 1)?,
                pinged: None,
                session: None,
                answered: None,
            })
        };
        members.iter().enumerate().map(client).collect()
    };
    let mut clients = namespace.run(make)??;
    let mut buffer = vec![0; BUFFER_LEN];
    for client in &mut clients {
        let first = client.tunnel.format_handshake_initiation(&mut buffer, false);
        transmit(&client.socket, first)?;
    }
    let mut timers = Deadline::after(TIMERS);
    while clients.iter().any(|client| client.answered.is_none()) {
        if deadline.is_over() {
            return Err(missing(&clients));
        }
        let due = timers.is_over();
        if due {
            timers = Deadline::after(TIMERS);
        }
        for client in &mut clients {
            client.step(gateway.ip(), due, deadline, &mut buffer)?;
        }
    }
    let times = |time: fn(&Client) -> Option<Duration>| {
        clients.iter().map(|client| time(client).unwrap_or(Duration::MAX)).collect()
    };
    Ok(Arrivals { sessions: times(|c| c.session), answers: times(|c| c.answered) })
}

impl Client {
    /// Takes what has come and sends what is due.
    fn step(
        &mut self,
        gateway: IpAddr,
        timers_due: bool,
        clock: Deadline,
        buffer: &mut [u8],
    ) -> Result<(), Failure> {
        let mut datagram = [0; BUFFER_LEN];
        loop {
            let len = match self.socket.recv(&mut datagram) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error).during(|| "receiving".into()),
            };
            let mut input = datagram.get(..len).unwrap_or_default();
            loop {
                match self.tunnel.decapsulate(Some(gateway), input, buffer) {
                    result @ TunnResult::WriteToNetwork(_) => transmit(&self.socket, result)?,
                    TunnResult::WriteToTunnelV4(packet, _) => {
                        check_answer(&self.ping, packet)?;
                        self.answered = self.answered.or(Some(clock.elapsed()));
                        break;
                    }
                    TunnResult::WriteToTunnelV6(packet, _) => {
                        return Err(Failure::new(format!("nobody sent {packet:?}")));
                    }
                    TunnResult::Done | TunnResult::Err(_) => break,
                }
                // boringtun wants to be asked again with nothing until it is done.
                input = &[];
            }
        }
        if self.tunnel.time_since_last_handshake().is_some() && self.session.is_none() {
            self.session = Some(clock.elapsed());
        }
        let asked = self.pinged.is_some_and(|again| !again.is_over());
        if self.session.is_some() && self.answered.is_none() && !asked {
            self.pinged = Some(Deadline::after(PING_AGAIN));
            transmit(&self.socket, self.tunnel.encapsulate(&self.ping, buffer))?;
        }
        if timers_due {
            transmit(&self.socket, self.tunnel.update_timers(buffer))?;
        }
        Ok(())
    }
}

/// An answer is the request with the addresses exchanged and another type: RFC 792.
fn check_answer(ping: &[u8], packet: &[u8]) -> Result<(), Failure> {
    let parts =
        |packet: &[u8], range| packet.get::<std::ops::Range<usize>>(range).map(<[u8]>::to_vec);
    let same = packet.get(20) == Some(&0)
        && parts(packet, 12..16) == parts(ping, 16..20)
        && parts(packet, 16..20) == parts(ping, 12..16)
        && packet.get(24..) == ping.get(24..);
    if same {
        return Ok(());
    }
    Err(Failure::new(format!("{packet:?} is not the answer to {ping:?}")))
}

fn missing(clients: &[Client]) -> Failure {
    let mut states = BTreeMap::new();
    for client in clients {
        let state = match (client.session, client.answered) {
            (None, _) => "without a session",
            (_, None) => "without an answer",
            _ => "done",
        };
        *states.entry(state).or_insert(0_u32) += 1;
    }
    Failure::new(format!("of {} members: {states:?}", clients.len()))
}

fn socket(from: Ipv4Addr, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn transmit(socket: &UdpSocket, result: TunnResult<'_>) -> Result<(), Failure> {
    let TunnResult::WriteToNetwork(datagram) = result else { return Ok(()) };
    match socket.send(datagram) {
        Ok(_) => Ok(()),
        // A full device or an ICMP error: to a client that is a lost datagram.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error).during(|| "sending a datagram".into()),
    }
}

/// Raises the limit of open files for so many sockets.
fn allow_files(sockets: usize) -> Result<(), Failure> {
    let needed = u64::try_from(sockets).unwrap_or(u64::MAX).saturating_add(256);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(needed);
        limit.maximum = limit.maximum.map(|maximum| maximum.max(needed));
        setrlimit(Resource::Nofile, limit).during(|| "raising the limit of open files".into())?;
    }
    Ok(())
}
