//! Addresses for new devices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bulkhead_config::Config;
use ipnet::IpNet;

/// The lowest address of `net` that no endpoint has as its own, as a prefix of full length. The
/// first address of a network is left out, because hosts take it for the network itself or for any
/// router (RFC 4291 §2.6.1), and so is the last of an IPv4 network, the broadcast address.
///
/// Linear in the number of devices: with `n` of them one of the first `n + 1` addresses is free.
#[must_use]
pub fn next_free(config: &Config, net: IpNet) -> Option<IpNet> {
    let nets = config.devices.iter().flat_map(|device| &device.addresses);
    let hosts = nets.filter(|taken| taken.prefix_len() == taken.max_prefix_len());
    let taken: BTreeSet<IpAddr> = hosts.map(IpNet::addr).collect();
    let last = match net {
        IpNet::V4(v4) if v4.prefix_len() < 31 => Some(IpAddr::V4(v4.broadcast())),
        IpNet::V4(_) | IpNet::V6(_) => None,
    };
    let (first, end) = bounds(net);
    (first.saturating_add(1)..=end)
        .map(|bits| address(net, bits))
        .find(|address| Some(*address) != last && !taken.contains(address))
        .map(IpNet::from)
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
