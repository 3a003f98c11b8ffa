//! What the configuration file wants, in the terms of the control process.
//!
//! An [`Intent`] is complete and valid: whoever holds one can set up a datapath with it. Where the
//! file is silent (the box's own addresses) the machine was asked before.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_config::{Attach, Bind, Config, ConfigErrors};
use bulkhead_link::{
    AttachMode, BindMode, Configuration, Listener, PortSetup, SessionIndex, Timers,
};
use bulkhead_wg::{Limits, PresharedKey, PrivateKey, PublicKey};

use crate::api::{Diagnostic, Refusal, RefusalKind};
use crate::mirror::OwnAddresses;
use crate::publish::{ConfigPolicy, Policy};

/// What an operator wants.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The gateway's name.
    pub gateway: String,
    /// How the datapath is set up.
    pub configuration: Configuration,
    /// The listener's port, position in [`Configuration::ports`].
    pub wireguard_port: u8,
    /// Addresses of the listener's port: where handshakes are answered from.
    pub outer: Vec<IpAddr>,
    /// The gateway's static key.
    pub private: PrivateKey,
    /// Who may connect, in the order of their names.
    pub devices: Vec<Device>,
    /// Where the segments are.
    pub segments: Vec<SegmentPlace>,
    /// What makes the table.
    pub policy: Arc<dyn Policy>,
}

/// A WireGuard device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub public_key: PublicKey,
    /// All zero: none.
    pub preshared_key: PresharedKey,
    /// Its prefixes, for display.
    pub addresses: Vec<String>,
    /// Where to find it before it has spoken.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive.
    pub keepalive: Option<Duration>,
}

/// Where plain hosts live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPlace {
    /// Position in [`Configuration::ports`].
    pub port: u8,
    /// 802.1Q tag.
    pub vlan: Option<u16>,
    /// Its subnets.
    pub subnets: Vec<ipnet::IpNet>,
}

impl Intent {
    /// Puts a configuration into our terms.
    #[must_use]
    pub fn new(config: Config, own: OwnAddresses) -> Self {
        let private = PrivateKey::from_bytes(*config.wireguard.private_key.expose());
        Self {
            gateway: config.gateway.name.clone(),
            configuration: configuration(&config, &private, own.all),
            wireguard_port: config.wireguard.port,
            outer: own.wireguard,
            private,
            devices: config.devices.iter().map(device).collect(),
            segments: config
                .segments
                .iter()
                .map(|segment| SegmentPlace {
                    port: segment.port,
                    vlan: segment.vlan,
                    subnets: segment.subnets.clone(),
                })
                .collect(),
            policy: Arc::new(ConfigPolicy::new(config)),
        }
    }

    /// The protocol's limits with the configured timers.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let timers = &self.configuration.timers;
        let default = Limits::default();
        Limits {
            rekey_after: timers.rekey_after,
            reject_after: timers.reject_after,
            rekey_attempt: timers.rekey_attempt,
            rekey_timeout: timers.rekey_timeout,
            keepalive: timers.keepalive,
            // A compressed protocol must not have retries that are mostly jitter.
            jitter_max: default.jitter_max.min(timers.rekey_timeout / 8),
            ..default
        }
    }
}

/// What a running datapath would have to be restarted for. Empty: nothing. The box's own addresses
/// are not part of it: see [`addresses_differ`].
#[must_use]
pub fn differences(running: &Configuration, wanted: &Configuration) -> Vec<String> {
    let mut found = vec![];
    let mut compare = |what: &str, running: String, wanted: String| {
        if running != wanted {
            found.push(format!("{what}: the datapath runs {running}, the file says {wanted}"));
        }
    };
    let ports = |configuration: &Configuration| {
        let each = |port: &PortSetup| {
            let PortSetup { name, device, queues, segment, attach, bind } = port;
            let kind = if *segment { "segments" } else { "WireGuard only" };
            format!("{name} on {device} ({queues} queues, {kind}, {attach:?}, {bind:?})")
        };
        configuration.ports.iter().map(each).collect::<Vec<_>>().join(", ")
    };
    compare("ports", ports(running), ports(wanted));
    let listeners = |configuration: &Configuration| {
        let each = |listener: &Listener| {
            format!("UDP {} with key {}", listener.port, PublicKey(listener.public_key))
        };
        configuration.listeners.iter().map(each).collect::<Vec<_>>().join(", ")
    };
    compare("wireguard", listeners(running), listeners(wanted));
    compare("gateway.cpus", format!("{:?}", running.cpus), format!("{:?}", wanted.cpus));
    for (what, running, wanted) in [
        ("gateway.workers", u32::from(running.workers), u32::from(wanted.workers)),
        ("wireguard mtu", u32::from(running.tunnel_mtu), u32::from(wanted.tunnel_mtu)),
        ("gateway.frames_per_worker", running.frames_per_worker, wanted.frames_per_worker),
        ("gateway.ring_entries", running.ring_entries, wanted.ring_entries),
        ("gateway.sessions_max", running.sessions_max, wanted.sessions_max),
        ("gateway.peers_max", running.peers_max, wanted.peers_max),
        ("gateway.flows_per_worker", running.flows_per_worker, wanted.flows_per_worker),
    ] {
        compare(what, running.to_string(), wanted.to_string());
    }
    let timers = |configuration: &Configuration| format!("{:?}", configuration.timers);
    compare("wireguard timers", timers(running), timers(wanted));
    found
}

/// Whether the box has other addresses than the datapath was told. It forwards as before; what is
/// sent to a new address of the box on a segment port is taken for traffic to be forwarded.
#[must_use]
pub fn addresses_differ(running: &Configuration, wanted: &Configuration) -> bool {
    running.addresses != wanted.addresses
}

/// Reads the file, with every mistake in one refusal.
///
/// # Errors
///
/// [`RefusalKind::Invalid`].
pub fn read(path: &Path) -> Result<Config, Refusal> {
    Config::load(path).map_err(|errors| invalid(&errors))
}

/// A file's mistakes as an answer.
#[must_use]
pub fn invalid(errors: &ConfigErrors) -> Refusal {
    let diagnostics: Vec<_> = errors
        .list()
        .iter()
        .map(|error| Diagnostic {
            path: error.path.clone(),
            line: error.line,
            column: error.column,
            problem: if error.key.is_empty() {
                error.problem.clone()
            } else {
                format!("{}: {}", error.key, error.problem)
            },
            text: error.to_string(),
        })
        .collect();
    let count = diagnostics.len();
    let message = match count {
        1 => "the configuration has a mistake".to_owned(),
        _ => format!("the configuration has {count} mistakes"),
    };
    Refusal { kind: RefusalKind::Invalid, message, diagnostics }
}

fn device(device: &bulkhead_config::Device) -> Device {
    let psk = device.preshared_key.as_ref();
    Device {
        name: device.name.clone(),
        public_key: PublicKey(device.public_key.0),
        preshared_key: psk
            .map_or_else(PresharedKey::default, |key| PresharedKey::from_bytes(*key.expose())),
        addresses: device.addresses.iter().map(ToString::to_string).collect(),
        endpoint: device.endpoint,
        keepalive: device.keepalive,
    }
}

fn configuration(config: &Config, private: &PrivateKey, addresses: Vec<IpAddr>) -> Configuration {
    let (gateway, listener) = (&config.gateway, &config.wireguard);
    let timers = &listener.timers;
    Configuration {
        ports: config
            .ports
            .iter()
            .map(|port| PortSetup {
                name: port.name.clone(),
                device: port.device.clone(),
                queues: port.queues,
                segment: port.kind.has_segments(),
                attach: match port.attach {
                    Attach::Auto => AttachMode::Auto,
                    Attach::Native => AttachMode::Native,
                    Attach::Generic => AttachMode::Generic,
                },
                bind: match port.bind {
                    Bind::Auto => BindMode::Auto,
                    Bind::ZeroCopy => BindMode::ZeroCopy,
                    Bind::Copy => BindMode::Copy,
                },
            })
            .collect(),
        // The configuration holds at most 64.
        workers: u8::try_from(gateway.workers).unwrap_or(1),
        cpus: gateway.cpus.clone(),
        listeners: vec![Listener {
            port: listener.listen_port,
            public_key: private.public_key().0,
        }],
        addresses,
        tunnel_mtu: listener.mtu,
        frames_per_worker: gateway.frames_per_worker,
        ring_entries: gateway.ring_entries,
        sessions_max: gateway.sessions_max.min(SessionIndex::SLOTS),
        peers_max: gateway.peers_max,
        flows_per_worker: gateway.flows_per_worker,
        timers: Timers {
            rekey_after: timers.rekey_after,
            reject_after: timers.reject_after,
            rekey_attempt: timers.rekey_attempt,
            rekey_timeout: timers.rekey_timeout,
            keepalive: timers.keepalive,
        },
    }
}
