//! AllowedIPs, by the rules of the kernel's (`drivers/net/wireguard/allowedips.c`): the longest
//! prefix that holds an address says whose it is; a prefix belongs to one peer, so giving it to
//! another takes it from the first; a removed peer takes its prefixes along.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bulkhead_table::{Draft, Endpoint, EndpointId, LabelId, NextHop, PeerIndex, Table};
use bulkhead_wire::Address;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const PEERS: u32 = 4;

/// What an operator does, one after the other.
#[derive(Clone, Debug)]
enum Step {
    Give(IpNet, u32),
    Remove(u32),
}

/// Few prefixes, so that they nest, repeat and change hands: the bits are those of `bits` from the
/// top, over a common beginning.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (0u8..=32, 0u32..8).prop_map(|(len, bits)| {
        let ip = Ipv4Addr::from(0x0a2c_0000 | bits << 29 >> 16 | bits);
        Ipv4Net::new(ip, len).unwrap().trunc().into()
    });
    let v6 = (0u8..=128, 0u128..8).prop_map(|(len, bits)| {
        let ip = Ipv6Addr::from(0xfd44 << 112 | bits << 61 | bits);
        Ipv6Net::new(ip, len).unwrap().trunc().into()
    });
    prop_oneof![v4, v6]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prefix(), 1..=PEERS).prop_map(|(net, peer)| Step::Give(net, peer)),
        1 => (1..=PEERS).prop_map(Step::Remove),
    ]
}

/// The table after the steps, written as the policy compiler writes it: one owner for a prefix.
fn table(steps: &[Step]) -> Table {
    let mut owners = BTreeMap::new();
    for step in steps {
        match step {
            Step::Give(net, peer) => {
                owners.insert(*net, EndpointId(*peer));
            }
            Step::Remove(peer) => owners.retain(|_, owner| owner.0 != *peer),
        }
    }
    let endpoint =
        |peer: u32| Endpoint { label: LabelId(1), next_hop: NextHop::Peer(PeerIndex(peer)) };
    let draft = Draft {
        generation: 1,
        labels: 2,
        endpoints: (0..=PEERS).map(endpoint).collect(),
        prefixes: owners.into_iter().collect(),
        peers: PEERS + 1,
        ..Draft::default()
    };
    Table::new(Arc::new(draft.emit().unwrap())).unwrap()
}

/// The twin: a list in the order of the steps, read from its end for each question.
fn owner(steps: &[Step], address: IpAddr) -> u32 {
    let mut best: Option<(IpNet, u32)> = None;
    for (at, step) in steps.iter().enumerate() {
        let Step::Give(net, peer) = step else { continue };
        let later = &steps[at + 1..];
        let moved = later.iter().any(|step| matches!(step, Step::Give(other, _) if other == net));
        let removed = later.iter().any(|step| matches!(step, Step::Remove(gone) if gone == peer));
        let longer = best.is_none_or(|(known, _)| known.prefix_len() < net.prefix_len());
        if net.contains(&address) && !moved && !removed && longer {
            best = Some((*net, *peer));
        }
    }
    best.map_or(0, |(_, peer)| peer)
}

/// Addresses at the edges of every prefix, and just outside.
fn addresses(steps: &[Step]) -> Vec<IpAddr> {
    let edges = |net: &IpNet| match (net.network(), net.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let (first, last) = (first.to_bits(), last.to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|bits| IpAddr::V4(bits.into()))
        }
        (first, last) => {
            let bits = |ip| if let IpAddr::V6(ip) = ip { ip.to_bits() } else { 0 };
            let (first, last) = (bits(first), bits(last));
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|bits| IpAddr::V6(bits.into()))
        }
    };
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Give(net, _) => Some(edges(net)),
            Step::Remove(_) => None,
        })
        .flatten()
        .collect()
}

/// Goal: after any steps the trie answers as the list does. Outcomes that must have been met:
/// nobody's, somebody's, a prefix inside another peer's, one that moved, one whose owner is gone.
#[test]
fn the_trie_of_allowed_ips_agrees_with_a_naive_list() {
    let met = [const { Cell::new(0u32) }; 5];
    TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(200)
    })
    .run(&proptest::collection::vec(step(), 1..24), |steps| {
        let table = table(&steps);
        let view = table.view();
        for address in addresses(&steps) {
            let want = owner(&steps, address);
            prop_assert_eq!(view.endpoint_at(Address::from(address)).0, want, "{}", address);
            let holders = |step: &&Step| match step {
                Step::Give(net, _) => net.contains(&address),
                Step::Remove(_) => false,
            };
            let given: Vec<_> = steps.iter().filter(holders).collect();
            let others = given.iter().any(|step| matches!(step, Step::Give(_, p) if *p != want));
            let twice = given.iter().enumerate().any(|(at, step)| {
                let Step::Give(net, peer) = step else { return false };
                given[..at].iter().any(|before| {
                    matches!(before, Step::Give(other, first) if other == net && first != peer)
                })
            });
            let facts =
                [want == 0, want != 0, want != 0 && others, twice, want == 0 && !given.is_empty()];
            for (met, fact) in met.iter().zip(facts) {
                met.update(|count| count + u32::from(fact));
            }
        }
        Ok(())
    })
    .unwrap();
    assert!(met.iter().all(|count| count.get() > 50), "outcomes met: {met:?}");
}

#[test]
fn moving_a_prefix_moves_it() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let at = |steps: &[Step], text: &str| {
        table(steps).view().endpoint_at(Address::from(text.parse::<IpAddr>().unwrap())).0
    };
    let mut steps = vec![
        Step::Give(net("10.44.0.0/16"), 1),
        Step::Give(net("10.44.7.0/24"), 2),
        Step::Give(net("fd44::/64"), 2),
    ];
    assert_eq!(
        [at(&steps, "10.44.7.9"), at(&steps, "10.44.8.9"), at(&steps, "fd44::9")],
        [2, 1, 2]
    );
    steps.push(Step::Give(net("10.44.7.0/24"), 3));
    assert_eq!(
        [at(&steps, "10.44.7.9"), at(&steps, "10.44.8.9"), at(&steps, "fd44::9")],
        [3, 1, 2]
    );
    steps.push(Step::Remove(3));
    assert_eq!(at(&steps, "10.44.7.9"), 1, "the shorter prefix around it holds it again");
    steps.push(Step::Remove(1));
    assert_eq!(at(&steps, "10.44.7.9"), 0, "nobody's");
    assert_eq!(at(&steps, "fd44::9"), 2);
}
