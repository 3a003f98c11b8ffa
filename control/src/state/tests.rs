use super::*;
use bulkhead_link::{Listener, PortSetup, Terms, Timers};
use bulkhead_policy_compiler::{Facts, Labels};
use bulkhead_wg::{Freshness, PresharedKey, PrivateKey};

use crate::handshake::Datagram;
use crate::intent::{Device, Listening};
use crate::publish::{Blob, Made, Policy, SharedCompiler};

mod applies;
mod peers;

/// A table that says who is in it; refuses to be compiled if told so.
#[derive(Debug)]
struct Fake {
    rules: u8,
    invalid: bool,
}

impl Policy for Fake {
    fn table(
        &self,
        _: &SharedCompiler,
        peers: &BTreeMap<PublicKey, u32>,
        generation: u64,
        _: &Facts,
    ) -> Result<Made, Refusal> {
        if self.invalid {
            return Err(Refusal::new(RefusalKind::Invalid, "invalid"));
        }
        let text = format!("{generation} {} {peers:?}", self.rules);
        let mut digest = [0u8; 16];
        for (at, byte) in text.bytes().enumerate() {
            digest[at % 16] = byte.wrapping_add(digest[at % 16].rotate_left(3));
        }
        let blob = Blob { bytes: text.into_bytes().into(), digest };
        Ok(Made { blob, labels: Labels::default() })
    }
}

const PEERS_MAX: u32 = 3;

fn key(device: u8) -> PublicKey {
    PublicKey([device; 32])
}

const TERMS: Terms = Terms {
    tunnel_mtu: 1_420,
    timers: Timers {
        rekey_after: Duration::from_secs(120),
        reject_after: Duration::from_secs(180),
        rekey_attempt: Duration::from_secs(90),
        rekey_timeout: Duration::from_secs(5),
        keepalive: Duration::from_secs(10),
    },
    dscp: bulkhead_link::Dscp::Clear,
};

fn listener(key: u8) -> Listener {
    Listener { port: 51_820, public_key: [key; 32], dark: false, terms: TERMS }
}

pub(super) fn intent_of(devices: &[u8], rules: u8) -> Intent {
    let device = |name: &u8| Device {
        name: name.to_string(),
        user: None,
        public_key: key(*name),
        preshared_key: PresharedKey::default(),
        addresses: vec![],
        listener: None,
        endpoint: None,
        endpoint_name: None,
        keepalive: None,
    };
    Intent {
        gateway: "gw".to_owned(),
        configuration: Configuration {
            ports: vec![PortSetup {
                name: "inside".to_owned(),
                device: "eth0".to_owned(),
                queues: 1,
                segment: true,
                attach: bulkhead_link::AttachMode::Auto,
                bind: bulkhead_link::BindMode::Auto,
            }],
            workers: 2,
            cpus: vec![],
            listeners: vec![listener(9)],
            addresses: vec![],
            frames_per_worker: 64,
            ring_entries: 64,
            sessions_max: 16,
            peers_max: PEERS_MAX,
            flows_per_worker: 64,
            flows: bulkhead_link::FlowSetup::default(),
        },
        listeners: vec![Listening {
            name: "wg0".to_owned(),
            port: 0,
            udp_port: 51_820,
            private: PrivateKey::from_bytes([1; 32]),
            terms: TERMS,
            shows: Default::default(),
        }],
        outer: vec![],
        devices: devices.iter().map(device).collect(),
        segments: vec![],
        policy: Arc::new(Fake { rules, invalid: false }),
        config: Intent::empty().config,
        text: Arc::default(),
    }
}

pub(super) fn at(seconds: u64) -> Time {
    Time(Duration::from_secs(seconds))
}

/// Everything that is asked for, in short.
pub(super) fn said(state: &mut State) -> Vec<String> {
    std::iter::from_fn(|| state.poll()).map(|action| short(&action)).collect()
}

/// As [`said`]; tables that are ordered are made while nothing else happens.
pub(super) fn made(state: &mut State, now: Time) -> Vec<String> {
    let mut all = vec![];
    while let Some(action) = state.poll() {
        all.push(short(&action));
        if let Action::Compile(job) = action {
            state.compiled(job.epoch(), job.compile(), now);
        }
    }
    all
}

/// The job that is ordered, and what was asked for before it, in short.
pub(super) fn ordered(state: &mut State) -> (Vec<String>, Job) {
    let mut before = vec![];
    loop {
        let action = state.poll().expect("an order");
        if let Action::Compile(job) = action {
            return (before, *job);
        }
        before.push(short(&action));
    }
}

fn short(action: &Action) -> String {
    let order = |order: &Order| match order {
        Order::Peers { peers, .. } => {
            let all: Vec<_> = peers.iter().map(|peer| (peer.public_key.0[0], peer.index)).collect();
            format!("thread: peers {all:?}")
        }
        Order::Adopt { sessions, .. } => format!("thread: adopt {}", sessions.len()),
        Order::Consumed(_) => "thread: consumed".to_owned(),
        Order::Datagram { .. } => "thread: datagram".to_owned(),
        Order::Wanted { peer } => format!("thread: wanted {peer}"),
        Order::Endpoint { peer, endpoint } => format!("thread: {} at {endpoint}", peer.0[0]),
        Order::Confirmed { index } => format!("thread: confirmed {}", index.0),
        Order::Retired { index } => format!("thread: retired {}", index.0),
    };
    match action {
        Action::Send(ToDatapath::Hello { .. }) => "hello".to_owned(),
        Action::Send(ToDatapath::Configure(wanted)) => format!("configure {}", wanted.workers),
        Action::Send(ToDatapath::Peer(peer)) => {
            format!("peer {}@{}", peer.public_key[0], peer.index)
        }
        Action::Send(ToDatapath::Listeners(all)) => {
            format!("listen {:?}", all.iter().map(|one| one.public_key[0]).collect::<Vec<_>>())
        }
        Action::Send(ToDatapath::RemovePeer { peer }) => format!("remove @{peer}"),
        Action::Send(other) => format!("send {other:?}"),
        Action::Table { generation, .. } => format!("table {generation}"),
        Action::Compile(_) => "compile".to_owned(),
        Action::Datagram(_) => "datagram".to_owned(),
        Action::Order(given) => order(given),
        Action::Answer(id, answer) => match &**answer {
            Answer::Applied(applied) => format!("answer {id}: applied {}", applied.generation),
            Answer::Refused(refusal) => format!("answer {id}: {:?}", refusal.kind),
            Answer::Status(status) => format!("answer {id}: status {:?}", status.degraded),
            Answer::ContextChanged(changed) => match changed.trouble.len() {
                0 => format!("answer {id}: facts {}", changed.facts),
                some => format!("answer {id}: facts {}, {some} trouble", changed.facts),
            },
            Answer::Counters(_)
            | Answer::Peers(_)
            | Answer::Hits(_)
            | Answer::Context(_)
            | Answer::Kept { .. }
            | Answer::DryRun(_)
            | Answer::Confirmed { .. }
            | Answer::History(_)
            | Answer::Text(_) => format!("answer {id}"),
        },
        Action::Figures(id, _) => format!("figures {id}"),
        Action::Disconnect => "disconnect".to_owned(),
        Action::StopDatapath => "stop datapath".to_owned(),
        Action::KillDatapath => "kill datapath".to_owned(),
        Action::Outer { .. } => "outer".to_owned(),
        Action::Watch(_) => "watch".to_owned(),
        Action::Resolve { .. } => "resolve".to_owned(),
        Action::LookUp(peer, name) => format!("look up {} for {}", name.host, peer.0[0]),
        Action::Flows { records, .. } => format!("log {}", records.len()),
        Action::Record(record) => format!("record {}", record.generation),
        Action::Accepted(..) => "accepted".to_owned(),
    }
}

pub(super) fn hello(state: &mut State, configuration: Option<Configuration>, generation: u64) {
    let (version, pid) = (bulkhead_link::VERSION, 7);
    let hello = FromDatapath::Hello { version, pid, configuration, generation };
    state.from_datapath(hello, at(0));
}

pub(super) fn adopt(
    state: &mut State,
    configuration: Configuration,
    peers: &[u8],
    generation: u64,
) {
    state.link_up(7, at(0));
    hello(state, Some(configuration), generation);
    for (index, peer) in (0..).zip(peers) {
        let peer = Peer { index, public_key: [*peer; 32], keepalive: None };
        state.from_datapath(FromDatapath::Peer(peer), at(0));
    }
    state.from_datapath(FromDatapath::Adopted, at(0));
}

/// A state whose datapath judges by generation 1, with devices 1 and 2 at index 0 and 1.
pub(super) fn running(starts_datapath: bool) -> State {
    let mut state = State::new(intent_of(&[1, 2], 0), starts_datapath, Record::default());
    state.link_up(7, at(0));
    hello(&mut state, None, 0);
    state.from_datapath(FromDatapath::Adopted, at(0));
    state.from_datapath(FromDatapath::Configured, at(0));
    made(&mut state, at(0));
    state.from_datapath(FromDatapath::Confirmed { generation: 1 }, at(0));
    said(&mut state);
    state
}

/// Made while nothing else happens.
pub(super) fn plan(state: &State, intent: Intent) -> Result<Plan, Refusal> {
    state.job_for(&Arc::new(intent))?.compile()
}

pub(super) fn apply(state: &mut State, intent: Intent, restart: bool, now: Time) {
    let plan = plan(state, intent).unwrap();
    state.apply(5, plan, 0, restart, now);
}

#[test]
fn a_new_datapath_gets_everything_in_order() {
    let mut state = State::new(intent_of(&[1, 2], 0), false, Record::default());
    assert_eq!(said(&mut state), ["outer"]);
    state.link_up(7, at(0));
    hello(&mut state, None, 0);
    assert_eq!(said(&mut state), ["hello"]);
    state.from_datapath(FromDatapath::Adopted, at(0));
    assert_eq!(said(&mut state), ["configure 2"]);
    state.from_datapath(FromDatapath::Configured, at(0));
    let peers = "thread: peers [(1, 0), (2, 1)]";
    let want = ["peer 1@0", "peer 2@1", "compile", peers, "thread: adopt 0", "watch", "table 1"];
    assert_eq!(made(&mut state, at(0)), want);
    state.from_datapath(FromDatapath::Confirmed { generation: 1 }, at(0));
    assert_eq!(said(&mut state), [peers, "outer", "record 1"]);
    assert_eq!((state.is_busy(), state.deadline()), (false, None));
}

/// Goal: what a take-over sends depends on what is found, and on nothing else.
/// Method: a table of findings. `record` is what an earlier process has kept.
#[test]
fn a_take_over_sends_only_what_is_missing() {
    let intent = intent_of(&[1, 2], 0);
    let ours = intent.configuration.clone();
    let digest = {
        let state = State::new(intent.clone(), false, Record::default());
        state.plan_generation(&Arc::new(intent.clone()), 4).unwrap().blob.digest
    };
    let kept = Record { generation: 4, digest, pid: 7 };
    let other = Configuration { workers: 1, ..ours.clone() };
    let nothing: &[&str] = &[];
    let table = |what: &'static str| vec![what];
    for (what, configuration, peers, generation, record, want) in [
        ("as we left it", &ours, &[1, 2][..], 4, &kept, nothing.to_vec()),
        ("another table", &ours, &[1, 2], 5, &kept, table("table 6")),
        (
            "another process",
            &ours,
            &[1, 2],
            4,
            &Record { pid: 8, ..kept.clone() },
            table("table 5"),
        ),
        (
            "another policy",
            &ours,
            &[1, 2],
            4,
            &Record { digest: [0; 16], ..kept.clone() },
            table("table 5"),
        ),
        ("no table", &ours, &[1, 2], 0, &Record::default(), table("table 1")),
        ("an older table than we made", &ours, &[1, 2], 0, &kept, table("table 5")),
        ("a device less", &ours, &[1], 4, &kept, vec!["peer 2@1", "table 5"]),
        ("a device more", &ours, &[1, 2, 3], 4, &kept, table("table 5")),
        ("other workers", &other, &[1, 2], 3, &kept, nothing.to_vec()),
    ] {
        let mut state = State::new(intent.clone(), false, record.clone());
        adopt(&mut state, configuration.clone(), peers, generation);
        let said = made(&mut state, at(0));
        let sent: Vec<_> = said
            .iter()
            .filter(|line| line.starts_with("table") || line.starts_with("peer"))
            .collect();
        assert_eq!(sent, want, "{what}");
        assert!(said.iter().any(|line| line == "thread: adopt 0"), "{what}: handshakes go on");
        assert!(!said.iter().any(|line| line.starts_with("configure")), "{what}");
    }
}

/// A table that was outdated too often is made while everything else waits, and may take longer than its
/// confirmation may.
#[test]
fn a_confirmation_is_waited_for_from_when_the_table_has_left() {
    let mut state = running(false);
    apply(&mut state, intent_of(&[1], 1), false, at(1));
    said(&mut state);
    state.table_leaves(1, at(3));
    assert_eq!(state.deadline(), Some(at(6)), "another table");
    state.table_leaves(2, at(7));
    assert_eq!(state.deadline(), Some(at(12)));
    state.timeout(at(11));
    assert!(said(&mut state).is_empty());
    state.timeout(at(12));
    assert_eq!(said(&mut state), ["answer 5: Timeout", "disconnect"]);
}

#[test]
fn what_an_earlier_datapath_did_not_get_does_not_reach_the_next() {
    let mut state = running(false);
    let datagram = || {
        Outcome::Datagram(Datagram {
            remote: "192.0.2.1:9".parse().unwrap(),
            local: None,
            udp_port: 51_820,
            bytes: vec![],
        })
    };
    let epoch = state.epoch;
    state.from_handshakes(Report { epoch, outcome: datagram() });
    assert_eq!(said(&mut state), ["datagram"]);
    state.link_down(at(1));
    let ours = state.intent.configuration.clone();
    adopt(&mut state, ours, &[1, 2], 1);
    said(&mut state);
    state.from_handshakes(Report { epoch, outcome: datagram() });
    assert!(said(&mut state).is_empty());
    // What must be remembered is remembered all the same.
    let accepted = Outcome::Accepted(key(1), Freshness::default());
    state.from_handshakes(Report { epoch, outcome: accepted });
    assert_eq!(said(&mut state), ["accepted"]);
}

#[test]
fn records_of_flows_are_passed_on_and_change_nothing() {
    let mut state = running(false);
    state.from_datapath(FromDatapath::Flows { now_ms: 1, wall_ms: 1, records: vec![] }, at(1));
    assert_eq!(said(&mut state), ["log 0"]);
}

#[test]
fn a_greeting_out_of_order_ends_the_connection() {
    let peer = || FromDatapath::Peer(Peer { index: 0, public_key: [1; 32], keepalive: None });
    let version = bulkhead_link::VERSION + 1;
    let other = || FromDatapath::Hello { version, pid: 7, configuration: None, generation: 0 };
    for (what, first) in
        [("peer", peer()), ("adopted", FromDatapath::Adopted), ("version", other())]
    {
        let mut state = State::new(intent_of(&[1], 0), false, Record::default());
        state.link_up(7, at(0));
        state.from_datapath(first, at(0));
        assert_eq!(said(&mut state), ["outer", "hello", "disconnect"], "{what}");
    }
    let mut state = running(false);
    state.from_datapath(peer(), at(1));
    assert_eq!(said(&mut state), ["disconnect"]);
}

#[test]
fn a_datapath_that_does_not_answer_is_a_reason_to_worry() {
    let mut state = running(false);
    state.request(3, Request::Status {}, HandshakeCounters::default(), at(1));
    assert_eq!(said(&mut state), ["send AskStatus { token: 1 }"]);
    state.timeout(at(3));
    let silent = "answer 3: status [\"the datapath does not answer\"]";
    assert_eq!(said(&mut state), [silent]);
    // The late answer has no question any more.
    let status = Box::default();
    state.from_datapath(FromDatapath::Status { token: 1, status }, at(3));
    assert!(said(&mut state).is_empty());
}

/// 20,000 sessions do not fit one message of the link.
#[test]
fn an_answer_in_parts_is_put_together() {
    let mut state = running(false);
    let session = |age| SessionStatus {
        peer: 0,
        index: bulkhead_link::SessionIndex(age),
        listener: [9; 32],
        age: Duration::from_secs(u64::from(age)),
        initiator: false,
        confirmed: true,
        endpoint: None,
        received: bulkhead_link::Counted { packets: 1, bytes: 10 },
        sent: Default::default(),
        silent_for: None,
        accepted: 1,
        expected: 1,
    };
    let past = |bytes| bulkhead_link::PeerPast {
        received: bulkhead_link::Counted { packets: 1, bytes },
        ..Default::default()
    };
    state.figures(9, at(1));
    said(&mut state);
    let part = |token, age| FromDatapath::StatusPart {
        token,
        sessions: vec![session(age)],
        past: vec![past(100)],
    };
    state.from_datapath(part(1, 8), at(1));
    state.from_datapath(part(1, 5), at(1));
    state.from_datapath(part(77, 1), at(1));
    assert!(said(&mut state).is_empty(), "not before the last");
    let status = bulkhead_link::Status { sessions: vec![session(6)], ..Default::default() };
    state.from_datapath(FromDatapath::Status { token: 1, status: Box::new(status) }, at(1));
    let Some(Action::Figures(9, figures)) = state.poll() else { panic!() };
    let [peer, ..] = figures.peers.as_slice() else { panic!() };
    assert_eq!((peer.received.bytes, peer.session_age), (230, Some(Duration::from_secs(5))));
}
