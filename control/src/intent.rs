//! What the configuration file wants, in the terms of the control process.
//!
//! An [`Intent`] is complete and valid: whoever holds one can set up a datapath with it. Where the
//! file is silent (the box's own addresses) the machine was asked before.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_config::{Attach, Bind, Config, ConfigErrors, KeyFolder};
use bulkhead_link::{
    AttachMode, BindMode, Configuration, Dscp, FlowSetup, FlowTimeouts, Listener, Midstream,
    OnRevoke, PortSetup, SessionIndex, Terms, Timers,
};
use bulkhead_wg::{Limits, PresharedKey, PrivateKey, PublicKey};

use crate::api::{Diagnostic, Refusal, RefusalKind};
use crate::mirror::OwnAddresses;
use crate::names::Name;
use crate::publish::{ConfigPolicy, Policy};

/// What an operator wants.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The gateway's name.
    pub gateway: String,
    /// How the datapath is set up.
    pub configuration: Configuration,
    /// The WireGuard listeners, in the order of [`Configuration::listeners`]; at least one.
    pub listeners: Vec<Listening>,
    /// Addresses and UDP ports that handshakes are answered from.
    pub outer: Vec<SocketAddr>,
    /// Who may connect, in the order of their names.
    pub devices: Vec<Device>,
    /// Where the segments are.
    pub segments: Vec<SegmentPlace>,
    /// What makes the table.
    pub policy: Arc<dyn Policy>,
    /// What everything above was read from.
    pub config: Arc<Config>,
    /// Its text, for the history.
    pub text: Arc<str>,
}

/// A WireGuard listener.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Its name.
    pub name: String,
    /// Position of its network port in [`Configuration::ports`].
    pub port: u8,
    /// UDP port.
    pub udp_port: u16,
    /// A static key of the gateway's.
    pub private: PrivateKey,
    /// How its sessions are run.
    pub terms: Terms,
    /// Which of its secrets `wg` may be shown.
    pub shows: Shows,
}

/// Which secrets of a listener `wg` may be shown. The default: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shows {
    /// The private key, from which `wg` computes the public one.
    pub private_key: bool,
    /// The preshared keys of its devices.
    pub preshared_keys: bool,
}

impl Listening {
    /// The protocol's limits with the configured timers.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let timers = &self.terms.timers;
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

/// A WireGuard device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: Option<String>,
    /// Its identity.
    pub public_key: PublicKey,
    /// All zero: none.
    pub preshared_key: PresharedKey,
    /// Its prefixes, for display.
    pub addresses: Vec<String>,
    /// Public key of the only listener that accepts it; `None`: all do.
    pub listener: Option<PublicKey>,
    /// Where to find it before it has spoken.
    pub endpoint: Option<SocketAddr>,
    /// The same by name; never both.
    pub endpoint_name: Option<Name>,
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
        let config = Arc::new(config);
        let listeners: Vec<Listening> = config.wireguard.iter().map(listening).collect();
        Self {
            gateway: config.gateway.name.clone(),
            configuration: configuration(&config, own.all()),
            outer: outer(&listeners, &own),
            listeners,
            devices: config.devices.iter().map(|found| device(&config, found)).collect(),
            segments: config
                .segments
                .iter()
                .map(|segment| SegmentPlace {
                    port: segment.port,
                    vlan: segment.vlan,
                    subnets: segment.subnets.clone(),
                })
                .collect(),
            policy: Arc::new(ConfigPolicy::new(Arc::clone(&config))),
            config,
            text: Arc::default(),
        }
    }
}

/// Addresses and UDP ports of all listeners, each once.
#[must_use]
pub fn outer(listeners: &[Listening], own: &OwnAddresses) -> Vec<SocketAddr> {
    let mut all: Vec<_> = listeners
        .iter()
        .flat_map(|listener| {
            let addresses = own.of_port(listener.port).iter();
            addresses.map(|address| SocketAddr::new(*address, listener.udp_port))
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
impl Intent {
    /// Nothing and nobody, for tests that fill in what they are about.
    pub(crate) fn empty() -> Self {
        #[derive(Debug)]
        struct NoPolicy;
        impl Policy for NoPolicy {
            fn table(
                &self,
                _: &crate::publish::SharedCompiler,
                _: &std::collections::BTreeMap<PublicKey, u32>,
                _: u64,
                _: &bulkhead_policy_compiler::Facts,
            ) -> Result<crate::publish::Made, Refusal> {
                Err(Refusal::new(RefusalKind::Invalid, "there is no policy"))
            }
        }
        let text = "schema = 1\n[port.a]\ndevice = \"lo\"\n[wireguard.w]\nport = \"a\"\n\
                    private_key_file = \"k\"";
        struct AnyKey;
        impl bulkhead_config::KeySource for AnyKey {
            fn secret(
                &self,
                _: &str,
            ) -> Result<bulkhead_config::Secret, bulkhead_config::KeyFileError> {
                Ok("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().expect("a key"))
            }
        }
        let config = Config::parse_with("x", text, &AnyKey).expect("a configuration");
        Self { policy: Arc::new(NoPolicy), ..Self::new(config, OwnAddresses::default()) }
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
    // Keys, timers and MTUs of listeners change under way; the XDP program has the UDP ports built in.
    let udp_ports = |configuration: &Configuration| {
        let all: BTreeSet<u16> = configuration.listeners.iter().map(|one| one.port).collect();
        all.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
    };
    compare("wireguard listen_port", udp_ports(running), udp_ports(wanted));
    compare("gateway.cpus", format!("{:?}", running.cpus), format!("{:?}", wanted.cpus));
    for (what, running, wanted) in [
        ("gateway.workers", u32::from(running.workers), u32::from(wanted.workers)),
        ("gateway.frames_per_worker", running.frames_per_worker, wanted.frames_per_worker),
        ("gateway.ring_entries", running.ring_entries, wanted.ring_entries),
        ("gateway.sessions_max", running.sessions_max, wanted.sessions_max),
        ("gateway.peers_max", running.peers_max, wanted.peers_max),
        ("gateway.flows_per_worker", running.flows_per_worker, wanted.flows_per_worker),
    ] {
        compare(what, running.to_string(), wanted.to_string());
    }
    let flows = |configuration: &Configuration| format!("{:?}", configuration.flows);
    compare("flows", flows(running), flows(wanted));
    found
}

/// Whether the box has other addresses than the datapath was told. It forwards as before; what is
/// sent to a new address of the box on a segment port is taken for traffic to be forwarded.
#[must_use]
pub fn addresses_differ(running: &Configuration, wanted: &Configuration) -> bool {
    running.addresses != wanted.addresses
}

/// Reads the file for a command, with every mistake in one refusal.
///
/// # Errors
///
/// [`RefusalKind::Invalid`].
pub fn read(path: &Path) -> Result<Config, Refusal> {
    let text = Config::text(path).map_err(|errors| invalid(&errors))?;
    parse(path, &text).map_err(|errors| invalid(&errors))
}

/// Reads a text for a command, with the key files beside `path`.
///
/// # Errors
///
/// Every mistake found, in the order of the file.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigErrors> {
    let keys = KeyFolder::beside(path).for_commands();
    Config::parse_with(&path.display().to_string(), text, &keys)
}

/// Reads the file and its text to put them in force, with every mistake in one refusal.
///
/// # Errors
///
/// [`RefusalKind::Invalid`].
pub fn read_text(path: &Path) -> Result<(Config, Arc<str>), Refusal> {
    let text = Config::text(path).map_err(|errors| invalid(&errors))?;
    let config = Config::parse(&path.display().to_string(), &text);
    Ok((config.map_err(|errors| invalid(&errors))?, text.into()))
}

/// Reads a text of the history, which is in `shown`; key files are beside `path`, as they are now.
///
/// # Errors
///
/// [`RefusalKind::Invalid`].
pub fn read_kept(text: &str, shown: &Path, path: &Path) -> Result<Config, Refusal> {
    let keys = KeyFolder::beside(path);
    Config::parse_with(&shown.display().to_string(), text, &keys).map_err(|errors| invalid(&errors))
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

/// The same of a change that was not made: places are those of the text that was not written.
#[must_use]
pub fn invalid_change(path: &Path, errors: &ConfigErrors) -> Refusal {
    let found = invalid(errors);
    let mistakes = match found.diagnostics.len() {
        1 => "a mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    let file = path.display();
    let message = format!("with this change {file} would have {mistakes}; nothing was changed");
    Refusal { message, ..found }
}

fn listening(listener: &bulkhead_config::Listener) -> Listening {
    let timers = &listener.timers;
    Listening {
        name: listener.name.clone(),
        port: listener.port,
        udp_port: listener.listen_port,
        private: PrivateKey::from_bytes(*listener.private_key.expose()),
        terms: Terms {
            tunnel_mtu: listener.mtu,
            timers: Timers {
                rekey_after: timers.rekey_after,
                reject_after: timers.reject_after,
                rekey_attempt: timers.rekey_attempt,
                rekey_timeout: timers.rekey_timeout,
                keepalive: timers.keepalive,
            },
            dscp: match listener.dscp {
                bulkhead_config::Dscp::Clear => Dscp::Clear,
                bulkhead_config::Dscp::Copy => Dscp::Copy,
                bulkhead_config::Dscp::Fixed(dscp) => Dscp::Fixed(dscp),
            },
        },
        shows: Shows {
            private_key: listener.show_private_key,
            preshared_keys: listener.show_preshared_keys,
        },
    }
}

fn device(config: &Config, device: &bulkhead_config::Device) -> Device {
    let only = device.listener.and_then(|at| config.wireguard.get(usize::from(at)));
    let psk = device.preshared_key.as_ref();
    Device {
        name: device.name.clone(),
        user: device.user.clone(),
        public_key: PublicKey(device.public_key.0),
        preshared_key: psk
            .map_or_else(PresharedKey::default, |key| PresharedKey::from_bytes(*key.expose())),
        addresses: device.addresses.iter().map(ToString::to_string).collect(),
        listener: only.map(|listener| PublicKey(listener.public_key.0)),
        endpoint: device.endpoint,
        endpoint_name: device
            .endpoint_name
            .as_ref()
            .map(|name| Name { host: name.host.clone(), port: name.port }),
        keepalive: device.keepalive,
    }
}

fn configuration(config: &Config, addresses: Vec<IpAddr>) -> Configuration {
    let gateway = &config.gateway;
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
        listeners: config
            .wireguard
            .iter()
            .map(|listener| Listener {
                port: listener.listen_port,
                public_key: listener.public_key.0,
                dark: listener.dark,
                terms: listening(listener).terms,
            })
            .collect(),
        addresses,
        frames_per_worker: gateway.frames_per_worker,
        ring_entries: gateway.ring_entries,
        sessions_max: gateway.sessions_max.min(SessionIndex::SLOTS),
        peers_max: gateway.peers_max,
        flows_per_worker: gateway.flows_per_worker,
        flows: flow_setup(&config.flows),
    }
}

fn flow_setup(flows: &bulkhead_config::Flows) -> FlowSetup {
    // The configuration holds whole seconds up to ten days.
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let set = &flows.timeouts;
    FlowSetup {
        midstream: match flows.midstream {
            bulkhead_config::Midstream::Adopt => Midstream::Adopt,
            bulkhead_config::Midstream::Refuse => Midstream::Refuse,
        },
        on_revoke: match flows.on_revoke {
            bulkhead_config::OnRevoke::Drop => OnRevoke::Drop,
            bulkhead_config::OnRevoke::Reset => OnRevoke::Reset,
            bulkhead_config::OnRevoke::Unreachable => OnRevoke::Unreachable,
        },
        new_per_second: flows.new_per_second,
        live_per_source: flows.live_per_source,
        timeouts: FlowTimeouts {
            syn_sent: seconds(set.tcp_syn_sent),
            syn_recv: seconds(set.tcp_syn_recv),
            unacknowledged: seconds(set.tcp_unacknowledged),
            established: seconds(set.tcp_established),
            fin_wait: seconds(set.tcp_fin_wait),
            close_wait: seconds(set.tcp_close_wait),
            last_ack: seconds(set.tcp_last_ack),
            time_wait: seconds(set.tcp_time_wait),
            close: seconds(set.tcp_close),
            udp: seconds(set.udp),
            udp_stream: seconds(set.udp_stream),
            icmp: seconds(set.icmp),
            other: seconds(set.other),
        },
    }
}
