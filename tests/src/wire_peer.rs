//! A WireGuard peer made of boringtun's protocol engine and one UDP socket, without a TUN device:
//! the scenario writes every inner packet itself, right or wrong, and sees every one that comes
//! back. Independent of `bulkhead-wg` by construction.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use crate::wait::Deadline;
use crate::{During, Failure, KeyPair, Namespace};

/// Larger than any datagram of a world; boringtun panics when its output does not fit.
const BUFFER_LEN: usize = 65_536;

/// How long one read may block before the protocol's timers are looked at.
const READ_SLICE: Duration = Duration::from_millis(20);

/// A peer that does what it is told.
pub struct WirePeer {
    namespace: Namespace,
    socket: UdpSocket,
    to: SocketAddr,
    tunnel: Tunn,
    buffer: Vec<u8>,
}

impl WirePeer {
    /// A peer with this identity in this namespace, for the gateway at `to`. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// If a key is not one, or the socket cannot be made.
    pub fn new(
        namespace: &Namespace,
        key: &KeyPair,
        gateway_public_key: &str,
        preshared_key: Option<&str>,
        to: SocketAddr,
    ) -> Result<Self, Failure> {
        let private = StaticSecret::from(decode(&key.private)?);
        let public = PublicKey::from(decode(gateway_public_key)?);
        let preshared = preshared_key.map(decode).transpose()?;
        let tunnel = Tunn::new(private, public, preshared, None, 1, None);
        let socket = socket(namespace, to)?;
        let buffer = vec![0; BUFFER_LEN];
        Ok(Self { namespace: namespace.clone(), socket, to, tunnel, buffer })
    }

    /// Starts a handshake and waits until it is done.
    ///
    /// # Errors
    ///
    /// When the deadline passes.
    pub fn handshake(&mut self, deadline: Deadline) -> Result<(), Failure> {
        let result = self.tunnel.format_handshake_initiation(&mut self.buffer, true);
        transmit(&self.socket, result)?;
        while self.tunnel.time_since_last_handshake().is_none() {
            if deadline.is_over() {
                let waited = deadline.elapsed().as_secs_f64();
                return Err(Failure::new(format!(
                    "no handshake with {} in {waited:.1} s",
                    self.to
                )));
            }
            self.receive(Deadline::after(READ_SLICE))?;
        }
        Ok(())
    }

    /// Seals `inner`, whatever it is, and sends it. Without a session it is queued and a handshake
    /// begins.
    ///
    /// # Errors
    ///
    /// Of the socket.
    pub fn send(&mut self, inner: &[u8]) -> Result<(), Failure> {
        let result = self.tunnel.encapsulate(inner, &mut self.buffer);
        transmit(&self.socket, result)
    }

    /// Seals `inner` and returns the datagram instead of sending it: for replays and forgeries.
    ///
    /// # Errors
    ///
    /// Without a session.
    pub fn seal(&mut self, inner: &[u8]) -> Result<Vec<u8>, Failure> {
        let result = self.tunnel.encapsulate(inner, &mut self.buffer);
        if let TunnResult::WriteToNetwork(datagram) = &result
            && datagram.first() == Some(&4)
        {
            return Ok(datagram.to_vec());
        }
        Err(Failure::new(format!("sealing without a session gave {result:?}")))
    }

    /// Sends a datagram as it is.
    ///
    /// # Errors
    ///
    /// Of the socket.
    pub fn send_datagram(&self, datagram: &[u8]) -> Result<(), Failure> {
        self.socket.send(datagram).during(|| format!("sending to {}", self.to)).map(|_| ())
    }

    /// The next inner packet; `None` when the deadline passes. Handshakes, keepalives and timers
    /// are served meanwhile, so a peer that waits is a peer that lives.
    ///
    /// # Errors
    ///
    /// Of the socket. Datagrams that do not open are passed over.
    pub fn receive(&mut self, deadline: Deadline) -> Result<Option<Vec<u8>>, Failure> {
        let mut datagram = vec![0; BUFFER_LEN];
        loop {
            let over = deadline.is_over();
            match self.socket.recv(&mut datagram) {
                Ok(len) => {
                    let datagram = datagram.get(..len).unwrap_or_default();
                    if let Some(inner) = self.open(datagram)? {
                        return Ok(Some(inner));
                    }
                }
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error).during(|| format!("receiving from {}", self.to)),
            }
            let timers = self.tunnel.update_timers(&mut self.buffer);
            transmit(&self.socket, timers)?;
            if over {
                return Ok(None);
            }
        }
    }

    /// Waits for the next datagram without opening it.
    ///
    /// # Errors
    ///
    /// Of the socket.
    pub fn receive_datagram(&self, deadline: Deadline) -> Result<Option<Vec<u8>>, Failure> {
        let mut datagram = vec![0; BUFFER_LEN];
        loop {
            let over = deadline.is_over();
            match self.socket.recv(&mut datagram) {
                Ok(len) => return Ok(datagram.get(..len).map(<[u8]>::to_vec)),
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error).during(|| format!("receiving from {}", self.to)),
            }
            if over {
                return Ok(None);
            }
        }
    }

    /// Goes on from another source port: the peer has roamed.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made.
    pub fn roam(&mut self) -> Result<(), Failure> {
        self.socket = socket(&self.namespace, self.to)?;
        Ok(())
    }

    /// Where it sends from.
    ///
    /// # Errors
    ///
    /// Of the socket.
    pub fn local_address(&self) -> Result<SocketAddr, Failure> {
        self.socket.local_addr().during(|| "asking for a local address".into())
    }

    /// Takes one datagram; answers of the protocol go out.
    fn open(&mut self, datagram: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let mut datagram = datagram;
        loop {
            match self.tunnel.decapsulate(Some(self.to.ip()), datagram, &mut self.buffer) {
                TunnResult::WriteToTunnelV4(inner, _) | TunnResult::WriteToTunnelV6(inner, _) => {
                    return Ok(Some(inner.to_vec()));
                }
                result @ TunnResult::WriteToNetwork(_) => transmit(&self.socket, result)?,
                TunnResult::Done | TunnResult::Err(_) => return Ok(None),
            }
            // boringtun wants to be asked again with nothing until it is done.
            datagram = &[];
        }
    }
}

fn transmit(socket: &UdpSocket, result: TunnResult<'_>) -> Result<(), Failure> {
    let TunnResult::WriteToNetwork(datagram) = result else { return Ok(()) };
    match socket.send(datagram) {
        Ok(_) => Ok(()),
        // An ICMP error about an earlier datagram: the network's word, not a failure of this one.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error).during(|| "sending a datagram".into()),
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused
    )
}

fn socket(namespace: &Namespace, to: SocketAddr) -> Result<UdpSocket, Failure> {
    let local: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let make = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(local)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(READ_SLICE))?;
        Ok(socket)
    };
    namespace.run(make)?.during(|| format!("{}: making a socket to {to}", namespace.name()))
}

/// The bytes of a key.
pub(crate) fn decode(key: &str) -> Result<[u8; 32], Failure> {
    STANDARD
        .decode(key)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Failure::new("a key is not 32 bytes of base64"))
}
