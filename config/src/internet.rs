//! What "internet" means: every unicast address that IANA has not set aside.
//!
//! The list is the complement of the IANA special-purpose address registries (RFC 6890 and its
//! updates, as of 2026): private, shared, loopback, link-local, documentation, benchmarking,
//! translation, multicast and reserved space are not the internet. Of IPv6 only 2000::/3 is
//! allocated for unicast (RFC 4291 §2.4, IANA IPv6 address space).
//!
//! A policy that lets someone reach "internet" must not reach a private network by accident; so a
//! block that is both (as 192.88.99.0/24 was) is left out.

use core::net::{Ipv4Addr, Ipv6Addr};

use std::sync::OnceLock;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Special-purpose IPv4 blocks.
const SPECIAL_V4: &[([u8; 4], u8)] = &[
    ([0, 0, 0, 0], 8),       // this network, RFC 791
    ([10, 0, 0, 0], 8),      // private use, RFC 1918
    ([100, 64, 0, 0], 10),   // shared address space, RFC 6598
    ([127, 0, 0, 0], 8),     // loopback, RFC 1122
    ([169, 254, 0, 0], 16),  // link local, RFC 3927
    ([172, 16, 0, 0], 12),   // private use, RFC 1918
    ([192, 0, 0, 0], 24),    // IETF protocol assignments, RFC 6890
    ([192, 0, 2, 0], 24),    // documentation, RFC 5737
    ([192, 31, 196, 0], 24), // AS112, RFC 7535
    ([192, 52, 193, 0], 24), // AMT, RFC 7450
    ([192, 88, 99, 0], 24),  // 6to4 relay, deprecated by RFC 7526
    ([192, 168, 0, 0], 16),  // private use, RFC 1918
    ([192, 175, 48, 0], 24), // AS112, RFC 7534
    ([198, 18, 0, 0], 15),   // benchmarking, RFC 2544
    ([198, 51, 100, 0], 24), // documentation, RFC 5737
    ([203, 0, 113, 0], 24),  // documentation, RFC 5737
    ([224, 0, 0, 0], 3),     // multicast RFC 5771, reserved RFC 1112, broadcast RFC 919
];

/// Special-purpose IPv6 blocks inside 2000::/3.
const SPECIAL_V6: &[([u16; 8], u8)] = &[
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), // IETF protocol assignments, RFC 2928
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation, RFC 3849
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), // 6to4, RFC 3056
    ([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), // AS112, RFC 7534
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), // documentation, RFC 9637
];

/// The networks of the internet: disjoint, in order, IPv4 first.
#[must_use]
pub fn networks() -> &'static [IpNet] {
    static NETWORKS: OnceLock<Vec<IpNet>> = OnceLock::new();
    NETWORKS.get_or_init(complement)
}

fn complement() -> Vec<IpNet> {
    let special = special();
    let all = [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)),
    ];
    let mut found = Vec::new();
    // Halves until a block is either free of special ones or inside one.
    let mut left: Vec<IpNet> = all.into_iter().rev().collect();
    while let Some(net) = left.pop() {
        if special.iter().any(|block| block.contains(&net)) {
            continue;
        }
        if !special.iter().any(|block| net.contains(block)) {
            found.push(net);
        } else if let Ok(halves) = net.subnets(net.prefix_len() + 1) {
            let halves: Vec<_> = halves.collect();
            left.extend(halves.into_iter().rev());
        }
    }
    found
}

/// Whether a network shares an address with one of [`networks`].
pub(crate) fn touches(networks: &[IpNet], net: IpNet) -> bool {
    networks.iter().any(|other| other.contains(&net) || net.contains(other))
}

fn special() -> Vec<IpNet> {
    let v4 = SPECIAL_V4.iter().filter_map(|(address, length)| {
        Ipv4Net::new((*address).into(), *length).ok().map(IpNet::V4)
    });
    let v6 = SPECIAL_V6.iter().filter_map(|(address, length)| {
        Ipv6Net::new((*address).into(), *length).ok().map(IpNet::V6)
    });
    v4.chain(v6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn has(address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        networks().iter().any(|net| net.contains(&address))
    }

    #[test]
    fn public_addresses_are_the_internet_and_special_ones_are_not() {
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.255",
            "192.0.3.0",
            "198.17.255.255",
            "198.20.0.0",
            "203.0.112.255",
            "223.255.255.255",
            "2001:200::1",
            "2a00::1",
            "2620::1",
            "3ffe::1",
        ] {
            assert!(has(public), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "fd44::7",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002::1",
            "3fff::1",
            "64:ff9b::1",
            "4000::1",
        ] {
            assert!(!has(special), "{special}");
        }
    }

    #[test]
    fn its_networks_are_disjoint_and_in_order() {
        let all = networks();
        let sorted = all.windows(2).all(|pair| pair[0] < pair[1] && !pair[0].contains(&pair[1]));
        assert!(sorted, "{all:?}");
        // Every block of the lists is written without host bits, and so is really left out.
        assert_eq!(special().len(), SPECIAL_V4.len() + SPECIAL_V6.len());
        assert!(special().iter().all(|net| *net == net.trunc()));
        for (net, want) in [("10.1.0.0/16", false), ("0.0.0.0/0", true), ("8.8.8.8/32", true)] {
            assert_eq!(touches(all, net.parse().unwrap()), want, "{net}");
        }
    }
}
