//! A WireGuard client of somebody else's making on a machine of the world: wireguard-go, boringtun,
//! gotatun or the Linux kernel, set up by the stock `wg`.
//!
//! The first three keep their configuration socket in `/var/run/wireguard`, which all network namespaces of the
//! machine share. So each client gets a mount namespace with an empty `/var/run` of its own, and
//! `wg` is run inside that: device names need not be unique, nothing is left behind after a kill -9.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::place::{Place, Probe};
use crate::probe::last_line;
use crate::wait::{Deadline, Look, until};
use crate::{During, Failure, Guest, KeyPair, Namespace, Output, tool};

/// Gives the program that follows an empty `/var/run`. `ip netns exec` has put it into a mount
/// namespace already, whose mounts do not propagate outwards.
const WITH_PRIVATE_RUN: &str =
    "mount -t tmpfs bulkhead-world /var/run && mkdir /var/run/wireguard && exec \"$@\"";

/// Whose implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `wireguard-go` of Debian.
    WireguardGo,
    /// `boringtun-cli` of crates.io, two threads.
    Boringtun,
    /// `gotatun` (crate `gotatun-cli`), Mullvad's fork of boringtun.
    Gotatun,
}

impl Engine {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::WireguardGo, Self::Boringtun, Self::Gotatun];
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
        })
    }
}

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct TunnelSettings<'a> {
    /// Name of the TUN device in its namespace, at most 15 bytes.
    pub device: &'a str,
    /// Its identity.
    pub key: &'a KeyPair,
    /// UDP port; `None`: any.
    pub listen_port: Option<u16>,
    /// Inner addresses with prefix length.
    pub addresses: &'a [&'a str],
    /// Inner MTU, bytes.
    pub mtu: u16,
    /// Whom it talks to.
    pub peers: &'a [PeerSettings<'a>],
}

/// One peer of a client.
#[derive(Clone, Copy, Debug)]
pub struct PeerSettings<'a> {
    /// Public key, base64.
    pub public_key: &'a str,
    /// Preshared key, base64.
    pub preshared_key: Option<&'a str>,
    /// Where it is; `None`: it will call.
    pub endpoint: Option<SocketAddr>,
    /// What it may send and is sent; a route to the device is added for each.
    pub allowed_ips: &'a [&'a str],
    /// Persistent keepalive, seconds.
    pub keepalive: Option<u16>,
}

/// A running client.
#[derive(Debug)]
pub struct Tunnel {
    place: Place,
    device: String,
}

/// What `wg show DEVICE dump` tells of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Public key, base64.
    pub public_key: String,
    /// Where its last authentic packet came from.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the epoch; 0: never. boringtun reports seconds *since the handshake* here, so
    /// only compare with 0, and only with wireguard-go.
    pub latest_handshake: u64,
    /// Bytes received from it; wireguard-go counts the protocol too, boringtun only inner packets.
    pub received_bytes: u64,
    /// Bytes sent to it, counted likewise.
    pub sent_bytes: u64,
}

impl Tunnel {
    /// Starts the client, sets it up and brings its device up.
    ///
    /// # Errors
    ///
    /// If a program is missing, ends, or is not ready within ten seconds.
    pub fn start(
        namespace: &Namespace,
        engine: Engine,
        settings: &TunnelSettings<'_>,
    ) -> Result<Self, Failure> {
        let device = settings.device;
        let mut command = vec!["sh".into(), "-c".into(), WITH_PRIVATE_RUN.into(), "sh".into()];
        command.extend(engine_command(engine, device)?);
        let process = namespace.spawn(&format!("tunnel-{device}"), &command)?;
        Self::set_up(Place::Program { namespace: namespace.clone(), process }, settings)
    }

    /// Makes a device of the kernel's own WireGuard in a guest. It goes with the tunnel.
    ///
    /// # Errors
    ///
    /// If the guest does not answer or refuses.
    pub fn in_kernel(guest: &Guest, settings: &TunnelSettings<'_>) -> Result<Self, Failure> {
        guest.exec(&format!("ip link add {} type wireguard", settings.device))?;
        Self::set_up(Place::Kernel(guest.clone()), settings)
    }

    fn set_up(place: Place, settings: &TunnelSettings<'_>) -> Result<Self, Failure> {
        let mut tunnel = Self { place, device: settings.device.to_owned() };
        tunnel.wait_ready()?;
        tunnel.configure(settings)?;
        Ok(tunnel)
    }

    /// Until the client answers `wg`.
    fn wait_ready(&mut self) -> Result<(), Failure> {
        let what = format!("{} to answer wg", self.place.label());
        until(Deadline::seconds(10), what, || {
            self.place.check_alive()?;
            Ok(match self.wg(&["show", &self.device]) {
                Ok(_) => Look::Ready(()),
                Err(failure) => Look::NotYet(failure.to_string()),
            })
        })
    }

    fn configure(&self, settings: &TunnelSettings<'_>) -> Result<(), Failure> {
        let key_file = self.secret_file("private", &settings.key.private)?;
        let mut words = vec!["set".to_owned(), self.device.clone(), "private-key".into(), key_file];
        if let Some(port) = settings.listen_port {
            words.extend(["listen-port".into(), port.to_string()]);
        }
        self.wg(&words)?;
        for peer in settings.peers {
            self.set_peer(peer)?;
        }
        for address in settings.addresses {
            // Usable at once: a device without neighbours has nobody to ask for duplicates.
            self.place.ip(&format!("address add {address} dev {}", self.device))?;
        }
        self.place.ip(&format!("link set {} mtu {} up", self.device, settings.mtu))?;
        for allowed in settings.peers.iter().flat_map(|peer| peer.allowed_ips) {
            self.place.ip(&format!("route replace {allowed} dev {}", self.device))?;
        }
        Ok(())
    }

    /// Creates the peer, in one request with its endpoint: boringtun 0.7.1 refuses an endpoint for
    /// a peer that exists. So a peer that exists is removed first.
    ///
    /// # Errors
    ///
    /// If `wg` refuses.
    pub fn set_peer(&self, peer: &PeerSettings<'_>) -> Result<(), Failure> {
        if self.peers()?.iter().any(|state| state.public_key == peer.public_key) {
            self.wg(&["set", &self.device, "peer", peer.public_key, "remove"])?;
        }
        let mut words = vec!["set".to_owned(), self.device.clone()];
        words.extend(["peer".into(), peer.public_key.to_owned()]);
        if let Some(key) = peer.preshared_key {
            words.extend(["preshared-key".into(), self.secret_file("preshared", key)?]);
        }
        if let Some(endpoint) = peer.endpoint {
            words.extend(["endpoint".into(), endpoint.to_string()]);
        }
        if let Some(seconds) = peer.keepalive {
            words.extend(["persistent-keepalive".into(), seconds.to_string()]);
        }
        words.extend(["allowed-ips".into(), peer.allowed_ips.join(",")]);
        self.wg(&words).map(|_| ())
    }

    /// Moves the client to another UDP port: to its peers it has roamed.
    ///
    /// # Errors
    ///
    /// If the client refuses.
    pub fn set_listen_port(&self, port: u16) -> Result<(), Failure> {
        self.wg(&["set", &self.device, "listen-port", &port.to_string()]).map(|_| ())
    }

    /// What the client knows of its peers.
    ///
    /// # Errors
    ///
    /// If the client does not answer, or in a way that is not understood.
    pub fn peers(&self) -> Result<Vec<PeerState>, Failure> {
        let dump = self.wg(&["show", &self.device, "dump"])?;
        // The first line is the device itself.
        dump.lines()
            .skip(1)
            .map(|line| {
                parse_peer(line)
                    .ok_or_else(|| Failure::new(format!("wg show dump has the line {line:?}")))
            })
            .collect()
    }

    /// Waits until something authentic came from this peer: data or the end of a handshake.
    ///
    /// # Errors
    ///
    /// When the deadline passes.
    pub fn wait_for_peer(
        &self,
        public_key: &str,
        deadline: Deadline,
    ) -> Result<PeerState, Failure> {
        let what = format!("{} to hear from its peer", self.place.label());
        until(deadline, what, || {
            let peers = self.peers()?;
            // boringtun counts content only, so a handshake alone shows in its time only.
            let heard = peers.iter().find(|peer| {
                let authentic = peer.received_bytes > 0 || peer.latest_handshake > 0;
                peer.public_key == public_key && authentic
            });
            Ok(heard.cloned().map_or_else(|| Look::NotYet(format!("{peers:?}")), Look::Ready))
        })
    }

    /// Runs the probe on the client's machine, to its end.
    ///
    /// # Errors
    ///
    /// As [`Namespace::probe_once`].
    pub fn probe_once(&self, words: &str) -> Result<Output, Failure> {
        self.place.probe_once(words)
    }

    /// Starts a probe on the client's machine and goes on.
    ///
    /// # Errors
    ///
    /// As [`Namespace::probe`].
    pub fn probe(&self, label: &str, words: &str) -> Result<Probe, Failure> {
        self.place.probe(label, words)
    }

    /// Starts a probe that listens on the client's machine; returns once it does.
    ///
    /// # Errors
    ///
    /// As [`Self::probe`], and if it does not listen within 20 seconds.
    pub fn probe_server(&self, label: &str, words: &str) -> Result<Probe, Failure> {
        let probe = self.probe(label, words)?;
        probe.wait_for_log(Deadline::seconds(20), "a listening socket", |log| {
            last_line(log, "listening").map(|_| ())
        })?;
        Ok(probe)
    }

    /// Runs `wg` where it finds the client.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn wg<S: AsRef<str>>(&self, words: &[S]) -> Result<String, Failure> {
        self.place.wg(words)
    }

    /// A file that only root reads; returns its path.
    fn secret_file(&self, name: &str, secret: &str) -> Result<String, Failure> {
        self.place.write_secret(&format!("{}-{name}.key", self.device), secret)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Place::Kernel(guest) = &self.place {
            // If the guest is gone, so is its device.
            let _ = guest.exec(&format!("ip link del {}", self.device));
        }
    }
}

/// Writes a key file with mode 0600, replacing what was there.
pub(crate) fn write_secret(path: &Path, secret: &str) -> Result<(), Failure> {
    let what = || format!("writing {}", path.display());
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).during(what),
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).during(what)?;
    writeln!(file, "{secret}").during(what)
}

fn engine_command(engine: Engine, device: &str) -> Result<Vec<PathBuf>, Failure> {
    Ok(match engine {
        Engine::WireguardGo => {
            ["env", "LOG_LEVEL=verbose", "wireguard-go", "-f", device].map(PathBuf::from).to_vec()
        }
        Engine::Boringtun => {
            let mut command = vec![tool("boringtun-cli")?];
            command.extend(["-f", "--disable-drop-privileges", "-t", "2", device].map(Into::into));
            command
        }
        Engine::Gotatun => {
            let mut command = vec![tool("gotatun")?];
            command.extend(["-f", "--disable-drop-privileges", device].map(Into::into));
            command
        }
    })
}

/// Public key, preshared key, endpoint, allowed IPs, latest handshake, received, sent, keepalive,
/// separated by tabs (wg(8), `show … dump`).
fn parse_peer(line: &str) -> Option<PeerState> {
    let mut fields = line.split('\t');
    let public_key = fields.next()?.to_owned();
    let _preshared = fields.next()?;
    let endpoint = match fields.next()? {
        "(none)" => None,
        endpoint => Some(endpoint.parse().ok()?),
    };
    let _allowed = fields.next()?;
    let latest_handshake = fields.next()?.parse().ok()?;
    let received_bytes = fields.next()?.parse().ok()?;
    let sent_bytes = fields.next()?.parse().ok()?;
    Some(PeerState { public_key, endpoint, latest_handshake, received_bytes, sent_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_are_read() {
        let line = "KEY=\t(none)\t[fd00::1]:51820\t10.0.0.0/8,fd44::/64\t1700000000\t92\t148\toff";
        let state = parse_peer(line).unwrap();
        assert_eq!(state.endpoint, Some("[fd00::1]:51820".parse().unwrap()));
        assert_eq!((state.received_bytes, state.sent_bytes), (92, 148));
        let line = "KEY=\tPSK=\t(none)\t(none)\t0\t0\t0\t25";
        assert_eq!(parse_peer(line).unwrap().endpoint, None);
        assert_eq!(parse_peer("KEY=\t(none)\tnowhere\t(none)\t0\t0\t0\toff"), None);
        assert_eq!(parse_peer("KEY="), None);
    }
}
