//! Bytes that are no table any more: refused, or harmless.

use super::*;

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
