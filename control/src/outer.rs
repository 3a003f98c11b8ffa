//! Handshake messages to peers leave through ordinary sockets of the kernel, which keeps routing,
//! ARP and neighbour discovery. One socket for each address and UDP port of a listener, so that a peer sees its answer come from where it asked.
//!
//! Nothing is ever read from them: datagrams to this port go to the datapath. What reaches the
//! kernel all the same (a fragment, a device without XDP) fills a small buffer and is dropped
//! there; and because the port is bound, no ICMP error tells a stranger that something is here.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::net::sockopt::{
    set_ip_freebind, set_ip_tos, set_ipv6_freebind, set_ipv6_tclass, set_ipv6_v6only,
    set_socket_recv_buffer_size,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use crate::handshake::Datagram;

/// Traffic class of handshake messages: AF41 (RFC 2597), no ECN.
const HANDSHAKE_CLASS: u8 = 0x88;

/// The sockets.
#[derive(Debug, Default)]
pub struct OuterSockets {
    sockets: BTreeMap<SocketAddr, UdpSocket>,
}

/// Addresses that could not be bound.
#[derive(Debug)]
pub struct OuterRefused(pub Vec<(SocketAddr, io::Error)>);

impl fmt::Display for OuterRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("handshakes cannot be answered from")?;
        self.0.iter().try_for_each(|(address, error)| write!(f, " {address} ({error})"))
    }
}

impl std::error::Error for OuterRefused {}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum OuterError {
    /// No socket for the address that the peer knows.
    #[error("{0} is not of a listener")]
    NotOurs(SocketAddr),
    /// The kernel's route leaves from another address than those of the listener's port.
    #[error("{remote} is not reached through the listener's port but from {from}")]
    OtherPort {
        /// The peer.
        remote: SocketAddr,
        /// What the kernel would send from.
        from: SocketAddr,
    },
    /// The kernel refused.
    #[error("{remote}: {source}")]
    Io {
        /// The peer.
        remote: SocketAddr,
        /// What it said.
        source: io::Error,
    },
}

impl OuterSockets {
    /// Binds a socket to each address, and lets go of those of other addresses.
    ///
    /// # Errors
    ///
    /// The addresses that could not be bound, usually because another program has the port; the
    /// others are.
    pub fn update(&mut self, addresses: &[SocketAddr]) -> Result<(), OuterRefused> {
        self.sockets.retain(|address, _| addresses.contains(address));
        let mut refused = vec![];
        for address in addresses {
            if self.sockets.contains_key(address) {
                continue;
            }
            match open(*address) {
                Ok(socket) => drop(self.sockets.insert(*address, socket)),
                Err(error) => refused.push((*address, error)),
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(OuterRefused(refused)) }
    }

    /// Sends one message.
    ///
    /// # Errors
    ///
    /// [`OuterError`]; handshakes are tried again, so the caller only counts it.
    pub fn send(&self, datagram: &Datagram) -> Result<(), OuterError> {
        let remote = datagram.remote;
        let from = match datagram.local {
            Some(local) => local,
            None => {
                let source = source_towards(remote);
                let ip = source.map_err(|source| OuterError::Io { remote, source })?;
                SocketAddr::new(ip, datagram.udp_port)
            }
        };
        let socket = self.sockets.get(&from).ok_or(match datagram.local {
            Some(_) => OuterError::NotOurs(from),
            None => OuterError::OtherPort { remote, from },
        })?;
        // A handshake message is far smaller than any send buffer: it goes, or is refused, at once.
        socket
            .send_to(&datagram.bytes, remote)
            .map(drop)
            .map_err(|source| OuterError::Io { remote, source })
    }
}

fn open(local: SocketAddr) -> io::Result<UdpSocket> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    // An IPv6 address may still be tentative, a device may be down: neither stops the start.
    if local.is_ipv4() {
        set_ip_freebind(&socket, true)?;
    } else {
        set_ipv6_v6only(&socket, true)?;
        set_ipv6_freebind(&socket, true)?;
    }
    // Linux marks its handshakes so too (`messages.h`, `HANDSHAKE_DSCP`): they must get through when
    // the line is full. A system that refuses only loses that.
    let _ = if local.is_ipv4() {
        set_ip_tos(&socket, HANDSHAKE_CLASS)
    } else {
        set_ipv6_tclass(&socket, u32::from(HANDSHAKE_CLASS))
    };
    // The kernel raises it to its own least.
    set_socket_recv_buffer_size(&socket, 1)?;
    bind(&socket, &local)?;
    Ok(socket.into())
}

/// The address that the kernel would send from. Connecting a UDP socket asks for the route and
/// sends nothing.
fn source_towards(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = UdpSocket::bind((any, 0))?;
    probe.connect(remote)?;
    Ok(probe.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    fn at(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
        addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()
    }

    /// A free port: bound once and released. Another program may take it in between, so the caller
    /// retries.
    fn outer(addresses: &[IpAddr]) -> (OuterSockets, u16) {
        for _ in 0..20 {
            let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = probe.local_addr().unwrap().port();
            drop(probe);
            let mut sockets = OuterSockets::default();
            if sockets.update(&at(addresses, port)).is_ok() {
                return (sockets, port);
            }
        }
        panic!("no free port in 20 attempts");
    }

    #[test]
    fn an_answer_comes_from_where_the_peer_asked() {
        let (sockets, port) = outer(&[loopback(1), loopback(2)]);
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let remote = peer.local_addr().unwrap();
        for (local, from) in [(Some(loopback(2)), loopback(2)), (None, loopback(1))] {
            let local = local.map(|address| SocketAddr::new(address, port));
            let bytes = b"hello".to_vec();
            sockets.send(&Datagram { remote, local, udp_port: port, bytes }).unwrap();
            let mut room = [0; 16];
            let (len, source) = peer.recv_from(&mut room).unwrap();
            assert_eq!((&room[..len], source), (&b"hello"[..], SocketAddr::new(from, port)));
        }
    }

    #[test]
    fn nothing_leaves_from_an_address_that_is_not_ours() {
        let (sockets, port) = outer(&[loopback(2)]);
        let remote = SocketAddr::new(loopback(1), 9);
        let local = Some(SocketAddr::new(loopback(3), port));
        let empty = |local| Datagram { remote, local, udp_port: port, bytes: vec![] };
        let refused = sockets.send(&empty(local)).unwrap_err();
        assert!(matches!(refused, OuterError::NotOurs(_)), "{refused}");
        let refused = sockets.send(&empty(None)).unwrap_err();
        assert!(matches!(refused, OuterError::OtherPort { .. }), "{refused}");
    }

    #[test]
    fn a_port_that_another_program_has_is_named_and_the_rest_works() {
        let (_held, port) = outer(&[loopback(1)]);
        let mut sockets = OuterSockets::default();
        let refused = sockets.update(&at(&[loopback(1), loopback(2)], port)).unwrap_err();
        assert_eq!(refused.0.len(), 1);
        assert!(refused.to_string().contains(&format!("127.0.0.1:{port}")), "{refused}");
        assert!(sockets.sockets.keys().eq(&at(&[loopback(2)], port)));
    }

    #[test]
    fn an_address_that_stays_keeps_its_socket() {
        let (mut sockets, port) = outer(&[loopback(1), loopback(2)]);
        let next = at(&[loopback(2), loopback(3)], port);
        sockets.update(&next).unwrap();
        assert!(sockets.sockets.keys().eq(&next));
        UdpSocket::bind((loopback(1), port)).unwrap();
    }
}
