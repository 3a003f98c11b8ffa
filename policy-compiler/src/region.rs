//! The address space of two policies at once, cut so finely that both speak of every piece as one.
//!
//! ```text
//!   old   [      a      ][   b   ]           pieces: a|c, a|d, b|d, b|-
//!   new   [   c   ][     d    ]              each with an address that no longer prefix takes away
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use bulkhead_table::{Draft, EndpointId, LabelId};
use ipnet::IpNet;

/// Who has an address in each of the two policies; endpoint 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Piece {
    pub(crate) old: EndpointId,
    pub(crate) new: EndpointId,
    /// Whether its addresses are IPv4.
    pub(crate) v4: bool,
}

/// All pieces with at least one address.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// With one address of each.
    pub(crate) list: BTreeMap<Piece, IpAddr>,
    /// Which piece a prefix belongs to, but for the longer prefixes inside it.
    prefixes: BTreeMap<IpNet, Piece>,
}

impl Pieces {
    pub(crate) fn of(old: &Draft, new: &Draft) -> Self {
        let mut owners: BTreeMap<IpNet, (Option<EndpointId>, Option<EndpointId>)> = BTreeMap::new();
        for (net, endpoint) in &old.prefixes {
            owners.entry(*net).or_default().0 = Some(*endpoint);
        }
        for (net, endpoint) in &new.prefixes {
            owners.entry(*net).or_default().1 = Some(*endpoint);
        }
        let mut pieces = Self::default();
        let mut around: Vec<(IpNet, Piece)> = Vec::new();
        let mut inside: BTreeMap<IpNet, Vec<IpNet>> = BTreeMap::new();
        for (net, (old, new)) in owners {
            while around.last().is_some_and(|(wider, _)| !wider.contains(&net)) {
                around.pop();
            }
            let v4 = net.addr().is_ipv4();
            let outer = around.last().map_or(
                Piece { old: EndpointId(0), new: EndpointId(0), v4 },
                |(wider, piece)| {
                    inside.entry(*wider).or_default().push(net);
                    *piece
                },
            );
            let piece = Piece { old: old.unwrap_or(outer.old), new: new.unwrap_or(outer.new), v4 };
            around.push((net, piece));
            pieces.prefixes.insert(net, piece);
        }
        for (net, piece) in &pieces.prefixes {
            let holes = inside.get(net).map_or(&[][..], Vec::as_slice);
            if let Some(address) = outside(net, holes) {
                pieces.list.entry(*piece).or_insert(address);
            }
        }
        pieces
    }

    /// The piece of an address, if anybody has it in either policy.
    pub(crate) fn at(&self, address: IpAddr) -> Option<Piece> {
        let address = address.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        (0..=most).rev().find_map(|length| {
            let net = IpNet::new(address, length).ok()?.trunc();
            self.prefixes.get(&net).copied()
        })
    }

    /// The prefixes of some pieces, joined where they touch. Longer ones of others inside them win.
    pub(crate) fn prefixes_of(&self, wanted: impl Fn(&Piece) -> bool) -> Vec<IpNet> {
        let nets = self.prefixes.iter().filter(|(_, piece)| wanted(piece));
        let nets: Vec<IpNet> = nets.map(|(net, _)| *net).collect();
        IpNet::aggregate(&nets)
    }
}

/// The first address of a network that is in none of the networks directly inside it, which are in
/// order.
fn outside(net: &IpNet, holes: &[IpNet]) -> Option<IpAddr> {
    let mut free = bits(net.network());
    for hole in holes {
        if bits(hole.network()) > free {
            break;
        }
        free = bits(hole.broadcast()).checked_add(1)?;
    }
    (free <= bits(net.broadcast())).then(|| address(free, net.addr().is_ipv4()))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(bits: u128, v4: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if v4 => IpAddr::V4(Ipv4Addr::from_bits(bits)),
        Ok(_) | Err(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

/// The label of an endpoint; 0 for nobody.
pub(crate) fn label_of(draft: &Draft, endpoint: EndpointId) -> LabelId {
    if endpoint.0 == 0 {
        return LabelId(0);
    }
    let at = usize::try_from(endpoint.0).unwrap_or(usize::MAX);
    draft.endpoints.get(at).map_or(LabelId(0), |endpoint| endpoint.label)
}
