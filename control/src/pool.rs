//! Addresses for new devices.

use std::net::IpAddr;

use bulkhead_config::Config;
use ipnet::IpNet;

/// The lowest address of `net` that nothing in the configuration has, as a prefix of full length: the
/// longest prefix wins, so one from the middle of a site or a segment would be taken away from there.
/// The first address of a network is left out, because hosts take it for the network itself or for any
/// router (RFC 4291 §2.6.1), and so is the last of an IPv4 network, the broadcast address.
#[must_use]
pub fn next_free(config: &Config, net: IpNet) -> Option<IpNet> {
    let (first, mut last) = bounds(net);
    if matches!(net, IpNet::V4(v4) if v4.prefix_len() < 31) {
        last = last.saturating_sub(1);
    }
    let mut taken: Vec<_> = taken(config, net).map(bounds).collect();
    taken.sort_unstable();
    // From one taken network to the next, not address by address: a /65 of a /64 is one step.
    let free = taken.into_iter().try_fold(first.checked_add(1)?, |free, (from, to)| {
        if to < free || free < from { Some(free) } else { to.checked_add(1) }
    })?;
    (free <= last).then(|| address(net, free).into())
}

/// What may not be given away, of the family of `net`.
fn taken(config: &Config, net: IpNet) -> impl Iterator<Item = IpNet> {
    let devices = config.devices.iter().flat_map(|device| &device.addresses);
    let segments = config.segments.iter().flat_map(|segment| &segment.subnets);
    // The default route has what nobody else has, the pool included.
    let endpoints = devices.chain(segments).filter(|taken| taken.prefix_len() > 0);
    // Hosts are names. One of the whole pool, or of more, is a name for the devices in it.
    let hosts = config.hosts.iter().flat_map(|host| &host.addresses);
    let hosts = hosts.filter(move |host| !host.contains(&net));
    // A name server inside the pool is there already.
    let servers = config.wireguard.iter().flat_map(|listener| &listener.client.dns);
    let servers = servers.map(|server| IpNet::from(*server));
    let all = endpoints.chain(hosts).copied().chain(servers);
    all.filter(move |taken| taken.addr().is_ipv4() == net.addr().is_ipv4())
}

fn bounds(net: IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(v4) => (u128::from(v4.network().to_bits()), u128::from(v4.broadcast().to_bits())),
        IpNet::V6(v6) => (v6.network().to_bits(), v6.broadcast().to_bits()),
    }
}

fn address(net: IpNet, bits: u128) -> IpAddr {
    match net {
        // Bits of an IPv4 network, which fit.
        IpNet::V4(_) => IpAddr::V4(u32::try_from(bits).unwrap_or(0).into()),
        IpNet::V6(_) => IpAddr::V6(bits.into()),
    }
}
