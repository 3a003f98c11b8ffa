//! Answers to questions: what the datapath says, and what is known here without it.

use bulkhead_link::{SessionStatus, Status, WorkerStatus};

use super::*;
use crate::api::{
    CountersAnswer, DatapathAnswer, EndAnswer, PeerAnswer, PeersAnswer, PortAnswer, StatusAnswer,
    WorkerAnswer,
};
use crate::intent::{addresses_differ, differences};

/// A request that waits for the datapath's figures.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) id: RequestId,
    pub(super) request: Request,
    pub(super) asked_at: Time,
}

impl State {
    pub(super) fn ask(&mut self, question: Question) {
        match &self.link {
            Link::Running(_) => {
                self.token += 1;
                let token = self.token;
                self.send(ToDatapath::AskStatus { token });
                self.questions.insert(token, question);
            }
            Link::Down | Link::Greeting(_) | Link::Configuring { .. } | Link::Refused { .. } => {
                let now = question.asked_at;
                self.answer_without_datapath(question, now);
            }
        }
    }

    pub(super) fn status(&mut self, token: u64, status: &Status, now: Time) {
        // An answer that came too late has no question any more.
        let Some(question) = self.questions.remove(&token) else { return };
        let answer = match question.request {
            Request::Status {} => Answer::Status(Box::new(self.health(Some(status), now))),
            Request::Counters {} => Answer::Counters(Box::new(self.counters(status))),
            Request::Peers {} => Answer::Peers(self.peers(&status.sessions)),
            Request::Apply { .. } => return,
        };
        self.answer(question.id, answer);
    }

    pub(super) fn answer_without_datapath(&mut self, question: Question, now: Time) {
        let answer = match question.request {
            Request::Status {} => Answer::Status(Box::new(self.health(None, now))),
            Request::Peers {} => Answer::Peers(self.peers(&[])),
            Request::Counters {} | Request::Apply { .. } => Answer::Refused(Refusal::new(
                RefusalKind::Unavailable,
                "no datapath is connected that could tell",
            )),
        };
        self.answer(question.id, answer);
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
                reasons.extend(
                    differences(runs, wanted)
                        .into_iter()
                        .map(|difference| format!("the datapath must be restarted: {difference}")),
                );
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

    fn peers(&self, sessions: &[SessionStatus]) -> PeersAnswer {
        let mut of_peer: BTreeMap<u32, Vec<&SessionStatus>> = BTreeMap::new();
        for session in sessions {
            of_peer.entry(session.peer).or_default().push(session);
        }
        let nothing = vec![];
        let peer = |device: &crate::intent::Device| {
            let index = self.announced.get(&device.public_key).map(|peer| peer.index);
            let own = index.and_then(|index| of_peer.get(&index)).unwrap_or(&nothing);
            let newest = own.iter().min_by_key(|session| session.age);
            let seen = newest.and_then(|session| session.endpoint.as_ref());
            let endpoint = seen.map(|place| place.remote).or(device.endpoint);
            PeerAnswer {
                name: device.name.clone(),
                public_key: device.public_key.to_string(),
                addresses: device.addresses.clone(),
                endpoint: endpoint.map(|endpoint| endpoint.to_string()),
                handshake_age_ms: newest.map(|session| milliseconds(session.age)),
                silent_ms: own
                    .iter()
                    .filter_map(|session| session.silent_for)
                    .min()
                    .map(milliseconds),
                received_bytes: own.iter().map(|session| session.received.bytes).sum(),
                sent_bytes: own.iter().map(|session| session.sent.bytes).sum(),
            }
        };
        PeersAnswer { peers: self.intent.devices.iter().map(peer).collect() }
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
