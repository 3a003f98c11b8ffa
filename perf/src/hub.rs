//! The gateways that are compared, each in the same place of the same world.

use bulkhead_tests::office::{LAPTOP, LAPTOP_V6, LISTEN_PORT, SERVER, SERVER_V6};
use bulkhead_tests::{
    Deadline, Engine, Failure, Office, Outer, PeerSettings, Tunnel, TunnelSettings,
};

use crate::profile::HubKind;

/// Bulkhead's policy: the laptop may do to the server what iperf3 needs.
const POLICY: &str = r#"
[service.measurement]
ports = ["tcp/5201", "udp/5201"]

[[rule]]
id = "measurement"
from = ["user:anna"]
to = ["device:server"]
services = ["measurement"]
"#;

/// A world with a gateway and two clients, ready for traffic.
pub struct Hub {
    /// Dropped before the world that they run in.
    _clients: [Tunnel; 2],
    _rival: Option<Tunnel>,
    /// The world.
    pub office: Office,
}

impl Hub {
    /// Builds the world around a gateway and waits until the clients reach it.
    ///
    /// # Errors
    ///
    /// If anything of it does not come up.
    pub fn start(kind: HubKind) -> Result<Self, Failure> {
        Self::start_with(kind, "")
    }

    /// The same, with more sections for Bulkhead's configuration.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(kind: HubKind, more: &str) -> Result<Self, Failure> {
        let mut office = Office::build()?;
        let rival = match kind {
            HubKind::Bulkhead => {
                office.gateway.write_config(&office.config(&format!("{POLICY}\n{more}")))?;
                office.gateway.start_and_wait(Deadline::seconds(20))?;
                None
            }
            HubKind::WireguardGo => Some(wireguard_go(&office)?),
        };
        // The same clients for both: one wireguard-go, one boringtun.
        let server = office.server_tunnel(Engine::Boringtun, Outer::V4)?;
        let laptop = office.laptop_tunnel(Engine::WireguardGo, Outer::V4)?;
        server.wait_for_peer(&office.gateway_key.public, Deadline::seconds(20))?;
        Ok(Self { _clients: [laptop, server], _rival: rival, office })
    }
}

fn wireguard_go(office: &Office) -> Result<Tunnel, Failure> {
    let namespace = office.gateway.namespace();
    namespace.forward()?;
    let (laptop, server) = (
        [format!("{LAPTOP}/32"), format!("{LAPTOP_V6}/128")],
        [format!("{SERVER}/32"), format!("{SERVER_V6}/128")],
    );
    let [laptop_ips, server_ips] =
        [&laptop, &server].map(|ips| ips.iter().map(String::as_str).collect::<Vec<_>>());
    let peer = |public_key, allowed_ips| PeerSettings {
        public_key,
        preshared_key: None,
        endpoint: None,
        allowed_ips,
        keepalive: None,
    };
    let peers = [
        peer(office.laptop_key.public.as_str(), laptop_ips.as_slice()),
        peer(office.server_key.public.as_str(), server_ips.as_slice()),
    ];
    let settings = TunnelSettings {
        device: "hub0",
        key: &office.gateway_key,
        listen_port: Some(LISTEN_PORT),
        addresses: &["10.44.0.1/32"],
        mtu: 1420,
        peers: &peers,
    };
    Tunnel::start(namespace, Engine::WireguardGo, &settings)
}
