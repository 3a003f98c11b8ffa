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
fn the_same_rights_are_stored_once() {
    let table = table_of(full().emit().unwrap()).unwrap();
    assert_eq!(table.header.rows.get(), 3, "label 0 and 2; label 1; label 3");
    assert_eq!(table.header.columns.get(), 3, "label 0 and 1; label 2; label 3");
    assert_eq!(table.header.runs.get(), 3, "ssh and https, any");
    let counts = [
        table.endpoint_count(),
        table.label_count(),
        table.segment_count(),
        table.rule_count(),
        table.peer_count(),
    ];
    assert_eq!(counts, [4, 4, 3, 5, 3]);
}

#[test]
fn a_thousand_labels_with_equal_rights_share_a_row() {
    let mut draft = full();
    draft.labels = 4_096;
    for label in 1..4_096 {
        let run = Run { first: Service::tcp(1), last: Service::tcp(2), rule: RuleIndex(0) };
        draft.cells.insert((LabelId(label), LabelId(9)), [run].into());
    }
    let table = table_of(draft.emit().unwrap()).unwrap();
    assert_eq!(table.header.rows.get(), 4, "nobody, all others, and the two with more rights");
    assert_eq!(
        table.header.columns.get(),
        4,
        "nobody, 9, and the two that more is allowed towards"
    );
    let verdict = table.view().judge(LabelId(4_095), LabelId(9), Service::tcp(2));
    assert_eq!(verdict, Verdict::Allow(RuleIndex(0)));
}

/// Whether cells share a list is not seen in the bytes, and each cell is looked at all the same.
#[test]
fn a_shared_list_is_as_good_as_equal_ones() {
    let run = Run { first: Service::tcp(7), last: Service::tcp(9), rule: RuleIndex(2) };
    let list: Arc<[Run]> = [run].into();
    let with = |to: &[u16], share: bool| {
        let mut draft = full();
        for to in to {
            let list = if share { Arc::clone(&list) } else { list.iter().copied().collect() };
            draft.cells.insert((LabelId(3), LabelId(*to)), list);
        }
        draft.emit()
    };
    assert_eq!(with(&[1, 2, 3], true).unwrap(), with(&[1, 2, 3], false).unwrap());
    assert_eq!(with(&[1, 4], true), with(&[1, 4], false));
    assert!(with(&[1, 4], true).is_err(), "there is no label 4");
}

#[test]
fn the_order_of_a_draft_does_not_matter() {
    let draft = full();
    let mut other = draft.clone();
    other.prefixes.reverse();
    let reversed = |runs: &mut Arc<[Run]>| *runs = runs.iter().rev().copied().collect();
    other.cells.values_mut().for_each(reversed);
    assert_eq!(draft.emit(), other.emit());
    let (a, b) = (draft.emit().unwrap(), other.emit().unwrap());
    assert_eq!(table_of(a).unwrap().digest(), table_of(b).unwrap().digest());
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

/// The far end may not hand out other bytes than those that were checked; if it does, all is
/// denied.
#[test]
fn bytes_that_change_behind_our_back_deny() {
    struct Fickle(Vec<u8>, std::sync::atomic::AtomicBool);
    impl AsRef<[u8]> for Fickle {
        fn as_ref(&self) -> &[u8] {
            match self.1.swap(true, std::sync::atomic::Ordering::Relaxed) {
                false => &self.0,
                true => &self.0[..200],
            }
        }
    }
    let table = Table::new(Arc::new(Fickle(full().emit().unwrap(), false.into()))).unwrap();
    let address = Address::from(Ipv4Addr::new(10, 44, 0, 7));
    assert_eq!(table.view().endpoint_at(address), EndpointId(0));
    let verdict = table.view().judge(LabelId(1), LabelId(3), Service::tcp(443));
    assert_eq!(verdict, Verdict::Deny(Denial::NoRuleForPair));
}

#[test]
fn a_table_cut_anywhere_is_refused() {
    let good = full().emit().unwrap();
    let lens =
        (0..2_000).chain((2_000..good.len()).step_by(97)).chain(good.len() - 900..good.len());
    for len in lens {
        let want = if len < HEADER_LEN {
            TableError::HeaderTruncated { len }
        } else {
            TableError::Length { found: len, header: good.len() as u64, counts: good.len() }
        };
        assert_eq!(table_of(good[..len].to_vec()).unwrap_err(), want);
    }
    let long = [&good[..], &[0]].concat();
    let header = good.len() as u64;
    let (found, counts) = (long.len(), good.len());
    assert_eq!(table_of(long).unwrap_err(), TableError::Length { found, header, counts });
}

/// One bit of every byte of the header and of all sections but the two roots; of those, of some
/// bytes, as each try hashes half a megabyte. That every bit counts in the hash is the next test.
#[test]
fn one_flipped_bit_is_refused() {
    let good = full().emit().unwrap();
    let layout = table_of(good.clone()).unwrap().layout;
    let roots = [layout.v4.root, layout.v6.root];
    let mut bytes = good.clone();
    for at in 0..good.len() {
        let in_root = roots.iter().any(|root| root.contains(&at));
        if in_root && at % 61_001 != 0 {
            continue;
        }
        let bit = 1 << ((at % 7 + at / 7) % 8);
        bytes[at] ^= bit;
        assert!(table_of(bytes.clone()).is_err(), "{bit:#x} of byte {at}");
        bytes[at] ^= bit;
    }
    assert!(table_of(bytes).is_ok());
}

#[test]
fn the_checksum_is_over_every_bit_but_its_own() {
    let bytes: Vec<u8> = (0..200).collect();
    let right = checksum(&bytes);
    for at in 0..8 * bytes.len() {
        let mut other = bytes.clone();
        other[at / 8] ^= 1 << (at % 8);
        assert_eq!(checksum(&other) == right, CHECKSUM_AT.contains(&(at / 8)), "bit {at}");
    }
}

/// Puts a right checksum on damaged bytes, to reach what lies behind it.
fn forged(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&bytes);
    bytes[CHECKSUM_AT].copy_from_slice(&sum);
    bytes
}

/// What is said of the good table when the word at `at` is replaced and the checksum mended.
fn defect(at: usize, value: u32) -> TableError {
    let mut bytes = full().emit().unwrap();
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    table_of(forged(bytes)).unwrap_err()
}

#[test]
fn every_defect_of_the_header_has_its_own_error() {
    let good = full().emit().unwrap();
    let mut bytes = good.clone();
    bytes[0] = b'X';
    assert_eq!(table_of(bytes).unwrap_err(), TableError::Magic { found: *b"XULKHEAD" });
    assert_eq!(defect(8, 1), TableError::Version { found: 1 });
    assert_eq!(defect(12, 1), TableError::Reserved { what: "header" });
    let (found, counts) = (good.len(), good.len());
    assert_eq!(defect(16, 1), TableError::Length { found, header: 1, counts });
    let mut bytes = good;
    bytes[24] ^= 1;
    assert_eq!(table_of(bytes).unwrap_err(), TableError::Checksum);

    let count = |what, found, min, max| TableError::Count { what, found, min, max };
    let huge = u32::MAX as usize;
    let cases = [
        (48, u32::MAX, count("rules", huge, 0, 1 << 20)),
        (52, u32::MAX, count("peers", huge, 0, 1 << 20)),
        (56, 0, count("labels", 0, 1, 4_096)),
        (56, 4_097, count("labels", 4_097, 1, 4_096)),
        (60, 0, count("endpoints", 0, 1, 1 << 20)),
        (64, 4_097, count("segments", 4_097, 0, 4_096)),
        (68, 0, count("rows", 0, 1, 4)),
        (68, 5, count("rows", 5, 1, 4)),
        (72, 0, count("columns", 0, 1, 4)),
        (72, 5, count("columns", 5, 1, 4)),
        (76, u32::MAX, count("runs", huge, 0, 1 << 21)),
        (80, u32::MAX, count("IPv4 buckets", huge, 0, 1 << 20)),
        (84, u32::MAX, count("IPv4 nodes", huge, 0, 1 << 21)),
        (88, u32::MAX, count("IPv4 entries", huge, 0, 1 << 24)),
        (92, u32::MAX, count("IPv6 buckets", huge, 0, 1 << 20)),
        (96, u32::MAX, count("IPv6 nodes", huge, 0, 1 << 21)),
        (100, u32::MAX, count("IPv6 entries", huge, 0, 1 << 24)),
        (104, 0, count("rows of remarks", 0, 1, 4)),
        (104, 5, count("rows of remarks", 5, 1, 4)),
        (108, 0, count("columns of remarks", 0, 1, 4)),
        (108, 5, count("columns of remarks", 5, 1, 4)),
        (112, u32::MAX, count("runs of remarks", huge, 0, 1 << 21)),
        (116, 1, TableError::Reserved { what: "header" }),
        (124, 1, TableError::Reserved { what: "header" }),
    ];
    for (at, value, want) in cases {
        assert_eq!(defect(at, value), want);
    }
}

#[test]
fn every_defect_of_endpoints_segments_and_matrix_has_its_own_error() {
    let layout = table_of(full().emit().unwrap()).unwrap().layout;
    let endpoint = |n: usize| layout.endpoints.start + 8 * n;
    let segment = |n: usize| layout.segments.start + 4 * n;
    let label = |n: usize| layout.matrix.labels.start + 4 * n;
    let cell = |n: usize| layout.matrix.cells.start + 4 * n;
    let run = |n: usize| layout.matrix.runs.start + 12 * n;
    let remark_label = |n: usize| layout.remarks.labels.start + 4 * n;
    let remark_cell = |n: usize| layout.remarks.cells.start + 4 * n;
    let remark_run = |n: usize| layout.remarks.runs.start + 12 * n;
    let no_list = |cell, found| TableError::CellRuns { cell, found };
    // Cells of the good table: 4 is ssh and https, 5 is everything, 7 is ssh and https.
    let cases = [
        (endpoint(0), 1, TableError::Placeholder),
        (endpoint(0) + 4, 1, TableError::Placeholder),
        (endpoint(1), 0x0000_0001, TableError::EndpointKind { endpoint: 1, found: 0 }),
        (endpoint(1), 0x0003_0001, TableError::EndpointKind { endpoint: 1, found: 3 }),
        (endpoint(1), 0x0101_0001, TableError::Reserved { what: "endpoints" }),
        (endpoint(1), 0x0001_0004, TableError::EndpointLabel { endpoint: 1, found: 4 }),
        (endpoint(1) + 4, 3, TableError::EndpointNextHop { endpoint: 1, found: 3 }),
        (endpoint(2) + 4, 3, TableError::EndpointNextHop { endpoint: 2, found: 3 }),
        (segment(1), 0x0001_0101, TableError::SegmentStage { segment: 1, found: 1 }),
        (segment(1), 0x0fff_0001, TableError::SegmentVlan { segment: 1, found: 4095 }),
        (label(0), 1, TableError::LabelRow { label: 0, found: 1 }),
        (label(0), 1 << 16, TableError::LabelColumn { label: 0, found: 1 }),
        (label(1), 3, TableError::LabelRow { label: 1, found: 3 }),
        (label(1), 3 << 16 | 1, TableError::LabelColumn { label: 1, found: 3 }),
        (cell(0), 2, TableError::NobodyMay { cell: 0 }),
        (cell(2), 2, TableError::NobodyMay { cell: 2 }),
        (cell(6), 2, TableError::NobodyMay { cell: 6 }),
        // No run, too few, too many, from the middle, from behind the end.
        (cell(4), 2 << 11, no_list(4, 2 << 11)),
        (cell(4), 1, no_list(4, 1)),
        (cell(4), 3, no_list(4, 3)),
        (cell(4), 1 << 11 | 1, no_list(4, 1 << 11 | 1)),
        (cell(4), 3 << 11 | 1, no_list(4, 3 << 11 | 1)),
        (cell(4), u32::MAX, no_list(4, u32::MAX)),
        (run(0) + 8, 0, TableError::RunFirst),
        (run(2) + 8, 4, TableError::RunOrder { run: 2 }),
        (run(0) + 4, Service::tcp(21).bits(), TableError::RunOrder { run: 0 }),
        (run(1), Service::tcp(25).bits(), TableError::RunOrder { run: 1 }),
        (run(2) + 4, 0x0100_0000, TableError::RunOrder { run: 2 }),
        (run(2) + 8, FIRST | RULES, TableError::RunRule { run: 2, found: RULES }),
        // The same of the remarks: 4 is the web, 8 another.
        (remark_label(0), 1, TableError::LabelRow { label: 0, found: 1 }),
        (remark_label(1), 3 << 16 | 1, TableError::LabelColumn { label: 1, found: 3 }),
        (remark_cell(0), 1, TableError::NobodyMay { cell: 0 }),
        (remark_cell(5), 3, no_list(5, 3)),
        (remark_run(0) + 8, 0, TableError::RunFirst),
        (remark_run(1) + 4, 0, TableError::RunOrder { run: 1 }),
        (remark_run(1) + 8, FIRST | RULES, TableError::RunRule { run: 1, found: RULES }),
    ];
    for (at, value, want) in cases {
        assert_eq!(defect(at, value), want);
    }
}

#[test]
fn every_defect_of_the_hosts_has_its_own_error() {
    let layout = table_of(full().emit().unwrap()).unwrap().layout;
    let (v4, v6) = (layout.hosts_v4.start, layout.hosts_v6.start);
    // One host of each family, so one bucket; the address of the first place, then its endpoint.
    let host = u32::from_be_bytes([10, 44, 0, 7]);
    assert_eq!(word(v4), host);
    assert_eq!((word(v4 + 32), word(v6), word(v6 + 48)), (1, 7, 1));
    let place = |family, place| TableError::HostPlace { family, bucket: 0, place };
    let endpoint = |family, found| TableError::HostEndpoint { family, bucket: 0, found };
    let cases = [
        (v4 + 32, 4, endpoint(Family::V4, 4)),
        (v6 + 48, u32::MAX, endpoint(Family::V6, u32::MAX)),
        // An address without endpoint, an endpoint behind a gap, the same or a lower address.
        (v4 + 32, 0, place(Family::V4, 0)),
        (v4 + 4, 9, place(Family::V4, 1)),
        (v4 + 36, 1, place(Family::V4, 1)),
        (v4 + 32 + 28, 1, place(Family::V4, 7)),
        (v6 + 48, 0, place(Family::V6, 0)),
        (v6 + 16, 9, place(Family::V6, 1)),
        (v6 + 56, 1, place(Family::V6, 2)),
        (v6 + 60, 1, TableError::Reserved { what: "hosts" }),
    ];
    for (at, value, want) in cases {
        assert_eq!(defect(at, value), want, "{at}");
    }
}

/// A host in another bucket than its own would never be found.
#[test]
fn a_host_in_a_wrong_bucket_is_refused() {
    let mut draft = full();
    let hosts = (0..64u32).map(|host| Ipv4Addr::from_bits(0x0a2c_0100 | host));
    draft.prefixes.extend(hosts.map(|host| (IpNet::from(IpAddr::from(host)), EndpointId(1))));
    let good = draft.emit().unwrap();
    let layout = table_of(good.clone()).unwrap().layout;
    let buckets = layout.hosts_v4.len() / 64;
    assert!(buckets > 4);
    for (a, b) in (1..buckets).map(|b| (b - 1, b)) {
        let [a, b] = [a, b].map(|at| layout.hosts_v4.start + 64 * at);
        let mut bytes = good.clone();
        let other = bytes[a..a + 64].to_vec();
        bytes.copy_within(b..b + 64, a);
        bytes[b..b + 64].copy_from_slice(&other);
        assert!(matches!(
            table_of(forged(bytes)).unwrap_err(),
            TableError::HostPlace { family: Family::V4, .. }
        ));
    }
}

/// Hosts beyond the places of their bucket stand in the trie; nobody can tell.
#[test]
fn hosts_that_find_no_room_are_found() {
    let mut draft = full();
    draft.prefixes.clear();
    draft.endpoints.resize(20_001, draft.endpoints[1]);
    let mut random = 1u64;
    let mut addresses = vec![];
    for id in (1..20_001).map(EndpointId) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bits = (random >> 32) as u32;
        let (v4, v6) =
            (Ipv4Addr::from_bits(bits), Ipv6Addr::from_bits(0xfd << 120 | u128::from(random)));
        let host = if id.0 % 2 == 0 { IpAddr::from(v4) } else { v6.into() };
        draft.prefixes.push((host.into(), id));
        addresses.push((Address::from(host), id));
    }
    let table = table_of(draft.emit().unwrap()).unwrap();
    assert!(table.header.v4_nodes.get() > 0 && table.header.v6_nodes.get() > 0, "some overflow");
    assert!(table.header.v4_entries.get() < 2_000, "few do");
    let view = table.view();
    for (address, id) in addresses {
        assert_eq!(view.endpoint_at(address), id, "{address}");
        assert_eq!(view.endpoint_at(Address::from_bits(address.bits() ^ 1 << 31)), EndpointId(0));
    }
}

/// Zero is the name of what no rule allows.
#[test]
fn a_rule_without_a_name_is_refused() {
    let good = full().emit().unwrap();
    let table = table_of(good.clone()).unwrap();
    let view = table.view();
    assert_eq!([0, 4, 5].map(|rule| view.tag(RuleIndex(rule)).0), [100, 104, 0]);
    let at = table.layout.tags.start + 8 * 3;
    let mut bytes = good;
    bytes[at..at + 8].fill(0);
    assert_eq!(table_of(forged(bytes)).unwrap_err(), TableError::RuleTag { rule: 3 });
}

#[test]
fn a_table_says_which_flows_are_logged_and_never_something_else() {
    let good = full().emit().unwrap();
    let table = table_of(good.clone()).unwrap();
    let view = table.view();
    let logs = [0, 1, 2, 3, 4, 5].map(|rule| view.log(Some(RuleIndex(rule))));
    assert_eq!(logs, [Log::None, Log::New, Log::None, Log::None, Log::All, Log::None]);
    assert_eq!(view.log(None), Log::New);
    let quiet = Draft { logs: vec![], logs_denied: false, ..full() };
    let quiet = table_of(quiet.emit().unwrap()).unwrap();
    assert_eq!([quiet.view().log(None), quiet.view().log(Some(RuleIndex(4)))], [Log::None; 2]);
    let at = table.layout.logs.start;
    let means_nothing = |word: u32| defect(at, word);
    assert_eq!(means_nothing(3 << 6), TableError::RuleLog { rule: 3, found: 3 });
    assert_eq!(means_nothing(2 << 10), TableError::RuleLog { rule: 5, found: 2 });
    assert_eq!(means_nothing(1 << 12), TableError::RuleLog { rule: 6, found: 1 });
}

/// The word at a place of the good table.
fn word(at: usize) -> u32 {
    u32::from_le_bytes(full().emit().unwrap()[at..at + 4].try_into().unwrap())
}

#[test]
fn every_defect_of_a_trie_has_its_own_error() {
    let (family, layout) = (Family::V4, table_of(full().emit().unwrap()).unwrap().layout);
    let root = |slot: usize| layout.v4.root.start + 4 * slot;
    let node = |n: usize| layout.v4.nodes.start + 64 * n;
    let entry = |n: usize| layout.v4.entries.start + 4 * n;
    // Node 0 is at 16 bits, for 10.44.0.128/25 (10.44.0.7 is a host) in 10/8; its entry 0 is node 1,
    // at 24 bits, its entry 1 all other slots. Node 1 has two halves.
    let tunnels = 0x0a2c;
    assert_eq!(layout.v4.nodes.len(), 64);
    assert_eq!(layout.v4.entries.len(), 2 * 4);
    let orphan = |node| TableError::TrieOrphan { family, node };
    let wrong_entries = |node| TableError::TrieEntries { family, node };
    let wrong_depth = |node| TableError::TrieDepth { family, node };
    let wrong_root = |slot, found| TableError::TrieRoot { family, slot, found };
    let wrong_entry = |node, found| TableError::TrieEntry { family, node, found };
    let (starts, first, beside, ranks, depth) = (0, 48, 52, 56, 60);
    let cases = [
        (root(0), 4, wrong_root(0, 4)),
        (root(tunnels), IS_NODE | 1, wrong_root(tunnels, IS_NODE | 1)),
        (root(tunnels), 0, orphan(0)),
        (root(tunnels + 1), IS_NODE | 1, wrong_root(tunnels + 1, IS_NODE | 1)),
        // No first entry, an entry too many or too few, a wrong rank.
        (node(0) + starts, 0, wrong_entries(0)),
        (node(0) + starts + 4, 1, wrong_entries(0)),
        (node(0) + starts + 16, 0, wrong_entries(0)),
        (node(0) + first, 1, wrong_entries(0)),
        (node(0) + ranks, 1, wrong_entries(0)),
        (node(0) + ranks, 2 << 24, wrong_entries(0)),
        (node(0) + beside, 4, TableError::TrieBeside { family, node: 0, found: 4 }),
        (node(0) + depth, 8, wrong_depth(0)),
        (node(0) + depth, 20, wrong_depth(0)),
        (node(0) + depth, 32, wrong_depth(0)),
        (node(0) + depth, 255, wrong_depth(0)),
        (node(0) + depth, 1 << 8 | 24, TableError::Reserved { what: "tries" }),
        (entry(0), 4, wrong_entry(0, 4)),
        // A child that has many slots, and one that is not there.
        (entry(1), IS_NODE | 1, wrong_entries(0)),
    ];
    for (at, value, want) in cases {
        assert_eq!(defect(at, value), want, "{at}: {value:#x}");
    }
}

/// Children: deeper than their parents, each named once and in order.
#[test]
fn every_defect_of_a_child_has_its_own_error() {
    let family = Family::V4;
    let mut draft = full();
    for text in ["10.44.1.128/25", "10.44.3.128/25", "10.44.3.0/26"] {
        draft.prefixes.push((text.parse().unwrap(), EndpointId(1)));
    }
    let good = draft.emit().unwrap();
    let layout = table_of(good.clone()).unwrap().layout;
    // Node 0, at 16 bits: slots 0, 1 and 3 are nodes 1, 2 and 3; slot 2 and those from 4 are not.
    assert_eq!(layout.v4.nodes.len(), 4 * 64);
    let entry = |n: usize| layout.v4.entries.start + 4 * n;
    let depth = |n: usize| layout.v4.nodes.start + 64 * n + 60;
    let defect = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        table_of(forged(bytes)).unwrap_err()
    };
    let wrong = |found| TableError::TrieEntry { family, node: 0, found };
    assert_eq!(defect(entry(0), IS_NODE | 2), wrong(IS_NODE | 2));
    assert_eq!(defect(entry(1), IS_NODE | 1), wrong(IS_NODE | 1));
    assert_eq!(defect(entry(3), 1), TableError::TrieOrphan { family, node: 3 });
    // Node 3 is for slot 3, whoever else names it first.
    let strayed = TableError::TriePath { family, node: 3 };
    assert_eq!(defect(entry(2), IS_NODE | 3), strayed);
    // Their paths: where they hang, and nothing beyond their depth. The first byte of an address is the
    // last of a word of 16.
    let path = |n: usize| layout.v4.nodes.start + 64 * n + 32;
    for (at, value, node) in [
        (path(1) + 12, 0x0a2d_0000, 1),
        (path(2) + 12, 0x0a2c_0000, 2),
        (path(3) + 12, 0x0a2c_0301, 3),
        (path(0) + 12, 0x0a2c_0100, 0),
        (path(1), 1, 1),
    ] {
        assert_eq!(defect(at, value), TableError::TriePath { family, node });
    }
    for (node, value) in [(1, 16), (2, 17), (3, 32), (0, 24)] {
        let at = if node == 0 { 1 } else { node };
        assert_eq!(defect(depth(node), value), TableError::TrieDepth { family, node: at });
    }
}

/// Every bit of an address may be where prefixes part: the deepest trie there is answers right.
#[test]
fn a_prefix_of_every_length_on_one_path() {
    let mut draft = full();
    draft.prefixes.clear();
    draft.endpoints.resize(130, draft.endpoints[1]);
    for len in 0..=128u8 {
        let net = Ipv6Net::new(Ipv6Addr::from(0x5555 << 112 | 0x3333), len).unwrap().trunc();
        draft.prefixes.push((net.into(), EndpointId(u32::from(len) + 1)));
    }
    let table = table_of(draft.emit().unwrap()).unwrap();
    assert_eq!(table.header.v6_nodes.get(), 14, "each ends eight of the lengths 17 to 128");
    for bit in 0..=128u32 {
        let off = 1u128.checked_shl(127u32.wrapping_sub(bit)).unwrap_or(0);
        let address = Address::from_bits((0x5555 << 112 | 0x3333) ^ off);
        let mut batch = [EndpointId(0)];
        table.view().endpoints_at(&[address], &mut batch);
        assert_eq!(batch, [oracle::endpoint_at(&draft, address)]);
        assert_eq!(batch, [EndpointId(bit + 1)], "leaves the path at bit {bit}");
    }
}

#[test]
fn a_lonely_subnet_costs_one_node_and_a_host_none() {
    let mut draft = full();
    draft.prefixes = vec![
        ("fd44:0:0:1::/64".parse().unwrap(), EndpointId(1)),
        ("fd44:0:0:1:b5a1::7/128".parse().unwrap(), EndpointId(2)),
    ];
    let table = table_of(draft.emit().unwrap()).unwrap();
    assert_eq!((table.header.v6_nodes.get(), table.header.v6_buckets.get()), (1, 1));
    let host = Address::from("fd44:0:0:1:b5a1::7".parse::<IpAddr>().unwrap());
    let other = Address::from("fd44:0:0:1:b5a1::8".parse::<IpAddr>().unwrap());
    assert_eq!(table.view().endpoint_at(host), EndpointId(2));
    assert_eq!(table.view().endpoint_at(other), EndpointId(1));
}

/// Every section with its name. Whoever adds one to the layout is told by the compiler to add it here.
fn sections(layout: &Layout) -> Vec<(&'static str, Range<usize>)> {
    let Layout { endpoints, segments, hosts_v4, hosts_v6, v4, v6, matrix, remarks, tags, logs } =
        layout;
    let MatrixLayout { labels, cells, runs } = matrix;
    let TrieLayout { root: v4_root, nodes: v4_nodes, entries: v4_entries } = v4;
    let TrieLayout { root: v6_root, nodes: v6_nodes, entries: v6_entries } = v6;
    [
        ("endpoints", endpoints),
        ("segments", segments),
        ("hosts_v4", hosts_v4),
        ("hosts_v6", hosts_v6),
        ("v4_root", v4_root),
        ("v4_nodes", v4_nodes),
        ("v4_entries", v4_entries),
        ("v6_root", v6_root),
        ("v6_nodes", v6_nodes),
        ("v6_entries", v6_entries),
        ("labels", labels),
        ("cells", cells),
        ("runs", runs),
        ("remark_labels", &remarks.labels),
        ("remark_cells", &remarks.cells),
        ("remark_runs", &remarks.runs),
        ("tags", tags),
        ("logs", logs),
    ]
    .map(|(name, section)| (name, section.clone()))
    .to_vec()
}

/// Every word of every section, and of the header, replaced by one that nothing can be. An address of a
/// host, and the bits of a node's path between its parent and itself, may be any: that is another
/// prefix, or in a wrong place. The name of a rule may be any but that of none.
#[test]
fn every_section_refuses_a_word_that_means_nothing() {
    let good = full().emit().unwrap();
    let layout = table_of(good.clone()).unwrap().layout;
    let addresses = addresses(&full(), &[0, 1, u128::MAX]);
    let mut all = sections(&layout);
    // The generation may be any number.
    all.extend([("header", 0..24), ("header", 48..HEADER_LEN)]);
    let mut end = HEADER_LEN;
    for (name, section) in &all {
        assert!(!section.is_empty(), "the good table has nothing in {name}");
        let (mut refused, mut accepted) = (0, Vec::new());
        for at in section.clone().step_by(4) {
            let root = name.ends_with("root");
            let used = good[at..at + 4] != [0; 4];
            if root && !used && at != section.start && at != section.end - 4 {
                continue;
            }
            let mut bytes = good.clone();
            bytes[at..at + 4].fill(0xff);
            match table_of(forged(bytes)) {
                Err(_) => refused += 1,
                Ok(table) => {
                    interrogate(&table, &addresses);
                    let path =
                        name.ends_with("nodes") && (32..48).contains(&((at - section.start) % 64));
                    if path || name.starts_with("hosts") || *name == "tags" {
                        continue;
                    }
                    accepted.push((at - section.start, good[at..at + 4].to_vec()));
                }
            }
            if root && refused > 40 {
                break;
            }
        }
        assert!(refused > 0 || *name == "tags", "{name}");
        assert!(accepted.is_empty(), "{name}: {accepted:?} accepted");
        end = end.max(section.end);
    }
    assert_eq!(end, good.len(), "behind the sections is nothing");
}

/// Asks everything that there is to ask, and checks that answers stay inside the table.
fn interrogate(table: &Table, addresses: &[Address]) {
    let view = table.view();
    let mut batch = vec![EndpointId(0); addresses.len()];
    view.endpoints_at(addresses, &mut batch);
    for (address, in_batch) in addresses.iter().zip(batch) {
        let id = view.endpoint_at(*address);
        assert!(id == in_batch && (id.0 as usize) < table.endpoint_count());
        assert_eq!(view.endpoint(id).is_some(), id.0 != 0);
    }
    for id in 0..table.endpoint_count() {
        match view.endpoint(EndpointId(u32::try_from(id).unwrap())) {
            None => assert_eq!(id, 0),
            Some(Endpoint { label, next_hop }) => {
                assert!(usize::from(label.0) < table.label_count());
                match next_hop {
                    NextHop::Peer(peer) => assert!((peer.0 as usize) < table.peer_count()),
                    NextHop::Segment(segment) => assert!(view.segment(segment).is_some()),
                }
            }
        }
    }
    for (a, b) in (0..6).flat_map(|a| (0..6).map(move |b| (LabelId(a), LabelId(b)))) {
        for service in PORTS {
            if let Verdict::Allow(rule) = view.judge(a, b, service) {
                assert!(a.0 != 0 && b.0 != 0, "label 0 may nothing");
                assert!((rule.0 as usize) < table.rule_count());
            }
        }
    }
}

/// Goal: whatever is written into a table and signed anew is refused, or does no harm.
/// Method: overwrite a few aligned words outside the roots and in them, with small, huge and random
/// values; count both outcomes.
#[test]
fn structural_damage_is_refused_or_harmless() {
    let (refused, accepted) = (std::cell::RefCell::new(BTreeMap::new()), std::cell::Cell::new(0));
    let value = prop_oneof![0u32..8, Just(u32::MAX), Just(1 << 31), any::<u32>()];
    let damage = prop::collection::vec((any::<prop::sample::Index>(), value, 0..3u8), 1..3);
    let mut runner = TestRunner::new(Config { cases: 1_000, ..Config::default() });
    let good = full().emit().unwrap();
    let layout = table_of(good.clone()).unwrap().layout;
    // Where there is something to damage.
    let mut places: Vec<usize> = (24..HEADER_LEN).step_by(4).collect();
    let used = |root: &Range<usize>| -> Vec<usize> {
        let nonzero = |at: &usize| good[*at..at + 4] != [0; 4];
        root.clone().step_by(4).filter(nonzero).take(4).chain([root.start, root.end - 4]).collect()
    };
    places.extend(used(&layout.v4.root));
    places.extend(used(&layout.v6.root));
    for (name, section) in sections(&layout).into_iter().filter(|(name, _)| !name.ends_with("root"))
    {
        assert!(!section.is_empty(), "the good table has nothing in {name}");
        places.extend(section.clone().step_by(4));
    }
    let addresses = addresses(&full(), &[0, 1, u128::MAX, 0xfd44 << 112 | 1 << 64]);
    runner
        .run(&damage, |damage| {
            let mut bytes = good.clone();
            for (place, value, byte) in damage {
                let at = *place.get(&places);
                if byte == 0 {
                    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
                } else {
                    bytes[at + usize::from(byte)] ^= value.to_le_bytes()[0];
                }
            }
            match table_of(forged(bytes)) {
                Ok(table) => {
                    interrogate(&table, &addresses);
                    accepted.set(accepted.get() + 1);
                }
                Err(error) => {
                    let name = format!("{error:?}");
                    let name = name.split([' ', '{']).next().unwrap().to_owned();
                    *refused.borrow_mut().entry(name).or_insert(0) += 1;
                }
            }
            Ok(())
        })
        .unwrap();
    let (refused, accepted) = (refused.into_inner(), accepted.get());
    assert!(accepted > 20, "some damage only changes what the table says: {accepted}");
    assert!(refused.len() > 10, "most kinds of defects were met: {refused:?}");
}
