//! How a table is laid out: equal rights once, and no more nodes than there are ways.

use super::*;

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
