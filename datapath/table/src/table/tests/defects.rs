//! Each defect of a well-signed table has an error of its own.

use super::*;

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
