//! Every implementation of WireGuard against the gateway, row by row.
//!
//! A row is an outer family, a preshared key or none, and who calls whom; both inner families go
//! through the one session of the row, in both directions, checked by the hash of what arrives. Each
//! row has a device with a key and addresses of its own, so no row lives off the session of another.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests fail by panicking, their helpers too"
)]

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bulkhead_tests::office::{LEGACY, LEGACY_V6};
use bulkhead_tests::probe::{field, http::Content};
use bulkhead_tests::{
    Deadline, Engine, Failure, Implementation, KeyPair, Office, Outer, PeerSettings, Process,
    Tunnel, TunnelSettings,
};

/// What each download carries: several hundred full segments and a partial one.
const CONTENT: Content = Content { seed: 3, len: 300_001 };

#[test]
fn wireguard_go_over_ipv4_and_ipv6_with_and_without_psk_called_and_calling() {
    Matrix::with_program(Engine::WireguardGo).play_all();
}

#[test]
fn boringtun_over_ipv4_and_ipv6_with_and_without_psk_called_and_calling() {
    Matrix::with_program(Engine::Boringtun).play_all();
}

#[test]
fn gotatun_over_ipv4_and_ipv6_with_and_without_psk_called_and_calling() {
    Matrix::with_program(Engine::Gotatun).play_all();
}

/// All rows share one boot.
#[test]
fn the_linux_kernel_over_ipv4_and_ipv6_with_and_without_psk_called_and_calling() {
    let office = Office::build().unwrap();
    let kernel = Implementation::kernel(&office).unwrap();
    Matrix::start(office, kernel).play_all();
}

/// Who sends the first handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Peer,
    Gateway,
}

/// One session of an implementation with the gateway.
#[derive(Debug)]
struct Row {
    number: u8,
    outer: Outer,
    /// Where the peer listens.
    endpoint: SocketAddr,
    preshared: bool,
    caller: Caller,
    key: KeyPair,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outer = match self.outer {
            Outer::V4 => "IPv4",
            Outer::V6 => "IPv6",
        };
        let psk = if self.preshared { "with PSK" } else { "without PSK" };
        write!(f, "outer {outer}, {psk}, {:?} calls", self.caller)
    }
}

impl Row {
    fn all(whose: &Implementation) -> Vec<Self> {
        let row = |number: u8| {
            let outer = if number & 1 == 0 { Outer::V4 } else { Outer::V6 };
            let port = 41_000 + u16::from(number);
            Self {
                number,
                outer,
                endpoint: SocketAddr::new(whose.outer_address(outer), port),
                preshared: number & 2 != 0,
                caller: if number & 4 == 0 { Caller::Peer } else { Caller::Gateway },
                key: KeyPair::generate().unwrap(),
            }
        };
        (0..8).map(row).collect()
    }

    /// The inner addresses of the row's device.
    fn inner(&self) -> [IpAddr; 2] {
        let v6 = Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 1, u16::from(self.number));
        [Ipv4Addr::new(10, 44, 1, self.number).into(), v6.into()]
    }

    fn config(&self) -> String {
        let [v4, v6] = self.inner();
        let mut text = format!(
            "[device.row-{}]\npublic_key = \"{}\"\naddresses = [\"{v4}/32\", \"{v6}/128\"]\n\
             tags = [\"tag:row\"]\n",
            self.number, self.key.public
        );
        if self.preshared {
            text.push_str("preshared_key_file = \"rows.psk\"\n");
        }
        if self.caller == Caller::Gateway {
            writeln!(text, "endpoint = \"{}\"", self.endpoint).unwrap();
        }
        text
    }
}

const POLICY: &str = r#"
[tag.row]
[service.http]
ports = ["tcp/80"]
[[rule]]
id = "rows"
from = ["tag:row", "segment:offices"]
to = ["tag:row", "segment:offices"]
services = ["http"]
"#;

/// The machines of a matrix, with a gateway that knows a device for every row.
struct Matrix {
    whose: Implementation,
    office: Office,
    rows: Vec<Row>,
    psk: String,
    _servers: [Process; 2],
}

impl Matrix {
    fn with_program(engine: Engine) -> Self {
        let office = Office::build().unwrap();
        let whose = Implementation::program(&office, engine);
        Self::start(office, whose)
    }

    fn start(mut office: Office, whose: Implementation) -> Self {
        let psk = KeyPair::generate().unwrap().private;
        office.gateway.write_key("rows.psk", &psk).unwrap();
        let rows = Row::all(&whose);
        let devices: String = rows.iter().map(Row::config).collect();
        office.gateway.write_config(&office.config(&format!("{devices}{POLICY}"))).unwrap();
        office.gateway.start_and_wait(Deadline::seconds(20)).unwrap();
        let serve = |label, at: IpAddr| office.legacy.probe_server(label, &serve(at)).unwrap();
        let servers = [serve("http-4", LEGACY.into()), serve("http-6", LEGACY_V6.into())];
        Self { whose, office, rows, psk, _servers: servers }
    }

    fn tunnel(&self, row: &Row) -> Result<Tunnel, Failure> {
        let endpoint = match row.caller {
            Caller::Peer => Some(self.office.gateway_endpoint(row.outer)),
            Caller::Gateway => None,
        };
        let peer = PeerSettings {
            public_key: &self.office.gateway_key.public,
            preshared_key: row.preshared.then_some(self.psk.as_str()),
            endpoint,
            allowed_ips: &["10.20.1.0/24", "fd20:1::/64"],
            keepalive: None,
        };
        let [v4, v6] = row.inner();
        let settings = TunnelSettings {
            device: "wg0",
            key: &row.key,
            listen_port: Some(row.endpoint.port()),
            addresses: &[&format!("{v4}/32"), &format!("{v6}/128")],
            mtu: 1420,
            peers: &[peer],
        };
        self.whose.tunnel(&settings)
    }

    /// Plays every row and fails with all that failed.
    fn play_all(&self) {
        let whose = &self.whose;
        let mut failed = String::new();
        for row in &self.rows {
            match self.play(row) {
                Ok(()) => println!("{whose}, {row}: holds"),
                Err(failure) => writeln!(failed, "{whose}, {row}: {failure}").unwrap(),
            }
        }
        assert!(failed.is_empty(), "\n{failed}");
        let counters = self.office.gateway.counters().unwrap();
        counters.check_conserved().unwrap();
        for end in ["drop_forged", "drop_replayed", "drop_mac1", "drop_spoofed_source"] {
            assert_eq!(counters.end(end).unwrap(), 0, "{end}: {:?}", counters.met());
        }
    }

    /// Plays one row: whoever calls sends the first packet.
    fn play(&self, row: &Row) -> Result<(), Failure> {
        let before = self.roles();
        let tunnel = self.tunnel(row)?;
        let serve = |at| tunnel.probe_server(&label(at), &serve(at));
        let _servers = row.inner().into_iter().map(serve).collect::<Result<Vec<_>, _>>()?;
        let from_legacy = || {
            [LEGACY.into(), LEGACY_V6.into()]
                .into_iter()
                .try_for_each(|at| downloaded(&tunnel.probe_once(&get(at))?.stdout))
        };
        let from_peer = || {
            row.inner()
                .into_iter()
                .try_for_each(|at| downloaded(&self.office.legacy.probe_once(&get(at))?.stdout))
        };
        match row.caller {
            Caller::Peer => from_legacy().and_then(|()| from_peer())?,
            Caller::Gateway => from_peer().and_then(|()| from_legacy())?,
        }
        let after = self.roles();
        let [responder, initiator] = [after[0] - before[0], after[1] - before[1]];
        let (called, other) = match row.caller {
            Caller::Peer => (responder, initiator),
            Caller::Gateway => (initiator, responder),
        };
        if called >= 1 && other == 0 {
            return Ok(());
        }
        Err(Failure::new(format!("{responder} sessions as responder, {initiator} as initiator")))
    }

    /// Sessions that the gateway has made as responder and as initiator.
    fn roles(&self) -> [u64; 2] {
        let answer = self.office.gateway.cli_json(&["counters"]).unwrap();
        ["sessions_responder", "sessions_initiator"]
            .map(|name| answer["handshakes"][name].as_u64().expect(name))
    }
}

fn label(at: IpAddr) -> String {
    format!("http-{}", if at.is_ipv4() { 4 } else { 6 })
}

fn serve(at: IpAddr) -> String {
    format!(
        "http-serve {} --seed {} --bytes {}",
        SocketAddr::new(at, 80),
        CONTENT.seed,
        CONTENT.len
    )
}

fn get(at: IpAddr) -> String {
    format!("http-get {} --patience-ms 15000", SocketAddr::new(at, 80))
}

/// Checks the hash that the probe printed.
fn downloaded(printed: &str) -> Result<(), Failure> {
    let want = CONTENT.sha256().unwrap();
    match field(printed, "sha256") {
        Some(got) if got == want => Ok(()),
        got => Err(Failure::new(format!("wanted a file of hash {want}, got {got:?}: {printed}"))),
    }
}
