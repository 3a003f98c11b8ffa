//! Answers to questions: what the datapath says, and what is known here without it.

use bulkhead_link::{PeerPast, RuleHits, SessionStatus, Status, WorkerStatus};

use super::*;
use crate::api::{
    CountersAnswer, DatapathAnswer, EndAnswer, FlowLogAnswer, PeersAnswer, PortAnswer,
    StatusAnswer, WorkerAnswer,
};
use crate::figures::Figures;
use crate::intent::addresses_differ;

/// A question that waits for the datapath's figures.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) id: RequestId,
    wanted: Wanted,
    pub(super) asked_at: Time,
    sessions: Vec<SessionStatus>,
    past: Vec<PeerPast>,
    pub(super) hits: Vec<RuleHits>,
}

/// What it is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Status,
    Counters,
    Peers,
    Hits,
    /// For `wg`.
    Figures,
}

impl Question {
    pub(super) fn new(id: RequestId, wanted: Wanted, asked_at: Time) -> Self {
        Self { id, wanted, asked_at, sessions: vec![], past: vec![], hits: vec![] }
    }
}

impl State {
    pub(super) fn ask(&mut self, question: Question) {
        match &self.link {
            Link::Running(_) => {
                self.token += 1;
                let token = self.token;
                self.send(match question.wanted {
                    Wanted::Hits => ToDatapath::AskHits { token },
                    Wanted::Status | Wanted::Counters | Wanted::Peers | Wanted::Figures => {
                        ToDatapath::AskStatus { token }
                    }
                });
                self.questions.insert(token, question);
            }
            Link::Down | Link::Greeting(_) | Link::Configuring { .. } | Link::Refused { .. } => {
                let now = question.asked_at;
                self.answer_without_datapath(question, now);
            }
        }
    }

    /// What did not fit the answer's own message. A datapath sends no more than it has sessions.
    pub(super) fn status_part(
        &mut self,
        token: u64,
        sessions: Vec<SessionStatus>,
        past: Vec<PeerPast>,
    ) {
        // An answer that came too late has no question any more.
        let Some(question) = self.questions.get_mut(&token) else { return };
        question.sessions.extend(sessions);
        question.past.extend(past);
    }

    pub(super) fn status(&mut self, token: u64, mut status: Status, now: Time) {
        let Some(question) = self.questions.remove(&token) else { return };
        let Question { id, wanted, sessions, past, .. } = question;
        status.sessions.extend(sessions);
        status.past.extend(past);
        let answer = match wanted {
            Wanted::Figures => {
                let figures = self.figures_of(&status.sessions, &status.past);
                return self.actions.push_back(Action::Figures(id, figures));
            }
            Wanted::Status => Answer::Status(Box::new(self.health(Some(&status), now))),
            Wanted::Counters => Answer::Counters(Box::new(self.counters(&status))),
            Wanted::Peers => Answer::Peers(self.peers(&status.sessions, &status.past)),
            // Asked for otherwise.
            Wanted::Hits => return,
        };
        self.answer(id, answer);
    }

    pub(super) fn answer_without_datapath(&mut self, question: Question, now: Time) {
        let Question { id, wanted, .. } = question;
        let answer = match wanted {
            Wanted::Figures => {
                let figures = self.figures_of(&[], &[]);
                return self.actions.push_back(Action::Figures(id, figures));
            }
            Wanted::Status => Answer::Status(Box::new(self.health(None, now))),
            Wanted::Peers => Answer::Peers(self.peers(&[], &[])),
            Wanted::Counters | Wanted::Hits => Answer::Refused(Refusal::new(
                RefusalKind::Unavailable,
                "no datapath is connected that could tell",
            )),
        };
        self.answer(id, answer);
    }

    fn figures_of(&self, sessions: &[SessionStatus], past: &[PeerPast]) -> Figures {
        Figures::new(Arc::clone(&self.intent), &self.announced, sessions, past)
    }

    fn peers(&self, sessions: &[SessionStatus], past: &[PeerPast]) -> PeersAnswer {
        let mut answer = self.figures_of(sessions, past).answer();
        for peer in &mut answer.peers {
            peer.labels = self.labels_of(&peer.name);
        }
        answer
    }

    fn health(&self, status: Option<&Status>, now: Time) -> StatusAnswer {
        let datapath = status.zip(self.pid()).map(|(status, pid)| DatapathAnswer {
            pid,
            uptime_ms: milliseconds(status.uptime),
            sessions: status.sessions.len(),
            workers: status.workers.iter().map(worker).collect(),
            ports: status
                .ports
                .iter()
                .map(|port| PortAnswer {
                    name: port.name.clone(),
                    device: port.device.clone(),
                    native: port.native,
                    zero_copy: port.zero_copy,
                    kernel_dropped: port.kernel_dropped,
                    faults: port.faults,
                })
                .collect(),
        });
        StatusAnswer {
            gateway: self.intent.gateway.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.generation(),
            control_uptime_ms: milliseconds(now.0),
            configuration: None,
            flow_log: FlowLogAnswer {
                lost_in_datapath: status
                    .map_or(0, |status| status.workers.iter().map(|worker| worker.log_lost).sum()),
                ..FlowLogAnswer::default()
            },
            degraded: self.degraded(status),
            datapath,
        }
    }

    /// Everything that is not as it should be.
    fn degraded(&self, status: Option<&Status>) -> Vec<String> {
        let mut reasons = vec![];
        match &self.link {
            Link::Down => reasons.push("no datapath is connected".to_owned()),
            Link::Greeting(_) => reasons.push("a datapath has just connected".to_owned()),
            Link::Configuring { .. } => reasons.push("the datapath is being set up".to_owned()),
            Link::Refused { reason, .. } => {
                reasons.push(format!("the datapath refused its configuration: {reason}"));
            }
            Link::Running(running) => {
                if running.generation == 0 {
                    reasons.push("no policy is in force: everything is denied".to_owned());
                }
                let (runs, wanted) = (&running.configuration, &self.intent.configuration);
                reasons.extend(self.set_up_otherwise());
                if addresses_differ(runs, wanted) {
                    let why = "the addresses of the box changed since the datapath was started; \
                               restart it";
                    reasons.push(why.to_owned());
                }
                if status.is_none() {
                    reasons.push("the datapath does not answer".to_owned());
                }
            }
        }
        reasons.extend(self.alarm.clone());
        reasons.extend(self.context_problems());
        if let Some(status) = status {
            if !status.conserved() {
                let why = "the counters do not add up: packets were lost without a reason";
                reasons.push(why.to_owned());
            }
            for port in status.ports.iter().filter(|port| port.faults > 0) {
                reasons.push(format!(
                    "port {}: the kernel named {} frames that it does not hold",
                    port.name, port.faults
                ));
            }
        }
        reasons
    }

    fn counters(&self, status: &Status) -> CountersAnswer {
        let ends = status.ends();
        let sum = |figure: fn(&WorkerStatus) -> u64| status.workers.iter().map(figure).sum();
        CountersAnswer {
            received: status.received(),
            transmitted: sum(|worker| worker.transmitted.packets),
            originated: sum(|worker| worker.originated),
            held: status.held(),
            handed_out: sum(|worker| worker.handed_out),
            handed_in: sum(|worker| worker.handed_in),
            ended: ends.total(),
            conserved: status.conserved(),
            ends: ends
                .iter()
                .map(|(end, count)| {
                    (end.name().to_owned(), EndAnswer { count, meaning: end.meaning().to_owned() })
                })
                .collect(),
            handshakes: self.handshakes,
        }
    }
}

fn worker(worker: &WorkerStatus) -> WorkerAnswer {
    WorkerAnswer {
        received: worker.received.packets,
        transmitted: worker.transmitted.packets,
        flows: worker.flows,
        held: worker.held,
        frames: worker.frames,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
