//! What is counted and logged of each rule, against a twin that looks at everything.

use super::*;
use crate::flow::FlowKey;
use crate::flow_log::{Event, Past, Record};
use crate::hits::Hit;
use bulkhead_link::{Counted, FlowEnding};
use bulkhead_table::{
    Denial, Draft, EndpointId, LabelId, Log, RuleIndex, RuleTag, Run, Service, Verdict, oracle,
};
use proptest::test_runner::{Config, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::edition::Edition;

/// Peer 0, peer 1, the host on the segment: labels 1, 2 and 3 until something changes.
const PARTIES: usize = 3;
/// Names of rules.
const TAGS: u64 = 5;
const SERVICES: [(u8, u16); 3] = [(17, 5_000), (17, 5_001), (6, 443)];

fn address(party: usize) -> Address {
    match party {
        2 => host_address(5, false),
        peer => peer_address(u32::try_from(peer).unwrap(), false),
    }
}

fn service(at: usize) -> Service {
    let (protocol, port) = SERVICES[at];
    Service::new(protocol, port)
}

/// For each pair of parties and each service the rule that allows it and the remark on it.
type Book = BTreeMap<(usize, usize, usize), (Option<u64>, Option<u64>)>;

/// Which flows are logged, by the name of the rule, and whether denials by none are.
type Logs = (BTreeMap<u64, Log>, bool);

/// A table of this book, whose rules stand in an order of its own.
fn table(generation: u64, book: &Book, shift: u64, logs: &Logs) -> Draft {
    let mut made = draft(generation, PEERS, &[]);
    // Tags 1 to 5, rotated.
    made.tags = (0..TAGS).map(|at| RuleTag(1 + (at + shift) % TAGS)).collect();
    made.rules = u32::try_from(TAGS).unwrap();
    let index = |tag: u64| RuleIndex(u32::try_from((tag + 2 * TAGS - 1 - shift) % TAGS).unwrap());
    made.logs = logs.0.iter().map(|(tag, log)| (index(*tag), *log)).collect();
    made.logs_denied = logs.1;
    for ((from, to, at), (rule, remark)) in book {
        let label = |party: &usize| LabelId(u16::try_from(party + 1).unwrap());
        let run = |tag: u64| Run { first: service(*at), last: service(*at), rule: index(tag) };
        let cell = (label(from), label(to));
        for (cells, rule) in [(&mut made.cells, rule), (&mut made.remarks, remark)] {
            let runs = cells.entry(cell).or_default();
            *runs = runs.iter().copied().chain(rule.map(run)).collect();
        }
    }
    made
}

#[derive(Clone, Debug)]
enum Step {
    /// From, to, service, client port, whether it looks like an answer, length.
    Packet(usize, usize, usize, u16, bool, usize),
    Publish(Book, u64, Logs),
    Relabel(usize, u16),
    Second,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let party = 0..PARTIES;
    let packet =
        (party.clone(), party.clone(), 0..3usize, 4_000..4_002u16, any::<bool>(), 40..900usize)
            .prop_filter("to another", |(from, to, ..)| from != to)
            .prop_map(|(from, to, at, port, answer, len)| {
                Step::Packet(from, to, at, port, answer, len)
            });
    let tag = || prop::option::weighted(0.6, 1..=TAGS);
    let book = prop::collection::btree_map(
        (party.clone(), party.clone(), 0..3usize),
        (tag(), tag()),
        8..27,
    );
    let step = prop_oneof![
        20 => packet,
        1 => (book, 0..TAGS, logs()).prop_map(|(book, shift, logs)| Step::Publish(book, shift, logs)),
        2 => (party, 0..4u16).prop_map(|(party, label)| Step::Relabel(party, label)),
        1 => Just(Step::Second),
    ];
    prop::collection::vec(step, 1..120)
}

fn logs() -> impl Strategy<Value = Logs> {
    let log = prop_oneof![Just(Log::None), Just(Log::New), Just(Log::All)];
    (prop::collection::btree_map(1..=TAGS, log, 0..6), any::<bool>())
}

/// Which outcomes a run has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Met {
    Opened,
    OpenedWithRemark,
    WentOn,
    Answered,
    OtherRule,
    Denied(bool),
    Revoked(bool),
    AllowedAgain,
    Logged(bool),
    LoggedDenial(bool),
    CutShort,
    RanOut,
}

/// Both ends with their ports, sorted, and the protocol.
type Ends = ([(usize, u16); 2], u8);

/// The twin: every flow in a list, every question asked of the draft itself.
#[derive(Default)]
struct Twin {
    draft: Draft,
    labels: [u16; PARTIES],
    /// Who opened it, towards whom, what for, by which rule last; no rule: it was revoked.
    flows: BTreeMap<Ends, (usize, usize, Service, Option<u64>)>,
    /// Those that are counted.
    counted: BTreeMap<Ends, Record>,
    records: Vec<Record>,
    hits: BTreeMap<u64, Hit>,
    now_s: u32,
    met: BTreeSet<Met>,
}

impl Twin {
    fn count(&mut self, tag: u64, packets: u64, bytes: usize, flows: u64) {
        let now_s = self.now_s;
        let hit = Hit { packets, bytes: bytes as u64, flows, last_s: now_s };
        self.hits.entry(tag).or_default().add(&hit);
    }

    fn ask(&self, from: usize, to: usize, service: Service) -> (Option<u64>, Option<u64>) {
        let (from, to) = (LabelId(self.labels[from]), LabelId(self.labels[to]));
        let tag = |rule: RuleIndex| self.draft.tags[rule.0 as usize].0;
        let rule = match oracle::judge(&self.draft, from, to, service) {
            Verdict::Allow(rule) => Some(tag(rule)),
            Verdict::Deny(_) => None,
        };
        (rule, oracle::remark(&self.draft, from, to, service).map(tag))
    }

    fn log(&self, tag: Option<u64>) -> Log {
        let at = |tag: u64| self.draft.tags.iter().position(|found| found.0 == tag).unwrap();
        let rule = tag.map(|tag| RuleIndex(u32::try_from(at(tag)).unwrap()));
        oracle::log(&self.draft, rule)
    }

    fn record(&self, event: Event, tag: u64, key: FlowKey, service: Service) -> Record {
        let (at_s, generation) = (self.now_s, self.draft.generation);
        Record { event, at_s, tag: RuleTag(tag), key, service, generation }
    }

    /// A packet of a flow passes: of who opened it, or of the other.
    fn passes(&mut self, key: &Ends, opens: bool, len: usize) {
        let now_s = self.now_s;
        if let Some(Record { event: Event::Closed(past), .. }) = self.counted.get_mut(key) {
            let counted = if opens { &mut past.sent } else { &mut past.returned };
            counted.add(Counted { packets: 1, bytes: len as u64 });
            past.last_s = now_s;
        }
    }

    /// A flow is over.
    fn over(&mut self, key: &Ends, reason: FlowEnding) {
        let Some(mut record) = self.counted.remove(key) else { return };
        let Event::Closed(past) = &mut record.event else { unreachable!() };
        past.reason = reason;
        (record.at_s, record.generation) = (self.now_s, self.draft.generation);
        self.records.push(record);
    }

    fn deny(&mut self, remark: Option<u64>, len: usize) -> bool {
        self.count(remark.unwrap_or(0), 1, len, 0);
        false
    }

    /// Whether the packet passes.
    fn packet(&mut self, from: (usize, u16), to: (usize, u16), protocol: u8, len: usize) -> bool {
        // Ends are told apart by address: that of the host is between those of the peers or not.
        let mut ends = [from, to];
        ends.sort_unstable();
        let key = (ends, protocol);
        if let Some((opener, responder, service, rule)) = self.flows.get(&key).copied() {
            let (now, remark) = self.ask(opener, responder, service);
            match (rule, now) {
                (Some(before), Some(now)) => {
                    self.met.insert(if opener == from.0 { Met::WentOn } else { Met::Answered });
                    if before != now {
                        self.met.insert(Met::OtherRule);
                    }
                    self.flows.insert(key, (opener, responder, service, Some(now)));
                    self.count(now, 1, len, 0);
                    self.passes(&key, opener == from.0, len);
                    return true;
                }
                (_, None) => {
                    self.flows.insert(key, (opener, responder, service, None));
                    self.met.insert(Met::Revoked(remark.is_some()));
                    if self.counted.contains_key(&key) {
                        self.met.insert(Met::CutShort);
                    }
                    self.over(&key, FlowEnding::Revoked);
                    return self.deny(remark, len);
                }
                (None, Some(_)) => {
                    self.met.insert(Met::AllowedAgain);
                    self.flows.remove(&key);
                }
            }
        }
        let service = Service::new(protocol, to.1);
        let flow = FlowKey {
            source: address(from.0),
            destination: address(to.0),
            source_port: from.1,
            destination_port: to.1,
            protocol,
        };
        let (rule, remark) = self.ask(from.0, to.0, service);
        let Some(rule) = rule else {
            self.met.insert(Met::Denied(remark.is_some()));
            if self.log(remark) != Log::None {
                self.met.insert(Met::LoggedDenial(remark.is_some()));
                let (from, to) = (LabelId(self.labels[from.0]), LabelId(self.labels[to.0]));
                let end = match oracle::judge(&self.draft, from, to, service) {
                    Verdict::Deny(Denial::PortNotAllowed) => End::DropPortNotAllowed,
                    Verdict::Deny(Denial::NoRuleForPair) | Verdict::Allow(_) => End::DropNoRule,
                };
                let tag = remark.unwrap_or(0);
                self.records.push(self.record(Event::Denied(end), tag, flow, service));
            }
            return self.deny(remark, len);
        };
        self.met.insert(if remark.is_some() { Met::OpenedWithRemark } else { Met::Opened });
        self.flows.insert(key, (from.0, to.0, service, Some(rule)));
        self.begin(key, rule, flow, service, len);
        self.count(rule, 1, len, 1);
        if let Some(remark) = remark {
            self.count(remark, 0, 0, 1);
        }
        true
    }
}

impl Twin {
    /// A flow has been opened.
    fn begin(&mut self, key: Ends, rule: u64, flow: FlowKey, service: Service, len: usize) {
        let log = self.log(Some(rule));
        if log != Log::None {
            self.met.insert(Met::Logged(log == Log::All));
            self.records.push(self.record(Event::Opened, rule, flow, service));
        }
        if log == Log::All {
            let past = Past {
                reason: FlowEnding::Timeout,
                opened_s: self.now_s,
                last_s: self.now_s,
                sent: Counted { packets: 1, bytes: len as u64 },
                returned: Counted::default(),
            };
            self.counted.insert(key, self.record(Event::Closed(past), rule, flow, service));
        }
    }
}

/// All figures by name, of all editions and workers together.
fn hits_of(editions: &[(Arc<Edition>, Draft)], workers: usize) -> BTreeMap<u64, Hit> {
    let mut sum: BTreeMap<u64, Hit> = BTreeMap::new();
    for (edition, draft) in editions {
        let tags = draft.tags.iter().zip(0..).map(|(tag, rule)| (tag.0, Some(RuleIndex(rule))));
        for (tag, rule) in tags.chain([(0, None)]) {
            for worker in 0..workers {
                sum.entry(tag).or_default().add(&edition.hits(worker).read(rule));
            }
        }
    }
    sum.retain(|_, hit| !hit.is_none());
    sum
}

fn play(steps: &[Step], met: &mut BTreeSet<Met>) {
    let mut rig = Rig::new(1, PEERS);
    let mut peers = [0, 1].map(|n| rig.session(n, 0, false, true));
    rig.sent(OUTSIDE);
    rig.neighbour(5);
    let mut twin = Twin { labels: [1, 2, 3], ..Twin::default() };
    twin.now_s = u32::try_from(rig.now_ms / 1_000).unwrap();
    let mut editions: Vec<(Arc<Edition>, Draft)> = vec![];
    let book: Book = (0..3).map(|at| ((0, 1, at), (Some(1), None))).collect();
    let first = Step::Publish(book, 0, (BTreeMap::from([(1, Log::All)]), true));
    let mut forwarded = 0;
    for step in core::iter::once(&first).chain(steps) {
        match step {
            Step::Publish(book, shift, logs) => {
                twin.draft = table(editions.len() as u64 + 1, book, *shift, logs);
                twin.labels = [1, 2, 3];
                rig.publish(&twin.draft);
                editions.push((Arc::clone(rig.edition.as_ref().unwrap()), twin.draft.clone()));
            }
            Step::Relabel(party, label) => {
                let endpoint = EndpointId(u32::try_from(*party).unwrap() + 1);
                let edition = rig.edition.as_ref().unwrap();
                edition.relabel(endpoint, LabelId(*label)).unwrap();
                twin.labels[*party] = *label;
            }
            // What is revoked is remembered for ten seconds; the twin remembers it for ever.
            Step::Second if rig.now_ms < 8_000 => {
                rig.pass(1_000);
                twin.now_s += 1;
            }
            Step::Second => {}
            Step::Packet(from, to, at, port, answer, len) => {
                let (protocol, served) = SERVICES[*at];
                let ports = if *answer { (served, *port) } else { (*port, served) };
                let (a, b) = (address(*from), address(*to));
                let inner = match protocol {
                    6 => tcp(a, b, ports, 16),
                    _ => udp(a, b, ports, *len),
                };
                match peers.get_mut(*from) {
                    Some(peer) => rig.deliver(0, OUTSIDE, &peer.seal(&inner)),
                    None => rig.deliver(0, INSIDE, &from_host(&inner)),
                };
                rig.run();
                let passed = rig.sent(OUTSIDE).len() + rig.sent(INSIDE).len();
                let want = twin.packet((*from, ports.0), (*to, ports.1), protocol, inner.len());
                assert_eq!(passed == 1, want, "{step:?}");
                forwarded += u64::from(want);
            }
        }
    }
    assert_eq!(hits_of(&editions, 1), twin.hits);
    assert_eq!(rig.ended(End::Forwarded), forwarded);
    let before = twin.records.len();
    assert_eq!(rig.records, twin.records);
    run_out(&mut rig, &mut twin);
    assert!(rig.records[..before] == twin.records[..before]);
    let sorted = |records: &[Record]| {
        let mut all: Vec<String> = records.iter().map(|record| format!("{record:?}")).collect();
        all.sort_unstable();
        all
    };
    let over: Vec<Record> =
        rig.records[before..].iter().map(|record| Record { at_s: twin.now_s, ..*record }).collect();
    assert_eq!(sorted(&over), sorted(&twin.records[before..]));
    let status = rig.status();
    assert_eq!(status.workers[0].logged, rig.records.len() as u64);
    assert_eq!(status.workers[0].log_lost, 0);
    met.extend(twin.met);
}

/// Everything falls silent, until every flow is forgotten.
fn run_out(rig: &mut Rig, twin: &mut Twin) {
    rig.pass(500_000_000);
    (0..64 * 8).for_each(|_| rig.pass(1));
    for key in twin.counted.keys().copied().collect::<Vec<_>>() {
        twin.met.insert(Met::RanOut);
        twin.over(&key, FlowEnding::Timeout);
    }
}

/// Goal: per-rule hit counters and the flow log are exact. Method: random flows, answers, new tables with the rules in
/// another order, new labels; packets, bytes, flows and the last hit of every rule, of denials by a
/// rule and of those by none, and every record of the log with its counts, against a twin.
#[test]
fn hit_counters_equal_a_twin_that_looks_at_everything() {
    let met = std::cell::RefCell::new(BTreeSet::new());
    let mut runner = TestRunner::new(Config { cases: 300, ..Config::default() });
    runner
        .run(&steps(), |steps| {
            play(&steps, &mut met.borrow_mut());
            Ok(())
        })
        .unwrap();
    let all = [
        Met::Opened,
        Met::OpenedWithRemark,
        Met::WentOn,
        Met::Answered,
        Met::OtherRule,
        Met::Denied(false),
        Met::Denied(true),
        Met::Revoked(false),
        Met::Revoked(true),
        Met::AllowedAgain,
        Met::Logged(false),
        Met::Logged(true),
        Met::LoggedDenial(false),
        Met::LoggedDenial(true),
        Met::CutShort,
        Met::RanOut,
    ];
    assert_eq!(met.into_inner(), BTreeSet::from(all));
}

/// Every rule that allows something; rule 9 is the remark on what none allows.
fn everything(generation: u64) -> Draft {
    let all = (Service::MIN, Service::MAX);
    let mut made = draft(generation, PEERS, &[(1, 2, all.0, all.1), (2, 1, all.0, all.1)]);
    let run = Run { first: all.0, last: all.1, rule: RuleIndex(2) };
    (made.rules, made.tags) = (3, [7, 8, 9].map(RuleTag).to_vec());
    made.remarks.insert((LabelId(1), LabelId(SEGMENT)), [run].into());
    made
}

/// The law, of each worker: packets of rules that allow are those that were forwarded, and the others
/// are the denials; also while tables are swapped on one worker at a time, and while the transmit ring
/// is full. Readers that look meanwhile never see a figure fall, or more than there is.
#[test]
fn hit_counters_add_up_to_the_ends_and_are_read_while_workers_run() {
    let (mut rig, mut laptop, mut server) = gateway(2, false);
    let (a, b, host) = (peer_address(0, false), peer_address(1, false), host_address(9, false));
    let editions: Vec<(Arc<Edition>, Draft)> = (2..40)
        .map(|generation| {
            let draft = everything(generation);
            let table = bulkhead_table::Table::new(Arc::new(draft.emit().unwrap())).unwrap();
            (Arc::new(Edition::new(table, 2)), draft)
        })
        .collect();
    let first = rig.edition.clone().unwrap();
    let denied_before = rig.status().ends().get(End::DropNoRule);
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut last, mut looks) = (BTreeMap::<u64, Hit>::new(), 0u64);
            loop {
                let over = done.load(Ordering::Acquire);
                let now = hits_of(&editions, 2);
                for (tag, before) in &last {
                    let now = now[tag];
                    assert!(now.packets >= before.packets && now.bytes >= before.bytes);
                    assert!(now.flows >= before.flows && now.last_s >= before.last_s);
                }
                (last, looks) = (now, looks + 1);
                if over {
                    return (last, looks);
                }
            }
        });
        for round in 0..2_000u16 {
            let worker = usize::from(round % 2);
            if round % 50 < 2 {
                let (edition, _) = &editions[usize::from(round / 50).min(editions.len() - 1)];
                let command = Command::Table(Arc::clone(edition));
                rig.links[worker].commands.push(command).ok().unwrap();
            }
            rig.now_ms += 3;
            let ports = (4_000 + round % 7, 5_000);
            rig.deliver(0, OUTSIDE, &laptop.seal(&udp(a, b, ports, 100)));
            rig.deliver(1, OUTSIDE, &server.seal(&udp(b, a, (5_000, ports.0), 200)));
            rig.deliver(0, OUTSIDE, &laptop.seal(&udp(a, host, ports, 300)));
            if round % 3 == 0 {
                rig.run();
            }
            // The far end sleeps for a while: what the ring does not take is no hit.
            if !(500..1_000).contains(&round) {
                rig.sent(OUTSIDE);
            }
        }
        rig.run();
        done.store(true, Ordering::Release);
        reader.join().unwrap()
    });
    let status = rig.status();
    let ends = status.ends();
    let (last, looks) = seen;
    let mut all = hits_of(&editions, 2);
    assert_eq!(last, all, "a reader that looks at the end sees everything");
    // The first rounds were the first table's.
    for worker in 0..2 {
        for rule in 0..first.table().rule_count() {
            let rule = RuleIndex(u32::try_from(rule).unwrap());
            all.entry(7).or_default().add(&first.hits(worker).read(Some(rule)));
        }
        all.entry(0).or_default().add(&first.hits(worker).read(None));
    }
    let packets = |tag: u64| all.get(&tag).map_or(0, |hit| hit.packets);
    assert_eq!(packets(7) + packets(8), ends.get(End::Forwarded));
    let denials = [End::DropNoRule, End::DropPortNotAllowed, End::DropRevoked];
    let denials: u64 = denials.map(|end| ends.get(end)).iter().sum();
    assert_eq!(packets(9) + packets(0), denials - denied_before);
    assert!(ends.get(End::DropTransmitFull) > 100, "the ring was full");
    assert!(packets(9) > 1_000 && packets(7) > 1_000 && looks > 1);
}

/// A packet that waits is counted once, when it leaves, for the rule that lets it then; its flow was
/// opened before.
#[test]
fn a_held_packet_is_one_hit_of_the_rule_that_lets_it_go() {
    for still_allowed in [true, false] {
        let (mut rig, mut laptop, _) = gateway(1, false);
        let first = rig.edition.clone().unwrap();
        let before = first.hits(0).read(None);
        // Nobody has told of this neighbour yet.
        let inner = tcp(peer_address(0, false), host_address(6, false), (4_000, 80), 2);
        rig.deliver(0, OUTSIDE, &laptop.seal(&inner));
        rig.run();
        assert_eq!(rig.status().held(), 1);
        let web = Some(RuleIndex(4));
        assert_eq!((first.hits(0).read(web).packets, first.hits(0).read(web).flows), (0, 1));
        let mut rules = rules();
        if still_allowed {
            rules.rotate_left(4);
        } else {
            rules.remove(4);
        }
        rig.publish(&draft(2, PEERS, &rules));
        rig.neighbour(6);
        let second = rig.edition.clone().unwrap();
        assert_eq!(rig.sent(INSIDE).len(), usize::from(still_allowed));
        assert_eq!((first.hits(0).read(web).packets, first.hits(0).read(None)), (0, before));
        let (hit, none) = (second.hits(0).read(Some(RuleIndex(0))), second.hits(0).read(None));
        assert_eq!(
            (hit.packets, hit.bytes, hit.flows),
            match still_allowed {
                true => (1, inner.len() as u64, 0),
                false => (0, 0, 0),
            }
        );
        assert_eq!(none.packets, u64::from(!still_allowed));
    }
}
