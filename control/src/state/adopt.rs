//! The greeting of a datapath: set it up, or take it over as it is.

use super::*;
use crate::handshake::{ListenerSetup, PeerSetup};
use crate::intent::{Device, addresses_differ, differences};

/// How long a datapath may take to greet, and then to set itself up. It greets in milliseconds;
/// binding 64 queues whose old sockets still close takes 2 s. Lower: one that works on a busy box is
/// given up. Higher: what is not confirmed in time stays in force for so much longer, since the way
/// back waits for the end of this.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a configuration that was refused is tried again: a network device may have come back.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// What a datapath says of itself, so far.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) pid: u32,
    /// By when it must be complete.
    until: Time,
    said_hello: bool,
    configuration: Option<Configuration>,
    generation: u64,
    peers: Vec<Peer>,
    sessions: Vec<SessionStatus>,
}

impl Greeting {
    pub(super) fn of(pid: u32, now: Time) -> Self {
        Self {
            pid,
            until: now.plus(SETUP_TIMEOUT),
            said_hello: false,
            configuration: None,
            generation: 0,
            peers: vec![],
            sessions: vec![],
        }
    }
}

impl State {
    pub(super) fn greeting(&mut self, message: FromDatapath, now: Time) {
        let Link::Greeting(greeting) = &mut self.link else {
            warn!("the datapath greets twice");
            return self.disconnect(now);
        };
        match message {
            FromDatapath::Hello { version, .. } if version != bulkhead_link::VERSION => {
                error!(
                    theirs = version,
                    ours = bulkhead_link::VERSION,
                    "the datapath speaks another version of the link: install both from the \
                     same release and restart it"
                );
                self.disconnect(now);
            }
            FromDatapath::Hello { configuration, generation, .. } => {
                greeting.said_hello = true;
                greeting.configuration = configuration;
                greeting.generation = generation;
            }
            FromDatapath::Peer(peer) if greeting.said_hello => greeting.peers.push(peer),
            FromDatapath::Session(session) if greeting.said_hello => {
                greeting.sessions.push(session);
            }
            FromDatapath::Adopted if greeting.said_hello => {
                let greeting = std::mem::replace(greeting, Greeting::of(0, now));
                self.adopt(greeting, now);
            }
            FromDatapath::Peer(_)
            | FromDatapath::Session(_)
            | FromDatapath::Adopted
            | FromDatapath::Configured
            | FromDatapath::ConfigurationRefused { .. }
            | FromDatapath::Confirmed { .. }
            | FromDatapath::TableRefused { .. }
            | FromDatapath::Relabelled { .. }
            | FromDatapath::RelabelRefused { .. }
            | FromDatapath::Handshake { .. }
            | FromDatapath::SessionWanted { .. }
            | FromDatapath::NeighbourWanted { .. }
            | FromDatapath::SessionConfirmed { .. }
            | FromDatapath::SessionInstalled { .. }
            | FromDatapath::SessionRetired { .. }
            | FromDatapath::Hits { .. }
            | FromDatapath::Flows { .. }
            | FromDatapath::StatusPart { .. }
            | FromDatapath::Status { .. } => {
                warn!("the datapath does not begin with its greeting");
                self.disconnect(now);
            }
        }
    }

    fn adopt(&mut self, greeting: Greeting, now: Time) {
        let Greeting { pid, configuration, generation, peers, sessions, .. } = greeting;
        self.generation_max = self.generation_max.max(generation);
        self.epoch += 1;
        let Some(configuration) = configuration else {
            info!(pid, "a new datapath");
            return self.configure(pid, now);
        };
        self.alarm = None;
        let known = peers.into_iter().map(|peer| (PublicKey(peer.public_key), peer));
        self.announced = known.collect();
        info!(
            pid,
            generation,
            peers = self.announced.len(),
            sessions = sessions.len(),
            "a datapath that runs is taken over"
        );
        let fits = differences(&configuration, &self.intent.configuration).is_empty();
        if addresses_differ(&configuration, &self.intent.configuration) {
            warn!("the addresses of the box changed since the datapath was started");
        }
        let (sessions_max, workers) = (configuration.sessions_max, configuration.workers);
        self.link = Link::Running(Running { pid, configuration, generation });
        self.order_peers(&Arc::clone(&self.intent), now);
        self.order(Order::Adopt { epoch: self.epoch, sessions_max, workers, sessions });
        self.watch();
        if fits {
            self.resume(pid, generation, now);
        } else {
            self.does_not_fit(now);
        }
    }

    /// Tells a datapath what to set up.
    pub(super) fn configure(&mut self, pid: u32, now: Time) {
        self.link = Link::Configuring { pid, until: now.plus(SETUP_TIMEOUT) };
        self.send(ToDatapath::Configure(self.intent.configuration.clone()));
    }

    /// By when a datapath must have come a step further, or is told to try it again.
    pub(super) fn setup_deadline(&self) -> Option<Time> {
        match &self.link {
            Link::Greeting(greeting) => Some(greeting.until),
            Link::Configuring { until, .. } => Some(*until),
            Link::Refused { retry_at, .. } => Some(*retry_at),
            Link::Down | Link::Running(_) => None,
        }
    }

    pub(super) fn setup_timeout(&mut self, now: Time) {
        if self.setup_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.link {
            Link::Greeting(_) => self.give_up("did not say what it runs", now),
            Link::Configuring { .. } => self.give_up("did not set itself up", now),
            Link::Refused { pid, .. } => self.configure(*pid, now),
            Link::Down | Link::Running(_) => {}
        }
    }

    /// The datapath hangs. One that is started from here is killed, since it may be deaf to anything
    /// milder; then it is as after a crash.
    pub(super) fn give_up(&mut self, why: &str, now: Time) {
        let pid = self.pid().unwrap_or_default();
        let seconds = SETUP_TIMEOUT.as_secs();
        let remedy = if self.starts_datapath {
            self.actions.push_back(Action::KillDatapath);
            "it was killed, and another is started"
        } else {
            "it was disconnected; if it does not come back: systemctl restart bulkhead-datapath"
        };
        let alarm = format!("the datapath (process {pid}) {why} within {seconds} s: {remedy}");
        error!("{alarm}");
        self.alarm = Some(alarm);
        self.disconnect(now);
    }

    /// The daemon started a datapath that did not connect for so long, and kills it.
    pub fn never_connected(&mut self, pid: u32, alone: Duration, command: &str) {
        let seconds = alone.as_secs();
        let alarm = format!(
            "the datapath (process {pid}) did not connect within {seconds} s: it was killed, and \
             another is started. If that goes on, run it by hand and read what it says: {command}"
        );
        error!("{alarm}");
        self.alarm = Some(alarm);
    }

    pub(super) fn configured(&mut self, now: Time) {
        let Link::Configuring { pid, .. } = self.link else { return };
        let configuration = self.intent.configuration.clone();
        let (sessions_max, workers) = (configuration.sessions_max, configuration.workers);
        info!(pid, "the datapath is set up");
        self.link = Link::Running(Running { pid, configuration, generation: 0 });
        // Nothing is allowed yet, so peers may shake hands while the table is made.
        self.first_table(Why::NewDatapath, now);
        self.order_peers(&Arc::clone(&self.intent), now);
        self.order(Order::Adopt { epoch: self.epoch, sessions_max, workers, sessions: vec![] });
        self.watch();
    }

    pub(super) fn configuration_refused(&mut self, reason: String, now: Time) {
        let Link::Configuring { pid, .. } = self.link else { return };
        error!(reason, "the datapath refused its configuration");
        if let Some(trial) = self.trial.take() {
            let why = format!("the datapath refused the configuration: {reason}");
            self.abandon_trial(trial, RefusalKind::Refused, &why);
            return self.configure(pid, now);
        }
        self.link = Link::Refused { pid, reason, retry_at: now.plus(RETRY_INTERVAL) };
    }

    /// Tells the handshake thread who may connect: the devices of `intent` that the datapath has.
    pub(super) fn order_peers(&mut self, intent: &Intent, now: Time) {
        let named = |device: &Device| Some((device.public_key, device.endpoint_name.clone()?));
        self.names.set(intent.devices.iter().filter_map(named), now);
        let peers = intent
            .devices
            .iter()
            .filter_map(|device| {
                let peer = self.announced.get(&device.public_key)?;
                Some(PeerSetup {
                    public_key: device.public_key,
                    index: peer.index,
                    preshared_key: device.preshared_key.clone(),
                    listener: device.listener,
                    endpoint: device.endpoint.or_else(|| self.names.found(&device.public_key)),
                    keepalive: device.keepalive,
                })
            })
            .collect();
        let listeners = intent
            .listeners
            .iter()
            .map(|listener| ListenerSetup {
                private: listener.private.clone(),
                udp_port: listener.udp_port,
                limits: listener.limits(),
                terms: listener.terms,
            })
            .collect();
        self.order(Order::Peers { listeners, peers });
    }
}
