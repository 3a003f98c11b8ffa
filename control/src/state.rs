//! The control process as a state machine without socket, clock or file: events in, actions out.
//!
//! ```text
//!           link_up              Adopted, no configuration           Configured
//!   Down ───────────▶ Greeting ─────────────────────────▶ Configuring ─────────▶ Running
//!    ▲                   │                                   │   ▲                 ▲ │
//!    │ link_down         │ Adopted, with one                 ▼   │ 2 s             │ │ publish:
//!    └── (any state)     └────────────────────────────────  Refused  ──────────────┘ ▼ Table, Confirmed
//! ```
//!
//! A datapath that hangs in Greeting or Configuring is given up after 20 s: Down.
//!
//! INVARIANT: `intent` changes only when every worker has confirmed its table (or when nothing runs
//! at all). Whatever goes wrong on the way, the one before stays, here and in the datapath.
//!
//! INVARIANT: a peer index stands for one public key as long as any table or session may use it: it
//! is announced before the table that names it, and removed after the one that no longer does.

mod action;
mod adopt;
mod answers;
mod apply;
mod context;
mod ending;
mod first;
mod hits;
mod plan;
mod response;
mod restore;
mod trial;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_link::{Configuration, FromDatapath, Peer, Session, SessionStatus, ToDatapath};
use bulkhead_wg::{PublicKey, Time};
use tracing::{error, info, warn};

use crate::aligned::Aligned;
use crate::api::{Answer, Refusal, RefusalKind, Request};
use crate::handshake::{HandshakeCounters, Outcome};
use crate::handshake_thread::{Order, Report};
use crate::intent::{Intent, outer};
use crate::mirror::OwnAddresses;
use crate::names::{Name, Names};
use crate::publish::SharedCompiler;
pub use action::{Action, Record, Watch};
use adopt::Greeting;
use answers::{Question, Wanted};
use context::ContextState;
use first::First;
pub use plan::{Checked, Job, Plan};
use response::Responses;
use trial::Trial;

/// How long every worker may take to confirm a table. They look between two batches, so this is ten
/// thousand times what it takes; a datapath that misses it is asked again from the greeting on.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the datapath may take to answer a question before it is answered without it.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Names a request until it is answered.
pub type RequestId = u64;

/// The whole state.
#[derive(Debug)]
pub struct State {
    intent: Arc<Intent>,
    compiler: SharedCompiler,
    /// Whether the daemon can start a datapath by itself.
    starts_datapath: bool,
    link: Link,
    /// The peers that the datapath has.
    announced: BTreeMap<PublicKey, Peer>,
    /// Greatest generation ever heard of.
    generation_max: u64,
    record: Record,
    epoch: u64,
    /// While it is being made nothing is published.
    first: Option<First>,
    publishing: Option<Publishing>,
    trial: Option<Trial>,
    /// By when the datapath that was told to end must have gone.
    end_by: Option<Time>,
    /// What the datapath failed in, until its workers judge by a table.
    alarm: Option<String>,
    /// Endpoints that are written by name.
    names: Names,
    questions: BTreeMap<u64, Question>,
    token: u64,
    /// What the handshake thread counted; set by the shell before it asks for an answer.
    handshakes: HandshakeCounters,
    /// Handshake responses that wait for their keys to be in force.
    responses: Responses,
    context: ContextState,
    actions: VecDeque<Action>,
}

/// What is known of the datapath.
#[derive(Debug)]
enum Link {
    Down,
    Greeting(Greeting),
    Configuring { pid: u32, until: Time },
    Refused { pid: u32, reason: String, retry_at: Time },
    Running(Running),
}

#[derive(Debug)]
struct Running {
    pid: u32,
    configuration: Configuration,
    /// Confirmed by every worker.
    generation: u64,
}

/// A table under way.
#[derive(Debug)]
struct Publishing {
    plan: Plan,
    sent_at: Time,
    /// Who waits for it.
    request: Option<(RequestId, u64 /* compile_us */)>,
    why: Why,
    /// Who has which label if this table is refused.
    before: Option<Aligned>,
}

/// Why a table is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The operator wants it.
    Apply,
    /// A datapath was just set up.
    NewDatapath,
    /// A datapath that was taken over has another.
    TakeOver,
    /// More is known than the table in force can say.
    Facts,
}

impl State {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(intent: Intent, starts_datapath: bool, record: Record) -> Self {
        let mut state = Self {
            intent: Arc::new(intent),
            compiler: SharedCompiler::default(),
            starts_datapath,
            link: Link::Down,
            announced: BTreeMap::new(),
            generation_max: record.generation,
            record,
            epoch: 0,
            first: None,
            publishing: None,
            trial: None,
            end_by: None,
            alarm: None,
            names: Names::default(),
            questions: BTreeMap::new(),
            token: 0,
            handshakes: HandshakeCounters::default(),
            responses: Responses::default(),
            context: ContextState::default(),
            actions: VecDeque::new(),
        };
        state.outer();
        state
    }

    /// A datapath has connected.
    pub fn link_up(&mut self, pid: u32, now: Time) {
        self.link = Link::Greeting(Greeting::of(pid, now));
        self.send(ToDatapath::Hello { version: bulkhead_link::VERSION });
    }

    /// The datapath is gone, or was disconnected.
    pub fn link_down(&mut self, now: Time) {
        if matches!(self.link, Link::Down) {
            return;
        }
        self.link = Link::Down;
        self.end_by = None;
        self.announced.clear();
        self.responses.clear();
        // What an earlier datapath did not get must not reach the next.
        self.epoch += 1;
        self.first = None;
        if let Some(publishing) = self.publishing.take() {
            self.refuse_apply(
                &publishing,
                RefusalKind::Unavailable,
                "the datapath went away before \
                 it confirmed; the configuration before is restored when it is back",
            );
        }
        self.context_without_datapath();
        for question in std::mem::take(&mut self.questions).into_values() {
            self.answer_without_datapath(question, now);
        }
    }

    /// A message from the datapath.
    pub fn from_datapath(&mut self, message: FromDatapath, now: Time) {
        match message {
            FromDatapath::Hello { .. }
            | FromDatapath::Peer(_)
            | FromDatapath::Session(_)
            | FromDatapath::Adopted => self.greeting(message, now),
            FromDatapath::Configured => self.configured(now),
            FromDatapath::ConfigurationRefused { reason } => {
                self.configuration_refused(reason, now);
            }
            FromDatapath::Confirmed { generation } => self.confirmed(generation, now),
            FromDatapath::TableRefused { generation, reason } => {
                self.table_refused(generation, &reason, now);
            }
            FromDatapath::Relabelled { token } => self.relabelled(token),
            FromDatapath::RelabelRefused { token, reason } => self.relabel_refused(token, &reason),
            FromDatapath::Handshake { worker, listener, from, message } => {
                let listener = listener.map(PublicKey);
                self.order(Order::Datagram { worker, listener, from, message });
            }
            FromDatapath::SessionWanted { peer } => self.order(Order::Wanted { peer }),
            FromDatapath::NeighbourWanted { port, address } => {
                self.actions.push_back(Action::Resolve { port, address });
            }
            FromDatapath::SessionConfirmed { index } => self.order(Order::Confirmed { index }),
            FromDatapath::SessionInstalled { index } => {
                let leaves = self.responses.installed(index);
                self.actions.extend(leaves.map(Action::Datagram));
            }
            FromDatapath::SessionRetired { index } => {
                self.responses.retired(index);
                self.order(Order::Retired { index });
            }
            FromDatapath::Hits { token, now_s, more, hits } => self.hits(token, now_s, more, hits),
            FromDatapath::Flows { now_ms, wall_ms, records } => {
                self.actions.push_back(Action::Flows { records, now_ms, wall_ms });
            }
            FromDatapath::StatusPart { token, sessions, past } => {
                self.status_part(token, sessions, past);
            }
            FromDatapath::Status { token, status } => self.status(token, *status, now),
        }
    }

    /// The handshake thread wants something done.
    pub fn from_handshakes(&mut self, report: Report) {
        match report.outcome {
            Outcome::Accepted(peer, freshness) => {
                self.actions.push_back(Action::Accepted(peer, freshness));
            }
            // Made for a datapath that is gone: its index may be somebody else's by now.
            Outcome::Session(..) | Outcome::Datagram(_) if report.epoch != self.epoch => {}
            Outcome::Unanswered(public) => self.names.unanswered(&public),
            Outcome::Session(public, session) => self.session(public, session),
            Outcome::Datagram(datagram) => {
                let leaves = self.responses.wanted(datagram);
                self.actions.extend(leaves.map(Action::Datagram));
            }
        }
    }

    /// Whether a datapath is set up and told everything.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.link, Link::Running(_))
    }

    /// The kernel's view of a neighbour changed.
    pub fn neighbour(&mut self, port: u8, address: IpAddr, mac: Option<[u8; 6]>) {
        if matches!(self.link, Link::Running(_)) {
            self.send(ToDatapath::Neighbour { port, address, mac });
        }
    }

    /// Network device of every port.
    #[must_use]
    pub fn ports(&self) -> Vec<(u8, String)> {
        let ports = self.intent.configuration.ports.iter().map(|port| port.device.clone());
        (0..=u8::MAX).zip(ports).collect()
    }

    /// The box's own addresses, as they are now. Handshakes are answered from the new ones at once;
    /// a datapath that runs keeps those that it was started with.
    pub fn own_addresses(&mut self, own: &OwnAddresses) {
        let (all, outer) = (own.all(), outer(&self.intent.listeners, own));
        if (&self.intent.configuration.addresses, &self.intent.outer) == (&all, &outer) {
            return;
        }
        info!(addresses = ?all, "the addresses of the box changed");
        let intent = Arc::make_mut(&mut self.intent);
        intent.configuration.addresses = all;
        intent.outer = outer;
        self.outer();
    }

    /// The name of a peer's endpoint was looked up; nothing: not found.
    pub fn looked_up(&mut self, peer: PublicKey, name: &Name, found: &[SocketAddr], now: Time) {
        match self.names.answered(peer, name, found, now) {
            Some(endpoint) => {
                info!(host = name.host, %endpoint, "found");
                self.order(Order::Endpoint { peer, endpoint });
            }
            None if found.is_empty() => warn!(host = name.host, "not found; asked again later"),
            None => {}
        }
    }

    /// Someone asks. What changes the configuration comes as [`Self::apply`] or [`Self::restore`]
    /// instead, once the text is read.
    pub fn request(
        &mut self,
        id: RequestId,
        request: Request,
        handshakes: HandshakeCounters,
        now: Time,
    ) {
        self.handshakes = handshakes;
        let wanted = match request {
            Request::Status {} => Wanted::Status,
            Request::Counters {} => Wanted::Counters,
            Request::Hits {} => Wanted::Hits,
            Request::Peers {} => Wanted::Peers,
            Request::ContextSet { changes, written, only_check } => {
                return self.context_set(id, &changes, written, only_check, now);
            }
            Request::ContextClear { device, attributes } => {
                return self.context_clear(id, &device, &attributes, now);
            }
            Request::ContextShow { device } => {
                return self.context_show(id, device.as_deref());
            }
            Request::Apply { .. }
            | Request::DryRun {}
            | Request::Confirm { .. }
            | Request::Rollback { .. }
            | Request::History {}
            | Request::HistoryText { .. } => {
                return self.refuse(id, RefusalKind::BadRequest, "the file was not read");
            }
        };
        self.ask(Question::new(id, wanted, now));
    }

    /// Someone wants everything that is known of the devices, keys included.
    pub fn figures(&mut self, id: RequestId, now: Time) {
        self.ask(Question::new(id, Wanted::Figures, now));
    }

    /// What is in force, or on trial.
    #[must_use]
    pub fn intent(&self) -> &Arc<Intent> {
        &self.intent
    }

    /// Time has passed. Calling early, late or twice is harmless.
    pub fn timeout(&mut self, now: Time) {
        let late: Vec<u64> = self
            .questions
            .iter()
            .filter(|(_, question)| now >= question.asked_at.plus(QUESTION_TIMEOUT))
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            if let Some(question) = self.questions.remove(&token) {
                self.answer_without_datapath(question, now);
            }
        }
        if let Some(publishing) =
            self.publishing.take_if(|publishing| now >= publishing.sent_at.plus(CONFIRM_TIMEOUT))
        {
            error!(generation = publishing.plan.generation, "not confirmed; asking anew");
            let was_trial = self.refuse_apply(
                &publishing,
                RefusalKind::Timeout,
                "the datapath did not confirm in \
                 time; the configuration before is being restored",
            );
            // It may hang, and it has the set-up of what is not wanted any more.
            if was_trial && self.starts_datapath {
                self.actions.push_back(Action::KillDatapath);
            }
            self.disconnect(now);
        }
        if self.relabel_deadline().is_some_and(|deadline| now >= deadline) {
            error!("labels not confirmed; asking anew");
            self.disconnect(now);
        }
        for (peer, name) in self.names.due(now) {
            self.actions.push_back(Action::LookUp(peer, name));
        }
        self.ending_timeout(now);
        self.trial_timeout(now);
        self.setup_timeout(now);
    }

    /// When to call [`Self::timeout`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let questions = self.questions.values();
        questions
            .map(|question| question.asked_at.plus(QUESTION_TIMEOUT))
            .chain(self.publishing.as_ref().map(|table| table.sent_at.plus(CONFIRM_TIMEOUT)))
            .chain(self.end_by)
            .chain(self.set_up_by())
            .chain(self.setup_deadline())
            .chain(self.relabel_deadline())
            .chain(self.names.deadline())
            .min()
    }

    /// The next thing to do, if any.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Between the handshake and now the peer may have been removed, and its index given to another:
    /// the keys of the one must never become a session of the other.
    fn session(&mut self, public: PublicKey, session: Session) {
        let index = self.announced.get(&public).map(|peer| peer.index);
        if index == Some(session.peer) {
            if !session.initiator {
                self.responses.sent(session.index);
            }
            self.send(ToDatapath::Session(session));
        } else {
            self.order(Order::Retired { index: session.index });
        }
    }

    fn send(&mut self, message: ToDatapath) {
        self.actions.push_back(Action::Send(message));
    }

    fn order(&mut self, order: Order) {
        self.actions.push_back(Action::Order(order));
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        self.actions.push_back(Action::Answer(id, Box::new(answer)));
    }

    fn refuse(&mut self, id: RequestId, kind: RefusalKind, message: &str) {
        self.answer(id, Answer::Refused(Refusal::new(kind, message)));
    }

    fn watch(&mut self) {
        let Link::Running(running) = &self.link else { return };
        let ports = (0..=u8::MAX)
            .zip(&running.configuration.ports)
            .filter(|(_, port)| port.segment)
            .map(|(index, port)| (index, port.device.clone()))
            .collect();
        let watch = Watch { ports, segments: self.intent.segments.clone() };
        self.actions.push_back(Action::Watch(watch));
    }

    fn outer(&mut self) {
        let addresses = self.intent.outer.clone();
        self.actions.push_back(Action::Outer { addresses });
    }

    fn disconnect(&mut self, now: Time) {
        self.kill_deaf_datapath();
        self.actions.push_back(Action::Disconnect);
        self.link_down(now);
    }

    /// The generation that every worker judges by; 0: none.
    fn generation(&self) -> u64 {
        match &self.link {
            Link::Running(running) => running.generation,
            Link::Down | Link::Greeting(_) | Link::Configuring { .. } | Link::Refused { .. } => 0,
        }
    }

    fn pid(&self) -> Option<u32> {
        match &self.link {
            Link::Down => None,
            Link::Greeting(greeting) => Some(greeting.pid),
            Link::Configuring { pid, .. }
            | Link::Refused { pid, .. }
            | Link::Running(Running { pid, .. }) => Some(*pid),
        }
    }
}

#[cfg(test)]
mod tests;
