//! The configuration as the rest of the system sees it: typed, complete, without loose ends.
//!
//! INVARIANT of every [`Config`] that [`Config::parse`] returned: names are unique within their
//! kind, every reference names something, no two endpoints have the same prefix, every figure is
//! within its limits. Code that holds one has nothing left to check.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use crate::condition::{Attribute, Given, Posture};
use crate::flow_log::FlowLog;
use crate::flows::Flows;
use crate::key::{PublicKey, Secret};
use crate::rule::{Host, Internet, Rule, Selector};
use crate::service::{Flow, ServiceRange};

/// Everything that `bulkhead.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that it came from, as given to the reader. Only quoted in messages.
    pub path: String,
    /// The box itself.
    pub gateway: Gateway,
    /// What is remembered of connections.
    pub flows: Flows,
    /// Where the flow log is written.
    pub flow_log: FlowLog,
    /// Network ports, sorted by name. The position is the `PortIndex` of the table.
    pub ports: Vec<Port>,
    /// The WireGuard listeners, sorted by name; at least one. No two have the same key.
    pub wireguard: Vec<Listener>,
    /// People, sorted by name.
    pub users: Vec<User>,
    /// Marks on devices, sorted by name.
    pub tags: Vec<Tag>,
    /// Sets of endpoints, sorted by name.
    pub groups: Vec<Group>,
    /// WireGuard keys with addresses, sorted by name.
    pub devices: Vec<Device>,
    /// Plain subnets behind a port, sorted by name.
    pub segments: Vec<Segment>,
    /// Named addresses, sorted by name.
    pub hosts: Vec<Host>,
    /// The way to the addresses that nothing else in the file has.
    pub internet: Option<Internet>,
    /// Named protocols and ports, sorted by name.
    pub services: Vec<Service>,
    /// What can be known of a device besides what is built in, sorted by name.
    pub attributes: Vec<Attribute>,
    /// Demands on devices, sorted by name.
    pub postures: Vec<Posture>,
    /// Who may speak to whom, in the order of the file.
    pub rules: Vec<Rule>,
    /// What the policy must answer, in the order of the file.
    pub tests: Vec<Test>,
}

/// Where something stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
}

/// `[gateway]`: sizes of the datapath. All of it takes effect when the datapath starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// What the box is called in logs and answers.
    pub name: String,
    /// Workers, 1..=64; at most the queues of the port that has the fewest.
    pub workers: u16,
    /// CPUs to pin the workers to, one each; empty: not pinned.
    pub cpus: Vec<u16>,
    /// Packet memory of each worker, in frames of 2,048 bytes.
    pub frames_per_worker: u32,
    /// Entries of each ring, a power of two.
    pub ring_entries: u32,
    /// Sessions that may exist at once.
    pub sessions_max: u32,
    /// Peers that may exist at once; at least the number of devices.
    pub peers_max: u32,
    /// Live flows in the cache of each worker.
    pub flows_per_worker: u32,
}

/// `[port.NAME]`: a network device that Bulkhead serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// The Linux network device.
    pub device: String,
    /// Receive queues to serve, counted from queue 0.
    pub queues: u16,
    /// What arrives here.
    pub kind: PortKind,
    /// How the XDP program is attached.
    pub attach: Attach,
    /// How the sockets are bound.
    pub bind: Bind,
}

/// What arrives at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// WireGuard only; plain IP goes to the kernel.
    #[default]
    Wireguard,
    /// Plain traffic of segments only.
    Segment,
    /// Both.
    Both,
}

impl PortKind {
    /// Whether a WireGuard listener may use the port.
    #[must_use]
    pub const fn has_wireguard(self) -> bool {
        matches!(self, Self::Wireguard | Self::Both)
    }

    /// Whether a segment may be behind the port.
    #[must_use]
    pub const fn has_segments(self) -> bool {
        matches!(self, Self::Segment | Self::Both)
    }
}

/// How the XDP program is attached to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// In the driver if it can, else in the kernel's stack.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack: slow, works everywhere.
    Generic,
}

/// How an AF_XDP socket is bound to its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bind {
    /// Zero-copy if the driver can, else copy.
    #[default]
    Auto,
    /// Zero-copy, or not at all.
    ZeroCopy,
    /// Copy.
    Copy,
}

/// `[wireguard.NAME]`: a listener with a key of the gateway's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// Position in [`Config::ports`].
    pub port: u8,
    /// UDP port.
    pub listen_port: u16,
    /// A static private key of the gateway's, read from its file.
    pub private_key: Secret,
    /// What devices know of it.
    pub public_key: PublicKey,
    /// Whether it sends no cookie replies under load.
    pub dark: bool,
    /// Largest inner packet, bytes.
    pub mtu: u16,
    /// The DSCP of its datagrams.
    pub dscp: Dscp,
    /// Whether the userspace API socket tells the private key.
    pub show_private_key: bool,
    /// Whether the userspace API socket tells the preshared keys.
    pub show_preshared_keys: bool,
    /// What its devices are told.
    pub client: ClientSide,
    /// The protocol's timers.
    pub timers: Timers,
}

/// The DSCP of a listener's datagrams (RFC 2983 §3). ECN follows RFC 6040 whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dscp {
    /// Zero, as Linux has it: an observer learns nothing of what is inside.
    #[default]
    Clear,
    /// That of the packet inside.
    Copy,
    /// Always this, 0..=63.
    Fixed(u8),
}

/// `[wireguard.NAME.client]`: what is written into a device's own file, and what a new device gets.
/// The gateway itself does nothing with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSide {
    /// Where devices find the listener: a host or an address, and a port.
    pub endpoint: Option<String>,
    /// What devices send into the tunnel; empty: the segments and the pool.
    pub allowed_ips: Vec<IpNet>,
    /// Name servers that devices ask.
    pub dns: Vec<IpAddr>,
    /// Persistent keepalive of the devices.
    pub keepalive: Option<Duration>,
    /// Where new devices get their addresses from, one of each.
    pub pool: Vec<IpNet>,
}

/// `[wireguard.NAME.timers]`: the protocol's timers (WireGuard whitepaper §6.1). The default is the
/// protocol; they can only be lowered, which tests use to see minutes pass in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// REKEY_AFTER_TIME.
    pub rekey_after: Duration,
    /// REJECT_AFTER_TIME.
    pub reject_after: Duration,
    /// REKEY_ATTEMPT_TIME.
    pub rekey_attempt: Duration,
    /// REKEY_TIMEOUT.
    pub rekey_timeout: Duration,
    /// KEEPALIVE_TIMEOUT.
    pub keepalive: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            rekey_after: Duration::from_secs(120),
            reject_after: Duration::from_secs(180),
            rekey_attempt: Duration::from_secs(90),
            rekey_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
        }
    }
}

/// `[user.NAME]`: a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// For the reader of logs; empty if not given. The policy does not look at it.
    pub email: String,
}

/// `[tag.NAME]`: a mark that devices carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// For the reader of the file; empty if not given.
    pub description: String,
}

/// `[group.NAME]`: a set of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// Not [`Selector::Any`], [`Selector::Own`] or [`Selector::Internet`]. Groups may be members of
    /// groups, at most [`crate::limits::GROUP_DEPTH_MAX`] deep and in no circle.
    pub members: Vec<Selector>,
}

/// `[device.NAME]`: a WireGuard key and the addresses that it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// Whose it is, a name of [`Config::users`].
    pub user: Option<String>,
    /// Its static public key: the identity. No two devices share one.
    pub public_key: PublicKey,
    /// The preshared key, read from its file.
    pub preshared_key: Option<Secret>,
    /// What it may send from and what is routed to it: its own addresses, and networks behind it.
    pub addresses: Vec<IpNet>,
    /// Position in [`Config::wireguard`] of the only listener that accepts it; `None`: all do.
    pub listener: Option<u8>,
    /// Where to find it before it has spoken.
    pub endpoint: Option<SocketAddr>,
    /// The same by name; never both.
    pub endpoint_name: Option<EndpointName>,
    /// Persistent keepalive.
    pub keepalive: Option<Duration>,
    /// Names of [`Config::tags`].
    pub tags: Vec<String>,
}

/// A host name with a UDP port, looked up while the gateway runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointName {
    /// A host name (RFC 1123 §2.1).
    pub host: String,
    /// UDP port, not 0.
    pub port: u16,
}

/// `[segment.NAME]`: subnets in plain behind a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// Position in [`Config::ports`].
    pub port: u8,
    /// The subnets. No two segments overlap.
    pub subnets: Vec<IpNet>,
    /// 802.1Q tag, 1..=4094; `None`: untagged.
    pub vlan: Option<u16>,
    /// How far the segment's migration has come.
    pub stage: Stage,
}

/// How far a segment's migration has come. This release knows one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The policy decides; what it does not allow is denied.
    #[default]
    Enforce,
}

/// `[service.NAME]`: a name for protocols and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name in this file.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// At least one.
    pub ports: Vec<ServiceRange>,
}

/// `[[test]]`: questions with the answers that the policy must give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Its name; unique.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// Who asks.
    pub from: Origin,
    /// What is taken as known.
    pub given: Given,
    /// Flows that must be allowed.
    pub allow: Vec<Expectation>,
    /// Flows that must be denied.
    pub deny: Vec<Expectation>,
}

/// One flow of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Where it stands in the file.
    pub place: Place,
    /// Destination and service.
    pub flow: Flow,
}

/// Who opens a flow, in a test or a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A name of [`Config::devices`].
    Device(String),
    /// A name of [`Config::segments`]: some host in it that is not a device.
    Segment(String),
    /// Whoever has the address.
    Address(IpAddr),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "device:{name}"),
            Self::Segment(name) => write!(f, "segment:{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}
