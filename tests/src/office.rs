//! The small company in which most scenarios play.
//!
//! ```text
//!  laptop  192.0.2.11 ──┐                        ┌───────── gateway ─────────┐
//!  10.44.0.7 fd44::7    │   internet (a switch)  │ outside        inside     │  legacy
//!                       ├────────────────────────┤ 192.0.2.1      10.20.1.1  ├── 10.20.1.5
//!  server  192.0.2.12 ──┘   two queues           │ 2001:db8::1    fd20:1::1  │   fd20:1::5
//!  10.44.0.9 fd44::9                             └───────────────────────────┘
//! ```
//!
//! Each machine has the same address with 2001:db8:: outside. The clients send everything for
//! 10.44.0.0/16, 10.20.0.0/16, fd44::/64 and fd20:1::/64 to the gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{
    End, Engine, Failure, Gateway, KeyPair, Link, Namespace, PeerSettings, Tunnel, TunnelSettings,
    WirePeer, World,
};

/// UDP port of the gateway.
pub const LISTEN_PORT: u16 = 51_820;

/// Queues of the gateway's ports.
pub const QUEUES: u16 = 2;

/// The laptop inside its tunnel.
pub const LAPTOP: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 7);
/// The same for IPv6.
pub const LAPTOP_V6: Ipv6Addr = Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0, 7);
/// The server inside its tunnel.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 9);
/// The same for IPv6.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0, 9);
/// The host of the plain segment.
pub const LEGACY: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 5);
/// The same for IPv6.
pub const LEGACY_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 1, 0, 0, 0, 0, 0, 5);

/// What a client sends into its tunnel.
const ALLOWED: &[&str] = &["10.44.0.0/16", "10.20.0.0/16", "fd44::/64", "fd20:1::/64"];

/// The protocol that carries a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The machines, joined and addressed; nothing runs yet.
#[derive(Debug)]
pub struct Office {
    /// `bulkheadd` and its datapath, once started.
    pub gateway: Gateway,
    /// A device of the user anna.
    pub laptop: Namespace,
    /// A device without a user.
    pub server: Namespace,
    /// A host without WireGuard.
    pub legacy: Namespace,
    /// The switch between the WireGuard machines.
    pub internet: Namespace,
    /// The gateway's identity.
    pub gateway_key: KeyPair,
    /// The laptop's.
    pub laptop_key: KeyPair,
    /// The server's.
    pub server_key: KeyPair,
    /// The cable of the segment; `left` is the gateway.
    pub segment_link: Link,
    /// Dropped last.
    pub world: World,
}

impl Office {
    /// Builds it.
    ///
    /// # Errors
    ///
    /// If the world cannot be built.
    pub fn build() -> Result<Self, Failure> {
        let world = World::new()?;
        let [gateway, laptop, server, legacy, internet] =
            ["gateway", "laptop", "server", "legacy", "internet"].map(|name| world.namespace(name));
        let (gateway, laptop, server) = (gateway?, laptop?, server?);
        let (legacy, internet) = (legacy?, internet?);

        let plug = |namespace, device, addresses| End { namespace, device, addresses };
        let outside = plug(&gateway, "outside", &["192.0.2.1/24", "2001:db8::1/64"]);
        world.link(plug(&internet, "gateway", &[]), outside, QUEUES)?;
        let wan = plug(&laptop, "wan", &["192.0.2.11/24", "2001:db8::11/64"]);
        world.link(plug(&internet, "laptop", &[]), wan, QUEUES)?;
        let wan = plug(&server, "wan", &["192.0.2.12/24", "2001:db8::12/64"]);
        world.link(plug(&internet, "server", &[]), wan, QUEUES)?;
        world.switch(&internet, &["gateway", "laptop", "server"])?;

        let inside = plug(&gateway, "inside", &["10.20.1.1/24", "fd20:1::1/64"]);
        let lan = plug(&legacy, "lan", &["10.20.1.5/24", "fd20:1::5/64"]);
        let segment_link = world.link(inside, lan, QUEUES)?;
        legacy.ip("route add default via 10.20.1.1")?;
        legacy.ip("route add default via fd20:1::1")?;

        let office = Self {
            gateway: Gateway::new(&gateway)?,
            laptop,
            server,
            legacy,
            internet,
            gateway_key: KeyPair::generate()?,
            laptop_key: KeyPair::generate()?,
            server_key: KeyPair::generate()?,
            segment_link,
            world,
        };
        office.gateway.write_key("gateway.key", &office.gateway_key.private)?;
        Ok(office)
    }

    /// A whole configuration: the machines of this office, then `policy` (users beyond anna, groups,
    /// services, rules, tests). The names to use there: `user:anna`, `device:anna-laptop`,
    /// `device:server`, `segment:offices`.
    #[must_use]
    pub fn config(&self, policy: &str) -> String {
        self.config_with_timers("", policy)
    }

    /// The same with lines for `[wireguard.wg0.timers]`.
    #[must_use]
    pub fn config_with_timers(&self, timers: &str, policy: &str) -> String {
        format!(
            r#"schema = 1

[gateway]
name = "office"

[port.outside]
device = "outside"
queues = {QUEUES}
kind = "wireguard"

[port.inside]
device = "inside"
queues = {QUEUES}
kind = "segment"

[wireguard.wg0]
port = "outside"
listen_port = {LISTEN_PORT}
private_key_file = "gateway.key"

[wireguard.wg0.timers]
{timers}

[user.anna]

[device.anna-laptop]
user = "anna"
public_key = "{}"
addresses = ["{LAPTOP}/32", "{LAPTOP_V6}/128"]

[device.server]
public_key = "{}"
addresses = ["{SERVER}/32", "{SERVER_V6}/128"]

[segment.offices]
port = "inside"
subnets = ["10.20.1.0/24", "fd20:1::/64"]

{policy}"#,
            self.laptop_key.public, self.server_key.public
        )
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn gateway_endpoint(&self, outer: Outer) -> SocketAddr {
        let address: IpAddr = match outer {
            Outer::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
            Outer::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        };
        SocketAddr::new(address, LISTEN_PORT)
    }

    /// Starts a foreign client on the laptop, UDP port 40001.
    ///
    /// # Errors
    ///
    /// As [`Tunnel::start`].
    pub fn laptop_tunnel(&self, engine: Engine, outer: Outer) -> Result<Tunnel, Failure> {
        let addresses = [format!("{LAPTOP}/32"), format!("{LAPTOP_V6}/128")];
        self.tunnel(&self.laptop, &self.laptop_key, 40_001, &addresses, engine, outer, None)
    }

    /// Starts a foreign client on the server, UDP port 40002. It calls the gateway at once and keeps
    /// calling (keepalive of 1 s), so that it can be reached.
    ///
    /// # Errors
    ///
    /// As [`Tunnel::start`].
    pub fn server_tunnel(&self, engine: Engine, outer: Outer) -> Result<Tunnel, Failure> {
        let addresses = [format!("{SERVER}/32"), format!("{SERVER_V6}/128")];
        self.tunnel(&self.server, &self.server_key, 40_002, &addresses, engine, outer, Some(1))
    }

    #[expect(clippy::too_many_arguments, reason = "the two callers above name them all")]
    fn tunnel(
        &self,
        namespace: &Namespace,
        key: &KeyPair,
        port: u16,
        addresses: &[String; 2],
        engine: Engine,
        outer: Outer,
        keepalive: Option<u16>,
    ) -> Result<Tunnel, Failure> {
        let peer = PeerSettings {
            public_key: &self.gateway_key.public,
            preshared_key: None,
            endpoint: Some(self.gateway_endpoint(outer)),
            allowed_ips: ALLOWED,
            keepalive,
        };
        let [v4, v6] = addresses;
        let settings = TunnelSettings {
            device: "wg0",
            key,
            listen_port: Some(port),
            addresses: &[v4, v6],
            mtu: 1420,
            peers: &[peer],
        };
        Tunnel::start(namespace, engine, &settings)
    }

    /// The laptop as a peer that writes its own packets, instead of a client.
    ///
    /// # Errors
    ///
    /// As [`WirePeer::new`].
    pub fn laptop_peer(&self, outer: Outer) -> Result<WirePeer, Failure> {
        let to = self.gateway_endpoint(outer);
        WirePeer::new(&self.laptop, &self.laptop_key, &self.gateway_key.public, None, to)
    }

    /// The server as a peer that writes its own packets, instead of a client.
    ///
    /// # Errors
    ///
    /// As [`WirePeer::new`].
    pub fn server_peer(&self, outer: Outer) -> Result<WirePeer, Failure> {
        let to = self.gateway_endpoint(outer);
        WirePeer::new(&self.server, &self.server_key, &self.gateway_key.public, None, to)
    }
}
