//! Every mistake in a draft has its own error.

use std::sync::Arc;

use super::*;
use crate::table::tests::full;
use crate::{
    Denial, LabelId, Log, PeerIndex, RuleIndex, RuleTag, Run, Service, Table, TableError, Verdict,
};

/// What is said of the good draft after a change.
fn mistake(change: impl FnOnce(&mut Draft)) -> EmitError {
    let mut draft = full();
    change(&mut draft);
    draft.emit().unwrap_err()
}

fn run(first: Service, last: Service, rule: u32) -> Run {
    Run { first, last, rule: RuleIndex(rule) }
}

#[test]
fn counts_have_limits() {
    let too_many = |what, count, limit| EmitError::TooMany { what, count, limit };
    assert_eq!(mistake(|draft| draft.labels = 0), EmitError::NoLabels);
    assert_eq!(mistake(|draft| draft.endpoints.clear()), EmitError::NoPlaceholder);
    assert_eq!(mistake(|draft| draft.labels = 4_097), too_many("labels", 4_097, 4_096));
    assert_eq!(mistake(|draft| draft.rules = 1 << 21), too_many("rules", 1 << 21, 1 << 20));
    assert_eq!(mistake(|draft| draft.peers = 1 << 21), too_many("peers", 1 << 21, 1 << 20));
    let names = EmitError::Tags { tags: 4, rules: 5 };
    assert_eq!(mistake(|draft| draft.tags.truncate(4)), names);
    let names = EmitError::Tags { tags: 5, rules: 5 };
    assert_eq!(mistake(|draft| draft.tags[2] = RuleTag::NONE), names);
    let rule = RuleIndex(5);
    assert_eq!(mistake(|draft| draft.logs.push((rule, Log::New))), EmitError::LogRule { rule });
    let endpoint = full().endpoints[1];
    let got = mistake(|draft| draft.endpoints.resize((1 << 20) + 1, endpoint));
    assert_eq!(got, too_many("endpoints", (1 << 20) + 1, 1 << 20));
    let segment = full().segments[0];
    let got = mistake(|draft| draft.segments.resize(4_097, segment));
    assert_eq!(got, too_many("segments", 4_097, 4_096));
}

/// 2048 rows of 2048 columns fill the matrix: row and column 0, and those of 2047 labels.
#[test]
fn the_matrix_does_not_explode() {
    let sources = |count: u16| {
        let mut draft = full();
        draft.labels = 4_096;
        draft.cells.clear();
        for label in 1..=count {
            let cell = (LabelId(label), LabelId(label));
            draft.cells.insert(cell, [run(Service::tcp(1), Service::tcp(1), 0)].into());
        }
        draft.emit()
    };
    assert!(Table::new(Arc::new(sources(2_047).unwrap())).is_ok());
    let (count, limit) = (2_049 * 2_049, 1 << 22);
    let error = sources(2_048).expect_err("a row and a column too many");
    assert_eq!(error, EmitError::TooMany { what: "cells", count, limit });
}

/// A cell counts its runs in 11 bits.
#[test]
fn runs_between_two_labels_have_a_limit() {
    let ports = |count: u16| {
        let mut draft = full();
        let runs = (0..count).map(|at| run(Service::tcp(2 * at), Service::tcp(2 * at), 0));
        draft.cells.insert((LabelId(1), LabelId(2)), runs.collect());
        draft.emit()
    };
    let table = Table::new(Arc::new(ports(2_047).unwrap())).unwrap();
    let judge = |port| table.view().judge(LabelId(1), LabelId(2), Service::tcp(port));
    assert_eq!(judge(2 * 2_046), Verdict::Allow(RuleIndex(0)));
    assert_eq!(judge(2 * 2_046 + 1), Verdict::Deny(Denial::PortNotAllowed));
    let what = "runs between two labels";
    let error = ports(2_048).expect_err("a run too many");
    assert_eq!(error, EmitError::TooMany { what, count: 2_048, limit: 2_047 });
}

#[test]
fn what_a_draft_names_must_exist() {
    let endpoint = EndpointId(1);
    let got = mistake(|draft| draft.endpoints[1].label = LabelId(4));
    assert_eq!(got, EmitError::EndpointLabel { endpoint, label: LabelId(4) });
    let got = mistake(|draft| draft.endpoints[1].next_hop = NextHop::Peer(PeerIndex(3)));
    assert_eq!(got, EmitError::EndpointNextHop { endpoint });
    let got = mistake(|draft| draft.endpoints[1].next_hop = NextHop::Segment(SegmentId(3)));
    assert_eq!(got, EmitError::EndpointNextHop { endpoint });
    for vlan in [0, 4_095, 9_999] {
        let got = mistake(|draft| draft.segments[2].vlan = Some(vlan));
        assert_eq!(got, EmitError::SegmentVlan { segment: SegmentId(2), vlan });
    }
    for id in [0, 4] {
        let prefix: IpNet = "192.0.2.0/24".parse().unwrap();
        let got = mistake(|draft| draft.prefixes.push((prefix, EndpointId(id))));
        assert_eq!(got, EmitError::PrefixEndpoint { prefix, endpoint: EndpointId(id) });
    }
}

#[test]
fn prefixes_are_plain_and_listed_once() {
    let prefix = |text: &str| -> IpNet { text.parse().unwrap() };
    let added = |prefix| mistake(|draft| draft.prefixes.push((prefix, EndpointId(2))));
    for text in ["10.0.0.1/8", "fd44::1/64"] {
        assert_eq!(added(prefix(text)), EmitError::PrefixHostBits { prefix: prefix(text) });
    }
    for text in ["::ffff:0:0/96", "::ffff:10.0.0.0/104"] {
        assert_eq!(added(prefix(text)), EmitError::PrefixMapped { prefix: prefix(text) });
    }
    for (text, owner) in [("10.44.0.7/32", 1), ("fd44::7/128", 1), ("0.0.0.0/0", 3)] {
        let prefix = prefix(text);
        let mut owners = [EndpointId(owner), EndpointId(2)];
        owners.sort();
        let [first, second] = owners;
        assert_eq!(added(prefix), EmitError::PrefixTwice { prefix, first, second });
    }
    let mut draft = full();
    draft.prefixes.push((prefix("::/0"), EndpointId(2)));
    assert!(draft.emit().is_ok(), "covers the mapped block, but is no IPv4 prefix");
}

#[test]
fn cells_are_between_labels_that_exist_and_unambiguous() {
    let (http, https) = (Service::tcp(80), Service::tcp(443));
    let cell = |from, to, runs: &[Run]| {
        mistake(|draft| drop(draft.cells.insert((LabelId(from), LabelId(to)), runs.into())))
    };
    for (from, to) in [(0, 1), (1, 0), (0, 0), (4, 1), (1, 4)] {
        let want = EmitError::CellLabel { source_label: LabelId(from), destination: LabelId(to) };
        assert_eq!(cell(from, to, &[run(http, http, 0)]), want);
        assert_eq!(cell(from, to, &[]), want, "also if it allows nothing");
    }
    let (source_label, destination) = (LabelId(2), LabelId(3));
    assert_eq!(
        cell(2, 3, &[run(https, http, 0)]),
        EmitError::RunReversed { source_label, destination, first: https, last: http }
    );
    assert_eq!(
        cell(2, 3, &[run(http, http, 5)]),
        EmitError::RunRule { source_label, destination, rule: RuleIndex(5) }
    );
    for runs in [
        [run(http, https, 0), run(https, https, 1)],
        [run(https, https, 1), run(http, https, 1)],
        [run(https, https, 1), run(Service::MIN, Service::MAX, 2)],
        [run(https, https, 1), run(https, https, 1)],
    ] {
        let want = EmitError::RunsOverlap { source_label, destination, service: https };
        assert_eq!(cell(2, 3, &runs), want);
    }
}

/// Both sides of a limit are the same: what the writer lets through, the reader takes.
#[test]
fn the_largest_labels_are_accepted() {
    let mut draft = full();
    draft.labels = 4_096;
    draft.endpoints[1].label = LabelId(4_095);
    let table = Table::new(Arc::new(draft.emit().unwrap())).unwrap();
    assert_eq!(table.view().endpoint(EndpointId(1)).unwrap().label, LabelId(4_095));
    assert_eq!(Table::new(Arc::new([])).unwrap_err(), TableError::HeaderTruncated { len: 0 });
}
