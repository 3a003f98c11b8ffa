//! The table against its oracle, and against damage.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bulkhead_wire::Address;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::format::{CHECKSUM_AT, FIRST, HEADER_LEN, Layout, TrieLayout};
use crate::trie::IS_NODE;
use crate::{Denial, Draft, Log, RuleIndex, Run, oracle};

mod damage;
mod defects;
mod shape;

const RULES: u32 = 5;
const PEERS: u32 = 3;

/// Services that the drafts and the questions are made of: few, so that runs touch, nest in
/// protocols and end at either end of the range.
const PORTS: [Service; 10] = [
    Service::MIN,
    Service::icmp(8, 0),
    Service::tcp(0),
    Service::tcp(79),
    Service::tcp(80),
    Service::tcp(443),
    Service::tcp(65_535),
    Service::udp(53),
    Service::icmpv6(128, 0),
    Service::MAX,
];

pub(crate) fn table_of(bytes: Vec<u8>) -> Result<Table, TableError> {
    Table::new(Arc::new(bytes))
}

/// Prefixes of every length, over so few bits that they nest and touch: the bits that may be set
/// are the outermost of the root and of some nodes.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 0..=32u8).prop_map(|(bits, len)| {
        let ip = Ipv4Addr::from(bits & 0x8001_8421);
        IpNet::V4(Ipv4Net::new(ip, len).unwrap().trunc())
    });
    let v6 = (any::<u128>(), 0..=128u8).prop_map(|(bits, len)| {
        let ip = Ipv6Addr::from(bits & (0x8001_8000_0000_0000_0021 << 48 | 0x8000_0000_8003));
        IpNet::V6(Ipv6Net::new(ip, len).unwrap().trunc())
    });
    prop_oneof![v4, v6]
}

/// A run between neighbours of [`PORTS`]: from `PORTS[i]` to before `PORTS[i + 1]`, or of one port.
fn runs() -> impl Strategy<Value = Vec<Run>> {
    let choice = (any::<bool>(), any::<bool>(), 0..RULES);
    prop::collection::vec(choice, PORTS.len()).prop_map(|choices| {
        let mut runs = vec![];
        for (at, (there, wide, rule)) in choices.into_iter().enumerate() {
            let first = PORTS[at];
            let end = PORTS.get(at + 1).and_then(|next| next.previous());
            let last = if wide { end.unwrap_or(first) } else { first };
            if there {
                runs.push(Run { first, last, rule: RuleIndex(rule) });
            }
        }
        runs.reverse();
        runs
    })
}

fn segments() -> Vec<Segment> {
    [(0, None), (1, Some(1)), (1, Some(4094))]
        .map(|(port, vlan)| Segment { port: PortIndex(port), vlan, stage: Stage::Enforce })
        .to_vec()
}

fn endpoint(labels: u16) -> impl Strategy<Value = Endpoint> {
    let next_hop = prop_oneof![
        (0..PEERS).prop_map(|peer| NextHop::Peer(PeerIndex(peer))),
        (0..3u16).prop_map(|segment| NextHop::Segment(SegmentId(segment))),
    ];
    (0..labels, next_hop).prop_map(|(label, next_hop)| Endpoint { label: LabelId(label), next_hop })
}

fn log() -> impl Strategy<Value = Log> {
    prop_oneof![Just(Log::None), Just(Log::New), Just(Log::All)]
}

pub(crate) fn draft() -> impl Strategy<Value = Draft> {
    (1u16..6, 1usize..8).prop_flat_map(|(labels, endpoints)| {
        let cell = || ((1..labels.max(2), 1..labels.max(2)), runs());
        (
            any::<u64>(),
            prop::collection::vec(endpoint(labels), endpoints),
            prop::collection::vec((prefix(), any::<u32>()), 0..40),
            prop::collection::vec(cell(), 0..12),
            prop::collection::vec(cell(), 0..12),
            (prop::collection::vec((0..RULES, log()), 0..8), any::<bool>()),
        )
            .prop_map(move |(generation, endpoints, prefixes, cells, remarks, logs)| {
                let known = u32::try_from(endpoints.len()).unwrap() - 1;
                let prefixes: BTreeMap<IpNet, EndpointId> = prefixes
                    .into_iter()
                    .filter(|_| known > 0)
                    .map(|(prefix, owner)| (prefix, EndpointId(1 + owner % known.max(1))))
                    .collect();
                let [cells, remarks] = [cells, remarks].map(|cells| {
                    cells
                        .into_iter()
                        .filter(|_| labels > 1)
                        .map(|((from, to), runs)| ((LabelId(from), LabelId(to)), runs.into()))
                        .collect()
                });
                Draft {
                    generation,
                    labels,
                    endpoints,
                    prefixes: prefixes.into_iter().collect(),
                    segments: segments(),
                    cells,
                    remarks,
                    rules: RULES,
                    tags: tags(),
                    logs: logs.0.into_iter().map(|(rule, log)| (RuleIndex(rule), log)).collect(),
                    logs_denied: logs.1,
                    peers: PEERS,
                }
            })
    })
}

/// The first and last address of every prefix and their neighbours outside, and some of neither.
fn addresses(draft: &Draft, more: &[u128]) -> Vec<Address> {
    let mut addresses: Vec<Address> = more
        .iter()
        .flat_map(|bits| {
            let low = u32::try_from(bits & 0xffff_ffff).unwrap();
            [Address::from_bits(*bits), Address::from(Ipv4Addr::from(low))]
        })
        .collect();
    // Addresses that leave the path of a prefix at each bit.
    for (prefix, _) in draft.prefixes.iter().take(8) {
        for bit in 0..128 {
            if prefix.addr().is_ipv6() || bit < 32 {
                let network = Address::from(prefix.network());
                addresses.push(Address::from_bits(network.bits() ^ 1 << bit));
            }
        }
    }
    for (prefix, _) in &draft.prefixes {
        for edge in [prefix.network(), prefix.broadcast()] {
            addresses.push(edge.into());
            for step in [1, -1] {
                addresses.push(match edge {
                    IpAddr::V4(ip) => Ipv4Addr::from(ip.to_bits().wrapping_add_signed(step)).into(),
                    IpAddr::V6(ip) => {
                        Ipv6Addr::from(ip.to_bits().wrapping_add_signed(step.into())).into()
                    }
                });
            }
        }
    }
    addresses
}

/// What a run of the property must have met.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Met {
    #[default]
    Allow,
    NoRuleForPair,
    PortNotAllowed,
    Unknown(bool),
    Known(bool),
    Nested,
    Remark(bool),
    Log(Log),
    LogDenied(bool),
}

fn equals_oracle(draft: &Draft, more: &[u128], met: &mut BTreeSet<Met>) {
    let table = table_of(draft.emit().unwrap()).unwrap();
    let view = table.view();
    assert_eq!(view.generation(), draft.generation);

    let addresses = addresses(draft, more);
    let mut batch = vec![EndpointId(99); addresses.len() + 1];
    view.endpoints_at(&addresses, &mut batch);
    assert_eq!(batch.pop(), Some(EndpointId(0)), "beyond the addresses is nobody");
    for (address, in_batch) in addresses.iter().zip(batch) {
        let want = oracle::endpoint_at(draft, *address);
        assert_eq!(view.endpoint_at(*address), want, "{address}");
        assert_eq!(in_batch, want, "{address} in a batch");
        let v4 = address.is_ipv4();
        met.insert(if want.0 == 0 { Met::Unknown(v4) } else { Met::Known(v4) });
        let holders = draft.prefixes.iter().filter(|(net, _)| net.contains(&address.to_ip()));
        if holders.count() > 2 {
            met.insert(Met::Nested);
        }
    }

    batch_equals_oracle(draft, &view, &addresses);

    for rule in (0..=RULES).map(|rule| Some(RuleIndex(rule))).chain([None]) {
        let want = oracle::log(draft, rule);
        assert_eq!(view.log(rule), want, "{rule:?}");
        met.insert(rule.map_or(Met::LogDenied(want == Log::New), |_| Met::Log(want)));
    }

    for id in 0..=u32::try_from(draft.endpoints.len()).unwrap() {
        let id = EndpointId(id);
        assert_eq!(view.endpoint(id), oracle::endpoint(draft, id), "endpoint {id}");
    }
    for id in (0..5).map(SegmentId) {
        assert_eq!(view.segment(id), oracle::segment(draft, id), "segment {id}");
    }

    for (source, destination) in
        (0..=draft.labels).flat_map(|a| (0..=draft.labels).map(move |b| (LabelId(a), LabelId(b))))
    {
        let near = |port: Service| [port.previous(), Some(port), port.next()];
        for service in PORTS.into_iter().flat_map(near).flatten() {
            let want = oracle::judge(draft, source, destination, service);
            let got = view.judge(source, destination, service);
            assert_eq!(got, want, "{source} to {destination}, {service}");
            let remark = oracle::remark(draft, source, destination, service);
            assert_eq!(view.remark(source, destination, service), remark);
            met.insert(Met::Remark(remark.is_some()));
            met.insert(match want {
                Verdict::Allow(_) => Met::Allow,
                Verdict::Deny(Denial::NoRuleForPair) => Met::NoRuleForPair,
                Verdict::Deny(Denial::PortNotAllowed) => Met::PortNotAllowed,
            });
        }
    }
}

/// Questions from addresses to addresses, as a batch.
fn batch_equals_oracle(draft: &Draft, view: &View<'_>, addresses: &[Address]) {
    let pairs = addresses.iter().zip(addresses.iter().rev());
    let questions: Vec<Question> = pairs
        .zip(PORTS.into_iter().cycle())
        .map(|((source, destination), service)| Question {
            source: *source,
            destination: *destination,
            service,
        })
        .collect();
    let mut verdicts = vec![Verdict::Allow(RuleIndex(99)); questions.len() + 1];
    view.verdicts(&questions, &mut verdicts);
    assert_eq!(verdicts.pop(), Some(Verdict::default()), "beyond the questions is a denial");
    let label = |address| {
        let endpoint = oracle::endpoint(draft, oracle::endpoint_at(draft, address));
        endpoint.map_or(LabelId(0), |endpoint| endpoint.label)
    };
    for (question, verdict) in questions.iter().zip(verdicts) {
        let (from, to) = (label(question.source), label(question.destination));
        assert_eq!(verdict, oracle::judge(draft, from, to, question.service), "{question:?}");
    }
}

#[test]
fn every_answer_equals_the_oracle() {
    let mut met = BTreeSet::new();
    let mut runner = TestRunner::new(Config { cases: 300, ..Config::default() });
    let met_cell = std::cell::RefCell::new(&mut met);
    let more = prop::collection::vec(any::<u128>(), 4);
    runner
        .run(&(draft(), more), |(draft, more)| {
            equals_oracle(&draft, &more, *met_cell.borrow_mut());
            Ok(())
        })
        .unwrap();
    let want = [
        Met::Allow,
        Met::NoRuleForPair,
        Met::PortNotAllowed,
        Met::Unknown(false),
        Met::Unknown(true),
        Met::Known(false),
        Met::Known(true),
        Met::Nested,
        Met::Remark(false),
        Met::Remark(true),
        Met::Log(Log::None),
        Met::Log(Log::New),
        Met::Log(Log::All),
        Met::LogDenied(false),
        Met::LogDenied(true),
    ];
    assert_eq!(met, BTreeSet::from(want), "a run that did not meet every outcome proves little");
}

/// Names of all rules.
fn tags() -> Vec<RuleTag> {
    (0..u64::from(RULES)).map(|rule| RuleTag(100 + rule)).collect()
}

/// A table with something in every section.
pub(crate) fn full() -> Draft {
    let endpoint = |label, next_hop| Endpoint { label: LabelId(label), next_hop };
    let net = |text: &str, id| (text.parse().unwrap(), EndpointId(id));
    let run = |first, last, rule| Run { first, last, rule: RuleIndex(rule) };
    Draft {
        generation: 7,
        labels: 4,
        endpoints: vec![
            endpoint(0, NextHop::Peer(PeerIndex(0))),
            endpoint(1, NextHop::Peer(PeerIndex(2))),
            endpoint(2, NextHop::Segment(SegmentId(1))),
            endpoint(3, NextHop::Peer(PeerIndex(0))),
        ],
        prefixes: vec![
            net("10.0.0.0/8", 2),
            net("10.44.0.7/32", 1),
            net("10.44.0.128/25", 3),
            net("0.0.0.0/0", 3),
            net("fd44::/16", 2),
            net("fd44::7/128", 1),
            net("fd44:0:0:1::/64", 3),
        ],
        segments: segments(),
        cells: BTreeMap::from([
            (
                (LabelId(1), LabelId(2)),
                vec![
                    run(Service::tcp(443), Service::tcp(443), 1),
                    run(Service::tcp(22), Service::tcp(25), 0),
                ]
                .into(),
            ),
            (
                (LabelId(3), LabelId(2)),
                vec![
                    run(Service::tcp(22), Service::tcp(25), 0),
                    run(Service::tcp(443), Service::tcp(443), 1),
                ]
                .into(),
            ),
            ((LabelId(1), LabelId(3)), [run(Service::MIN, Service::MAX, 4)].into()),
            ((LabelId(2), LabelId(1)), [].into()),
        ]),
        remarks: BTreeMap::from([
            ((LabelId(2), LabelId(1)), [run(Service::tcp(80), Service::tcp(90), 3)].into()),
            ((LabelId(1), LabelId(2)), [run(Service::tcp(443), Service::tcp(443), 2)].into()),
        ]),
        rules: RULES,
        tags: tags(),
        logs: vec![(RuleIndex(4), Log::All), (RuleIndex(1), Log::New)],
        logs_denied: true,
        peers: PEERS,
    }
}

#[test]
fn an_empty_draft_denies_everything() {
    let draft = Draft { labels: 1, endpoints: full().endpoints[..1].to_vec(), ..Draft::default() };
    let table = table_of(draft.emit().unwrap()).unwrap();
    let view = table.view();
    for address in ["10.0.0.1", "fd44::1", "::", "255.255.255.255"] {
        let address = Address::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(view.endpoint_at(address), EndpointId(0));
    }
    assert_eq!(view.endpoint(EndpointId(0)), None);
    let verdict = view.judge(LabelId(0), LabelId(0), Service::tcp(443));
    assert_eq!(verdict, Verdict::Deny(Denial::NoRuleForPair));
    assert_eq!(verdict, Verdict::default());
}

/// Puts a right checksum on damaged bytes, to reach what lies behind it.
fn forged(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&bytes);
    bytes[CHECKSUM_AT].copy_from_slice(&sum);
    bytes
}
