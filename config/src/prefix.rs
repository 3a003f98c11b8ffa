//! Addresses of endpoints: networks without host bits, each belonging to one endpoint.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::error::Mistake;
use crate::reader::{At, Reader};
use crate::source::Span;

const ACCEPTED: &str = "an address with a prefix length, for example 10.44.0.7/32, fd44::7/128 or \
                        10.50.0.0/24";

/// The prefixes of all endpoints so far, with where they were claimed.
#[derive(Default)]
pub(crate) struct Prefixes {
    claimed: BTreeMap<IpNet, (String, Span)>,
}

impl Prefixes {
    /// Claims a prefix. Two endpoints with the same one could not be told apart; a longer one
    /// inside another is no conflict, it wins for its addresses.
    pub(crate) fn claim(&mut self, reader: &mut Reader<'_>, key: &str, of: &str, net: &At<IpNet>) {
        if let Some((owner, first)) = self.claimed.get(&net.value) {
            let what = format!("{} of {owner}", net.value);
            reader.duplicate(&net.span, key, &what, first);
            return;
        }
        self.claimed.insert(net.value, (of.to_owned(), net.span.clone()));
    }
}

impl Prefixes {
    /// Whether somebody has an address of a network: one of its own, or one around it.
    pub(crate) fn touch(&self, net: &IpNet) -> bool {
        let around =
            (0..=net.prefix_len()).filter_map(|length| IpNet::new(net.addr(), length).ok());
        let last = IpNet::new(net.broadcast(), net.max_prefix_len()).unwrap_or(*net);
        around.map(|wider| wider.trunc()).any(|wider| self.claimed.contains_key(&wider))
            || self.claimed.range(net..=&last).any(|(inner, _)| net.contains(inner))
    }

    /// The default route of someone, if there is one, with who that is.
    pub(crate) fn everything(&self) -> Option<&str> {
        let mut claims = self.claimed.iter();
        claims.find(|(net, _)| net.prefix_len() == 0).map(|(_, (owner, _))| owner.as_str())
    }
}

/// The subnets of all segments so far. They may not overlap at all: a host is in one segment.
#[derive(Default)]
pub(crate) struct Subnets {
    /// Disjoint, by their first address.
    taken: BTreeMap<IpAddr, (IpNet, String, Span)>,
}

impl Subnets {
    /// Takes a subnet; `false`, and a mistake in the report, if part of it is taken.
    pub(crate) fn take(
        &mut self,
        reader: &mut Reader<'_>,
        key: &str,
        of: &str,
        net: &At<IpNet>,
    ) -> bool {
        // Disjoint networks in order: only the one before and the one after can touch this one.
        let before = self.taken.range(..=net.value.network()).next_back();
        let after = self.taken.range(net.value.network()..).next();
        let clash = before
            .into_iter()
            .chain(after)
            .find(|(_, (other, ..))| other.contains(&net.value) || net.value.contains(other));
        if let Some((_, (other, owner, first))) = clash {
            let line = reader.place(first).line;
            let error = reader
                .mistake(&net.span, key, Mistake::Duplicate)
                .problem(format!("overlaps {other} of {owner} at line {line}"))
                .found(net.value.to_string())
                .accepted("subnets that share no address");
            reader.report(error);
            return false;
        }
        let claim = (net.value, of.to_owned(), net.span.clone());
        self.taken.insert(net.value.network(), claim);
        true
    }
}

/// Reads a network; `None` with a mistake in the report.
pub(crate) fn network(reader: &mut Reader<'_>, key: &str, found: &At<&str>) -> Option<At<IpNet>> {
    let bad = |problem: &str| {
        reader
            .mistake(&found.span, key, Mistake::BadValue)
            .problem(problem)
            .found(found.value)
            .accepted(ACCEPTED)
    };
    let error = match found.value.parse::<IpNet>() {
        Ok(net) if net.addr() != net.network() => {
            let host = if net.addr().is_ipv4() { 32 } else { 128 };
            bad("bits to the right of the prefix length are set").help(format!(
                "write {} for the network, {}/{host} for the one address",
                net.trunc(),
                net.addr()
            ))
        }
        Ok(net) => match never_routed(net) {
            None => return Some(At { value: net, span: found.span.clone() }),
            Some(what) => bad(what),
        },
        Err(_) => match found.value.split_once('/') {
            None if found.value.parse::<IpAddr>().is_ok() => {
                let host = if found.value.contains(':') { 128 } else { 32 };
                bad("the prefix length is missing").help(format!("write {}/{host}", found.value))
            }
            Some((address, length)) if address.parse::<IpAddr>().is_ok() => {
                let most = if address.contains(':') { 128 } else { 32 };
                bad("not a prefix length")
                    .help(format!("{length:?} is not a number from 0 to {most}"))
            }
            Some(_) | None => bad("not an address"),
        },
    };
    reader.report(error);
    None
}

/// Why an endpoint cannot have these addresses. The default route is no exception of this kind.
fn never_routed(net: IpNet) -> Option<&'static str> {
    let address = net.network();
    match address {
        _ if net.prefix_len() == 0 => None,
        _ if address.is_multicast() => Some("multicast addresses belong to no endpoint"),
        _ if address.is_loopback() => Some("loopback addresses never leave a host"),
        IpAddr::V4(v4) if v4.octets().first() == Some(&0) => Some("0.0.0.0/8 is never routed"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address belongs to no endpoint"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local addresses are never routed"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("the unspecified address is never routed"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("link-local addresses are never routed")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("IPv4-mapped addresses never appear on the wire; write the IPv4 address")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
